//! Cuts the stream into epochs: decides which offsets an epoch takes, hands their blocks to the workers, and marks its
//! end. The one writer of epochs; everything after it follows from what it decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Epoch, EpochMark, Micros, Offset, PartitionId};

use super::RunError;
use super::clock;
use super::feed::Feeder;
use crate::sink::publisher::Publisher;
use crate::source::{Pull, Source, source_bytes};

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

/// How much may be on its way from the source to the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Epochs cut and not yet published.
    pub epochs: usize,
    /// Bytes read and not yet published, beyond a single epoch.
    pub bytes: u64,
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

/// Reads a source, cuts epochs and feeds workers.
pub struct Coordinator {
    source: Box<dyn Source>,
    feeder: Feeder,
    publisher: Publisher,
    rule: CutRule,
    limits: Limits,
    stop: Arc<AtomicBool>,
    intake: Arc<Intake>,
    positions: Vec<Offset>,
    ended: Vec<bool>,
    epoch: Epoch,
    open: Option<Micros>,
    in_flight: VecDeque<(Epoch, u64)>,
}

impl Coordinator {
    /// A coordinator that starts at the beginning of `source`.
    pub(super) fn new(
        source: Box<dyn Source>,
        feeder: Feeder,
        publisher: Publisher,
        (rule, limits): (CutRule, Limits),
        stop: Arc<AtomicBool>,
        intake: Arc<Intake>,
    ) -> Self {
        let partitions = source.partitions().len();
        Coordinator {
            source,
            feeder,
            publisher,
            rule,
            limits,
            stop,
            intake,
            positions: vec![Offset(0); partitions],
            ended: vec![false; partitions],
            epoch: 1,
            open: None,
            in_flight: VecDeque::new(),
        }
    }

    /// Runs until the source ends, a stop is asked for, or something fails.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or publishing has failed.
    pub fn run(mut self) -> Result<Ended, RunError> {
        match self.rule {
            CutRule::Events(count) => self.by_events(count),
            CutRule::Trigger(trigger) => self.by_time(trigger),
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Epochs of `count` events of each partition. When a stop is asked for, an epoch that was begun is discarded: cut
    /// short, it would be another cut of the same input, and what is never marked has no effect.
    fn by_events(&mut self, count: u64) -> Result<Ended, RunError> {
        while !self.stopping() {
            let mut wanted: Vec<u64> = self.ended.iter().map(|ended| if *ended { 0 } else { count }).collect();
            self.open(clock::now());
            while wanted.iter().any(|w| *w > 0) {
                if self.stopping() {
                    return Ok(Ended::Stopped);
                }
                let mut moved = false;
                for (partition, wanted) in wanted.iter_mut().enumerate().filter(|(_, wanted)| **wanted > 0) {
                    let read = self.pull(partition, *wanted)?;
                    *wanted = if self.ended[partition] { 0 } else { *wanted - read };
                    moved |= read > 0 || self.ended[partition];
                }
                if !moved {
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
            // Looked at once a round: a stop that comes later finds the open epoch in the next round, and closes it.
            let stopping = self.stopping();
            let mut read = 0;
            for partition in 0..self.ended.len() {
                if !self.ended[partition] {
                    read += self.pull(partition, u64::MAX)?;
                }
            }
            let exhausted = self.ended.iter().all(|ended| *ended);
            let left_us = self.open.map(|at| trigger_us - clock::now().0.saturating_sub(at.0));
            if left_us.is_some_and(|left| left <= 0) || exhausted || stopping {
                self.close()?;
            }
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
    fn pull(&mut self, partition: usize, at_most: u64) -> Result<u64, RunError> {
        let id = PartitionId(u32::try_from(partition).unwrap_or(u32::MAX));
        let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
        match self.source.pull(id, self.positions[partition], at_most, clock::now())? {
            Pull::Pending => Ok(0),
            Pull::End => {
                self.ended[partition] = true;
                Ok(0)
            }
            Pull::Block(block) => {
                let events = block.len() as u64;
                self.positions[partition].0 += events;
                self.feed(block)?;
                Ok(events)
            }
        }
    }

    fn open(&mut self, at: Micros) -> Micros {
        let opened = *self.open.get_or_insert(at);
        if self.in_flight.back().is_none_or(|(epoch, _)| *epoch < self.epoch) {
            self.in_flight.push_back((self.epoch, 0));
            self.intake.epoch.store(self.epoch, Ordering::Relaxed);
        }
        opened
    }

    fn feed(&mut self, mut block: Block) -> Result<(), RunError> {
        let opened = self.open(clock::now());
        let bytes = source_bytes(&block);
        self.wait_for_room(bytes)?;
        self.intake.events.fetch_add(block.len() as u64, Ordering::Relaxed);
        self.intake.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some((_, in_flight)) = self.in_flight.back_mut() {
            *in_flight += bytes;
        }
        if matches!(block.arrival, Arrival::Opening(_)) {
            block.arrival = Arrival::Opening(opened);
        }
        loop {
            match self.feeder.offer(self.epoch, block) {
                Ok(()) => return Ok(()),
                Err(back) => block = back,
            }
            self.check()?;
            std::thread::park_timeout(IDLE);
        }
    }

    /// Waits until `bytes` more may be on their way. A single epoch may exceed the limit: it cannot be published
    /// before it is whole.
    fn wait_for_room(&mut self, bytes: u64) -> Result<(), RunError> {
        loop {
            self.forget_published();
            let in_flight: u64 = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
            let closed = self.in_flight.len().saturating_sub(1);
            if closed == 0 || (in_flight.saturating_add(bytes) <= self.limits.bytes && closed <= self.limits.epochs) {
                return Ok(());
            }
            self.check()?;
            self.publisher.hurry();
            std::thread::park_timeout(IDLE);
        }
    }

    fn forget_published(&mut self) {
        let visible = self.publisher.visible();
        while self.in_flight.front().is_some_and(|(epoch, _)| *epoch <= visible) {
            self.in_flight.pop_front();
        }
    }

    /// Cuts the open epoch, unless it is empty. Returns whether there was anything to cut.
    fn close(&mut self) -> Result<bool, RunError> {
        self.check()?;
        let empty = self.in_flight.back().is_none_or(|(epoch, bytes)| *epoch < self.epoch || *bytes == 0);
        let Some(opened) = self.open.take().filter(|_| !empty) else { return Ok(false) };
        // The clock may be set back at any time; an epoch that closes before it opened would confuse every reader.
        let closed = clock::now().max(opened);
        self.feeder.mark(EpochMark { epoch: self.epoch, opened, closed });
        self.epoch += 1;
        Ok(true)
    }

    fn check(&self) -> Result<(), RunError> {
        if self.publisher.has_failed() { Err(RunError::PublishingFailed) } else { Ok(()) }
    }
}
