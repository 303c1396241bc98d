//! A broker for one test, and clients of it.

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection, Receiver, Session};
use fe2o3_amqp_types::messaging::{Body, Message, Source, annotations::OwnedKey};
use fe2o3_amqp_types::primitives::{Symbol, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemark_broker::{Broker, BrokerOptions};

/// Longer than anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A future's result, or a failed test if it does not come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(what, poll).await;
}

/// A broker with two partitions that asks plain clients for no token.
pub(crate) async fn open_broker() -> Broker {
    start(BrokerOptions { require_tokens: false, ..options() }).await
}

pub(crate) fn options() -> BrokerOptions {
    BrokerOptions {
        hub: "hub".to_owned(),
        partitions: 2,
        consumer_groups: vec!["second".to_owned()],
        ..BrokerOptions::default()
    }
}

pub(crate) async fn start(options: BrokerOptions) -> Broker {
    Broker::start(options).await.unwrap()
}

/// Bodies that say where they belong.
pub(crate) fn numbered(partition: usize, events: std::ops::Range<u64>) -> Vec<String> {
    events.map(|event| format!("p{partition} e{event}")).collect()
}

/// A client that speaks AMQP and knows nothing of Event Hubs.
pub(crate) struct Client {
    pub(crate) connection: ConnectionHandle<()>,
    pub(crate) session: SessionHandle<()>,
}

pub(crate) fn selector(filter: &str) -> Source {
    let name = Symbol::from("apache.org:selector-filter:string");
    let mut source = Source::builder().build();
    source.filter = Some(std::iter::once((name, Value::String(filter.to_owned()))).collect());
    source
}

pub(crate) const FROM_START: &str = "amqp.annotation.x-opt-offset > '-1'";

impl Client {
    pub(crate) async fn connect(broker: &Broker) -> Self {
        Self::connect_as(broker, SaslProfile::Anonymous).await.unwrap()
    }

    pub(crate) async fn connect_as(broker: &Broker, profile: SaslProfile) -> Result<Self, String> {
        let url = format!("amqp://{}", broker.local_addr());
        let builder = Connection::builder().container_id("test").max_frame_size(65536u32).sasl_profile(profile);
        let opened = soon("opening a connection", builder.open(url.as_str())).await;
        let mut connection = opened.map_err(|error| error.to_string())?;
        let begun = soon("beginning a session", Session::begin(&mut connection)).await;
        let session = begun.map_err(|error| error.to_string())?;
        Ok(Self { connection, session })
    }

    /// A receiver that gives `credit` and takes it back as messages are accepted.
    pub(crate) async fn receiver(&mut self, partition: usize, filter: &str) -> Receiver {
        let path = format!("hub/ConsumerGroups/$Default/Partitions/{partition}");
        self.receiver_at(&path, filter, CreditMode::Auto(500)).await
    }

    /// A receiver, where the broker may be away.
    pub(crate) async fn try_receiver(&mut self, partition: usize, filter: &str) -> Result<Receiver, String> {
        let mut source = selector(filter);
        source.address = Some(format!("hub/ConsumerGroups/$Default/Partitions/{partition}"));
        let builder = Receiver::builder().name("receiver").source(source).auto_accept(true);
        let attached = builder.credit_mode(CreditMode::Auto(500)).attach(&mut self.session);
        soon("attaching a receiver", attached).await.map_err(|error| error.to_string())
    }

    pub(crate) async fn receiver_at(&mut self, path: &str, filter: &str, credit: CreditMode) -> Receiver {
        let mut source = selector(filter);
        source.address = Some(path.to_owned());
        let builder = Receiver::builder().name(unused_name()).source(source).auto_accept(true);
        soon("attaching a receiver", builder.credit_mode(credit).attach(&mut self.session)).await.unwrap()
    }
}

/// A received event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) sequence: i64,
    pub(crate) body: String,
}

pub(crate) fn annotation(message: &Message<Body<Value>>, name: &str) -> Option<Value> {
    message.message_annotations.as_ref()?.iter().find_map(|(key, value)| match key {
        OwnedKey::Symbol(key) if key.as_str() == name => Some(value.clone()),
        _ => None,
    })
}

pub(crate) fn text(message: &Message<Body<Value>>) -> String {
    let Body::Data(parts) = &message.body else { panic!("no data in {:?}", message.body) };
    parts.iter().map(|part| String::from_utf8(part.0.to_vec()).unwrap()).collect()
}

/// The next event of a receiver.
pub(crate) async fn next(receiver: &mut Receiver) -> Result<Event, RecvError> {
    let delivery = soon("an event", receiver.recv::<Body<Value>>()).await?;
    let message = delivery.message();
    let Some(Value::Long(sequence)) = annotation(message, "x-opt-sequence-number") else { panic!("no number") };
    Ok(Event { sequence, body: text(message) })
}

/// The sequence numbers of the next events of a receiver, whose bodies must belong to them.
pub(crate) async fn sequences(receiver: &mut Receiver, partition: usize, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    for _ in 0..count {
        let event = next(receiver).await.unwrap();
        assert_eq!(event.body, format!("p{partition} e{}", event.sequence));
        found.push(event.sequence);
    }
    found
}

/// The error of a receiver that gets nothing more.
pub(crate) async fn end_of(receiver: &mut Receiver) -> String {
    loop {
        if let Err(error) = next(receiver).await {
            return format!("{error:?}");
        }
    }
}

/// The client keeps the names of links that the broker has ended.
fn unused_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("receiver {}", COUNT.fetch_add(1, Ordering::Relaxed))
}
