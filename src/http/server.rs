//! The listener and its connections: how many, how large, how long.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::board::Board;
use super::guard::{Guard, TokenShown};
use super::places::Places;
use super::routes::router;
use crate::config::http::{Http, TOKEN_BYTES_MIN};
use crate::config::{Config, Effective, Origin};
use crate::runtime::RunStatus;

/// Bytes that are kept of what a client sends: its whole head has to fit. Bodies are never read.
const HEAD_BYTES: usize = 16 << 10;

/// Lines of a head.
const HEADERS: usize = 64;

/// Time for a client to send a head, also of the next request on a connection that is open.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Time for a client to take what it is sent.
const TAKE_TIME: Duration = Duration::from_secs(10);

/// Longest life of a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(15 * 60);

/// The same of one that has not shown the token, where there is one.
const STRANGER_TIME: Duration = Duration::from_secs(30);

/// Pause after the system has no connection to give, for want of file handles for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two looks at the counters.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Ports that are tried where nobody has asked for a certain one.
const PORTS: u16 = 16;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody can listen there.
    #[error("http.listen = \"{address}\" ({origin}): {error}; give another HOST:PORT, or off")]
    Listen {
        /// The address that was asked for.
        address: String,
        /// Who asked.
        origin: String,
        /// What the system says.
        error: io::Error,
    },
    /// The token's file is no token.
    #[error(
        "http.token_file = {path}: {problem}; allowed: a file with at least {TOKEN_BYTES_MIN} bytes, drawn at random"
    )]
    Token {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no thread to be had.
    #[error("cannot start the console: {0}")]
    Start(io::Error),
}

impl HttpError {
    /// Whether the configuration is wrong, and not the world around.
    pub fn is_usage(&self) -> bool {
        matches!(self, HttpError::Token { .. })
    }
}

/// Serves until it is told to end.
pub struct Server {
    board: Arc<Board>,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Server {
    /// Starts to serve as configured; `None` where nothing is to be served. `stopping` is set when the run should end.
    ///
    /// Nobody asked for the default's address, so where it is taken, another one does, or none: a pipeline does not fail for
    /// want of somebody to look at it.
    ///
    /// # Errors
    ///
    /// When the address that was asked for cannot be had, or the token cannot be read.
    pub fn start(effective: &Effective, stopping: &Arc<AtomicBool>) -> Result<Option<Server>, HttpError> {
        let config = &effective.config;
        let origin = effective.origin("http.listen").cloned().unwrap_or(Origin::Default);
        let asked = origin != Origin::Default;
        let Some(address) = address(config, asked) else { return Ok(None) };
        let token = token(&config.http)?;
        let Some(listener) = listen(&address, &origin, asked)? else { return Ok(None) };
        let address = listener.local_addr().map_err(HttpError::Start)?;
        let board = Arc::new(Board::new(config, Arc::clone(stopping)));
        let guard = Guard::new(token.as_deref(), address.ip().is_loopback(), Arc::clone(&board));
        let (routes, has_token) = (router(&board, guard), token.is_some());
        let (end, served) = (Arc::new(Notify::new()), Arc::clone(&board));
        let ended = Arc::clone(&end);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Start)?;
        listener.set_nonblocking(true).map_err(HttpError::Start)?;
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, routes, &served, has_token) => {}
                    () = sample(&served) => {}
                    () = ended.notified() => {}
                }
            });
            // Whoever still listens is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(HttpError::Start)?;
        tracing::info!("console on http://{address}/");
        Ok(Some(Server { board, end, thread: Some(thread), address }))
    }

    /// Shows a pipeline that runs now.
    pub fn observe(&self, vitals: RunStatus) {
        self.board.observe(vitals);
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves no longer.
    pub fn end(mut self) {
        self.end.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

/// Where this process listens. Several processes on one machine cannot share a port; on several machines they need not
/// have different ones. Nobody but process 0 serves unless that was asked for.
fn address(config: &Config, asked: bool) -> Option<String> {
    let address = config.http.listen.clone()?;
    let process = config.cluster.process;
    if process == 0 {
        return Some(address);
    }
    let (host, port) = address.rsplit_once(':').filter(|_| asked)?;
    let port: u16 = port.parse().ok()?;
    let machine = |host: &String| host.rsplit_once(':').map_or(host.clone(), |(machine, _)| machine.to_owned());
    let machines: BTreeSet<String> = config.cluster.hosts.iter().map(machine).collect();
    let apart = if machines.len() <= 1 && port > 0 { u16::try_from(process).ok()? } else { 0 };
    Some(format!("{host}:{}", port.checked_add(apart)?))
}

fn listen(address: &str, origin: &Origin, asked: bool) -> Result<Option<TcpListener>, HttpError> {
    let taken = match bind(address) {
        Ok(listener) => return Ok(Some(listener)),
        Err(error) => error,
    };
    if asked {
        return Err(HttpError::Listen { address: address.to_owned(), origin: origin.to_string(), error: taken });
    }
    if let Some((host, port)) = address.rsplit_once(':').filter(|_| taken.kind() == ErrorKind::AddrInUse) {
        let first: u16 = port.parse().unwrap_or_default();
        let others = (1..PORTS).filter_map(|further| first.checked_add(further));
        if let Some(listener) = others.filter_map(|port| bind(&format!("{host}:{port}")).ok()).next() {
            return Ok(Some(listener));
        }
    }
    tracing::info!(%address, error = %taken, "no console: the address cannot be had; http.listen gives another");
    Ok(None)
}

fn bind(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(super) fn token(http: &Http) -> Result<Option<String>, HttpError> {
    if let Some(token) = &http.token {
        return Ok(Some(token.expose().to_owned()));
    }
    http.token_file.as_deref().map(token_in).transpose()
}

/// The token in a file. The address may be open to strangers, so a file that holds none is no reason to go without.
fn token_in(path: &Path) -> Result<String, HttpError> {
    let wrong = |problem: String| HttpError::Token { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN { Err(wrong("too short".to_owned())) } else { Ok(token.to_owned()) }
}

async fn sample(board: &Board) {
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        board.sample();
    }
}

/// Takes connections. Where there is no place left, the oldest one has to go.
async fn accept(listener: TcpListener, routes: Router, board: &Board, has_token: bool) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let mut places = Places::default();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if places.make_room(from.ip()) {
            board.asked.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        let known = Arc::new(AtomicBool::new(false));
        let routes = routes.clone().layer(Extension(TokenShown(Arc::clone(&known))));
        let patience = if has_token { STRANGER_TIME } else { CONNECTION_TIME };
        let task = tokio::spawn(serve(stream, routes, patience, Arc::clone(&known)));
        places.take(from.ip(), known, task.abort_handle());
    }
}

/// Serves a connection: for that long, and longer once the token was shown.
async fn serve(stream: TcpStream, routes: Router, patience: Duration, known: Arc<AtomicBool>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(TAKE_TIME));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let service = TowerToHyperService::new(routes);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(Box::pin(stream)), service));
    // How a connection ends is the client's business.
    if timeout(patience, &mut connection).await.is_err() && known.load(Ordering::Relaxed) {
        let _ = timeout(CONNECTION_TIME.saturating_sub(patience), connection).await;
    }
}
