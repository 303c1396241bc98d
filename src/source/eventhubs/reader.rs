//! The tasks: one for each partition, and one that asks how far the partitions go.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemark_checkpoint::store::Watch;
use tidemark_dataflows::event::PartitionId;
use tidemark_eventhubs::Error;
use tidemark_eventhubs::batch::Batch;
use tidemark_eventhubs::receive::{PartitionReader, Receive};
use tidemark_eventhubs::status::PartitionStatus;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{MissedTickBehavior, interval};

use super::EventHubsOptions;
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
    health: Arc<Health>,
}

impl Receive for IntoLane {
    fn take(&mut self, batch: Batch) -> BoxFuture<'_, bool> {
        async move {
            let block = block_of(self.partition, batch);
            // Here, where several tasks can do it at once, and not in the coordinator.
            let digest = ContentDigest::of(&block);
            self.lane.send(Ok((block, digest))).await.is_ok()
        }
        .boxed()
    }

    fn failing(&mut self, error: &Error) {
        Watch::failing(&*self.health, &self.place, error.why());
    }

    fn recovered(&mut self) {
        tracing::info!(place = self.place, "events come again");
        self.health.recovered(&self.place);
    }
}

/// Begins to read a partition from a sequence number on.
pub(super) fn spawn(
    handle: &Handle,
    reader: PartitionReader,
    (partition, next): (PartitionId, u64),
    health: &Arc<Health>,
) -> Lane {
    let (lane, receiver) = channel(LANE_BLOCKS);
    let place = format!("partition {} of {}", reader.partition, reader.hub.label());
    let mut into = IntoLane { partition, place, lane: lane.clone(), health: Arc::clone(health) };
    handle.spawn(async move {
        if let Err(error) = reader.read(next, &mut into).await {
            // Nobody wants it any more when this fails.
            let _ = lane.send(Err(error)).await;
        }
    });
    Lane::new(receiver)
}

/// Asks all partitions from time to time how far they go, over a connection of its own: what is known of them while
/// nothing is read, be it that the pipeline is slow or a link is down.
pub(super) fn watch(handle: &Handle, options: &EventHubsOptions, statuses: &[Arc<PartitionStatus>]) {
    let (options, statuses) = (options.clone(), statuses.to_vec());
    handle.spawn(async move {
        let mut ticks = interval(options.lag_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut client = None;
        // The first tick comes at once, and all of this has just been asked.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if client.is_none() {
                client = options.hub.consumer(&options.group).await.ok();
            }
            let Some(open) = &client else { continue };
            let mut failed = false;
            for status in &statuses {
                match options.hub.partition(open, status.id()).await {
                    Ok(found) => status.note_end(found.end, found.newest_us),
                    Err(error) => {
                        tracing::debug!(%error, "the lag is not known");
                        failed = true;
                        break;
                    }
                }
            }
            if failed && let Some(broken) = client.take() {
                options.hub.close(broken).await;
            }
        }
    });
}
