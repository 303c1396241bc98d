//! What the program costs while nothing happens: the share of a core that it takes, and how often it wakes up, while it
//! follows a quiet source. Thread by thread, so that a restless one is found.
//!
//! `cargo build --release && cargo run --release -p tidemark-benches --bin idle -- [--seconds 30] [--settle 5] [--rounds 1]
//! [--binary FILE] [--json FILE]`
//!
//! Two sources, one after the other: standard input that stays open, and an event hub of the local broker to which nobody
//! sends. The aim is less than one per cent of a core. Linux only: time and wakeups (a thread that had given up the
//! processor gets it again) are what `/proc` tells of each thread. The broker's own cost is not counted.

#[path = "../dataflows/benches/common/mod.rs"]
mod common;
mod process;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use common::figures::{Figures, median, number};
use process::{Owned, broker};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a program is to stay below, in per cent of a core.
const AIM_PERCENT: f64 = 1.0;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let given = std::env::args().skip_while(|argument| argument != "--binary").nth(1).map(PathBuf::from);
    let tidemark = match given {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("tidemark"),
    };
    let mut record = Figures::new("idle", None);
    println!("{:<18}{:>12}{:>12}", "", "% of a core", "wakeups/s");
    for source in ["standard input", "event hub"] {
        let (mut shares, mut wakeups) = (Vec::new(), Vec::new());
        for _ in 0..number("--rounds", 1) {
            let spent = watch(&tidemark, source)?;
            let seconds = spent.values().fold(0.0, |sum, thread| sum + thread.seconds) / spent.over;
            let woken = spent.values().fold(0.0, |sum, thread| sum + thread.wakeups) / spent.over;
            shares.push(seconds * 100.0);
            wakeups.push(woken);
            print(source, &spent);
        }
        record.note(source, &[], ("share", "% of a core"), &shares);
        record.note(source, &[], ("wakeups", "a second"), &wakeups);
        let verdict = if median(&shares) < AIM_PERCENT { "below" } else { "ABOVE" };
        println!("{source}: {verdict} the aim of {AIM_PERCENT} % of a core");
    }
    Ok(())
}

/// What the threads of one name have used.
#[derive(Copy, Clone, Default)]
struct Used {
    seconds: f64,
    wakeups: f64,
}

/// What all threads have used, by their names, over some seconds.
struct Spent {
    over: f64,
    threads: BTreeMap<String, Used>,
}

impl Spent {
    fn values(&self) -> impl Iterator<Item = &Used> {
        self.threads.values()
    }
}

fn print(source: &str, spent: &Spent) {
    let percent = |used: &Used| used.seconds / spent.over * 100.0;
    let all = spent.values().fold(Used::default(), |sum, used| Used {
        seconds: sum.seconds + used.seconds,
        wakeups: sum.wakeups + used.wakeups,
    });
    println!("{source:<18}{:>12.3}{:>12.1}", percent(&all), all.wakeups / spent.over);
    let mut threads: Vec<(&String, &Used)> = spent.threads.iter().collect();
    threads.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    for (name, used) in threads {
        println!("  {name:<16}{:>12.3}{:>12.1}", percent(used), used.wakeups / spent.over);
    }
}

/// Starts the program on a quiet source, waits until it has settled, and looks at it twice.
fn watch(tidemark: &Path, source: &str) -> Result<Spent> {
    // In the working folder, since a temporary folder may be no disk at all.
    let folder = tempfile::tempdir_in(".")?;
    let mut command = Command::new(tidemark);
    command.args(["run", "--log-level", "warn", "--output"]).arg(folder.path().join("tables"));
    let _broker = match source {
        "event hub" => {
            let (broker, string) = broker(tidemark, 4)?;
            command.env("EVENT_HUB_CONNECTION_STRING", string).args(["--source", "eventhubs"]);
            Some(broker)
        }
        _ => {
            command.args(["--input", "-"]);
            None
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut program = Owned(command.spawn()?);
    std::thread::sleep(Duration::from_secs(number("--settle", 5)));
    let (begun, before) = (Instant::now(), used(program.0.id())?);
    std::thread::sleep(Duration::from_secs(number("--seconds", 30)));
    if let Some(status) = program.0.try_wait()? {
        return Err(format!("{} ended with {status}", tidemark.display()).into());
    }
    let (over, after) = (begun.elapsed().as_secs_f64(), used(program.0.id())?);
    let difference = |(name, now): (String, Used)| {
        let then = before.get(&name).copied().unwrap_or_default();
        // Threads that have ended are missing from the second look.
        let less = |now: f64, then: f64| (now - then).max(0.0);
        (name, Used { seconds: less(now.seconds, then.seconds), wakeups: less(now.wakeups, then.wakeups) })
    };
    Ok(Spent { over, threads: after.into_iter().map(difference).collect() })
}

/// What the threads of a process have used since they began.
fn used(process: u32) -> Result<BTreeMap<String, Used>> {
    let mut threads: BTreeMap<String, Used> = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let read = |file: &str| std::fs::read_to_string(thread.join(file));
        // A thread may end while it is looked at.
        let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) else { continue };
        let nanoseconds: f64 = times.split_whitespace().next().unwrap_or_default().parse()?;
        let voluntary = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let own = threads.entry(name.trim().to_owned()).or_default();
        own.seconds += nanoseconds / 1e9;
        own.wakeups += voluntary.unwrap_or_default().trim().parse::<f64>()?;
    }
    Ok(threads)
}
