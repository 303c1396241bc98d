//! What is told of each epoch on its way, to one who listens. Nobody does by default, and then telling costs a look.
//!
//! Whoever does the work is never held up: what the listener does not take in time is lost, and counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::tally::EpochSummary;

use super::Stage;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A stage has finished an epoch, and with it all before that it had not finished.
    Reached {
        /// The stage.
        stage: Stage,
        /// The epoch.
        epoch: Epoch,
        /// When.
        at: Micros,
    },
    /// What became of the events of an epoch is known.
    Decided(Box<EpochSummary>),
    /// A checkpoint is wanted as of the end of an epoch.
    Asked {
        /// The epoch.
        epoch: Epoch,
        /// Since when.
        at: Micros,
    },
}

/// Tells whoever listens.
#[derive(Debug, Default)]
pub struct Follower {
    listener: OnceLock<Listener>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Listener {
    told: SyncSender<Told>,
    now: fn() -> Micros,
}

impl Follower {
    /// Listens from now on, with room for so much that waits to be heard; `now` tells the present time. `None` where
    /// somebody listens already.
    pub fn listen(&self, room: usize, now: fn() -> Micros) -> Option<Receiver<Told>> {
        let (told, heard) = sync_channel(room);
        self.listener.set(Listener { told, now }).ok().map(|()| heard)
    }

    /// What was not heard, for want of room, and what the listener could not pass on.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Counts what the listener could not pass on.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// Tells what `telling` makes of the present time, if anybody listens.
    pub(super) fn tell(&self, telling: impl FnOnce(Micros) -> Told) {
        if let Some(listener) = self.listener.get()
            && listener.told.try_send(telling((listener.now)())).is_err()
        {
            self.lose(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::telemetry::Stages;

    #[test]
    fn a_stage_is_told_of_once_and_nobody_waits_for_who_does_not_listen() {
        let stages = Stages::default();
        stages.reached(Stage::Cut, 1);
        let heard = stages.follower.listen(2, || Micros(7)).unwrap();
        assert!(stages.follower.listen(2, || Micros(8)).is_none());
        for epoch in [1, 2, 2, 1, 4, 5, 6] {
            stages.reached(Stage::Cut, epoch);
        }
        let reached = |epoch| Told::Reached { stage: Stage::Cut, epoch, at: Micros(7) };
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [reached(2), reached(4)]);
        assert_eq!(stages.follower.lost(), 2);
        drop(heard);
        stages.reached(Stage::Cut, 7);
        assert_eq!((stages.of(Stage::Cut), stages.follower.lost()), (7, 3));
    }
}
