//! How long to wait before the next try.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Waits that double, from a first to a longest one, each shortened by chance so that those who failed together do not come
/// back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The next wait: between half and all of what is due.
    pub fn wait(&mut self) -> Duration {
        let due = self.next.min(self.longest);
        self.next = due.saturating_mul(2).min(self.longest);
        // Chance need not be good here.
        let chance = RandomState::new().build_hasher().finish() % 512;
        due.mul_f64(0.5 + chance as f64 / 1024.0)
    }

    /// Starts over: something has worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest);
        let mut due = first;
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait >= due / 2 && wait <= due, "{wait:?} of {due:?}");
            due = (due * 2).min(longest);
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
    }
}
