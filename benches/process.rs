//! Programs that a bench starts: they end with it, and Linux tells what they have used.

#![allow(dead_code, reason = "each bench needs another part of it")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// Cargo, without what the cargo that runs this program tells it of its package: build scripts that look at that would run
/// again, and all that depends on them would be built again, here and then once more by whoever builds next.
pub(crate) fn cargo() -> Command {
    let mut process = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        process.env_remove(name);
    }
    process
}

/// A process that ends with this one.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A local broker, and the connection string under which it is reached.
pub(crate) fn broker(tidemark: &Path, partitions: u64) -> Result<(Owned, String), Box<dyn Error>> {
    let mut command = Command::new(tidemark);
    command.args(["broker", "--listen", "127.0.0.1:0", "--partitions", &partitions.to_string(), "--log-level", "warn"]);
    let mut broker = Owned(command.stdout(Stdio::piped()).spawn()?);
    let stdout = broker.0.stdout.take().ok_or("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let string = line.trim().strip_prefix("EVENT_HUB_CONNECTION_STRING=").ok_or("the broker did not start")?;
    Ok((broker, string.to_owned()))
}

/// User and system time of all threads of a process, the ended ones included, to a tick of 10 ms.
pub(crate) fn processor_seconds(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}
