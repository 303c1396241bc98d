//! The one place that reads the time of day. Nothing waits by it: waits go by [`Instant`], which nobody sets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidemark_dataflows::event::Micros;

/// The newest instant that was given.
static NEWEST: AtomicI64 = AtomicI64::new(0);

/// The present instant, never before one that was given earlier in this process. While the clock of the machine is behind
/// that, because it was set back, time goes on from there at its usual pace. A clock set before 1970 reads as 1970.
pub fn now() -> Micros {
    let present = time_of_day().max(steady().0);
    Micros(NEWEST.fetch_max(present, Ordering::AcqRel).max(present))
}

/// The time of day when this was asked first, and what has passed since: whatever happens at a certain time of day happens
/// by this, so that it does not matter whether somebody sets the clock.
pub fn steady() -> Micros {
    static BEGUN: OnceLock<(i64, Instant)> = OnceLock::new();
    let (begun, at) = BEGUN.get_or_init(|| (time_of_day(), Instant::now()));
    Micros(begun.saturating_add(i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX)))
}

fn time_of_day() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
