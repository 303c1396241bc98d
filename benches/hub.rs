//! How fast events come from a broker into tables, beside the ceiling of the official client: a loop that receives and
//! does nothing. Broker, loop and program are processes of their own, and take turns.
//!
//! `cargo run --release -p tidemark-benches --bin hub -- [--events 2000000] [--partitions 4] [--rounds 3] [--json FILE]`
//!
//! Needs `target/release/tidemark`, which `cargo build --release` makes. Processor time is user and system time of all
//! threads, as `/proc` tells (Linux only).

#[path = "../dataflows/benches/common/mod.rs"]
mod common;
mod process;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use azure_messaging_eventhubs::{OpenReceiverOptions, StartLocation, StartPosition};
use common::figures::Figures;
use futures::StreamExt;
use process::{Owned, broker, processor_seconds};
use tidemark_eventhubs::connection::ConnectionString;
use tidemark_eventhubs::hub::{Access, Hub};

/// As the program's default.
const PREFETCH: u32 = 2_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    if let Some(string) = argument("--bare") {
        return bare(&string);
    }
    let number = |name: &str, default: u64| argument(name).map_or(Ok(default), |text| text.parse::<u64>());
    let (events, partitions, rounds) =
        (number("--events", 2_000_000)?, number("--partitions", 4)?, number("--rounds", 3)?);
    let this = std::env::current_exe()?;
    let tidemark = argument("--binary").map_or_else(|| this.with_file_name("tidemark"), PathBuf::from);
    let (_broker, string) = broker(&tidemark, partitions)?;
    fill(&tidemark, &string, events, partitions)?;
    let (mut bare_rounds, mut our_rounds) = (Vec::new(), Vec::new());
    println!("{events} events in {partitions} partitions\n{:>10} {:>12} {:>14}", "", "events/s", "us of CPU each");
    for _ in 0..rounds {
        let mut command = Command::new(&this);
        command.args(["--bare", &string]);
        bare_rounds.push(measure("bare loop", command, events)?);
        let output = tempfile::tempdir()?;
        let mut command = Command::new(&tidemark);
        command.env("EVENT_HUB_CONNECTION_STRING", &string).args(["run", "--source", "eventhubs", "--until", "end"]);
        command.args(["--checkpoint-interval", "1s", "--output"]).arg(output.path().join("tables"));
        command.args(["--expected-ids", &events.to_string()]);
        our_rounds.push(measure("tidemark", command, events)?);
    }
    let mut ratios: Vec<f64> = our_rounds.iter().zip(&bare_rounds).map(|(ours, bare)| ours.0 / bare.0).collect();
    ratios.sort_by(f64::total_cmp);
    println!("ratio of events/s, median: {:.2}", ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN));
    let mut record = Figures::new("hub", Some("bare loop"));
    for (name, rounds) in [("bare loop", bare_rounds), ("tidemark", our_rounds)] {
        let (speed, processor): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        record.note(name, &[("partitions", partitions as f64)], ("speed", "events/s"), &speed);
        record.note(name, &[("partitions", partitions as f64)], ("processor", "µs/event"), &processor);
    }
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

fn fill(tidemark: &Path, string: &str, events: u64, partitions: u64) -> Result<()> {
    let mut command = Command::new(tidemark);
    command.env("EVENT_HUB_CONNECTION_STRING", string).args(["generate", "--to", "eventhubs"]);
    command.args(["--events", &events.to_string(), "--partitions", &partitions.to_string()]);
    if command.status()?.success() { Ok(()) } else { Err("generate failed".into()) }
}

/// Runs a command to its end. Prints and returns events per second, from start to end, and microseconds of processor time
/// for each event.
fn measure(name: &str, mut command: Command, events: u64) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut child = Owned(command.stdout(Stdio::null()).spawn()?);
    let process = child.0.id();
    let mut cpu = 0.0;
    let status = loop {
        // Read to the last, since nothing is left of it at the end.
        cpu = processor_seconds(process).unwrap_or(cpu).max(cpu);
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let per_second = events as f64 / begun.elapsed().as_secs_f64();
    let each = cpu * 1e6 / events as f64;
    println!("{name:>10} {per_second:>12.0} {each:>14.2}");
    if status.success() { Ok((per_second, each)) } else { Err(format!("{name} failed").into()) }
}

/// Receives every event that is there, one client for each partition, and does nothing with it.
fn bare(string: &str) -> Result<()> {
    tidemark_eventhubs::choose_cryptography();
    let string = ConnectionString::parse(string)?;
    let hub = Hub::new(Access::ConnectionString(string), None, Duration::from_secs(10))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let client = hub.consumer("$Default").await?;
        let mut tasks = Vec::new();
        for partition in hub.properties(&client).await?.partitions {
            let end = hub.partition(&client, &partition).await?.end;
            let client = hub.consumer("$Default").await?;
            let options = OpenReceiverOptions {
                prefetch: Some(PREFETCH),
                start_position: Some(StartPosition { location: StartLocation::Earliest, inclusive: true }),
                ..OpenReceiverOptions::default()
            };
            tasks.push(tokio::spawn(async move {
                let receiver = client.open_receiver_on_partition(partition, Some(options)).await?;
                let mut events = std::pin::pin!(receiver.stream_events().ready_chunks(512));
                let mut next = 0;
                while next < end {
                    for event in events.next().await.into_iter().flatten() {
                        next = event?.sequence_number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0) + 1;
                    }
                }
                Ok::<_, azure_messaging_eventhubs::EventHubsError>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}
