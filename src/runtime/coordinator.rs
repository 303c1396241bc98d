//! Cuts the stream into epochs: decides which offsets an epoch takes, hands their blocks to the workers, and marks its
//! end. The one writer of epochs; everything after it follows from what it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::{Cut, Position, Range};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Epoch, Micros, Offset, PartitionId};

use super::RunError;
use super::clock;
use super::feed::Feeder;
use super::flight::{InFlight, Limits};
use super::pace::Pace;
use crate::checkpoint::cuts::{Announced, CutWriter};
use crate::checkpoint::writer::Faults;
use crate::sink::publisher::Publisher;
use crate::source::{Pull, Source, SourceError, source_bytes};

/// How long the coordinator sleeps when it has nothing to do and nobody wakes it.
const IDLE: Duration = Duration::from_millis(5);

/// What ends an epoch.
#[derive(Clone, Copy, Debug)]
pub enum CutRule {
    /// That many events of each partition: the same epochs whenever the same input is read.
    Events(u64),
    /// That much time since its first event came.
    Trigger(Duration),
}

/// What the coordinator has read so far, for whoever shows it.
#[derive(Debug, Default)]
pub struct Intake {
    /// Events read.
    pub events: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// The newest epoch that was opened.
    pub epoch: AtomicU64,
}

/// Why the coordinator came to an end without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source has no more events.
    Exhausted,
    /// It was asked to stop.
    Stopped,
}

/// What the coordinator works with.
pub(super) struct Parts {
    /// Where events come from; resumed at the positions of the restored checkpoint.
    pub(super) source: Box<dyn Source>,
    /// Where blocks go.
    pub(super) feeder: Feeder,
    /// Where cuts go.
    pub(super) cuts: CutWriter,
    /// When a checkpoint is due; none where nothing is kept.
    pub(super) pace: Option<Pace>,
    /// Faults of the threads that make things durable.
    pub(super) faults: Arc<Faults>,
    /// What is published.
    pub(super) publisher: Publisher,
    /// What ends an epoch.
    pub(super) rule: CutRule,
    /// How much may be on its way.
    pub(super) limits: Limits,
    /// Set when the run should end.
    pub(super) stop: Arc<AtomicBool>,
    /// For whoever watches.
    pub(super) intake: Arc<Intake>,
}

/// Reads a source, cuts epochs and feeds workers.
pub(super) struct Coordinator {
    parts: Parts,
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
}

impl Coordinator {
    /// A coordinator that starts after `epoch`, at whose end the source had been read up to `at_cut`: a position for each
    /// partition, in order.
    pub(super) fn new(parts: Parts, epoch: Epoch, at_cut: Vec<Position>) -> Self {
        Coordinator {
            positions: at_cut.iter().map(|position| Offset(position.next)).collect(),
            missing: vec![Vec::new(); at_cut.len()],
            ended: vec![false; at_cut.len()],
            at_cut,
            epoch: epoch + 1,
            open: None,
            in_flight: InFlight::default(),
            together: 0,
            parts,
        }
    }

