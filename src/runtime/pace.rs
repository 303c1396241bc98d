//! When a checkpoint is due: some time after the one before, and never two at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidemark_checkpoint::records::Position;
use tidemark_dataflows::event::Epoch;

use crate::checkpoint::writer::{CheckpointWriter, Checkpointed};

/// Decides when to ask for a checkpoint, and tells the writer what it will be of.
pub(super) struct Pace {
    writer: CheckpointWriter,
    progress: Arc<Checkpointed>,
    interval: Duration,
    last: Instant,
    asked: Epoch,
}

impl Pace {
    /// A pace of one checkpoint in an `interval`.
    pub(super) fn new(writer: CheckpointWriter, interval: Duration) -> Pace {
        let progress = writer.progress();
        let asked = progress.epoch.load(Ordering::Acquire);
        Pace { writer, progress, interval, last: Instant::now(), asked }
    }

    /// Whether a checkpoint as of the end of `epoch` is due; the `last` one is, whenever there is anything new.
    pub(super) fn is_due(&self, epoch: Epoch, last: bool) -> bool {
        let idle = self.progress.epoch.load(Ordering::Acquire) >= self.asked;
        epoch > self.asked && (last || idle && self.last.elapsed() >= self.interval)
    }

    /// Notes that a checkpoint as of the end of `epoch` is asked for.
    pub(super) fn ask(&mut self, epoch: Epoch, positions: Vec<Position>) {
        self.writer.begin(epoch, positions);
        (self.asked, self.last) = (epoch, Instant::now());
    }
}
