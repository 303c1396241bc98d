//! How far the epochs have come on their way from the source to readers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidemark_dataflows::event::Epoch;

use super::follow::{Follower, Told};

/// A stage of the way, in order. An epoch that one has finished goes on to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its first event was read.
    Opened,
    /// Its cut is durable.
    Cut,
    /// Its events are judged one by one.
    Decoded,
    /// Its duplicates and late events are known.
    Distinct,
    /// What it changes in the metrics is known.
    Aggregated,
    /// Its rows are with the writer of the tables.
    Delivered,
    /// Readers see it in every table.
    Published,
    /// A restart goes on after it.
    Checkpointed,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 8] = [
        Stage::Opened,
        Stage::Cut,
        Stage::Decoded,
        Stage::Distinct,
        Stage::Aggregated,
        Stage::Delivered,
        Stage::Published,
        Stage::Checkpointed,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Opened => "opened",
            Stage::Cut => "cut",
            Stage::Decoded => "decoded",
            Stage::Distinct => "distinct",
            Stage::Aggregated => "aggregated",
            Stage::Delivered => "delivered",
            Stage::Published => "published",
            Stage::Checkpointed => "checkpointed",
        }
    }
}

/// The newest epoch that each stage has finished; 0 before the first.
#[derive(Debug, Default)]
pub struct Stages {
    newest: [AtomicU64; Stage::ALL.len()],
    /// Whoever follows single epochs.
    pub follower: Follower,
}

impl Stages {
    /// Notes that a stage has finished an epoch, and with it all before.
    pub fn reached(&self, stage: Stage, epoch: Epoch) {
        let before = self.newest[stage as usize].fetch_max(epoch, Relaxed);
        if before < epoch {
            self.follower.tell(|at| Told::Reached { stage, epoch, at });
        }
    }

    /// The newest epoch that a stage has finished. Read from the last stage to the first, so that no epoch is seen further on
    /// than behind.
    pub fn read(&self) -> [(Stage, Epoch); Stage::ALL.len()] {
        let mut epochs = Stage::ALL.map(|stage| (stage, 0));
        for (stage, epoch) in epochs.iter_mut().rev() {
            *epoch = self.of(*stage);
        }
        epochs
    }

    /// The newest epoch that one stage has finished.
    pub fn of(&self, stage: Stage) -> Epoch {
        self.newest[stage as usize].load(Relaxed)
    }
}
