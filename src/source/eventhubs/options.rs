//! How an event hub is read.

use std::sync::Arc;
use std::time::Duration;

use tidemark_dataflows::block::{MAX_BODY_BYTES, MAX_KEPT_BYTES};
use tidemark_dataflows::event::Micros;
use tidemark_eventhubs::batch::Limits;
use tidemark_eventhubs::hub::Hub;
use tidemark_eventhubs::receive::PartitionReader;
use tidemark_eventhubs::status::PartitionStatus;

use crate::source::{MAX_BLOCK_EVENTS, Share};

/// Bytes after which a block is full.
const BLOCK_BYTES: usize = 512 << 10;

/// Time between two questions to the service.
pub(super) const APART: Duration = Duration::from_millis(100);

/// Where a new pipeline begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest event that is kept.
    Earliest,
    /// With the first event after its start.
    Latest,
    /// With the first event that came at or after this instant.
    Time(Micros),
}

/// What to do when events that should have been read are past their retention.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AfterLoss {
    /// Refuse to go on.
    Refuse,
    /// Go on without them, and count them as missing.
    Continue,
}

/// How an event hub is read.
#[derive(Clone)]
pub struct EventHubsOptions {
    /// The event hub, and how to get in.
    pub hub: Hub,
    /// The consumer group.
    pub group: String,
    /// Where a new pipeline begins.
    pub start: StartAt,
    /// Whether reading ends once everything has been read that was there at the start.
    pub until_end: bool,
    /// What to do when events are gone.
    pub after_loss: AfterLoss,
    /// How much later than events that others hold the events of a partition may have been enqueued; none for as late as
    /// they may be.
    pub alignment: Option<Duration>,
    /// How many events the broker may send ahead, for each partition.
    pub prefetch: u32,
    /// After so long without an event a partition is asked whether it has any.
    pub quiet_after: Duration,
    /// How often each partition is asked how far it goes, where there are not too many.
    pub lag_every: Duration,
    /// How long faults in a row are met with another try.
    pub give_up_after: Duration,
    /// The same when the source is opened.
    pub open_within: Duration,
    /// Whether other readers of the consumer group are kept away.
    pub exclusive: bool,
    /// Threads that receive.
    pub threads: usize,
    /// Which partitions are read here.
    pub share: Share,
}

/// How long faults are met with another try where somebody waits for an answer.
const BESIDE: Duration = Duration::from_secs(10);

impl EventHubsOptions {
    /// The same for a reader that displaces nobody, reads on whatever others hold, and gives up soon.
    #[must_use]
    pub fn beside(mut self) -> Self {
        self.exclusive = false;
        self.alignment = None;
        self.give_up_after = self.give_up_after.min(BESIDE);
        self.open_within = self.open_within.min(BESIDE);
        self
    }

    /// How often each of so many partitions is asked how far it goes: ten questions a second are enough.
    pub(super) fn asks_every(&self, partitions: usize) -> Duration {
        self.lag_every.max(APART * u32::try_from(partitions).unwrap_or(u32::MAX))
    }

    /// How long what was said of one of so many partitions holds: three questions, and a little.
    pub(super) fn heard_within(&self, partitions: usize) -> Duration {
        let little = Duration::from_secs(1);
        (self.lag_every * 3 + little).max(self.asks_every(partitions) * 2 + little)
    }

    pub(super) fn reader(
        &self,
        partition: &str,
        owner_level: Option<i64>,
        created: Option<Micros>,
        status: Arc<PartitionStatus>,
    ) -> PartitionReader {
        PartitionReader {
            hub: self.hub.clone(),
            group: self.group.clone(),
            partition: partition.to_owned(),
            owner_level,
            prefetch: self.prefetch,
            quiet_after: self.quiet_after,
            give_up_after: self.give_up_after,
            refuses_loss: self.after_loss == AfterLoss::Refuse,
            created_us: created.map(|at| at.0),
            limits: Limits {
                events: MAX_BLOCK_EVENTS,
                bytes: BLOCK_BYTES,
                whole: MAX_BODY_BYTES,
                kept: MAX_KEPT_BYTES,
            },
            status,
        }
    }
}
