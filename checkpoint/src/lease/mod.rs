//! One instance at a time, as a courtesy: a lock on this machine, a heartbeat in an object store.
//!
//! Neither is what keeps results right: generations and fences do that, whatever an instance believes of itself. They
//! spare two instances the trouble of fencing each other off, and tell a person who is in the way.

mod heartbeat;
mod lock;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::Micros;

pub use heartbeat::{Clock, Heartbeat, SystemClock};
pub use lock::LocalLock;

/// Who holds a lock or lease. For people: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// The generation, once it is claimed.
    pub generation: Option<u64>,
    /// When it started, by its own clock.
    pub started: Micros,
    /// When it was last heard of, by its own clock.
    pub heartbeat: Micros,
}

impl Holder {
    /// This process, started now.
    pub fn this_process(host: &str, generation: Option<u64>) -> Self {
        let now = wall_clock();
        Holder { host: host.to_owned(), pid: std::process::id(), generation, started: now, heartbeat: now }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        if let Some(generation) = self.generation {
            write!(f, " (generation {generation})")?;
        }
        let ago = (wall_clock().0.saturating_sub(self.heartbeat.0)).max(0) / 1_000_000;
        write!(f, ", last heard of {ago} s ago by its clock")
    }
}

fn wall_clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
