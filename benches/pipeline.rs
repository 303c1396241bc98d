//! The whole pipeline, file to tables, beside the speed of light: one plain thread that decodes, deduplicates and
//! aggregates in ordinary hash maps, and keeps nothing durable. Then where the time goes, operator by operator.
//!
//! ```text
//! cargo run --release -p tidemark-benches --bin pipeline -- [--input DIR] [--events N] [--users N] [--epoch-events N] [--rounds N]
//!     [--first N] [--json FILE]
//! ```
//!
//! Contenders take turns, so that whatever else the machine does meets all of them; the ratios are what to trust. Each runs in
//! a process of its own, so that the peak of its memory is its own. `--first 3` keeps the first three: the plain thread, one
//! worker, two workers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../dataflows/benches/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use common::figures::{Figures, median};
use common::status;
use tidemark::config::{Config, Effective, Layers};
use tidemark::runtime::{build, clock, run};
use tidemark::source::generator::{EventGenerator, EventWriter, GeneratorOptions, Pacing};
use tidemark::source::{FileSource, Pull, ReadAhead, Source};
use tidemark_checkpoint::records::Identity;
use tidemark_dataflows::baselines::Plain;
use tidemark_dataflows::block::{Arrival, Block, Body};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros, Offset, PartitionId, Position};
use tidemark_dataflows::pipeline::{Inputs, Restored, Settings, Unread, tidemark};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Input;
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    input: PathBuf,
    events: u64,
    users: u32,
    epoch_events: u64,
    rounds: usize,
    contenders: Vec<Contender>,
    // Keeps a generated input alive.
    _directory: Option<tempfile::TempDir>,
}

fn options() -> Options {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let number = |name: &str, default: u64| value(name).map_or(default, |v| v.parse().expect("a number"));
    let (events, users) = (number("--events", 2_000_000), number("--users", 500) as u32);
    let directory = value("--input").is_none().then(|| tempfile::tempdir().unwrap());
    let input = match (&directory, value("--input")) {
        (Some(directory), _) => directory.path().to_owned(),
        (None, Some(given)) => given.into(),
        (None, None) => unreachable!("one of the two is there"),
    };
    if directory.is_some() {
        let options = GeneratorOptions { users, events: Some(events), ..GeneratorOptions::default() };
        let generator = EventGenerator::new(options).unwrap();
        EventWriter::new(&generator, Pacing::AtOnce, &AtomicBool::new(false)).write_files(&input, false).unwrap();
    }
    let (epoch_events, rounds) = (number("--epoch-events", 100_000), number("--rounds", 3) as usize);
    let contenders = CONTENDERS.into_iter().take(number("--first", CONTENDERS.len() as u64) as usize).collect();
    Options { input, events, users, epoch_events, rounds, contenders, _directory: directory }
}

fn source(input: &Path) -> FileSource {
    FileSource::open(&[input.display().to_string()], ReadAhead::default()).unwrap()
}

/// The next block of a partition of a bounded source; `None` at its end.
fn next_block(source: &mut FileSource, partition: PartitionId, from: Offset, most: usize) -> Option<Block> {
    loop {
        match source.pull(partition, from, most, Micros(i64::MAX)).unwrap() {
            Pull::Block(block) => return Some(block),
            Pull::Pending => std::thread::yield_now(),
            Pull::End => return None,
        }
    }
}

fn contract() -> Contract {
    Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: false }
}

/// One plain thread: read, split, decode, deduplicate, aggregate. Returns events and accepted events.
fn limit(input: &Path) -> (u64, u64) {
    let (mut plain, now) = (Plain::new(contract(), 1 << 21), clock::now());
    let (mut events, mut accepted) = (0, 0);
    let mut files: Vec<PathBuf> = std::fs::read_dir(input).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ndjson"));
    files.sort();
    for (partition, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file).unwrap();
        let mut start = 0;
        let partition = PartitionId(partition as u32);
        for end in memchr::memchr_iter(b'\n', &bytes) {
            let at = Position { partition, offset: Offset(events) };
            let body =
                Body { bytes: &bytes[start..end], whole_len: (end - start) as u64, at, arrival: now, section: None };
            accepted += u64::from(plain.take(&body));
            start = end + 1;
            events += 1;
        }
    }
    (events, accepted)
}

/// A name, how many workers, and settings that differ from the defaults: what is kept for a restart, and how tables are
/// forced to the disk. No workers are the plain thread.
#[derive(Copy, Clone)]
struct Contender {
    name: &'static str,
    workers: usize,
    settings: &'static [(&'static str, &'static str)],
}

const LIMIT: &str = "limit (one plain thread)";

