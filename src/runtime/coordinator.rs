//! Cuts the stream into epochs: decides when one is opened and closed, for the partitions of this process and of all
//! others. The one writer of epochs; everything after it follows from what it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::{Epoch, Micros};

use super::RunError;
use super::clock;
use super::cutter::Cutter;
use super::flight::Reached;
use super::share::{Halt, IDLE, Rest, Share, Surroundings, Wanted};
use crate::checkpoint::writer::Faults;
use crate::sink::publisher::Publisher;

pub use super::share::Intake;

/// What ends an epoch.
#[derive(Clone, Copy, Debug)]
pub enum CutRule {
    /// That many events of each partition: the same epochs whenever the same input is read.
    Events(u64),
    /// That much time since its first event came.
    Trigger(Duration),
}

/// Why the coordinator came to an end without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source has no more events.
    Exhausted,
    /// It was asked to stop.
    Stopped,
}

/// What the partitions of process 0 depend on: the coordinator is here, and so is the publisher.
pub(super) struct Inside {
    /// Faults of the threads that make things durable.
    pub(super) faults: Arc<Faults>,
    /// What is published.
    pub(super) publisher: Publisher,
    /// Opens epochs.
    pub(super) cutter: Arc<Cutter>,
}

impl Surroundings for Inside {
    fn check(&self) -> Result<(), Halt> {
        if let Some(error) = self.faults.take() {
            return Err(RunError::from(error).into());
        }
        if self.publisher.has_failed() { Err(RunError::PublishingFailed.into()) } else { Ok(()) }
    }

    fn reached(&self) -> Reached {
        let (delivered, rows) = self.publisher.held();
        Reached { delivered: Some(delivered), visible: self.publisher.visible(), rows }
    }

    fn hurry(&self) {
        self.publisher.hurry();
    }

    fn open(&self, epoch: Epoch) -> Result<Micros, Halt> {
        self.cutter.open(epoch).ok_or(Halt::Drained)
    }
}

/// Reads what this process reads of a source, and cuts epochs.
pub(super) struct Coordinator {
    /// The partitions of this process.
    pub(super) share: Share,
    /// Puts together what all processes have read.
    pub(super) cutter: Arc<Cutter>,
    /// What ends an epoch.
    pub(super) rule: CutRule,
    /// Set when the run should end.
    pub(super) stop: Arc<AtomicBool>,
}

impl Coordinator {
    /// Feeds the epochs of these cuts again, exactly as they were cut.
    ///
    /// # Errors
    ///
    /// As for [`Share::replay`].
    pub(super) fn replay(&mut self, cuts: &[Cut], held: Epoch) -> Result<(), RunError> {
        ended(self.share.replay(cuts, held).map(|()| Ended::Exhausted)).map(drop)
    }

