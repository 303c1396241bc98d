//! Azure Event Hubs: one reader for each partition, and bounded lanes from them to the coordinator.
//!
//! An offset is a sequence number. Which events an epoch takes, and where a restart goes on, is decided by the
//! coordinator and its cuts; the event hub's own notion of consumer positions is not used.

mod lanes;
mod opening;
mod options;
mod reader;
mod threads;

use std::sync::Arc;

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_eventhubs::hub::PartitionProperties;
use tidemark_eventhubs::{Error, ErrorKind};

use self::lanes::{Lane, Taken};
use self::threads::Threads;
use super::identity::HubIdentity;
use super::{
    ContentDigest, MAX_BLOCK_EVENTS, PartitionInfo, PartitionStatus, Pull, Source, SourceError, SourceIdentity,
};
use crate::health::Health;

pub use self::options::{AfterLoss, EventHubsOptions, StartAt};

/// What to do when events are gone that should have been read.
const AFTER_LOSS: &str = "read it as a new pipeline with another --output; or go on without them with \
                          --set eventhubs.after_loss=continue, which counts them as missing. A longer retention, or \
                          fewer and shorter stops, prevent it";

/// What to do when the event hub is another one.
const ANOTHER: &str = "read it as a new pipeline with another --output";

/// An event hub as a source.
pub struct EventHubsSource {
    options: EventHubsOptions,
    health: Arc<Health>,
    created: Option<Micros>,
    partitions: Vec<PartitionInfo>,
    /// What each partition held when the source was opened.
    found: Vec<PartitionProperties>,
    /// Sequence number of the first event that a new pipeline reads, by partition.
    beginnings: Vec<u64>,
    /// Where reading goes on, by partition.
    positions: Vec<(u64, ContentDigest)>,
    statuses: Vec<Arc<PartitionStatus>>,
    /// None before the start. A partition that another process reads has none.
    lanes: Vec<Option<Lane>>,
    /// Last, so that readers end after everything that they hold on to.
    threads: Threads,
}

impl EventHubsSource {
    /// Connects to the event hub and asks what it holds. Faults that may pass are met with other tries for
    /// `options.open_within`; while there are any, `health` shows them.
    ///
    /// # Errors
    ///
    /// There is no such event hub, we may not read it, or it does not answer.
    pub fn open(options: EventHubsOptions, health: &Arc<Health>) -> Result<Self, SourceError> {
        let threads = Threads::start(options.threads)?;
        let opened = threads.wait_for(opening::open(&options))?;
        let info = |name: &String| PartitionInfo { name: name.clone(), path: None, bytes: None };
        let beginnings: Vec<u64> = opened.found.iter().map(|found| found.first).collect();
        Ok(Self {
            options,
            health: Arc::clone(health),
            created: opened.hub.created_us.map(Micros),
            partitions: opened.hub.partitions.iter().map(info).collect(),
            positions: beginnings.iter().map(|next| (*next, ContentDigest::EMPTY)).collect(),
            found: opened.found,
            beginnings,
            statuses: Vec::new(),
            lanes: Vec::new(),
            threads,
        })
    }

    /// Begins to read everything that is kept, for whoever looks for something. In the place of [`Source::start`].
    ///
    /// # Errors
    ///
    /// As for [`Source::start`].
    pub fn read_all(&mut self) -> Result<(), SourceError> {
        self.positions = self.found.iter().map(|found| (found.first, ContentDigest::EMPTY)).collect();
        self.start(0)
    }

    /// What each partition held when the source was opened, in their order.
    pub fn found(&self) -> &[PartitionProperties] {
        &self.found
    }

    fn label(&self, partition: &PartitionInfo) -> String {
        format!("partition {} of {}", partition.name, self.options.hub.label())
    }

    /// Whether what comes next is still there, and the event hub the one that was read. Returns where to go on.
    fn check(&self, index: usize) -> Result<u64, SourceError> {
        let (Some(partition), Some(found), Some(&(next, _))) =
            (self.partitions.get(index), self.found.get(index), self.positions.get(index))
        else {
            return Ok(0);
        };
        let PartitionProperties { first, end, .. } = *found;
        if end < next {
            let problem = format!("it ends before event {end}, but has been read up to event {next}");
            return Err(SourceError::changed(self.label(partition), problem, ANOTHER));
        }
        if first > next {
            let lost = first - next;
            let problem = format!("events {next} to {} ({lost} of them) are past their retention", first - 1);
            if self.options.after_loss == AfterLoss::Refuse {
                return Err(SourceError::changed(self.label(partition), problem, AFTER_LOSS));
            }
            tracing::error!(partition = partition.name, lost, "{problem}; going on without them");
        }
        Ok(next)
    }

    fn unstarted(&self) -> SourceError {
        SourceError::usage(self.options.hub.label(), "it has not been started", "report this as a bug")
    }
}

impl Source for EventHubsSource {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    fn reads(&self, partition: PartitionId) -> bool {
        self.options.share.reads(partition.0 as usize, false)
    }

    fn is_bounded(&self) -> bool {
        self.options.until_end
    }