const fn contender(name: &'static str, workers: usize, settings: &'static [(&'static str, &'static str)]) -> Contender {
    Contender { name, workers, settings }
}

const CONTENDERS: [Contender; 7] = [
    contender(LIMIT, 0, &[]),
    contender("1 worker", 1, &[]),
    contender("2 workers", 2, &[]),
    contender("2 workers, nothing kept for a restart", 2, &[("checkpoint.enabled", "false")]),
    contender("2 workers, a checkpoint each 10 s", 2, &[("checkpoint.interval", "10s")]),
    contender("2 workers, a checkpoint each second", 2, &[("checkpoint.interval", "1s")]),
    contender("2 workers, tables not forced to the disk", 2, &[("sink.sync", "false")]),
];

/// Seconds, and bytes of memory at the peak, the program itself included.
type Spent = [f64; 2];

fn run_here(options: &Options, contender: &Contender) -> Spent {
    let begun = Instant::now();
    let took = match contender.workers {
        0 => {
            limit(&options.input);
            begun.elapsed()
        }
        workers => whole(options, workers, contender.settings),
    };
    [took.as_secs_f64(), status("VmHWM")]
}

fn run_apart(options: &Options, contender: &Contender) -> Spent {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--only", contender.name, "--input"]).arg(&options.input);
    command.args(["--events", &options.events.to_string(), "--epoch-events", &options.epoch_events.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
    figures.try_into().unwrap_or_else(|_| panic!("{}: {text}", contender.name))
}

fn config(options: &Options, workers: usize, output: &Path, more: &[(&str, &str)]) -> Config {
    let given = |key: &str, value: String| format!("TIDEMARK__{}={value}", key.replace('.', "__").to_uppercase());
    let mut settings = vec![
        given("source.kind", "file".to_owned()),
        given("source.inputs", options.input.display().to_string()),
        given("epochs.events", options.epoch_events.to_string()),
        given("runtime.workers", workers.to_string()),
        given("output.path", output.display().to_string()),
        given("dedup.expected_ids", options.events.to_string()),
    ];
    settings.extend(more.iter().map(|(key, value)| given(key, (*value).to_owned())));
    let environment = settings.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into()));
    Effective::load(Layers { environment: environment.collect(), ..Layers::default() }).unwrap().config
}

/// The real thing, with durable tables. Returns the time from the first read to the last commit.
fn whole(options: &Options, workers: usize, more: &[(&str, &str)]) -> Duration {
    // Beside the input, since a temporary folder may be no disk at all.
    let output = tempfile::tempdir_in(&options.input).unwrap();
    let config = config(options, workers, &output.path().join("tables"), more);
    run(&config, false, &Arc::new(AtomicBool::new(false)), |_| {}).unwrap().took
}

/// The settings of a pipeline without checkpoints.
fn any_settings(config: &Config) -> Settings {
    let identity = Identity {
        pipeline: config.pipeline.name.clone(),
        lineage: 1,
        created_us: 0,
        id_key: [1, 2],
        index_key: [3, 4],
        settings: BTreeMap::new(),
        source: serde_json::Value::Null,
    };
    Settings { log_admissions: None, ..build::settings(config, 1, &identity, &[]) }
}

/// Time that one worker spends in each operator, in nanoseconds, over the whole input.
fn stages(options: &Options) -> (u64, BTreeMap<String, u64>) {
    let input = options.input.clone();
    let (per_epoch, settings) = (options.epoch_events, any_settings(&config(options, 1, &input, &[])));
    timely::execute_directly(move |worker| {
        let spent = std::rc::Rc::new(std::cell::RefCell::new(Schedule::default()));
        let log = std::rc::Rc::clone(&spent);
        worker.log_register().unwrap().insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            for (at, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                log.borrow_mut().learn(at, event);
            }
        });
        let mut blocks: InputHandle<Epoch, CapacityContainerBuilder<Vec<Block>>> = InputHandle::new();
        let mut marks: InputHandle<Epoch, CapacityContainerBuilder<Vec<EpochMark>>> = InputHandle::new();
        let probe = worker.dataflow(|scope| {
            let (_, checkpoints) = scope.new_input::<Vec<()>>();
            let (_, behind) = scope.new_input::<Vec<_>>();
            let (blocks, marks) = (blocks.to_stream(scope), marks.to_stream(scope));
            let inputs = Inputs { blocks, marks, behind, checkpoints };
            let outputs = tidemark(inputs, &settings, Restored::nothing(&settings), &mut Unread);
            outputs.stages.aggregated
        });
        let mut source = source(&input);
        let mut at = vec![Offset(0); source.partitions().len()];
        let (mut events, mut epoch) = (0, 1);
        loop {
            let before = events;
            let opened = clock::now();
            blocks.advance_to(epoch);
            marks.advance_to(epoch);
            for (partition, at) in at.iter_mut().enumerate() {
                let mut left = per_epoch;
                while let Some(mut block) = (left > 0)
                    .then(|| next_block(&mut source, PartitionId(partition as u32), *at, left as usize))
                    .flatten()
                {
                    block.arrival = Arrival::Opening(opened);
                    left -= block.len() as u64;
                    at.0 += block.len() as u64;
                    events += block.len() as u64;
                    blocks.send(block);
                    blocks.flush();
                    worker.step();
                }
            }
            if events == before {
                break;
            }
            marks.send(EpochMark { epoch, opened, closed: clock::now(), missing: 0, waits: true });
            epoch += 1;
        }
        drop((blocks, marks));
        while !probe.done() {
            worker.step();
        }
        worker.log_register().unwrap().flush();
        let spent = spent.borrow();
        (events, spent.by_name())
    })
}

