//! What it costs to hand events to the worker that owns their id: two workers in one process, in one process with
//! serialization, and in two processes over loopback TCP.
//!
//! `cargo bench -p tidemark-dataflows --bench exchange -- --events 4000000 --rounds 3`
//!
//! Each run is one process (or two) of its own, and half of the events change the worker. Figures are processor time of
//! all threads, those that only move bytes included, for each event of the input, above the same dataflow without an
//! exchange; "bytes alone" is writing and reading all of them, without anything around it. "one run" is what an
//! [`Event`] does, "by field" what serde derives for the same members, written by bincode in either case. On two shared
//! cores (4 M events, 5 rounds): 78 and 52 ns alone, 135 and 95 with bytes, 155 and 80 between processes. Where nothing
//! is serialized (one process) the two are the same, and what differs is noise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_wrap, missing_docs)]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use common::mix;
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};
use tidemark_dataflows::arrangement::Hashes;
use tidemark_dataflows::event::*;
use timely::bytes::arc::BytesMut;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::ContainerBytes;
use timely::dataflow::operators::{Exchange, Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::{CommunicationConfig, ExchangeData, WorkerConfig};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const BATCH: u64 = 1000;
const EPOCH_EVENTS: u64 = 100_000;
const WORKERS: u64 = 2;
const WAYS: [&str; 4] = ["bytes alone", "one process", "with bytes", "two processes"];
const FORMATS: [&str; 3] = ["none", "by field", "one run"];

/// The members of an event, serialized one by one.
#[derive(Clone, Serialize, Deserialize)]
struct ByField {
    id: EventId,
    user: UserId,
    time: Micros,
    amount: Pence,
    at: Position,
    origin: u16,
    event_type: EventType,
    channel: Channel,
    curated: Option<Box<CuratedMembers>>,
}

impl From<Event> for ByField {
    fn from(event: Event) -> Self {
        let Event { id, user, time, amount, at, origin, event_type, channel, curated } = event;
        ByField { id, user, time, amount, at, origin, event_type, channel, curated }
    }
}

trait HasId {
    fn id(&self) -> EventId;
}

impl HasId for Event {
    fn id(&self) -> EventId {
        self.id
    }
}

impl HasId for ByField {
    fn id(&self) -> EventId {
        self.id
    }
}

fn event(n: u64) -> Event {
    let (a, b) = (mix(n), mix(!n));
    Event {
        id: EventId(u128::from(a) << 64 | u128::from(b)),
        user: UserId(format!("user-{:06}", a % 10_000).into()),
        time: Micros(1_767_225_600_000_000 + n as i64),
        amount: Pence(100 + (b % 50_000) as i64),
        at: Position { partition: PartitionId(0), offset: Offset(n) },
        origin: 0,
        event_type: EventType::ALL[(a >> 12) as usize % 2],
        channel: Channel::ALL[(a >> 13) as usize % 3],
        curated: None,
    }
}

/// Sends this worker's share of the events through the dataflow; returns how many came out here.
fn work<T: HasId + From<Event> + Clone + ExchangeData>(config: timely::Config, events: u64, exchanged: bool) -> u64 {
    let guards = timely::execute(config, move |worker| {
        let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<T>>>::new();
        let probe = ProbeHandle::new();
        let arrived = Rc::new(Cell::new(0));
        let count = Rc::clone(&arrived);
        let hashes = Hashes::new([1, 2]);
        worker.dataflow(|scope| {
            let events = input.to_stream(scope);
            let events = if exchanged { events.exchange(move |event| hashes.route(event.id())) } else { events };
            let counted = events.inspect_core(move |happened| {
                if let Ok((_, batch)) = happened {
                    count.set(count.get() + batch.len() as u64);
                }
            });
            counted.probe_with(&probe);
        });
        let share = events / WORKERS;
        let first = share * worker.index() as u64;
        for n in (first..first + share).step_by(BATCH as usize) {
            let mut batch: Vec<T> = (n..n + BATCH).map(|n| event(n).into()).collect();
            input.send_batch(&mut batch);
            if (n - first + BATCH).is_multiple_of(EPOCH_EVENTS / WORKERS) {
                input.advance_to(input.time() + 1);
                while probe.less_than(input.time()) {
                    worker.step_or_park(Some(Duration::from_millis(10)));
                }
            }
        }
        drop(input);
        while !probe.done() {
            worker.step_or_park(Some(Duration::from_millis(10)));
        }
        arrived.get()
    });
    guards.unwrap().join().into_iter().map(Result::unwrap).sum()
}

/// Writes and reads batches as timely does between processes.
fn write_and_read<T: From<Event> + ExchangeData>(events: u64, exchanged: bool) -> u64 {
    let mut arrived = 0;
    for n in (0..events).step_by(BATCH as usize) {
        let mut batch: Vec<T> = (n..n + BATCH).map(|n| event(n).into()).collect();
        if exchanged {
            let mut bytes = Vec::with_capacity(batch.length_in_bytes());
            batch.into_bytes(&mut bytes);
            batch = ContainerBytes::from_bytes(BytesMut::from(bytes).freeze());
        }
        arrived += std::hint::black_box(batch).len() as u64;
    }
    arrived
}

/// Processor time of this process so far in seconds, all threads, in ticks of ten milliseconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time are the 14th and 15th field, and the first two were cut off.
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// Runs one process of a contender and prints what it took.
fn run_one(way: &str, format: &str, events: u64, process: usize, addresses: &str) {
    let communication = match way {
        "one process" => CommunicationConfig::Process(2),
        "with bytes" => CommunicationConfig::ProcessBinary(2),
        _ => CommunicationConfig::Cluster {
            threads: 1,
            process,
            addresses: addresses.split(',').map(str::to_owned).collect(),
            report: false,
            zerocopy: false,
        },
    };
    let config = timely::Config { communication, worker: WorkerConfig::default() };
    let arrived = match (way, format) {
        ("bytes alone", "by field") => write_and_read::<ByField>(events, true),
        ("bytes alone", _) => write_and_read::<Event>(events, format != "none"),
        (_, "by field") => work::<ByField>(config, events, true),
        _ => work::<Event>(config, events, format != "none"),
    };
    println!("{} {arrived}", processor_time());
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::args().skip_while(|argument| argument != name).nth(1);
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// Nanoseconds for each event, of all processes of a contender together.
fn run_apart(way: &str, format: &str, events: u64) -> f64 {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [free(), free()];
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap().to_string()).join(",");
    drop(listeners);
    let start = |process: u64| -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--process", &process.to_string(), "--events", &events.to_string()]);
        command.args(["--way", way, "--format", format, "--addresses", &addresses]);
        command.stdout(Stdio::piped()).spawn().expect("to start this program again")
    };
    let processes: Vec<Child> = (0..if way == "two processes" { 2 } else { 1 }).map(start).collect();
    let mut sums = [0.0; 2];
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Before the last line, timely says how it connects.
        let figures = text.lines().last().unwrap_or_default().split_whitespace();
        let figures: Vec<f64> = figures.map(|figure| figure.parse().expect("a figure")).collect();
        figures.iter().zip(&mut sums).for_each(|(figure, sum)| *sum += figure);
    }
    assert_eq!(sums[1], events as f64, "{way}, {format}: events were lost");
    sums[0] * 1e9 / events as f64
}