    fn identity(&self) -> SourceIdentity {
        let partitions = self.partitions.iter().zip(&self.beginnings);
        SourceIdentity::EventHub(HubIdentity {
            namespace: self.options.hub.namespace().to_owned(),
            name: self.options.hub.name().to_owned(),
            created: self.created,
            partitions: partitions.map(|(partition, first)| (partition.name.clone(), *first)).collect(),
        })
    }

    /// Partitions that an earlier run did not know are read from their first event.
    fn settle(&mut self, stored: Option<&SourceIdentity>) -> Result<(), SourceError> {
        match stored {
            Some(SourceIdentity::EventHub(stored)) => {
                for (partition, beginning) in self.partitions.iter().zip(&mut self.beginnings) {
                    let known = stored.partitions.iter().find(|(name, _)| *name == partition.name);
                    *beginning = known.map_or(*beginning, |(_, first)| *first);
                }
            }
            Some(_) => {}
            None => {
                let found = self.partitions.iter().map(|partition| partition.name.as_str()).zip(&self.found);
                self.beginnings = self.threads.wait_for(opening::beginnings(&self.options, found.collect()))?;
            }
        }
        self.positions = self.beginnings.iter().map(|next| (*next, ContentDigest::EMPTY)).collect();
        Ok(())
    }

    fn beginning(&self, partition: PartitionId) -> Offset {
        Offset(self.beginnings.get(partition.0 as usize).copied().unwrap_or(0))
    }

    fn resume(&mut self, at: Position, before: Option<ContentDigest>) -> Result<(), SourceError> {
        let started = !self.lanes.is_empty();
        let Some(position) = self.positions.get_mut(at.partition.0 as usize).filter(|_| !started) else {
            let problem = "a place to go on from can be given only before it is read";
            return Err(SourceError::usage(self.options.hub.label(), problem, "open the source again"));
        };
        *position = (at.offset.0, before.unwrap_or(ContentDigest::EMPTY));
        Ok(())
    }

    /// Begins to read every partition of this process, with the generation as owner level: readers of earlier instances
    /// are displaced.
    fn start(&mut self, generation: u64) -> Result<(), SourceError> {
        let mut lanes = Vec::with_capacity(self.partitions.len());
        for (index, partition) in self.partitions.iter().enumerate() {
            if !self.options.share.reads(index, false) {
                lanes.push(None);
                continue;
            }
            let next = self.check(index)?;
            let status = Arc::new(PartitionStatus::new(partition.name.clone(), next));
            if let Some(found) = self.found.get(index) {
                status.note_end(found.end, found.newest_us);
            }
            let id = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
            let level = self.options.exclusive.then(|| i64::try_from(generation).unwrap_or(i64::MAX));
            let reader = self.options.reader(&partition.name, level, self.created, Arc::clone(&status));
            lanes.push(Some(reader::spawn(self.threads.handle(self.statuses.len()), reader, (id, next), &self.health)));
            self.statuses.push(status);
        }
        self.lanes = lanes;
        reader::watch(self.threads.handle(0), &self.options, &self.statuses);
        Ok(())
    }

    fn statuses(&self) -> Vec<Arc<PartitionStatus>> {
        self.statuses.clone()
    }

    fn digest(&self, partition: PartitionId) -> Option<ContentDigest> {
        self.positions.get(partition.0 as usize).map(|(_, digest)| *digest)
    }

    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        _now: Micros,
    ) -> Result<Pull, SourceError> {
        let index = partition.0 as usize;
        let (Some(Some(lane)), Some(position)) = (self.lanes.get_mut(index), self.positions.get_mut(index)) else {
            return Err(self.unstarted());
        };
        match lane.take(from.0, max_events.clamp(1, MAX_BLOCK_EVENTS)) {
            Taken::Block(block, digest) => {
                let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
                *position = (end_of(&block), position.1.followed_by(digest, count));
                Ok(Pull::Block(block))
            }
            Taken::Nothing => {
                let all = self.found.get(index).is_some_and(|found| from.0 >= found.end);
                Ok(if all && self.options.until_end { Pull::End } else { Pull::Pending })
            }
            Taken::Failed(error) => Err(fatal(&error)),
        }
    }
}

fn end_of(block: &Block) -> u64 {
    block.first_offset.0 + block.len() as u64
}

/// An error that no other try helps against, in the words of a source.
fn fatal(error: &Error) -> SourceError {
    let (what, why) = (error.what(), error.why());
    match error.kind() {
        ErrorKind::Usage => SourceError::usage(what, why, "correct the section [eventhubs] of the configuration"),
        ErrorKind::Changed => SourceError::changed(what, why, ANOTHER),
        ErrorKind::Stolen => SourceError::displaced(
            what,
            format!("another reader has taken it over: {why}"),
            "stop one of them, or give each pipeline a consumer group of its own",
        ),
        ErrorKind::Unauthorized => {
            let remedy = "check the key, or grant the role Azure Event Hubs Data Receiver (Data Sender for generate)";
            SourceError::unreachable(what, why, remedy)
        }
        ErrorKind::NotFound => {
            SourceError::unreachable(what, why, "check the names of namespace, event hub and consumer group")
        }
        ErrorKind::Passing => SourceError::unreachable(what, why, "check the network, and the state of the service"),
    }
}

impl From<&Error> for SourceError {
    fn from(error: &Error) -> Self {
        fatal(error)
    }
}

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        fatal(&error)
    }
}
