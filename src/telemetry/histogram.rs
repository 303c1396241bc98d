//! How often something took how long.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::micros;

/// Upper ends of the buckets in seconds: from a commit to a local disk to one that waits for a slow store.
pub(super) const BOUNDS: [f64; 15] =
    [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Durations in buckets. Whoever reads it while it is written may see an observation in its bucket and not yet in the sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than [`BOUNDS`]: the last is for everything above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The sum of all durations in seconds.
    pub sum: f64,
    /// Their number.
    pub count: u64,
    /// Upper ends of buckets, and how many durations lie in each.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(micros(took), Relaxed);
    }

    /// What it has counted.
    pub fn read(&self) -> Counted {
        let ends = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = ends.zip(self.buckets.iter().map(|bucket| bucket.load(Relaxed))).collect();
        let sum = Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64();
        Counted { sum, count: buckets.iter().map(|(_, count)| count).sum(), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for ms in [1, 10, 11, 400_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let counted = histogram.read();
        let filled: Vec<(f64, u64)> = counted.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0025, 1), (0.01, 1), (0.025, 1), (f64::INFINITY, 1)]);
        assert_eq!((counted.count, counted.sum), (4, 400.022));
    }
}
