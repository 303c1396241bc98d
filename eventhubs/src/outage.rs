//! What is said of partitions that cannot be read: when that begins, once a minute while it lasts, and when it ends; of all
//! partitions together, since what fails for one of them mostly fails for all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two words about failing.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// The partitions of an event hub that cannot be read just now.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    partitions: usize,
    /// Since when some are failing.
    since: Option<Instant>,
    /// When that was said last, of this outage or one before.
    said: Option<Instant>,
    /// Whether it was said of this one.
    told: bool,
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// Partitions that are failing.
    pub(crate) partitions: usize,
    /// Since when some are.
    pub(crate) failing_for: Duration,
}

impl Outage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One partition less is failing: tells since when some were, if it was said and none is now.
    fn leave(&mut self, now: Instant) -> Option<Duration> {
        self.partitions -= 1;
        if self.partitions > 0 {
            return None;
        }
        let (since, told) = (self.since.take(), std::mem::take(&mut self.told));
        since.filter(|_| told).map(|since| now - since)
    }
}

/// A partition that cannot be read, until this is dropped.
#[derive(Debug)]
pub(crate) struct Failing {
    outage: Arc<Outage>,
    over: bool,
}

impl Failing {
    pub(crate) fn begin(outage: &Arc<Outage>, now: Instant) -> Failing {
        let mut state = outage.state();
        state.partitions += 1;
        state.since.get_or_insert(now);
        drop(state);
        Failing { outage: Arc::clone(outage), over: false }
    }

    /// It has failed, for the first time or again: tells what is to be said of that, if something is.
    pub(crate) fn failed(&self, now: Instant) -> Option<Words> {
        let mut state = self.outage.state();
        if state.said.is_some_and(|said| now - said < BETWEEN_WORDS) {
            return None;
        }
        (state.said, state.told) = (Some(now), true);
        Some(Words {
            partitions: state.partitions,
            failing_for: state.since.map_or(Duration::ZERO, |since| now - since),
        })
    }

    /// It can be read again: tells after what time all can, if it was said that some cannot.
    pub(crate) fn recovered(mut self, now: Instant) -> Option<Duration> {
        self.over = true;
        self.outage.state().leave(now)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        if !self.over {
            self.outage.state().leave(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// 32 partitions that are tried again every ten seconds, for an hour.
    #[test]
    fn an_hour_without_the_service_is_one_line_a_minute_for_all_partitions_together() {
        let (outage, start) = (Arc::new(Outage::default()), Instant::now());
        let failing: Vec<Failing> = (0..32).map(|_| Failing::begin(&outage, start)).collect();
        let at = |tries: u32| start + tries * 10 * SECOND;
        let said: Vec<Words> =
            (0..360).flat_map(|tries| failing.iter().filter_map(move |one| one.failed(at(tries)))).collect();
        assert_eq!(said.len(), 60);
        assert_eq!(said[1], Words { partitions: 32, failing_for: 60 * SECOND });
        let ends: Vec<Duration> = failing.into_iter().filter_map(|one| one.recovered(at(360))).collect();
        assert_eq!(ends, [3_600 * SECOND], "the last one to come back says it");
    }

    #[test]
    fn a_partition_that_fails_now_and_then_says_so_once_a_minute() {
        let (outage, start) = (Arc::new(Outage::default()), Instant::now());
        let (mut began, mut ended) = (0, 0);
        for time in 0..100 {
            let now = start + time * 6 * SECOND;
            let failing = Failing::begin(&outage, now);
            began += usize::from(failing.failed(now).is_some());
            ended += usize::from(failing.recovered(now + SECOND).is_some());
        }
        assert_eq!((began, ended), (10, 10));
        // One that is given up says nothing.
        drop(Failing::begin(&outage, start));
        assert_eq!(outage.state().partitions, 0);
    }
}
