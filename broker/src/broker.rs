//! A running broker.

use crate::control::Control;
use crate::error::Error;
use crate::hub::{Hub, Order};
use crate::options::BrokerOptions;
use crate::{connection::Ended, control_port, serve, tls};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// How long connections have to close when the broker stops.
const STOPPING: Duration = Duration::from_secs(2);
/// How long a client may take for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A running broker. Dropping it ends it at once; [`Broker::stop`] says good-bye to its clients.
#[derive(Debug)]
pub struct Broker {
    hub: Arc<Hub>,
    address: SocketAddr,
    control_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker on the current tokio runtime. It accepts connections once this returns.
    ///
    /// # Errors
    ///
    /// If the options cannot work, an address cannot be listened on, or certificate and key cannot be used.
    pub async fn start(options: BrokerOptions) -> Result<Self, Error> {
        options.validate()?;
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener = listen(options.listen).await?;
        let address = local(&listener, options.listen)?;
        let control_listener = match options.control {
            Some(control) => Some((listen(control).await?, control)),
            None => None,
        };
        let hub = Arc::new(Hub::new(options));
        let (stop, stopping) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(accept(Arc::clone(&hub), listener, tls, stopping.clone()))];
        let mut control_address = None;
        if let Some((listener, asked)) = control_listener {
            control_address = Some(local(&listener, asked)?);
            tasks.push(tokio::spawn(control_port::accept(Control::new(Arc::clone(&hub)), listener, stopping)));
        }
        tracing::info!(%address, hub = hub.options.hub, partitions = hub.partitions().len(), "the broker is listening");
        Ok(Self { hub, address, control_address, stop, tasks })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of the control port, if there is one.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// What clients take to connect. It holds the key.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let options = &self.hub.options;
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let plain = if options.tls.is_none() { ";UseDevelopmentEmulator=true" } else { "" };
        format!(
            "Endpoint=sb://{address};SharedAccessKeyName={};SharedAccessKey={};EntityPath={}{plain}",
            options.key_name, options.key, options.hub
        )
    }

    /// The switches of tests, and a way to append without a client.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.hub))
    }

    /// Stops listening, closes all connections in the way of AMQP, and waits for it, though not for long.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            // A task that panicked has told so itself.
            let _ = task.await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen { address, source })
}

/// Waits until the broker is to stop, or is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Ends a connection so that the peer sees a reset, and not an orderly end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn accept(hub: Arc<Hub>, listener: TcpListener, tls: Option<TlsAcceptor>, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: trying again at once would only spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        // The port is kept while the broker is away: another process could take it, and a client that connects to a
        // free port of its own machine may be given that very port, and so be connected with itself.
        if hub.switches.away() {
            reset(&stream);
            continue;
        }
        connections.spawn(serve_stream(Arc::clone(&hub), stream, tls.clone()));
    }
    drop(listener);
    hub.order(&Order::Close);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOPPING, all).await.is_err() {
        tracing::warn!("some connections did not close in time");
    }
}

async fn serve_stream(hub: Arc<Hub>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    // Deliveries are written in large pieces; outcomes are not to wait for company.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = tls else {
        let (stream, ended) = serve::serve(hub, stream).await;
        if ended == Ended::Cut {
            reset(&stream);
        }
        return;
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let (stream, ended) = serve::serve(hub, stream).await;
            if ended == Ended::Cut {
                reset(stream.get_ref().0);
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "a client does not speak TLS as we do"),
        Err(_) => tracing::warn!("a client did not finish the handshake of TLS in time"),
    }
}