    /// Runs until the source ends, a stop is asked for, or something fails; then asks for a last checkpoint. Returns the last
    /// epoch as well.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or something cannot be written.
    pub(super) fn run(mut self) -> Result<(Ended, Epoch), RunError> {
        let ended = ended(match self.rule {
            CutRule::Events(count) => self.by_events(count),
            CutRule::Trigger(trigger) => self.by_time(trigger),
        })?;
        reach("source-ended");
        Ok((ended, self.cutter.finish()))
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether nothing comes any more from other processes; the source is told.
    fn others_are_over(&mut self) -> bool {
        let over = self.cutter.others_are_over();
        if over {
            self.share.others_are_over();
        }
        over
    }

    /// Epochs of `count` events of each partition; of one that is not awaited, at most as many. When a stop is asked for,
    /// an epoch that was begun is discarded: cut short, it would be another cut of the same input, and what is never
    /// marked has no effect.
    fn by_events(&mut self, count: u64) -> Result<Ended, Halt> {
        loop {
            let Some(opened) = self.next_opened()? else { return Ok(Ended::Stopped) };
            self.share.open_at(opened);
            let mut wanted = self.share.wanted(count);
            while self.waits(&wanted) {
                if self.stopping() {
                    return Ok(Ended::Stopped);
                }
                if !self.share.read_wanted(&mut wanted)? {
                    self.share.check()?;
                    std::thread::park_timeout(IDLE);
                }
            }
            self.share.check()?;
            let report = self.share.report();
            self.cutter.report(0, report);
            if self.others_are_over() && self.share.is_over() {
                return Ok(Ended::Exhausted);
            }
        }
    }

    /// Waits until the next epoch of this share is opened; opens it, as soon as there is a reason to. `None` when a stop
    /// is asked for.
    fn next_opened(&mut self) -> Result<Option<Micros>, Halt> {
        while !self.stopping() {
            let epoch = self.share.epoch();
            let opened = if self.others_are_over() || !self.share.is_idle() {
                self.cutter.open(epoch)
            } else {
                self.cutter.opened(epoch)
            };
            if opened.is_some() {
                return Ok(opened);
            }
            self.share.check()?;
            std::thread::park_timeout(IDLE);
        }
        Ok(None)
    }

    /// Whether the epoch waits for something: for this share, or for others while what comes beside goes into theirs.
    fn waits(&mut self, wanted: &Wanted) -> bool {
        loop {
            let over = self.others_are_over();
            let epoch = self.share.epoch();
            if self.share.awaits(wanted) || (!over && self.share.is_idle() && self.cutter.awaits_others(epoch)) {
                return true;
            }
            // Once the others are over, this share may wait for more than it did before. If they are not, one of them has
            // read something into this epoch and goes on, so that it is not the last one.
            if over == self.others_are_over() {
                return false;
            }
        }
    }

    /// Epochs that end `trigger` after their first event; none while nothing comes.
    fn by_time(&mut self, trigger: Duration) -> Result<Ended, Halt> {
        let trigger_us = i64::try_from(trigger.as_micros()).unwrap_or(i64::MAX);
        let mut rest = Rest::default();
        loop {
            // Also while nothing comes: a displaced instance should end, and not wait for its next event.
            self.share.check()?;
            // Looked at once a round: a stop that comes later finds the open epoch in the next round, and closes it.
            let stopping = self.stopping();
            let over = self.others_are_over();
            let read = self.share.read_all()?;
            let exhausted = over && self.share.is_over();
            if stopping || exhausted {
                self.cutter.open_no_more();
            }
            self.take_up_opened();
            let left_us = self.share.opened().map(|at| trigger_us - clock::now().0.saturating_sub(at.0));
            if left_us.is_some_and(|left| left <= 0 || exhausted || stopping) {
                self.share.check()?;
                self.cutter.close(self.share.epoch());
                let report = self.share.report();
                self.cutter.report(0, report);
            }
            self.cutter.checkpoint();
            if exhausted || stopping {
                self.settle()?;
                return Ok(if exhausted { Ended::Exhausted } else { Ended::Stopped });
            }
            if let Some(rest) = rest.after(read) {
                let left = left_us.and_then(|left| u64::try_from(left).ok()).map(Duration::from_micros);
                std::thread::park_timeout(left.unwrap_or(rest).min(rest));
            }
        }
    }

    /// Another process may have had an event first.
    fn take_up_opened(&mut self) {
        if self.share.opened().is_none()
            && let Some(opened) = self.cutter.opened(self.share.epoch())
        {
            self.share.open_at(opened);
        }
    }

    /// Waits until all processes have said what they have read of the epochs that are closed.
    fn settle(&self) -> Result<(), Halt> {
        while !self.cutter.is_settled() {
            self.share.check()?;
            std::thread::park_timeout(IDLE);
        }
        Ok(())
    }
}

fn ended(ended: Result<Ended, Halt>) -> Result<Ended, RunError> {
    match ended {
        Ok(ended) => Ok(ended),
        // Nothing is opened any more only once a stop was asked for.
        Err(Halt::Drained) => Ok(Ended::Stopped),
        Err(Halt::Failed(error)) => Err(error),
    }
}
