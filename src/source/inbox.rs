//! A source with one more partition among its own: the events that somebody has put into the inbox to be fed again.
//!
//! Partitions keep their numbers. The inbox comes behind those that a pipeline has at its first start, and before those that
//! it gets later: the source counts these one lower than everybody else.
//!
//! As long as the inbox is empty, everything is as it would be without it. A thread looks into it, at most once a second
//! unless somebody waits for the answer, so that a slow store does not hold up the source's own partitions.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemark_checkpoint::inbox::{Inbox, PARTITION};
use tidemark_checkpoint::{Error, inbox};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_store::failpoint;

use super::{
    ContentDigest, Found, MAX_BLOCK_EVENTS, PartitionInfo, PartitionStatuses, Pull, Source, SourceError,
    SourceIdentity, Standing,
};

/// Time between two looks when there was nothing.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Bytes after which a block is full.
const BLOCK_BYTES: u32 = 512 << 10;

/// What a look finds at an offset.
type Looked = Result<Option<inbox::Batch>, Error>;

/// A source and the inbox.
pub struct WithInbox {
    pub(super) inner: Box<dyn Source>,
    partitions: Vec<PartitionInfo>,
    /// The number of the inbox.
    number: usize,
    /// Which of the inner partitions have ended, or are read by other processes.
    ended: Vec<bool>,
    /// Whether those that other processes read have ended.
    others_ended: bool,
    /// The thread that looks into the inbox; none where another process does.
    looks: Option<Looks>,
    /// Where the look that is under way looks, and whether the inner source had ended when it began.
    looking: Option<(u64, bool)>,
    looked: Option<Instant>,
    at_hand: Option<AtHand>,
}

/// A thread that looks into the inbox.
struct Looks {
    ask: Sender<u64>,
    found: Receiver<Looked>,
}

/// An object of the inbox, not yet handed out to its end.
struct AtHand {
    first: u64,
    bytes: Bytes,
    bodies: Vec<Range<u32>>,
}

