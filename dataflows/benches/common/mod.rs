//! What several benches need: reproducible draws, and what a process and a thread have used so far.

#![allow(dead_code, reason = "each bench needs another part of it")]
#![allow(clippy::panic, reason = "a bench that is called wrongly has nobody to report to")]

pub(crate) mod figures;

use std::time::{Duration, Instant};

/// The 64-bit finalizer of SplitMix: uniform and reproducible.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A line of `/proc/self/status`, in bytes; 0 where there is no such file.
pub(crate) fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// Time that this thread has had the processor, exact to a tick (some 4 ms, which even out over the epochs); the wall
/// clock since `start` where the system does not tell. Neighbours take wall time, but little of this.
pub(crate) fn processor_time(start: Instant) -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// Processor time of all threads of this process so far, in seconds. The system counts in ticks of 10 ms.
pub(crate) fn process_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks() + ticks()) / 100.0
}
