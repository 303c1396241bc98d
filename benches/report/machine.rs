//! What figures depend on besides the code: processor, memory, system, compiler, and which commit it was.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// A machine and what was built on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) system: String,
    pub(crate) compiler: String,
    pub(crate) commit: String,
}

impl Machine {
    /// This one; what the system does not tell is left empty.
    pub(crate) fn here() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: f64 = kib.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        let (kernel, architecture) = (read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH);
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: kib * 1024.0 / 1e9,
            system: format!("{} {} {architecture}", std::env::consts::OS, kernel.trim()),
            compiler: said("rustc", &["--version"]),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]),
        }
    }
}

/// The first line that a command prints; empty where it cannot be run.
pub(crate) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