impl WithInbox {
    /// Adds the inbox to a source.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn new(inner: Box<dyn Source>, mut inbox: Inbox) -> io::Result<Self> {
        let (looks, asked) = channel();
        let (answers, found) = channel();
        // Nobody joins it: it may wait for a store that cannot be reached.
        std::thread::Builder::new().name("inbox".to_owned()).spawn(move || {
            let answers = asked.into_iter().map(|from| inbox.read(from)).map(|found| answers.send(found));
            answers.take_while(Result::is_ok).for_each(drop);
        })?;
        Ok(Self::around(inner, Some(Looks { ask: looks, found })))
    }

    /// Leaves a place for the inbox, which another process reads.
    pub fn elsewhere(inner: Box<dyn Source>) -> Self {
        Self::around(inner, None)
    }

    fn around(inner: Box<dyn Source>, looks: Option<Looks>) -> Self {
        let number = inner.partitions().len();
        let (partitions, ended) = (Vec::new(), Vec::new());
        let mut source = Self {
            inner,
            partitions,
            number,
            ended,
            others_ended: false,
            looks,
            looking: None,
            looked: None,
            at_hand: None,
        };
        source.count(number);
        source
    }

    /// Gives every partition its number, the inbox this one.
    fn count(&mut self, number: usize) {
        let inner = &self.inner;
        let elsewhere = |index: u32| !inner.reads(PartitionId(index));
        self.ended = (0..).take(inner.partitions().len()).map(elsewhere).collect();
        self.others_ended = !self.ended.contains(&true);
        self.partitions = inner.partitions().to_vec();
        self.number = number.min(self.partitions.len());
        self.partitions.insert(self.number, PartitionInfo { name: PARTITION.to_owned(), path: None, bytes: None });
    }

    fn is_inbox(&self, partition: PartitionId) -> bool {
        partition.0 as usize == self.number
    }

    /// What the source calls a partition that is not the inbox.
    fn inner(&self, partition: PartitionId) -> PartitionId {
        PartitionId(partition.0 - u32::from(partition.0 as usize > self.number))
    }

    fn inner_has_ended(&self) -> bool {
        self.others_ended && self.ended.iter().all(|ended| *ended)
    }

    /// The next events of the inbox. `replaying` says that they were cut once, and so must be there.
    fn pull_inbox(&mut self, from: u64, max_events: usize, now: Micros) -> Result<Pull, SourceError> {
        let replaying = now == Micros(i64::MAX);
        if let Some(block) = self.hand_out(from, max_events, now) {
            failpoint("inbox-taken");
            return Ok(Pull::Block(block));
        }
        let Some(looks) = &self.looks else { return Ok(Pull::End) };
        match looks.found.try_recv() {
            Ok(found) => {
                let after_end = self.looking.take().is_some_and(|(_, ended)| ended);
                self.looked = Some(Instant::now());
                let Some(batch) = found.map_err(unreadable)? else {
                    if replaying {
                        return Err(unreadable(Error::Missing { what: format!("event {from} of the inbox") }));
                    }
                    return Ok(if after_end && self.inner.is_bounded() { Pull::End } else { Pull::Pending });
                };
                tracing::info!(events = batch.replay.events, id = batch.replay.id, "events of the inbox are fed again");
                let bodies = batch.bodies().collect();
                self.at_hand = Some(AtHand { first: batch.replay.first, bytes: batch.bytes, bodies });
                self.looked = None;
                self.pull_inbox(from, max_events, now)
            }
            Err(TryRecvError::Empty) => {
                self.look(from, replaying);
                Ok(Pull::Pending)
            }
            Err(TryRecvError::Disconnected) => {
                let gone = io::Error::other("the thread that reads it is gone");
                Err(SourceError::unavailable("the inbox", "read", gone))
            }
        }
    }

    /// Begins a look at `from`, if one is due and none is under way.
    fn look(&mut self, from: u64, replaying: bool) {
        let ended = self.inner_has_ended() && self.inner.is_bounded();
        let awaited = replaying || ended;
        let due = self.looked.is_none_or(|looked| awaited || looked.elapsed() >= BETWEEN_LOOKS);
        let Some(looks) = &self.looks else { return };
        if self.looking.is_none() && due && looks.ask.send(from).is_ok() {
            self.looking = Some((from, ended));
        }
    }

    /// Events from the object at hand.
    fn hand_out(&mut self, from: u64, max_events: usize, now: Micros) -> Option<Block> {
        let at_hand = self.at_hand.as_ref()?;
        let start = usize::try_from(from.checked_sub(at_hand.first)?).ok()?;
        let rest = at_hand.bodies.get(start..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else {
            self.at_hand = None;
            return None;
        };
        let begin = rest[0].start;
        let fits = rest.iter().take_while(|body| body.end - begin <= BLOCK_BYTES).count().max(1);
        let events = fits.min(max_events.clamp(1, MAX_BLOCK_EVENTS));
        Some(Block {
            partition: PartitionId(u32::try_from(self.number).unwrap_or(u32::MAX)),
            first_offset: Offset(from),
            arrival: Arrival::Opening(now),
            bytes: at_hand.bytes.clone(),
            bodies: rest[..events].to_vec(),
            oversized: Vec::new(),
            sections: Vec::new(),
        })
    }
}

/// The inbox in the words of a source.
fn unreadable(error: Error) -> SourceError {
    match error {
        Error::Damaged { .. } | Error::Missing { .. } | Error::Version { .. } => {
            SourceError::changed("the inbox", error.to_string(), "restore the folder 'inbox' of the checkpoint")
        }
        other => SourceError::unavailable("the inbox", "read", io::Error::other(other.to_string())),
    }
}

impl Source for WithInbox {
    fn is_beside(&self, partition: PartitionId) -> bool {
        self.is_inbox(partition)
    }

    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    /// The inbox has the place that it had, at the first start that behind all others.
    fn order(&mut self, known: &[(String, bool)]) -> Result<(), SourceError> {
        let number = known.iter().position(|(name, _)| name == PARTITION);
        let others: Vec<_> = known.iter().filter(|(name, _)| name != PARTITION).cloned().collect();
        self.inner.order(&others)?;
        self.count(number.unwrap_or(usize::MAX));
        Ok(())
    }

