//! How long it takes from an event's arrival until readers see it in the tables, at a rate that does not wait for them.
//!
//! `cargo run --release -p tidemark-benches --bin latency -- [--rate 50000] [--seconds 30] [--trigger 100ms] [--users 500] [--workers 2]
//! [--json FILE]`
//!
//! Events arrive by a schedule: the n-th at start + n / rate, whatever the pipeline does. Its latency is counted from
//! there, and not from when it was read, so that a pipeline that stalls is charged for every event that it lets wait
//! (without *coordinated omission*, as Gil Tene calls it). It ends when the publication that holds the event's epoch is
//! committed to every table. The first seconds, in which tables and memory are new, are left out by `--warm-up 5`.

#[path = "../dataflows/benches/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use common::figures::Figures;
use tidemark::config::{Config, Effective, Layers};
use tidemark::runtime::{Observer, clock, run};
use tidemark_delta::{Location, Predicate, Scan};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An epoch and when it was first seen to be published, in microseconds since 1970.
type Seen = Vec<(u64, i64)>;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn argument(name: &str, default: &str) -> String {
    std::env::args().skip_while(|argument| argument != name).nth(1).unwrap_or_else(|| default.to_owned())
}

fn number(name: &str, default: &str) -> Result<u64> {
    Ok(argument(name, default).parse()?)
}

fn measure() -> Result<()> {
    let (rate, seconds, warm_up) = (number("--rate", "50000")?, number("--seconds", "30")?, number("--warm-up", "5")?);
    // In the working folder, since a temporary folder may be no disk at all.
    let folder = tempfile::tempdir_in(".")?;
    let output = folder.path().join("tables");
    // Time enough to open the tables before the first event is due.
    let start = clock::now().0 + 2_000_000;
    let config = config(&output.display().to_string(), start, rate, rate * seconds)?;
    let seen = Arc::new(Mutex::new(Seen::new()));
    let done = Arc::new(AtomicBool::new(false));
    let watching = {
        let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
        move |observer: Observer| drop(std::thread::spawn(move || watch(&observer, &seen, &done)))
    };
    let outcome = run(&config, false, &Arc::new(AtomicBool::new(false)), watching)?;
    done.store(true, Ordering::Release);
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let per_epoch = received(&output.display().to_string())?;
    let mut latencies = latencies(&seen, &per_epoch, start, rate, warm_up);
    latencies.sort_unstable();
    let of = |per_mille: usize| {
        let place = latencies.len().saturating_sub(1) * per_mille / 1000;
        latencies.get(place).map_or(f64::NAN, |us| *us as f64 / 1e3)
    };
    println!(
        "{} events at {rate}/s, {} epochs in {} publications",
        outcome.events,
        per_epoch.len(),
        outcome.progress.publications
    );
    println!("latency to visible in every table, ms:");
    println!("{:>8} {:>8} {:>8} {:>8}", "p50", "p99", "p99.9", "max");
    println!("{:>8.0} {:>8.0} {:>8.0} {:>8.0}", of(500), of(990), of(999), of(1000));
    let trigger = config.epochs.trigger.as_secs_f64() * 1e3;
    let mut record = Figures::new("latency", None);
    for (percentile, per_mille) in [("p50", 500), ("p99", 990), ("p99.9", 999), ("greatest", 1000)] {
        let at = [("ms trigger", trigger), ("rate", rate as f64)];
        record.note(percentile, &at, ("latency", "ms"), &[of(per_mille)]);
    }
    Ok(())
}

fn config(output: &str, start: i64, rate: u64, events: u64) -> Result<Config> {
    let start = chrono::DateTime::from_timestamp_micros(start).ok_or("the clock is out of range")?;
    let settings = [
        ("SOURCE__KIND", "generate".to_owned()),
        ("GENERATOR__START", start.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)),
        ("GENERATOR__RATE", rate.to_string()),
        ("GENERATOR__EVENTS", events.to_string()),
        ("GENERATOR__USERS", argument("--users", "500")),
        ("EPOCHS__TRIGGER", argument("--trigger", "100ms")),
        ("RUNTIME__WORKERS", argument("--workers", "2")),
        ("CHECKPOINT__INTERVAL", "1s".to_owned()),
        ("DEDUP__EXPECTED_IDS", events.to_string()),
        ("OUTPUT__PATH", output.to_owned()),
    ];
    let environment = settings.into_iter().map(|(key, value)| (format!("TIDEMARK__{key}").into(), value.into()));
    Ok(Effective::load(Layers { environment: environment.collect(), ..Layers::default() })
        .map_err(|e| format!("{e:?}"))?
        .config)
}

/// Notes when each newest published epoch is first seen, to a millisecond.
fn watch(observer: &Observer, seen: &Mutex<Seen>, done: &AtomicBool) {
    let mut last = 0;
    while !done.load(Ordering::Acquire) {
        let epoch = observer.publisher.progress().epoch;
        if epoch > last {
            last = epoch;
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((epoch, clock::now().0));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Events that each epoch received, in order.
fn received(output: &str) -> Result<Vec<u64>> {
    let location = Location::parse(output, std::collections::HashMap::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (table, columns) = ("monitoring/stream_health", &["batch_id", "events_received"]);
    let scan = Scan { table, version: None, columns, predicate: Predicate::default() };
    let by_epoch = scan.fold(&location, BTreeMap::new, |by_epoch, batch| {
        let [epochs, counts] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().values());
        by_epoch.extend(epochs.iter().copied().zip(counts.iter().copied()));
    });
    Ok(runtime.block_on(by_epoch)?.into_values().map(|count| u64::try_from(count).unwrap_or(0)).collect())
}

/// The latency of every event, in microseconds. Events are read in the order of their schedule, but for those of one
/// look at the partitions.
fn latencies(seen: &Seen, per_epoch: &[u64], start: i64, rate: u64, warm_up: u64) -> Vec<i64> {
    let (mut latencies, mut event, mut looks) = (Vec::new(), 0, seen.iter().peekable());
    for (epoch, count) in (1..).zip(per_epoch) {
        while looks.peek().is_some_and(|(seen, _)| *seen < epoch) {
            looks.next();
        }
        // The last publication may have gone unseen, as the run ended with it.
        let Some((_, visible)) = looks.peek() else { break };
        for n in event..event + count {
            if n >= warm_up * rate {
                latencies.push(visible - start - i64::try_from(n * 1_000_000 / rate).unwrap_or(i64::MAX));
            }
        }
        event += count;
    }
    latencies
}
