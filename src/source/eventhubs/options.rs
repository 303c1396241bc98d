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
    /// How many events the broker may send ahead, for each partition.
    pub prefetch: u32,
    /// After so long without an event a partition is asked whether it has any.
    pub quiet_after: Duration,
    /// How often all partitions are asked how far they go.
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
    /// The same for a reader that displaces nobody, and gives up soon.
    #[must_use]
    pub fn beside(mut self) -> Self {
        self.exclusive = false;
        self.give_up_after = self.give_up_after.min(BESIDE);
        self.open_within = self.open_within.min(BESIDE);
        self
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
