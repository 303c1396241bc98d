//! When a checkpoint is due: some time after the one before, and never two at once but for the last one of a run.

use std::time::{Duration, Instant};

use tidemark_dataflows::event::Epoch;

/// Decides when to ask for a checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointSchedule {
    interval: Duration,
    last: Instant,
    asked: Epoch,
    done: Epoch,
}

impl CheckpointSchedule {
    /// One checkpoint in an `interval`; the newest is as of the end of `epoch`, and is as good as one made `now`.
    pub fn new(interval: Duration, epoch: Epoch, now: Instant) -> CheckpointSchedule {
        CheckpointSchedule { interval, last: now, asked: epoch, done: epoch }
    }

    /// Whether a checkpoint as of the end of `epoch` is due; the `last` one is, whenever there is anything new.
    pub fn is_due(&self, epoch: Epoch, now: Instant, last: bool) -> bool {
        let idle = self.done >= self.asked;
        epoch > self.asked && (last || idle && now.saturating_duration_since(self.last) >= self.interval)
    }

    /// When one as of the end of `epoch` will be due; none while there is nothing new, or one is under way.
    pub fn deadline(&self, epoch: Epoch) -> Option<Instant> {
        let waits = epoch > self.asked && self.done >= self.asked;
        waits.then(|| self.last.checked_add(self.interval)).flatten()
    }

    /// Notes that a checkpoint as of the end of `epoch` is asked for.
    pub fn ask(&mut self, epoch: Epoch, now: Instant) {
        (self.asked, self.last) = (epoch, now);
    }

    /// Notes that the checkpoint as of the end of `epoch` is durable.
    pub fn done(&mut self, epoch: Epoch) {
        self.done = self.done.max(epoch);
    }
}