    /// The inbox holds nothing back: its events have been rejected once, and are fed again when somebody wants it.
    fn standing(
        &mut self,
        partition: PartitionId,
        next: Offset,
        opened: Micros,
    ) -> Result<Option<Standing>, SourceError> {
        if self.is_inbox(partition) {
            return Ok(Some(Standing::CaughtUp));
        }
        self.inner.standing(self.inner(partition), next, opened)
    }

    fn discovered(&mut self) -> Vec<Found> {
        self.inner.discovered()
    }

    fn join(&mut self, partition: Found) {
        self.partitions.push(partition.info.clone());
        self.inner.join(partition);
        let index = PartitionId(u32::try_from(self.ended.len()).unwrap_or(u32::MAX));
        self.ended.push(!self.inner.reads(index));
    }

    fn align(&mut self, cut: &[Offset], others: Option<Micros>) {
        let of_inner = |(index, next): (usize, &Offset)| (index != self.number).then_some(*next);
        let cut: Vec<Offset> = cut.iter().enumerate().filter_map(of_inner).collect();
        self.inner.align(&cut, others);
    }

    fn oldest_in_hand(&self) -> Option<Micros> {
        self.inner.oldest_in_hand()
    }

    fn wakes(&mut self, reader: std::thread::Thread) {
        self.inner.wakes(reader);
    }

    /// The inbox is read wherever it is looked into.
    fn reads(&self, partition: PartitionId) -> bool {
        if self.is_inbox(partition) { self.looks.is_some() } else { self.inner.reads(self.inner(partition)) }
    }

    fn others_have_ended(&mut self) {
        self.others_ended = true;
    }

    fn is_bounded(&self) -> bool {
        self.inner.is_bounded()
    }

    fn total_bytes(&self) -> Option<u64> {
        self.inner.total_bytes()
    }

    /// That of the source: the inbox belongs to every pipeline.
    fn identity(&self) -> SourceIdentity {
        self.inner.identity()
    }

    fn resume(&mut self, at: Position, before: Option<ContentDigest>) -> Result<(), SourceError> {
        if self.is_inbox(at.partition) {
            return Ok(());
        }
        self.inner.resume(Position { partition: self.inner(at.partition), ..at }, before)
    }

    fn settle(&mut self, stored: Option<&SourceIdentity>) -> Result<(), SourceError> {
        self.inner.settle(stored)
    }

    fn beginning(&self, partition: PartitionId) -> Offset {
        if self.is_inbox(partition) { Offset(0) } else { self.inner.beginning(self.inner(partition)) }
    }

    fn start(&mut self, generation: u64) -> Result<(), SourceError> {
        self.inner.start(generation)
    }

    fn statuses(&self) -> PartitionStatuses {
        self.inner.statuses()
    }

    /// None of the inbox: its objects never change, and each carries a hash of its own.
    fn digest(&self, partition: PartitionId) -> Option<ContentDigest> {
        if self.is_inbox(partition) { None } else { self.inner.digest(self.inner(partition)) }
    }

    fn can_have_had(&self, partition: PartitionId, digest: ContentDigest) -> bool {
        !self.is_inbox(partition) && self.inner.can_have_had(self.inner(partition), digest)
    }

    /// The inbox of a bounded source ends when a look that began after the end of all other partitions finds nothing;
    /// that of a live source never does.
    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError> {
        if self.is_inbox(partition) {
            return self.pull_inbox(from.0, max_events, now);
        }
        let inner = self.inner(partition);
        let mut pulled = self.inner.pull(inner, from, max_events, now)?;
        if let Pull::Block(block) = &mut pulled {
            block.partition = partition;
        }
        if let Some(ended) = self.ended.get_mut(inner.0 as usize) {
            *ended |= matches!(pulled, Pull::End);
        }
        Ok(pulled)
    }
}
