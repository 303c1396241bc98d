//! Reads the partitions of this process: hands their blocks to its workers as part of the open epoch, and says which
//! offsets that were. When an epoch is opened and closed is decided by the coordinator, in this process or another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemark_checkpoint::records::{Cut, Position, Range};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Epoch, Micros, Offset, PartitionId};

use super::RunError;
use super::clock;
use super::feed::Feeder;
use super::flight::{InFlight, Limits, Reached, Room};
use crate::cluster::messages::Report;
use crate::source::{Pull, Source, SourceError, source_bytes};

/// How long whoever reads sleeps when there is nothing to do and nobody wakes it.
pub(super) const IDLE: Duration = Duration::from_millis(5);

/// How long to rest where nothing comes: the longer nothing has come, the longer, and never so long that the first event
/// after it would be late by anything that one sees.
#[derive(Debug, Default)]
pub(super) struct Rest {
    rounds: u32,
}

impl Rest {
    /// Rounds after which it is quiet: half a second.
    const QUIET: u32 = 100;

    /// After a round in which so much came.
    pub(super) fn after(&mut self, read: u64) -> Option<Duration> {
        self.rounds = if read > 0 { 0 } else { self.rounds.saturating_add(1) };
        match self.rounds {
            0 => None,
            rounds if rounds < Self::QUIET => Some(IDLE),
            _ => Some(4 * IDLE),
        }
    }
}

/// What has been read so far, for whoever shows it.
#[derive(Debug, Default)]
pub struct Intake {
    /// Events read.
    pub events: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// The newest epoch that was opened.
    pub epoch: AtomicU64,
}

/// Why reading cannot go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// Nothing more is to be read.
    Drained,
    /// Something failed.
    Failed(RunError),
}

impl From<RunError> for Halt {
    fn from(error: RunError) -> Halt {
        Halt::Failed(error)
    }
}

impl From<SourceError> for Halt {
    fn from(error: SourceError) -> Halt {
        Halt::Failed(error.into())
    }
}

/// What a share depends on around it.
pub(super) trait Surroundings {
    /// Whether reading may go on.
    fn check(&self) -> Result<(), Halt>;

    /// How far epochs have come.
    fn reached(&self) -> Reached;

    /// Reading waits for a publication.
    fn hurry(&self);

    /// When an epoch was opened, which there is an event for. Waits until it is.
    fn open(&self, epoch: Epoch) -> Result<Micros, Halt>;
}

/// What a share is made of.
pub(super) struct Parts {
    /// Where events come from; resumed at the positions of the restored checkpoint.
    pub(super) source: Box<dyn Source>,
    /// Where blocks go.
    pub(super) feeder: Feeder,
    /// How much may be on its way.
    pub(super) limits: Limits,
    /// For whoever watches.
    pub(super) intake: Arc<Intake>,
    /// What it depends on.
    pub(super) around: Box<dyn Surroundings>,
}

/// The partitions that this process reads, and how far it has read them.
pub(super) struct Share {
    parts: Parts,
    /// Which partitions those are.
    own: Vec<usize>,
    positions: Vec<Offset>,
    /// How far each partition had been read at the last cut.
    at_cut: Vec<Position>,
    /// Offsets without events that were passed over since the last cut.
    missing: Vec<Vec<std::ops::Range<u64>>>,
    ended: Vec<bool>,
    epoch: Epoch,
    open: Option<Micros>,
    in_flight: InFlight,
    /// Epochs up to this one are published in one group, so they do not wait for each other.
    together: Epoch,
    /// Events and bytes that were reported.
    reported: (u64, u64),
}

impl Share {
    /// A share that starts after `epoch`, at whose end the source had been read up to `at_cut`: a position for each
    /// partition, in order.
    pub(super) fn new(parts: Parts, epoch: Epoch, at_cut: Vec<Position>) -> Self {
        // The inbox has a position everywhere, and is a partition of process 0 alone.
        let known = parts.source.partitions().len();
        let reads = |index: &u32| parts.source.reads(PartitionId(*index));
        Share {
            own: (0..).take(known).filter(reads).map(|index| index as usize).collect(),
            positions: at_cut.iter().map(|position| Offset(position.next)).collect(),
            missing: vec![Vec::new(); at_cut.len()],
            ended: vec![false; at_cut.len()],
            at_cut,
            epoch: epoch + 1,
            open: None,
            in_flight: InFlight::default(),
            together: 0,
            reported: (0, 0),
            parts,
        }
    }

    /// The epoch that is read, or comes next.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When it was opened, if it is.
    pub(super) fn opened(&self) -> Option<Micros> {
        self.open
    }

