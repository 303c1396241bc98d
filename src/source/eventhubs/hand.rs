//! What is in hand of a partition: events that have been received and are not cut. Partitions wait for each other by the
//! least time at which one of these was enqueued.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::Micros;

/// Stands for no time in [`Hand::least`].
const NOTHING: i64 = i64::MAX;

/// Events of one partition that have been received and are not cut. The reader's task adds to them, the thread that pulls
/// takes away.
#[derive(Debug)]
pub(super) struct Hand {
    runs: Mutex<Runs>,
    least: AtomicI64,
    received: AtomicBool,
}

#[derive(Debug)]
struct Runs {
    /// Everything before this is cut.
    cut: u64,
    /// In the order of their numbers.
    runs: VecDeque<Run>,
}

/// Consecutive events.
#[derive(Debug)]
struct Run {
    first: u64,
    times: Arc<[Micros]>,
    /// The least of the times: a service whose clock goes back enqueues later events at earlier times.
    least: Micros,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    /// The least time of the events at or after `from`.
    fn least_from(&self, from: u64) -> Option<Micros> {
        if from <= self.first {
            return Some(self.least);
        }
        let passed = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        self.times.get(passed..).unwrap_or_default().iter().min().copied()
    }
}

impl Hand {
    /// Nothing is in hand of a partition of which everything before `cut` is cut.
    pub(super) fn new(cut: u64) -> Self {
        Hand {
            runs: Mutex::new(Runs { cut, runs: VecDeque::new() }),
            least: AtomicI64::new(NOTHING),
            received: AtomicBool::new(false),
        }
    }

    /// Takes up a block that has come.
    pub(super) fn receive(&self, block: &Block) {
        self.received.store(true, Ordering::Release);
        let Arrival::Each(times) = &block.arrival else { return };
        let Some(&least) = times.iter().min() else { return };
        let run = Run { first: block.first_offset.0, times: Arc::clone(times), least };
        let mut runs = self.runs();
        if let Some(least) = run.least_from(runs.cut).filter(|_| run.end() > runs.cut) {
            self.least.fetch_min(least.0, Ordering::AcqRel);
            runs.runs.push_back(run);
        }
    }

    /// Notes that everything before `next` is cut.
    pub(super) fn cut(&self, next: u64) {
        let mut runs = self.runs();
        if next <= runs.cut {
            return;
        }
        runs.cut = next;
        while runs.runs.front().is_some_and(|run| run.end() <= next) {
            runs.runs.pop_front();
        }
        let least = runs.runs.iter().filter_map(|run| run.least_from(next)).min();
        self.least.store(least.map_or(NOTHING, |least| least.0), Ordering::Release);
    }

    /// The least time at which one of the events in hand was enqueued; none where there are none.
    pub(super) fn least(&self) -> Option<Micros> {
        Some(self.least.load(Ordering::Acquire)).filter(|least| *least != NOTHING).map(Micros)
    }

    /// Whether anything has ever come.
    pub(super) fn has_received(&self) -> bool {
        self.received.load(Ordering::Acquire)
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        // Nothing is left half done by whoever panicked.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the thread that pulls.
#[derive(Debug, Default)]
pub(super) struct Waker(Mutex<Option<Thread>>);

impl Waker {
    /// Names it.
    pub(super) fn set(&self, thread: Thread) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Wakes it, if one was named: it need not be asleep.
    pub(super) fn wake(&self) {
        if let Some(thread) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tidemark_dataflows::event::{Offset, PartitionId};

    fn block(first: u64, times: &[i64]) -> Block {
        Block {
            partition: PartitionId(0),
            first_offset: Offset(first),
            arrival: Arrival::Each(times.iter().map(|time| Micros(*time)).collect()),
            bytes: Bytes::new(),
            bodies: vec![0..0; times.len()],
            oversized: Vec::new(),
            sections: Vec::new(),
        }
    }

    #[test]
    fn the_least_time_is_that_of_what_is_not_cut() {
        let hand = Hand::new(10);
        assert_eq!((hand.least(), hand.has_received()), (None, false));
        hand.receive(&block(10, &[100, 110, 120]));
        hand.receive(&block(13, &[130, 125]));
        assert_eq!((hand.least(), hand.has_received()), (Some(Micros(100)), true));
        hand.cut(11);
        assert_eq!(hand.least(), Some(Micros(110)));
        hand.cut(13);
        assert_eq!(hand.least(), Some(Micros(125)), "the least, and not the first");
        hand.cut(5);
        assert_eq!(hand.least(), Some(Micros(125)), "a cut stays");
        hand.cut(99);
        assert_eq!(hand.least(), None);
        hand.receive(&block(50, &[1, 2]));
        assert_eq!((hand.least(), hand.has_received()), (None, true), "what comes again is cut already");
        hand.receive(&block(98, &[7, 8]));
        assert_eq!(hand.least(), Some(Micros(8)));
    }
}
