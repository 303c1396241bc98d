//! The tasks that read, one for each partition.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemark_dataflows::event::PartitionId;
use tidemark_eventhubs::Error;
use tidemark_eventhubs::batch::Batch;
use tidemark_eventhubs::receive::{PartitionReader, Receive};
use tidemark_store::Watch;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};

use super::hand::{Hand, Waker};
use super::lanes::{Lane, Sent, block_of};
use crate::health::Health;
use crate::source::ContentDigest;

/// Blocks that may wait in a lane. While it is full the reader does not read, and the broker stops sending.
const LANE_BLOCKS: usize = 4;

/// Hands blocks to a lane.
struct IntoLane {
    partition: PartitionId,
    place: String,
    lane: Sender<Sent>,
    hand: Arc<Hand>,
    waker: Arc<Waker>,
    health: Arc<Health>,
}

impl Receive for IntoLane {
    fn take(&mut self, batch: Batch) -> BoxFuture<'_, bool> {
        async move {
            let block = block_of(self.partition, batch);
            // Here, where several tasks can do it at once, and not in the runtime.
            let digest = ContentDigest::of(&block);
            self.hand.receive(&block);
            let wanted = self.lane.send(Ok((block, digest))).await.is_ok();
            self.waker.wake();
            wanted
        }
        .boxed()
    }

    fn failing(&mut self, error: &Error) {
        Watch::failing(&*self.health, &self.place, error.why());
    }

    fn recovered(&mut self) {
        self.health.recovered(&self.place);
    }
}

/// Begins to read a partition from a sequence number on. What comes is noted in `hand`.
pub(super) fn spawn(
    handle: &Handle,
    reader: PartitionReader,
    (partition, next): (PartitionId, u64),
    hand: &Arc<Hand>,
    (health, waker): (&Arc<Health>, &Arc<Waker>),
) -> Lane {
    let (lane, receiver) = channel(LANE_BLOCKS);
    let place = format!("partition {} of {}", reader.partition, reader.hub.label());
    let (hand, waker, health) = (Arc::clone(hand), Arc::clone(waker), Arc::clone(health));
    let mut into = IntoLane { partition, place, lane, hand, waker, health };
    handle.spawn(async move {
        if let Err(error) = reader.read(next, &mut into).await {
            // Nobody wants it any more when this fails.
            let _ = into.lane.send(Err(error)).await;
            into.waker.wake();
        }
    });
    Lane::new(receiver)
}