    /// Whether no event comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.own.iter().all(|partition| self.ended[*partition])
    }

    /// Whether an epoch of a fixed number of events waits for nothing of this share.
    pub(super) fn is_idle(&self) -> bool {
        !self.own.iter().any(|partition| !self.ended[*partition] && self.is_awaited(*partition))
    }

    /// Says that all partitions of other processes have ended.
    pub(super) fn others_are_over(&mut self) {
        self.parts.source.others_have_ended();
    }

    pub(super) fn check(&self) -> Result<(), Halt> {
        self.parts.around.check()
    }

    /// Reads the partitions of this process again as these epochs were cut. They follow on what was restored; tables that
    /// hold them already, up to `held`, will skip them.
    ///
    /// A stop is not looked at: tables that differ by a group are made equal first.
    ///
    /// # Errors
    ///
    /// When the source no longer holds what was cut, cannot be read, or publishing has failed.
    pub(super) fn replay(&mut self, cuts: &[Cut], held: Epoch) -> Result<(), Halt> {
        self.together = held;
        let announcer = self.parts.feeder.announcer();
        let mut passed: Vec<u64> = self.positions.iter().map(|next| next.0).collect();
        for cut in cuts {
            self.open_at(Micros(cut.opened_us));
            let own = |range: &&Range| self.own.contains(&(range.index as usize));
            let own: Vec<&Range> = cut.ranges.iter().filter(own).collect();
            for range in own {
                self.replay_range(range)?;
            }
            self.take_ranges();
            announcer.mark(cut.mark(missing_in(cut, &mut passed)));
            self.go_on_after(cut.epoch);
        }
        Ok(())
    }

    fn replay_range(&mut self, range: &Range) -> Result<(), Halt> {
        let partition = range.index as usize;
        let holes = self.pass_over(partition, range.from);
        while self.positions.get(partition).is_some_and(|next| next.0 < range.to) {
            let left = range.to - self.positions[partition].0;
            if self.pull(partition, left, Micros(i64::MAX))? == 0 {
                if self.ended[partition] {
                    return Err(changed(range, "it ends before").into());
                }
                std::thread::park_timeout(IDLE);
            }
            self.check()?;
        }
        if self.missing.get(partition).is_some_and(|now| now.len() != holes) {
            return Err(changed(range, "it no longer holds all events before").into());
        }
        if range.digest.is_some() && range.digest != self.digest(partition) {
            return Err(changed(range, "its content has changed before").into());
        }
        Ok(())
    }

    /// A range that begins further on says that the offsets before it had no events. Returns the number of holes.
    fn pass_over(&mut self, partition: usize, from: u64) -> usize {
        let (Some(next), Some(holes)) = (self.positions.get_mut(partition), self.missing.get_mut(partition)) else {
            return 0;
        };
        if next.0 < from {
            holes.push(next.0..from);
            next.0 = from;
        }
        holes.len()
    }

    /// Digest of what has been read of a partition, as it is stored.
    fn digest(&self, partition: usize) -> Option<String> {
        self.parts.source.digest(id_of(partition)).map(|digest| digest.to_string())
    }

    /// Ends the epoch for this share: says what was read of it, and turns to the next one.
    pub(super) fn report(&mut self) -> Report {
        let (epoch, over) = (self.epoch, self.is_over());
        let (ranges, missing) = self.take_ranges();
        self.go_on_after(epoch);
        let read = (self.parts.intake.events.load(Ordering::Relaxed), self.parts.intake.bytes.load(Ordering::Relaxed));
        let before = std::mem::replace(&mut self.reported, read);
        Report { epoch, ranges, missing, over, read: (read.0 - before.0, read.1 - before.1) }
    }

    fn go_on_after(&mut self, epoch: Epoch) {
        self.open = None;
        self.epoch = epoch + 1;
    }

    /// Notes that everything read so far is cut. Returns what was read since the cut before: one range of each partition,
    /// and one more for each hole in its offsets, of which only the last has a digest; and how many offsets lie in holes.
    fn take_ranges(&mut self) -> (Vec<Range>, u64) {
        let (mut ranges, mut passed) = (Vec::new(), 0);
        for (partition, next) in self.positions.iter().enumerate().filter(|(i, next)| next.0 > self.at_cut[*i].next) {
            let digest = self.digest(partition);
            let at = &self.at_cut[partition];
            passed += next.0 - at.next;
            let mut from = at.next;
            for hole in std::mem::take(&mut self.missing[partition]) {
                if hole.start > from {
                    let (partition, index) = (at.partition.clone(), at.index);
                    ranges.push(Range { partition, index, from, to: hole.start, digest: None });
                }
                from = hole.end;
            }
            let (partition, index) = (at.partition.clone(), at.index);
            ranges.push(Range { partition, index, from, to: next.0, digest });
        }
        go_to_end(&mut self.at_cut, &ranges);
        let events: u64 = ranges.iter().map(|range| range.to - range.from).sum();
        (ranges, passed.saturating_sub(events))
    }

    fn is_awaited(&self, partition: usize) -> bool {
        self.parts.source.is_awaited(id_of(partition))
    }

    /// Of how many events of each partition of this process an epoch waits, if it is to have `count` of each.
    pub(super) fn wanted(&self, count: u64) -> Wanted {
        Wanted(self.own.iter().map(|own| (*own, if self.ended[*own] { 0 } else { count })).collect())
    }

    /// Whether some of it is still waited for.
    pub(super) fn awaits(&self, wanted: &Wanted) -> bool {
        wanted.0.iter().any(|(partition, wanted)| *wanted > 0 && self.is_awaited(*partition))
    }

    /// Reads of each partition at most what is wanted. Returns whether anything has changed.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or something cannot be written.
    pub(super) fn read_wanted(&mut self, wanted: &mut Wanted) -> Result<bool, Halt> {
        let mut moved = false;
        for (partition, wanted) in wanted.0.iter_mut().filter(|(_, wanted)| *wanted > 0) {
            let read = self.pull(*partition, *wanted, clock::now())?;
            *wanted = if self.ended[*partition] { 0 } else { *wanted - read };
            moved |= read > 0 || self.ended[*partition];
        }
        Ok(moved)
    }

    /// Reads whatever is there. Returns the number of events.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or something cannot be written.
    pub(super) fn read_all(&mut self) -> Result<u64, Halt> {
        let mut read = 0;
        for at in 0..self.own.len() {
            let partition = self.own[at];
            if !self.ended[partition] {
                read += self.pull(partition, u64::MAX, clock::now())?;
            }
        }
        Ok(read)
    }

    /// Reads the next block of a partition into the open epoch; has one opened if need be. Returns the number of events.
    fn pull(&mut self, partition: usize, at_most: u64, now: Micros) -> Result<u64, Halt> {
        let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
        match self.parts.source.pull(id_of(partition), self.positions[partition], at_most, now)? {
            Pull::Pending => Ok(0),
            Pull::End => {
                self.ended[partition] = true;
                Ok(0)
            }
            Pull::Block(block) => {
                let events = block.len() as u64;
                let (from, first) = (self.positions[partition].0, block.first_offset.0);
                if first > from {
                    self.missing[partition].push(from..first);
                }
                self.positions[partition].0 = first + events;
                self.feed(block)?;
                Ok(events)
            }
        }
    }

    /// Takes up that the epoch is open.
    pub(super) fn open_at(&mut self, at: Micros) {
        self.open = Some(at);
        if self.in_flight.begin(self.epoch) {
            self.parts.intake.epoch.store(self.epoch, Ordering::Relaxed);
        }
    }

    fn feed(&mut self, mut block: Block) -> Result<(), Halt> {
        let opened = match self.open {
            Some(opened) => opened,
            None => {
                let opened = self.parts.around.open(self.epoch)?;
                self.open_at(opened);
                opened
            }
        };
        let bytes = source_bytes(&block);
        self.wait_for_room(bytes)?;
        self.parts.intake.events.fetch_add(block.len() as u64, Ordering::Relaxed);
        self.parts.intake.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.in_flight.add(bytes);
        if matches!(block.arrival, Arrival::Opening(_)) {
            block.arrival = Arrival::Opening(opened);
        }
        loop {
            match self.parts.feeder.offer(self.epoch, block) {
                Ok(()) => return Ok(()),
                Err(back) => block = back,
            }
            self.check()?;
            std::thread::park_timeout(IDLE);
        }
    }

    /// Waits until `bytes` more may be on their way.
    fn wait_for_room(&mut self, bytes: u64) -> Result<(), Halt> {
        loop {
            self.in_flight.note(self.parts.around.reached());
            let room = self.in_flight.room(bytes, self.parts.limits);
            if self.epoch <= self.together || room == Room::Enough {
                return Ok(());
            }
            self.check()?;
            if room == Room::AfterPublication {
                self.parts.around.hurry();
            }
            std::thread::park_timeout(IDLE);
        }
    }
}

