//! How much is on its way from the source to the tables: the coordinator waits when it is too much.

use std::collections::VecDeque;

use tidemark_dataflows::event::Epoch;

/// How much may be on its way from the source to the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Epochs cut and not yet published.
    pub epochs: usize,
    /// Bytes read and not yet published, beyond a single epoch.
    pub bytes: u64,
}

/// The bytes of each epoch that was begun and is not published yet; the last one is the open epoch, if there is one.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    epochs: VecDeque<(Epoch, u64)>,
}

impl InFlight {
    /// Begins an epoch. Returns whether it is a new one.
    pub(super) fn begin(&mut self, epoch: Epoch) -> bool {
        let new = self.epochs.back().is_none_or(|(last, _)| *last < epoch);
        if new {
            self.epochs.push_back((epoch, 0));
        }
        new
    }

    /// Adds bytes to the open epoch.
    pub(super) fn add(&mut self, bytes: u64) {
        if let Some((_, sum)) = self.epochs.back_mut() {
            *sum += bytes;
        }
    }

    /// Forgets what is published.
    pub(super) fn forget(&mut self, visible: Epoch) {
        while self.epochs.front().is_some_and(|(epoch, _)| *epoch <= visible) {
            self.epochs.pop_front();
        }
    }

    /// Whether `bytes` more may be read. A single epoch may exceed the limit: it cannot be published before it is whole.
    pub(super) fn has_room(&self, bytes: u64, limits: Limits) -> bool {
        let sum: u64 = self.epochs.iter().map(|(_, bytes)| bytes).sum();
        let closed = self.epochs.len().saturating_sub(1);
        closed == 0 || (sum.saturating_add(bytes) <= limits.bytes && closed <= limits.epochs)
    }
}
