//! What is said of a place that fails: when that begins, once a minute while it lasts, and when it ends; of all that fails
//! there together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two words about failing.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// A place of which some parts may be failing: the calls to a store, the partitions of an event hub.
#[derive(Debug, Default)]
pub struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Parts that fail and go on trying.
    failing: usize,
    /// Since when some have failed, until one that works shows that none does.
    since: Option<Instant>,
    /// When that was said last, of this outage or one before.
    said: Option<Instant>,
    /// Whether it was said of this one.
    told: bool,
}

/// What is to be said of an outage that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// Parts that are failing.
    pub failing: usize,
    /// Since when some have.
    pub failing_for: Duration,
}

/// The end of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// How long it lasted.
    pub failed_for: Duration,
    /// Whether it was said that it had begun.
    pub told: bool,
}

impl Outage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some part works: the end of the outage, if there was one and no part fails any more. While one does, the success of
    /// another is no end: a full disk can be read.
    pub fn succeeded(&self, now: Instant) -> Option<Over> {
        let mut state = self.state();
        if state.failing > 0 {
            return None;
        }
        let told = std::mem::take(&mut state.told);
        state.since.take().map(|since| Over { failed_for: now - since, told })
    }
}

/// A part that fails and goes on trying, until this is dropped.
#[derive(Debug)]
pub struct Failing<'a>(&'a Outage);

impl<'a> Failing<'a> {
    /// It fails from now on.
    pub fn begin(outage: &'a Outage, now: Instant) -> Self {
        let mut state = outage.state();
        state.failing += 1;
        state.since.get_or_insert(now);
        drop(state);
        Failing(outage)
    }

    /// It has failed, for the first time or again, and will be tried again: what is to be said, if something is.
    pub fn failed(&self, now: Instant) -> Option<Words> {
        let mut state = self.0.state();
        let since = state.since.unwrap_or(now);
        if state.said.is_some_and(|said| now - said < BETWEEN_WORDS) {
            return None;
        }
        (state.said, state.told) = (Some(now), true);
        Some(Words { failing: state.failing, failing_for: now - since })
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.state().failing -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// 32 partitions that are tried again every ten seconds, for an hour.
    #[test]
    fn an_hour_of_an_outage_is_one_line_a_minute_for_all_parts_together() {
        let (outage, start) = (Outage::default(), Instant::now());
        let failing: Vec<Failing<'_>> = (0..32).map(|_| Failing::begin(&outage, start)).collect();
        let at = |tries: u32| start + tries * 10 * SECOND;
        let said: Vec<Words> =
            (0..360).flat_map(|tries| failing.iter().filter_map(move |one| one.failed(at(tries)))).collect();
        assert_eq!(said.len(), 60);
        assert_eq!(said[1], Words { failing: 32, failing_for: 60 * SECOND });
        let mut ends = Vec::new();
        for one in failing {
            drop(one);
            ends.extend(outage.succeeded(at(360)));
        }
        assert_eq!(ends, [Over { failed_for: 3_600 * SECOND, told: true }], "the last one to come back says it");
    }

    #[test]
    fn what_fails_now_and_then_says_so_once_a_minute() {
        let (outage, start) = (Outage::default(), Instant::now());
        let (mut began, mut ended, mut told) = (0, 0, 0);
        for time in 0..100 {
            let now = start + time * 6 * SECOND;
            let failing = Failing::begin(&outage, now);
            began += usize::from(failing.failed(now).is_some());
            drop(failing);
            let over = outage.succeeded(now + SECOND).into_iter().inspect(|over| told += usize::from(over.told));
            ended += over.count();
        }
        assert_eq!((began, told, ended), (10, 10, 100));
    }

    #[test]
    fn an_outage_lasts_until_something_works() {
        let (outage, start) = (Outage::default(), Instant::now());
        let failing = Failing::begin(&outage, start);
        failing.failed(start);
        drop(failing);
        let again = start + 61 * SECOND;
        let words = Failing::begin(&outage, again).failed(again);
        assert!(words.is_some_and(|words| words.failing_for == 61 * SECOND));
        assert!(outage.succeeded(start + 62 * SECOND).is_some());
        assert_eq!(outage.succeeded(start), None);
    }
}