/// How many events each partition still has to give.
pub(super) struct Wanted(Vec<(usize, u64)>);

fn id_of(partition: usize) -> PartitionId {
    PartitionId(u32::try_from(partition).unwrap_or(u32::MAX))
}

fn changed(range: &Range, how: &str) -> SourceError {
    let problem = format!("{how} event {}, up to which it was read and counted", range.to);
    SourceError::changed(range.partition.clone(), problem, "give the same input again")
}

/// Moves positions to the end of what was cut.
pub(super) fn go_to_end(positions: &mut [Position], ranges: &[Range]) {
    for range in ranges {
        if let Some(at) = positions.get_mut(range.index as usize) {
            (at.next, at.digest) = (range.to, range.digest.clone());
        }
    }
}

/// How many offsets of a cut lie in holes, by the offsets of each partition that come next; they are moved to its end.
fn missing_in(cut: &Cut, next: &mut [u64]) -> u64 {
    let mut missing = 0;
    for range in &cut.ranges {
        if let Some(next) = next.get_mut(range.index as usize) {
            missing += range.from.saturating_sub(*next);
            *next = range.to;
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_only_where_nothing_has_come_for_long() {
        let mut rest = Rest::default();
        assert_eq!(rest.after(1), None);
        assert!((1..Rest::QUIET).all(|_| rest.after(0) == Some(IDLE)));
        assert_eq!((rest.after(0), rest.after(0)), (Some(4 * IDLE), Some(4 * IDLE)));
        assert_eq!((rest.after(3), rest.after(0)), (None, Some(IDLE)));
    }
}
