//! Azure Event Hubs: one reader for each partition, and bounded lanes from them to the runtime.
//!
//! An offset is a sequence number. Which events an epoch takes, and where a restart goes on, is decided by the
//! runtime and its cuts; the event hub's own notion of consumer positions is not used.
//!
//! Partitions are kept together (`alignment`) by the times at which their events were enqueued, and one task asks (`asking`)
//! the service how far they go, and whether there are more of them.

mod alignment;
mod asking;
mod hand;
mod lanes;
mod opening;
mod options;
mod reader;
#[cfg(test)]
mod tests;
mod threads;

use std::sync::Arc;
use std::time::Instant;

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_eventhubs::hub::PartitionProperties;
use tidemark_eventhubs::receive::expired;
use tidemark_eventhubs::{Error, ErrorKind};

use self::alignment::{Alignment, Lanes, Reading};
use self::asking::Asking;
use self::hand::{Hand, Waker};
use self::lanes::Taken;
use self::threads::Threads;
use super::identity::HubIdentity;
use super::{
    ContentDigest, Found, Head, MAX_BLOCK_EVENTS, PartitionInfo, PartitionStatus, PartitionStatuses, Pull, Source,
    SourceError, SourceIdentity, Standing,
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
    /// When it was asked that.
    asked: Instant,
    /// The partitions of the first start, by name, each with the number of the first event that was to be read: they stay
    /// what the source is known by, also where others come later. None before that is settled.
    first: Option<Vec<(String, u64)>>,
    /// Sequence number of the first event that a new pipeline reads, by partition.
    beginnings: Vec<u64>,
    /// Where reading goes on, by partition.
    positions: Vec<(u64, ContentDigest)>,
    /// None before the start. A partition that another process reads has none.
    lanes: Lanes,
    alignment: Alignment,
    /// The generation, once reading has begun.
    generation: Option<u64>,
    asking: Arc<Asking>,
    waker: Arc<Waker>,
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
        let opened = threads.wait_for(opening::open(&options, health))?;
        let info = |name: &String| PartitionInfo { name: name.clone(), path: None, bytes: None };
        let beginnings: Vec<u64> = opened.found.iter().map(|found| found.first).collect();
        Ok(Self {
            alignment: Alignment::new(options.alignment),
            options,
            health: Arc::clone(health),
            created: opened.hub.created_us.map(Micros),
            partitions: opened.hub.partitions.iter().map(info).collect(),
            positions: beginnings.iter().map(|next| (*next, ContentDigest::EMPTY)).collect(),
            found: opened.found,
            asked: opened.asked,
            first: None,
            beginnings,
            lanes: Vec::new(),
            generation: None,
            asking: Arc::default(),
            waker: Arc::default(),
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
        self.start(0)?;
        self.alignment.begin_at_once();
        Ok(())
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
        if first > next && self.options.after_loss == AfterLoss::Refuse {
            return Err(expired(self.label(partition), next, first).into());
        }
        // Else the reader says so, as it does of what expires later.
        Ok(next)
    }

    /// Begins to read a partition of this process from `next` on.
    fn read(&mut self, index: usize, next: u64, generation: u64) -> Reading {
        let name = self.partitions.get(index).map_or_else(String::new, |partition| partition.name.clone());
        let status = Arc::new(PartitionStatus::new(name.clone(), next));
        let id = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
        let level = self.options.exclusive.then(|| i64::try_from(generation).unwrap_or(i64::MAX));
        let reader = self.options.reader(&name, level, self.created, Arc::clone(&status));
        let hand = Arc::new(Hand::new(next));
        let handle = self.threads.handle(self.asking.statuses.count());
        let lane = reader::spawn(handle, reader, (id, next), &hand, (&self.health, &self.waker));
        self.asking.statuses.add(Arc::clone(&status));
        Reading::new(lane, hand, status)
    }

    /// Most events that a block has from there on: what has come after the start is not read where reading ends.
    fn left_of(&self, index: usize, from: Offset) -> usize {
        let end = self.found.get(index).map(|found| found.end).filter(|_| self.options.until_end);
        let left = end.map_or(u64::MAX, |end| end.saturating_sub(from.0));
        usize::try_from(left).unwrap_or(usize::MAX).clamp(1, MAX_BLOCK_EVENTS)
    }

    /// Whether a partition that is read to its end has nothing at or after `next` to be read.
    fn has_been_read(&self, index: usize, next: Offset) -> bool {
        self.options.until_end && self.found.get(index).is_some_and(|found| next.0 >= found.end)
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.partitions.iter().position(|partition| partition.name == name)
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
        let now =
            || self.partitions.iter().map(|partition| partition.name.clone()).zip(self.beginnings.iter().copied());
        SourceIdentity::EventHub(HubIdentity {
            namespace: self.options.hub.namespace().to_owned(),
            name: self.options.hub.name().to_owned(),
            created: self.created,
            partitions: self.first.clone().unwrap_or_else(|| now().collect()),
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
                let there = stored.partitions.iter().filter(|(name, _)| self.place_of(name).is_some());
                self.first = Some(there.cloned().collect());
            }
            Some(_) => {}
            None => {
                let found = self.partitions.iter().map(|partition| partition.name.as_str()).zip(&self.found);
                self.beginnings = self.threads.wait_for(opening::beginnings(&self.options, found.collect()))?;
                let names = self.partitions.iter().map(|partition| partition.name.clone());
                self.first = Some(names.zip(self.beginnings.iter().copied()).collect());
            }
        }
        self.positions = self.beginnings.iter().map(|next| (*next, ContentDigest::EMPTY)).collect();
        Ok(())
    }

    /// Whether partitions have ended is not looked at: they do not go away.
    fn order(&mut self, known: &[(String, bool)]) -> Result<(), SourceError> {
        let mut order = Vec::with_capacity(self.partitions.len());
        for (name, _) in known {
            let Some(place) = self.place_of(name) else {
                let what = format!("partition {name} of {}", self.options.hub.label());
                return Err(SourceError::changed(
                    what,
                    "it was read by an earlier run and is not there any more",
                    ANOTHER,
                ));
            };
            order.push(place);
        }
        order.extend(
            (0..self.partitions.len())
                .filter(|place| !known.iter().any(|(name, _)| self.place_of(name) == Some(*place))),
        );
        in_order(&mut self.partitions, &order);
        in_order(&mut self.found, &order);
        in_order(&mut self.beginnings, &order);
        in_order(&mut self.positions, &order);
        Ok(())
    }

    /// Caught up is who has what was the newest event at some time lately, or reads a partition that holds none. At a start it
    /// is not known before every partition has been heard of, so that no process cuts anything before.
    fn standing(&mut self, partition: PartitionId, next: Offset, _: Micros) -> Result<Option<Standing>, SourceError> {
        let index = partition.0 as usize;
        let within = self.options.heard_within(self.asking.statuses.count());
        if !self.alignment.may_begin(&self.lanes, within) {
            return Ok(None);
        }
        let caught_up = |reading: &Reading| reading.status.is_caught_up(next.0, within, Instant::now());
        let reading = self.lanes.get(index).and_then(Option::as_ref);
        let caught_up = self.has_been_read(index, next) || reading.is_some_and(caught_up);
        Ok(Some(if caught_up { Standing::CaughtUp } else { Standing::Behind(Head::NONE) }))
    }

    fn discovered(&mut self) -> Vec<Found> {
        self.asking.take_found()
    }

    /// One that was there at the start already, and is read, goes on as it does. What cannot be read says so when it is
    /// pulled.
    fn join(&mut self, partition: Found) {
        let from = partition.from.0;
        self.asking.know([partition.info.name.as_str()]);
        if let Some(place) = self.place_of(&partition.info.name) {
            if self.generation.is_none()
                && let (Some(beginning), Some(position)) =
                    (self.beginnings.get_mut(place), self.positions.get_mut(place))
            {
                (*beginning, *position) = (from, (from, ContentDigest::EMPTY));
            }
            return;
        }
        let index = self.partitions.len();
        self.partitions.push(partition.info);
        self.found.push(PartitionProperties { first: from, end: from, newest_us: None });
        self.beginnings.push(from);
        self.positions.push((from, ContentDigest::EMPTY));
        if let Some(generation) = self.generation {
            let wanted = self.options.share.reads(index, false);
            let reading = wanted.then(|| self.read(index, from, generation));
            self.lanes.push(reading);
        }
    }

    fn align(&mut self, cut: &[Offset], others: Option<Micros>) {
        for (lane, cut) in self.lanes.iter().zip(cut) {
            if let Some(reading) = lane {
                reading.hand.cut(cut.0);
            }
        }
        self.alignment.others = others;
    }

    fn oldest_in_hand(&self) -> Option<Micros> {
        alignment::least(&self.lanes, None)
    }

    fn wakes(&mut self, reader: std::thread::Thread) {
        self.waker.set(reader);
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
        for index in 0..self.partitions.len() {
            if !self.options.share.reads(index, false) {
                lanes.push(None);
                continue;
            }
            let next = self.check(index)?;
            let reading = self.read(index, next, generation);
            if let Some(found) = self.found.get(index) {
                reading.status.note_answer(self.asked, found);
            }
            lanes.push(Some(reading));
        }
        self.lanes = lanes;
        self.generation = Some(generation);
        self.alignment.begin(Instant::now());
        self.asking.know(self.partitions.iter().map(|partition| partition.name.as_str()));
        asking::spawn(self.threads.handle(0), &self.options, &self.asking, &self.waker);
        Ok(())
    }

    fn statuses(&self) -> PartitionStatuses {
        self.asking.statuses.clone()
    }

    fn digest(&self, partition: PartitionId) -> Option<ContentDigest> {
        self.positions.get(partition.0 as usize).map(|(_, digest)| *digest)
    }

    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError> {
        let index = partition.0 as usize;
        // What was cut once is read again as it was cut.
        let replays = now == Micros(i64::MAX);
        let within = self.options.heard_within(self.asking.statuses.count());
        if !replays && self.has_been_read(index, from) {
            return Ok(Pull::End);
        }
        if !replays && !self.alignment.may_begin(&self.lanes, within) {
            return Ok(Pull::Pending);
        }
        let limit = if replays { None } else { self.alignment.limit(&self.lanes, index) };
        let max = max_events.clamp(1, if replays { MAX_BLOCK_EVENTS } else { self.left_of(index, from) });
        let (Some(Some(reading)), Some(position)) = (self.lanes.get_mut(index), self.positions.get_mut(index)) else {
            return Err(self.unstarted());
        };
        match reading.take(from.0, max, limit) {
            Taken::Block(block, digest) => {
                let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
                *position = (end_of(&block), position.1.followed_by(digest, count));
                if replays {
                    reading.hand.cut(position.0);
                }
                Ok(Pull::Block(block))
            }
            Taken::Paused | Taken::Nothing => Ok(Pull::Pending),
            Taken::Failed(error) => Err(fatal(&error)),
        }
    }
}

/// Puts items in an order, of which each place is named once.
fn in_order<T: Clone>(items: &mut Vec<T>, order: &[usize]) {
    *items = order.iter().filter_map(|place| items.get(*place).cloned()).collect();
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
        ErrorKind::Expired => SourceError::changed(what, why, AFTER_LOSS),
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
