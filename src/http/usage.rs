//! What this process takes of the machine, where the operating system tells: on Linux.

use std::fs::read_to_string;

use super::answers::Usage;

/// Ticks of a second in which Linux tells processor times to programs, on every machine that Rust runs on.
const TICKS: f64 = 100.0;

/// What this process takes; nothing where it cannot be found out.
pub(super) fn of_this_process() -> Usage {
    let stat = read_to_string("/proc/self/stat").ok();
    let status = read_to_string("/proc/self/status").ok();
    Usage {
        cpu_seconds: stat.as_deref().and_then(cpu_seconds),
        cpu_cores: None,
        resident_bytes: status.as_deref().and_then(|status| field(status, "VmRSS:")).map(|kib| kib * 1024),
        threads: status.as_deref().and_then(|status| field(status, "Threads:")),
    }
}

/// Time of the processor, in the program and in the system. The name before it may hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(field("Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t7\n", "VmRSS:"), Some(2048));
        assert_eq!((cpu_seconds("7 (a"), field("Name: x", "VmRSS:")), (None, None));
    }
}
