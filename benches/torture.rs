//! Kills the shipped program at random instants under load, again and again, and compares its tables with those of an
//! undisturbed run. A reader watches the tables in the meantime, and must never see time go back.
//!
//! ```text
//! cargo run --release -p tidemark-benches --bin torture -- [--kills N] [--seed N] [--workers 1,2,3] [--events N] [--epoch-events N]
//!     [--files N]
//! ```
//!
//! `--files 0` feeds standard input. Exit status 0: every kill that was asked for hit a running program, and all tables
//! are right. Exit status 1: something differs, or it was killed less often. The same seed gives the same events; the
//! instants depend on the machine as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/it/cells.rs"]
mod cells;
#[path = "../tests/it/crash"]
mod crash {
    #[allow(dead_code)]
    pub(crate) mod job;
    pub(crate) mod storm;
    #[allow(dead_code)]
    pub(crate) mod watch;
}
#[path = "../tests/it/data.rs"]
#[allow(dead_code)]
mod data;
#[path = "../tests/it/oracle.rs"]
#[allow(dead_code)]
mod oracle;
mod process;
#[path = "../tests/it/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "../tests/it/tables.rs"]
#[allow(dead_code)]
mod tables;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crash::storm::{Plan, Report, storm};

fn plan() -> Plan {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let known = ["--kills", "--seed", "--workers", "--events", "--epoch-events", "--files"];
    for pair in arguments.chunks(2) {
        assert!(
            known.contains(&pair[0].as_str()) && pair.len() == 2,
            "{pair:?}: known are {known:?}, each with a value"
        );
    }
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let number = |name: &str, default: usize| value(name).map_or(default, |v| v.parse().expect("a number"));
    let workers = value("--workers").map_or("1,2,3", String::as_str);
    Plan {
        kills: number("--kills", 200),
        seed: number("--seed", 1) as u64,
        workers: workers.split(',').map(|n| n.parse().expect("numbers of workers")).collect(),
        epoch_events: number("--epoch-events", 50),
        files: number("--files", 3),
        events: number("--events", 0),
    }
}

/// Builds the program in the profile that users get, and says where it is.
fn build() -> PathBuf {
    let built = process::cargo().args(["build", "--release", "--bin", "tidemark"]).status().unwrap();
    assert!(built.success(), "the program does not build");
    // This program lies in the directory of its own profile, beside that of the other.
    let here = std::env::current_exe().unwrap();
    let binary = here.ancestors().nth(2).unwrap().join("release").join("tidemark");
    assert!(binary.is_file(), "no {}", binary.display());
    binary
}

/// The release profile aborts on a panic. Here that must end in status 1, with no program left behind.
fn fail_with_status_1() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("FAILED: {panic}");
        let _ = Command::new("pkill").args(["-KILL", "-P", &std::process::id().to_string()]).status();
        std::process::exit(1);
    }));
}

fn main() -> ExitCode {
    fail_with_status_1();
    let plan = plan();
    program::BINARY.set(build()).unwrap();
    let report: Report = storm(&plan, |line| println!("{line}"));
    println!("{report}");
    if report.killed() < plan.kills {
        println!("FAILED: {} kills were asked for", plan.kills);
        return ExitCode::from(1);
    }
    println!("PASSED: every table equals that of an undisturbed run");
    ExitCode::SUCCESS
}
