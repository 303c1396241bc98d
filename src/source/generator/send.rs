//! Sends generated events to an event hub, as `tidemark generate --to eventhubs` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use tidemark_dataflows::event::{Offset, PartitionId};
use tidemark_eventhubs::Error;
use tidemark_eventhubs::hub::Hub;
use tidemark_eventhubs::send::PartitionSender;
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::write::wall_clock;
use super::{BLOCK_BYTES, EventGenerator, Pacing, Written};
use crate::source::SourceError;

/// Longest sleep between two looks at the stop flag.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Sends the stream of a generator, until it ends or the stop flag is set.
pub struct EventSender<'a> {
    generator: &'a EventGenerator,
    pacing: Pacing,
    stop: &'a AtomicBool,
    hub: Hub,
    /// How long faults in a row are met with another try.
    give_up_after: Duration,
}

/// What was sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The events.
    pub written: Written,
    /// Partitions of the event hub.
    pub partitions: usize,
    /// Batches whose fate was unknown and that were sent again: events may have arrived twice.
    pub repeated: u64,
}

/// Sums over all partitions.
#[derive(Default)]
struct Sums {
    events: AtomicU64,
    bytes: AtomicU64,
    repeated: AtomicU64,
}

impl<'a> EventSender<'a> {
    /// A sender that ends early, soon after `stop` is set.
    pub fn new(
        generator: &'a EventGenerator,
        pacing: Pacing,
        stop: &'a AtomicBool,
        hub: Hub,
        give_up_after: Duration,
    ) -> Self {
        Self { generator, pacing, stop, hub, give_up_after }
    }

    /// Sends all events, all partitions at once: those of a generator's partition go to the partition of the event hub
    /// with the same place, or dealt in turn where it has fewer; each in order.
    ///
    /// # Errors
    ///
    /// There is no such event hub, we may not send to it, or it fails for too long.
    pub fn send(&self) -> Result<Sent, SourceError> {
        // One thread: with several, the client may miss the answer to what it sent, if that comes before it has taken
        // note of the sending, and waits until it is given up.
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| SourceError::unavailable(self.hub.label(), "given threads", error))?;
        let sent = runtime.block_on(self.send_all());
        // Connections that nobody answers on are not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        sent
    }

    async fn send_all(&self) -> Result<Sent, SourceError> {
        let client = self.hub.consumer("$Default").await?;
        let found = self.hub.properties(&client).await;
        self.hub.close(client).await;
        let partitions = found?.partitions;
        let sums = Arc::new(Sums::default());
        let count = partitions.len();
        let share = |(place, partition): (usize, &String)| {
            let theirs = (0..self.generator.options().partitions).skip(place).step_by(count.max(1));
            let sender = PartitionSender::new(self.hub.clone(), partition.clone(), self.give_up_after);
            self.send_share(sender, theirs.map(PartitionId).collect(), Arc::clone(&sums))
        };
        try_join_all(partitions.iter().enumerate().map(share)).await?;
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let written = Written { events: read(&sums.events), bytes: read(&sums.bytes) };
        Ok(Sent { written, partitions: count, repeated: read(&sums.repeated) })
    }

    /// Sends the events of some partitions of the generator to one of the event hub.
    async fn send_share(
        &self,
        mut sender: PartitionSender,
        partitions: Vec<PartitionId>,
        sums: Arc<Sums>,
    ) -> Result<(), Error> {
        let all = self.generator.options().events.unwrap_or(u64::MAX);
        let mut next = vec![0; partitions.len()];
        let mut buffer = Vec::with_capacity(2 * BLOCK_BYTES);
        while !self.stop.load(Ordering::Relaxed) {
            let due = match self.pacing {
                Pacing::AtOnce => all,
                Pacing::Live => all.min(self.generator.due(wall_clock())),
            };
            let mut moved = false;
            for (partition, next) in partitions.iter().zip(&mut next) {
                let until = self.generator.in_partition(due, *partition);
                let from = *next;
                let mut ends = Vec::new();
                buffer.clear();
                while *next < until && buffer.len() < BLOCK_BYTES {
                    self.generator.write_body(*partition, Offset(*next), &mut buffer);
                    ends.push(buffer.len());
                    *next += 1;
                }
                if from == *next {
                    continue;
                }
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let bodies: Vec<&[u8]> = starts.zip(&ends).filter_map(|(from, to)| buffer.get(from..*to)).collect();
                sender.send(&bodies).await?;
                sums.events.fetch_add(*next - from, Ordering::Relaxed);
                sums.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                moved = true;
            }
            if !moved && due == all {
                break;
            }
            if !moved {
                sleep(self.pause()).await;
            }
        }
        sums.repeated.fetch_add(sender.repeated, Ordering::Relaxed);
        sender.close().await;
        Ok(())
    }

    /// One event's time at the rate, but not so long that a signal goes unnoticed.
    fn pause(&self) -> Duration {
        Duration::from_micros(1_000_000 / self.generator.options().rate.max(1))
            .clamp(Duration::from_millis(1), MAX_PAUSE)
    }
}