/// What timely says of its own scheduling.
#[derive(Default)]
struct Schedule {
    names: BTreeMap<usize, String>,
    started: BTreeMap<usize, Duration>,
    nanoseconds: BTreeMap<usize, u64>,
}

impl Schedule {
    fn learn(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) if operator.addr.len() == 2 => {
                self.names.insert(operator.id, operator.name);
            }
            TimelyEvent::Schedule(event) if matches!(event.start_stop, StartStop::Start) => {
                self.started.insert(event.id, at);
            }
            TimelyEvent::Schedule(event) => {
                if let Some(started) = self.started.remove(&event.id) {
                    *self.nanoseconds.entry(event.id).or_default() += (at - started).as_nanos() as u64;
                }
            }
            _ => {}
        }
    }

    fn by_name(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (id, name) in &self.names {
            *sums.entry(name.clone()).or_default() += self.nanoseconds.get(id).copied().unwrap_or_default();
        }
        sums
    }
}

fn compare(options: &Options, events: u64, record: &mut Figures) {
    let mut spent: Vec<[Vec<f64>; 2]> = options.contenders.iter().map(|_| Default::default()).collect();
    for _ in 0..options.rounds {
        for (contender, own) in options.contenders.iter().zip(&mut spent) {
            let [seconds, bytes] = run_apart(options, contender);
            own[0].push(seconds);
            own[1].push(bytes);
        }
    }
    let limit = options.contenders.iter().zip(&spent).find(|(contender, _)| contender.name == LIMIT);
    let light = limit.map_or(f64::NAN, |(_, [seconds, _])| median(seconds));
    println!(
        "\n| contender | seconds, median | events/s | ratio to limit | spread | peak memory |\n|---|---|---|---|---|---|"
    );
    for (Contender { name, .. }, [seconds, bytes]) in options.contenders.iter().zip(&spent) {
        let (middle, peak) = (median(seconds), median(bytes) / 1e9);
        let (low, high) = seconds.iter().fold((f64::MAX, 0.0_f64), |(low, high), s| (low.min(*s), high.max(*s)));
        let (per_second, ratio) = (events as f64 / middle, light / middle);
        println!("| {name} | {middle:.2} | {per_second:.0} | {ratio:.2} | {low:.2} s to {high:.2} s | {peak:.2} GB |");
        let speeds: Vec<f64> = seconds.iter().map(|seconds| events as f64 / seconds).collect();
        record.note(name, &[("events", events as f64)], ("speed", "events/s"), &speeds);
        record.note(name, &[("events", events as f64)], ("peak memory", "bytes"), bytes);
    }
}

fn main() {
    let options = options();
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    if let Some(only) = only.and_then(|name| CONTENDERS.iter().find(|contender| contender.name == name)) {
        let [seconds, bytes] = run_here(&options, only);
        return println!("{seconds} {bytes}");
    }
    let (events, accepted) = limit(&options.input);
    println!(
        "{events} events, {accepted} distinct ids, {} users wanted, epochs of {}",
        options.users, options.epoch_events
    );
    let mut record = Figures::new("pipeline", Some(LIMIT));
    compare(&options, events, &mut record);
    let (events, spent) = stages(&options);
    let mut spent: Vec<(String, u64)> = spent.into_iter().filter(|(_, ns)| *ns / events > 0).collect();
    spent.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    println!("\n| operator (one worker, no tables) | ns per event |\n|---|---|");
    for (name, nanoseconds) in &spent {
        let each = nanoseconds / events;
        println!("| {name} | {each} |");
        record.note(name, &[("events", events as f64)], ("operator", "ns/event"), &[each as f64]);
    }
    println!("| all | {} |", spent.iter().map(|(_, ns)| ns).sum::<u64>() / events);
}
