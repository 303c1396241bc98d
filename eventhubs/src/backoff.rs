//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double, from a first to a longest one, each shortened by chance so that many who failed together do not
/// come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    /// State of a small generator (xorshift64, Marsaglia 2003); chance need not be good here.
    chance: u64,
}

impl Backoff {
    /// Waits from `first` to `longest`. Different seeds give different waits.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Backoff { first, longest, next: first, chance: seed | 1 }
    }

    /// The next wait: between half and all of what is due.
    pub fn wait(&mut self) -> Duration {
        let due = self.next.min(self.longest);
        self.next = (due * 2).min(self.longest);
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let share = u32::try_from(self.chance % 512).unwrap_or(0);
        due / 2 + due / 1024 * share
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
        let mut backoff = Backoff::new(first, longest, 7);
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
