//! A broker, an event hub on it, and a reader whose batches a test looks at.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidemark_broker::{Broker, BrokerOptions};
use tidemark_eventhubs::Error;
use tidemark_eventhubs::batch::{Batch, Limits};
use tidemark_eventhubs::connection::ConnectionString;
use tidemark_eventhubs::hub::{Access, Hub};
use tidemark_eventhubs::receive::{PartitionReader, Receive};
use tidemark_eventhubs::status::PartitionStatus;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// Longer than anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A future's result, or a failed test if it does not come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A broker whose outcomes wait long enough for this client, and the event hub on it.
pub(crate) async fn hub() -> (Broker, Hub) {
    tidemark_eventhubs::choose_cryptography();
    let broker = Broker::start(BrokerOptions { partitions: 1, ..BrokerOptions::default() }).await.unwrap();
    let string = ConnectionString::parse(&broker.connection_string()).unwrap();
    let hub = Hub::new(Access::ConnectionString(string), None, Duration::from_secs(10)).unwrap();
    (broker, hub)
}

/// Bodies that are their numbers.
pub(crate) fn numbered(events: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    events.map(|event| event.to_string())
}

struct Hands(Sender<Batch>);

impl Receive for Hands {
    fn take(&mut self, batch: Batch) -> BoxFuture<'_, bool> {
        async move { self.0.send(batch).await.is_ok() }.boxed()
    }

    fn failing(&mut self, _: &Error) {}

    fn recovered(&mut self) {}
}

/// A reader under way.
pub(crate) struct Reading {
    batches: Receiver<Batch>,
    pub(crate) status: Arc<PartitionStatus>,
    task: JoinHandle<Result<(), Error>>,
}

impl Reading {
    /// Reads partition 0 from `next` on. One event may be sent ahead, and one batch waits.
    pub(crate) fn from(hub: &Hub, next: u64, refuses_loss: bool) -> Reading {
        let status = Arc::new(PartitionStatus::new("0", next));
        let reader = PartitionReader {
            hub: hub.clone(),
            group: "$Default".to_owned(),
            partition: "0".to_owned(),
            owner_level: None,
            prefetch: 1,
            quiet_after: Duration::from_millis(100),
            give_up_after: Duration::from_secs(20),
            refuses_loss,
            created_us: None,
            limits: Limits { events: 10, bytes: 1 << 20, whole: 1 << 20, kept: 1 << 16 },
            status: Arc::clone(&status),
        };
        let (hands, batches) = channel(1);
        let task = tokio::spawn(async move { reader.read(next, &mut Hands(hands)).await });
        Reading { batches, status, task }
    }

    /// The next `count` events, as (number, body).
    pub(crate) async fn events(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        while found.len() < count {
            let batch = soon("events", self.batches.recv()).await.expect("the reader has ended");
            found.extend(bodies(&batch));
        }
        assert_eq!(found.len(), count);
        found
    }

    /// The next batch.
    pub(crate) async fn batch(&mut self) -> Batch {
        soon("events", self.batches.recv()).await.expect("the reader has ended")
    }

    /// What it still hands on, and the error that ends it.
    pub(crate) async fn error(mut self) -> (Vec<(u64, String)>, Error) {
        let mut found = Vec::new();
        while let Some(batch) = soon("the end", self.batches.recv()).await {
            found.extend(bodies(&batch));
        }
        (found, soon("the end", self.task).await.unwrap().unwrap_err())
    }
}

pub(crate) fn bodies(batch: &Batch) -> Vec<(u64, String)> {
    let text = |range: &std::ops::Range<u32>| {
        String::from_utf8(batch.bytes[range.start as usize..range.end as usize].to_vec()).unwrap()
    };
    (batch.first..).zip(batch.bodies.iter().map(text)).collect()
}

/// What [`numbered`] events are read as.
pub(crate) fn expected(events: std::ops::Range<u64>) -> Vec<(u64, String)> {
    events.clone().zip(numbered(events)).collect()
}