    /// Feeds the epochs of these cuts again, exactly as they were cut. They follow on what was restored; tables that
    /// hold them already, up to `held`, will skip them.
    ///
    /// A stop is not looked at: tables that differ by a group are made equal first.
    ///
    /// # Errors
    ///
    /// When the source no longer holds what was cut, cannot be read, or publishing has failed.
    pub(super) fn replay(&mut self, cuts: &[Cut], held: Epoch) -> Result<(), RunError> {
        self.together = held;
        let announcer = self.parts.feeder.announcer();
        for cut in cuts {
            self.open(Micros(cut.opened_us));
            for range in &cut.ranges {
                let partition = range.index as usize;
                let holes = self.pass_over(partition, range.from);
                while self.positions.get(partition).is_some_and(|next| next.0 < range.to) {
                    let left = range.to - self.positions[partition].0;
                    if self.pull(partition, left, Micros(i64::MAX))? == 0 {
                        if self.ended[partition] {
                            return Err(self.changed(range, "it ends before"));
                        }
                        std::thread::park_timeout(IDLE);
                    }
                    self.check()?;
                }
                if self.missing.get(partition).is_some_and(|now| now.len() != holes) {
                    return Err(self.changed(range, "it no longer holds all events before"));
                }
                let digest = self.digest(partition);
                if range.digest.is_some() && range.digest != digest {
                    return Err(self.changed(range, "its content has changed before"));
                }
            }
            self.open = None;
            let (_, missing) = self.remember_cut();
            announcer.mark(cut.mark(missing));
            self.epoch = cut.epoch + 1;
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

    fn changed(&self, range: &Range, how: &str) -> RunError {
        let problem = format!("{how} event {}, up to which it was read and counted", range.to);
        SourceError::changed(range.partition.clone(), problem, "give the same input again").into()
    }

    /// Runs until the source ends, a stop is asked for, or something fails; then asks for a last checkpoint.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or something cannot be written.
    pub(super) fn run(mut self) -> Result<Ended, RunError> {
        let ended = match self.parts.rule {
            CutRule::Events(count) => self.by_events(count),
            CutRule::Trigger(trigger) => self.by_time(trigger),
        }?;
        reach("source-ended");
        self.parts.publisher.drain();
        self.checkpoint(true);
        Ok(ended)
    }

    /// Asks for a checkpoint as of the last cut, if one is due or `last`.
    fn checkpoint(&mut self, last: bool) {
        let epoch = self.epoch - 1;
        if let Some(pace) = self.parts.pace.as_mut().filter(|pace| pace.is_due(epoch, last)) {
            pace.ask(epoch, self.at_cut.clone());
            self.parts.cuts.write(Announced::Checkpoint(epoch));
            reach("checkpoint-asked");
        }
    }

    /// Digest of what has been read of a partition, as it is stored.
    fn digest(&self, partition: usize) -> Option<String> {
        self.parts.source.digest(PartitionId(u32::try_from(partition).unwrap_or(u32::MAX))).map(|d| d.to_string())
    }

    /// Notes that everything read so far is cut. Returns what was read since the cut before: one range of each partition,
    /// and one more for each hole in its offsets, of which only the last has a digest; and how many offsets lie in holes.
    fn remember_cut(&mut self) -> (Vec<Range>, u64) {
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
        for range in &ranges {
            let at = &mut self.at_cut[range.index as usize];
            (at.next, at.digest) = (range.to, range.digest.clone());
        }
        let events: u64 = ranges.iter().map(|range| range.to - range.from).sum();
        (ranges, passed.saturating_sub(events))
    }

    fn is_awaited(&self, partition: usize) -> bool {
        self.parts.source.is_awaited(PartitionId(u32::try_from(partition).unwrap_or(u32::MAX)))
    }

    fn stopping(&self) -> bool {
        self.parts.stop.load(Ordering::Acquire)
    }

    /// Epochs of `count` events of each partition; of one that is not awaited, at most as many. When a stop is asked for,
    /// an epoch that was begun is discarded: cut short, it would be another cut of the same input, and what is never
    /// marked has no effect.
    fn by_events(&mut self, count: u64) -> Result<Ended, RunError> {
        while !self.stopping() {
            let mut wanted: Vec<u64> = self.ended.iter().map(|ended| if *ended { 0 } else { count }).collect();
            self.open(clock::now());
            while wanted.iter().enumerate().any(|(partition, wanted)| *wanted > 0 && self.is_awaited(partition)) {
                if self.stopping() {
                    return Ok(Ended::Stopped);
                }
                let mut moved = false;
                for (partition, wanted) in wanted.iter_mut().enumerate().filter(|(_, wanted)| **wanted > 0) {
                    let read = self.pull(partition, *wanted, clock::now())?;
                    *wanted = if self.ended[partition] { 0 } else { *wanted - read };
                    moved |= read > 0 || self.ended[partition];
                }
                if !moved {
                    self.check()?;
                    std::thread::park_timeout(IDLE);
                }
            }
            if !self.close()? {
                return Ok(Ended::Exhausted);
            }
        }
        Ok(Ended::Stopped)
    }

    /// Epochs that end `trigger` after their first event; none while nothing comes.
    fn by_time(&mut self, trigger: Duration) -> Result<Ended, RunError> {
        let trigger_us = i64::try_from(trigger.as_micros()).unwrap_or(i64::MAX);
        loop {
            // Also while nothing comes: a displaced instance should end, and not wait for its next event.
            self.check()?;
            // Looked at once a round: a stop that comes later finds the open epoch in the next round, and closes it.
            let stopping = self.stopping();
            let mut read = 0;
            for partition in 0..self.ended.len() {
                if !self.ended[partition] {
                    read += self.pull(partition, u64::MAX, clock::now())?;
                }
            }
            let exhausted = self.ended.iter().all(|ended| *ended);
            let left_us = self.open.map(|at| trigger_us - clock::now().0.saturating_sub(at.0));
            if left_us.is_some_and(|left| left <= 0) || exhausted || stopping {
                self.close()?;
            }
            self.checkpoint(false);
            if exhausted || stopping {
                return Ok(if exhausted { Ended::Exhausted } else { Ended::Stopped });
            }
            if read == 0 {
                let left = left_us.and_then(|left| u64::try_from(left).ok()).map(Duration::from_micros);
                std::thread::park_timeout(left.unwrap_or(IDLE).min(IDLE));
            }
        }
    }

    /// Reads the next block of a partition into the open epoch; opens one if need be. Returns the number of events.
    fn pull(&mut self, partition: usize, at_most: u64, now: Micros) -> Result<u64, RunError> {
        let id = PartitionId(u32::try_from(partition).unwrap_or(u32::MAX));
        let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
        match self.parts.source.pull(id, self.positions[partition], at_most, now)? {
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

    fn open(&mut self, at: Micros) -> Micros {
        let opened = *self.open.get_or_insert(at);
        if self.in_flight.begin(self.epoch) {
            self.parts.intake.epoch.store(self.epoch, Ordering::Relaxed);
        }
        opened
    }

    fn feed(&mut self, mut block: Block) -> Result<(), RunError> {
        let opened = self.open(clock::now());
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
    fn wait_for_room(&mut self, bytes: u64) -> Result<(), RunError> {
        loop {
            self.in_flight.forget(self.parts.publisher.visible());
            if self.epoch <= self.together || self.in_flight.has_room(bytes, self.parts.limits) {
                return Ok(());
            }
            self.check()?;
            self.parts.publisher.hurry();
            std::thread::park_timeout(IDLE);
        }
    }

    /// Cuts the open epoch, unless it is empty. Returns whether there was anything to cut.
    fn close(&mut self) -> Result<bool, RunError> {
        self.check()?;
        let empty = self.in_flight.is_empty(self.epoch);
        let Some(opened) = self.open.take().filter(|_| !empty) else { return Ok(false) };
        // The clock may be set back at any time; an epoch that closes before it opened would confuse every reader.
        let closed = clock::now().max(opened);
        let (ranges, missing) = self.remember_cut();
        let cut = Cut { epoch: self.epoch, opened_us: opened.0, closed_us: closed.0, ranges };
        self.parts.cuts.write(Announced::Cut(cut, missing));
        self.epoch += 1;
        self.checkpoint(false);
        Ok(true)
    }

    fn check(&self) -> Result<(), RunError> {
        if let Some(error) = self.parts.faults.take() {
            return Err(error.into());
        }
        if self.parts.publisher.has_failed() { Err(RunError::PublishingFailed) } else { Ok(()) }
    }
}
