//! The one place that reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use tidemark_dataflows::event::Micros;

/// The present instant. A clock set before 1970 reads as 1970.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