fn text(name: &str) -> String {
    std::env::args().skip_while(|argument| argument != name).nth(1).unwrap_or_default()
}

fn main() {
    let (events, rounds) = (number("--events", 4_000_000), number("--rounds", 3));
    let events = events.next_multiple_of(EPOCH_EVENTS);
    if !text("--way").is_empty() {
        let process = number("--process", 0) as usize;
        return run_one(&text("--way"), &text("--format"), events, process, &text("--addresses"));
    }
    let mut runs: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for way in WAYS {
            for format in FORMATS {
                runs.entry((way, format)).or_default().push(run_apart(way, format, events));
            }
        }
    }
    println!("\nProcessor time for the exchange, ns an event, {events} events, median of {rounds} rounds\n");
    println!("{:<16}{:>12}{:>12}{:>8}", "", "by field", "one run", "ratio");
    for way in WAYS {
        // Taken within a round: a neighbour that disturbs it disturbs both.
        let none = &runs[&(way, "none")];
        let above = |format: &'static str| runs[&(way, format)].iter().zip(none).map(|(run, none)| run - none);
        let median = |figures: Vec<f64>| {
            let mut figures = figures;
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let ratio = median(above("one run").zip(above("by field")).map(|(one, by)| one / by).collect());
        let (by_field, one_run) = (median(above("by field").collect()), median(above("one run").collect()));
        println!("{way:<16}{by_field:>12.0}{one_run:>12.0}{ratio:>8.2}");
    }
}
