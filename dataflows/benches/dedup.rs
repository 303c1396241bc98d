//! What deduplication costs: time and memory of the operator beside its baselines and beside a plain loop.
//!
//! `cargo bench -p tidemark-dataflows --bench dedup -- --ids 1000000,10000000 --rounds 3 [--json FILE]`
//!
//! Each contender runs in a process of its own, so that memory is its own, and the contenders take turns, so that
//! figures of one round compare even on a busy machine. Twice as many events are fed as fit the horizon: in the first
//! half the index fills, in the second every id that comes makes another one expire. One event in twenty repeats
//! an earlier one. Making the events is not timed, nor is taking memory at the start. Times are processor time, not wall
//! time. The allocator is that of the program.
//!
//! `--expected-percent` says how many ids are announced in advance, of those that will be remembered. Without any (0)
//! and with too few, the table tells what growth costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_wrap, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use common::figures::Figures as Record;
use common::{mix, processor_time, status};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use mimalloc::MiMalloc;
use tidemark_dataflows::arrangement::{Hashes, Settings, SweepRate, TimeBoundedArrangement};
use tidemark_dataflows::baselines;
use tidemark_dataflows::distinct::{Inputs, distinct_within_watermark};
use tidemark_dataflows::event::*;
use tidemark_dataflows::watermark::{self, Horizon, Progress, Watermarks};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::{InputHandle, ProbeHandle, Stream};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const HOUR: i64 = 3_600_000_000;
const HORIZON: Horizon = Horizon { watermark_delay_us: HOUR, dedup_retention_us: 24 * HOUR };
/// Delay, retention and half a bucket: what is remembered on average.
const REMEMBERED_HALF_HOURS: i64 = 2 * 25 + 1;
const CONTENDERS: [&str; 7] = ["plain loop", "operator", "with log", "ring", "threshold", "reduce", "temporal"];
/// Part of the events that repeat none before them.
const UNREPEATED: f64 = 0.95;
/// Ids after which the log of admissions is handed on, with "with log": some megabytes.
const LOGGED: usize = 1 << 18;

#[derive(Clone, Debug)]
struct Arguments {
    ids: Vec<u64>,
    epoch_events: u64,
    rounds: usize,
    /// Above this many ids, only the plain loop, the operator with and without a log, and the ring run.
    baselines_up_to: u64,
    expected_percent: u64,
    contenders: Vec<String>,
    only: Option<String>,
}

impl Arguments {
    fn parse() -> Self {
        let ids = vec![1_000_000, 10_000_000];
        let mut arguments = Arguments {
            ids,
            epoch_events: 100_000,
            rounds: 3,
            baselines_up_to: 10_000_000,
            expected_percent: 110,
            contenders: Vec::new(),
            only: None,
        };
        let mut rest = std::env::args().skip(1);
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().unwrap_or_else(|| panic!("{flag} needs a value"));
            match flag.as_str() {
                "--ids" => arguments.ids = value().split(',').map(|n| n.parse().expect("a number of ids")).collect(),
                "--epoch-events" => arguments.epoch_events = value().parse().expect("a number of events"),
                "--rounds" => arguments.rounds = value().parse().expect("a number of rounds"),
                "--baselines-up-to" => arguments.baselines_up_to = value().parse().expect("a number of ids"),
                "--expected-percent" => arguments.expected_percent = value().parse().expect("a percentage"),
                "--contenders" => arguments.contenders = value().split(',').map(str::to_owned).collect(),
                "--only" => arguments.only = Some(value()),
                "--json" => drop(value()),
                // Cargo says so to every bench.
                "--bench" => {}
                _ => panic!("unknown flag {flag}"),
            }
        }
        arguments
    }
}

/// The events of one run: event time runs on so fast that `ids` of them are remembered.
struct Workload {
    ids: u64,
    names: Vec<UserId>,
}

impl Workload {
    fn new(ids: u64) -> Self {
        Workload { ids, names: (0..10_000).map(|n| UserId(format!("user-{n:06}").into())).collect() }
    }

    /// The `n`-th event, the same whenever it is asked for. Ids are UUIDs of version 7: time in the high bits.
    fn event(&self, n: u64) -> Event {
        let (a, b) = (mix(n), mix(!n));
        let span = i128::from(HOUR) * i128::from(REMEMBERED_HALF_HOURS) / 2;
        let time = 1_700_000_000_000_000 + i64::try_from(span * i128::from(n) / i128::from(self.ids)).unwrap();
        let millis = u128::from(time.unsigned_abs() / 1000);
        Event {
            id: EventId(millis << 80 | 7 << 76 | u128::from(a & 0xfff) << 64 | 1 << 63 | u128::from(b >> 2)),
            user: self.names[(a >> 32) as usize % self.names.len()].clone(),
            time: Micros(time - (a % 60_000_000) as i64),
            amount: Pence(100 + (b % 50_000) as i64),
            at: Position { partition: PartitionId(0), offset: Offset(n) },
            origin: 0,
            event_type: EventType::ALL[(a >> 12) as usize % 2],
            channel: Channel::ALL[(a >> 13) as usize % 3],
            curated: None,
        }
    }

    fn epoch(&self, first: u64, events: u64) -> Vec<Event> {
        let arrival = |n: u64| {
            let draw = mix(n ^ 0x5555_5555);
            let back = 1 + (draw >> 20) % (self.ids / 4);
            let logical = if draw.is_multiple_of(20) && n > back { n - back } else { n };
            Event { at: Position { partition: PartitionId(0), offset: Offset(n) }, ..self.event(logical) }
        };
        (first..first + events).map(arrival).collect()
    }
}

/// Events that a worker is handed at once.
const BATCH: usize = 1000;

/// The least that must be done: a look into a hash table for each event, and a sweep of all of it for each hour.
struct PlainLoop {
    hashes: Hashes,
    table: HashTable<(EventId, i64)>,
    newest: i64,
    oldest: i64,
}

impl PlainLoop {
    fn new(capacity: u64) -> Self {
        let table = HashTable::with_capacity(usize::try_from(capacity).unwrap());
        PlainLoop { hashes: Hashes::new([1, 2]), table, newest: i64::MIN / 2, oldest: i64::MIN }
    }

    fn decide(&mut self, batches: &mut [Vec<Event>]) {
        let PlainLoop { hashes, table, newest, oldest } = self;
        let watermark = *newest - HORIZON.watermark_delay_us;
        let index = |id| hashes.scramble(id).hash();
        for batch in batches {
            batch.retain(|event| {
                *newest = event.time.0.max(*newest);
                match table.entry(index(event.id), |entry| entry.0 == event.id, |entry| index(entry.0)) {
                    Entry::Vacant(vacant) if event.time.0 > watermark => {
                        vacant.insert((event.id, event.time.0 / HOUR));
                        true
                    }
                    _ => false,
                }
            });
        }
        let passed = (watermark - HORIZON.dedup_retention_us).div_euclid(HOUR);
        if passed > *oldest {
            *oldest = passed;
            table.retain(|entry| entry.1 >= passed);
        }
    }
}

/// What one contender needed for one run: nanoseconds an event, milliseconds an epoch, bytes an id.
#[derive(Copy, Clone, Debug, Default)]
struct Figures {
    filling_ns: f64,
    steady_ns: f64,
    median_ms: f64,
    slowest_ms: f64,
    live_bytes: f64,
    peak_bytes: f64,
    /// Least and most while the index doubles for the last time.
    doubling_bytes: [f64; 2],
}

impl Figures {
    fn to_array(self) -> [f64; 8] {
        let Figures { filling_ns, steady_ns, median_ms, slowest_ms, live_bytes, peak_bytes, doubling_bytes } = self;
        let [least, most] = doubling_bytes;
        [filling_ns, steady_ns, median_ms, slowest_ms, live_bytes, peak_bytes, least, most]
    }

    fn from_array(figures: [f64; 8]) -> Self {
        let [filling_ns, steady_ns, median_ms, slowest_ms, live_bytes, peak_bytes, least, most] = figures;
        let doubling_bytes = [least, most];
        Figures { filling_ns, steady_ns, median_ms, slowest_ms, live_bytes, peak_bytes, doubling_bytes }
    }
}

/// What the process holds before a contender is made: also what an epoch's events leave behind in the heap.
fn held_before(arguments: &Arguments) -> f64 {
    let events = Workload::new(arguments.ids[0]).epoch(0, arguments.epoch_events);
    drop(events.chunks(BATCH).map(<[Event]>::to_vec).collect::<Vec<_>>());
    drop(events);
    status("VmRSS")
}

/// Feeds epochs of batches until the horizon has been filled twice. `decide` returns once an epoch is decided. `before`
/// is what the process held before the contender was made.
fn measure(arguments: &Arguments, before: f64, mut decide: impl FnMut(Epoch, Vec<Vec<Event>>)) -> Figures {
    let ids = arguments.ids[0];
    let workload = Workload::new(ids);
    let start = Instant::now();
    let epochs = 2 * ids.div_ceil(arguments.epoch_events);
    let mut took = Vec::new();
    let mut doubling_bytes = [f64::MAX, 0.0];
    for epoch in 1..=epochs {
        let events = workload.epoch((epoch - 1) * arguments.epoch_events, arguments.epoch_events);
        let batches: Vec<Vec<Event>> = events.chunks(BATCH).map(<[Event]>::to_vec).collect();
        drop(events);
        let begun = processor_time(start);
        decide(epoch, batches);
        took.push((processor_time(start) - begun).as_secs_f64());
        if (epochs / 4..=epochs / 2).contains(&epoch) {
            let bytes = (status("VmRSS") - before) / (epoch * arguments.epoch_events) as f64 / UNREPEATED;
            doubling_bytes = [bytes.min(doubling_bytes[0]), bytes.max(doubling_bytes[1])];
        }
    }
    let live_bytes = (status("VmRSS") - before) / ids as f64;
    let peak_bytes = (status("VmHWM") - before).max(0.0) / ids as f64;
    let (filling, steady) = took.split_at(took.len() / 2);
    let ns = |epochs: &[f64]| epochs.iter().sum::<f64>() * 1e9 / (epochs.len() as u64 * arguments.epoch_events) as f64;
    let (filling_ns, steady_ns) = (ns(filling), ns(steady));
    took.sort_by(f64::total_cmp);
    let (median_ms, slowest_ms) = (took[took.len() / 2] * 1e3, took[took.len() - 1] * 1e3);
    Figures { filling_ns, steady_ns, median_ms, slowest_ms, live_bytes, peak_bytes, doubling_bytes }
}

type Events<'s> = Stream<'s, Epoch, Vec<Event>>;
type Marks<'s> = Stream<'s, Epoch, Vec<EpochMark>>;

/// Measures a dataflow with one worker on this thread.
fn measure_dataflow(
    arguments: &Arguments,
    build: impl for<'s> FnOnce(Events<'s>, Marks<'s>) -> Events<'s> + Send + Sync + 'static,
) -> Figures {
    let arguments = arguments.clone();
    timely::execute_directly(move |worker| {
        let before = held_before(&arguments);
        let mut events = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let mut marks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<EpochMark>>>::new();
        let probe = ProbeHandle::new();
        worker.dataflow(|scope| {
            build(events.to_stream(scope), marks.to_stream(scope)).probe_with(&probe);
        });
        measure(&arguments, before, |epoch, batches| {
            events.advance_to(epoch);
            marks.advance_to(epoch);
            marks.send(EpochMark { epoch, opened: Micros(0), closed: Micros(0), missing: 0, waits: true });
            for mut batch in batches {
                events.send_batch(&mut batch);
            }
            events.advance_to(epoch + 1);
            marks.advance_to(epoch + 1);
            while probe.less_than(&(epoch + 1)) {
                worker.step();
            }
        })
    })
}

fn run(arguments: &Arguments, contender: &str) -> Figures {
    let ids = arguments.ids[0];
    let expected = ids * arguments.expected_percent / 100;
    let epochs_remembered = ids.div_ceil(arguments.epoch_events);
    let logs = contender == "with log";
    match contender {
        "plain loop" => {
            let before = held_before(arguments);
            let mut plain = PlainLoop::new(expected);
            measure(arguments, before, |_, mut batches| plain.decide(&mut batches))
        }
        "operator" | "with log" => measure_dataflow(arguments, move |events, marks| {
            let expected_ids = usize::try_from(expected).unwrap();
            let settings = Settings { horizon: HORIZON, key: [1, 2], expected_ids, sweep: SweepRate::default() };
            let index = TimeBoundedArrangement::shared(settings);
            let (behind, checkpoints) = (empty(events.scope()), empty(events.scope()));
            let rule = watermark::Settings { horizon: HORIZON, witnesses: 10, uncounted: None };
            let (events, times) = baselines::event_times(events, rule.witnesses);
            let inputs = Inputs { events, times, marks, behind, checkpoints };
            let watermarks = Watermarks::new(rule, Progress::default());
            distinct_within_watermark(inputs, index, watermarks, logs.then_some(LOGGED)).accepted
        }),
        "ring" => measure_dataflow(arguments, |events, _| baselines::ring(events, HORIZON)),
        "threshold" => measure_dataflow(arguments, |events, _| baselines::threshold(events)),
        "reduce" => measure_dataflow(arguments, |events, _| baselines::reduce(events)),
        "temporal" => measure_dataflow(arguments, move |events, _| baselines::temporal(events, epochs_remembered)),
        _ => panic!("unknown contender {contender}"),
    }
}

/// Runs one contender in a process of its own.
fn run_apart(arguments: &Arguments, ids: u64, contender: &str) -> Figures {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    let percent = arguments.expected_percent.to_string();
    command.args(["--only", contender, "--ids", &ids.to_string(), "--expected-percent", &percent]);
    command.args(["--epoch-events", &arguments.epoch_events.to_string()]);
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("to start this program again");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
    Figures::from_array(figures.try_into().unwrap_or_else(|_| panic!("{contender}: {text}")))
}

fn median(runs: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn compare(arguments: &Arguments, ids: u64, record_to: &mut Record) {
    let mut runs: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
    let up_to = if ids > arguments.baselines_up_to { 4 } else { CONTENDERS.len() };
    // The plain loop is what all others are compared with.
    let wanted = |contender: &&str| arguments.contenders.iter().any(|wanted| wanted == contender);
    let chosen = |contender: &&str| arguments.contenders.is_empty() || *contender == "plain loop" || wanted(contender);
    let contenders: Vec<&str> = CONTENDERS[..up_to].iter().copied().filter(chosen).collect();
    for _ in 0..arguments.rounds {
        for contender in &contenders {
            runs.entry(contender).or_default().push(run_apart(arguments, ids, contender));
        }
    }
    println!(
        "\n{ids} ids within the horizon, {} % of them expected, epochs of {} events, median of {} rounds\n",
        arguments.expected_percent, arguments.epoch_events, arguments.rounds,
    );
    println!(
        "{:<12}{:>13}{:>13}{:>8}{:>10}{:>8}{:>16}{:>14}{:>15}",
        "", "ns, filling", "ns, steady", "ratio", "bytes/id", "peak", "last doubling", "median epoch", "slowest epoch"
    );
    for contender in &contenders {
        let own = &runs[contender];
        // Ratios are taken within a round: a neighbour that disturbs it disturbs both.
        let rounds = own.iter().zip(&runs["plain loop"]);
        let mut ratios: Vec<f64> = rounds.map(|(own, plain)| own.steady_ns / plain.steady_ns).collect();
        ratios.sort_by(f64::total_cmp);
        // What never forgets holds the ids of both halves.
        let held = if ["threshold", "reduce"].contains(contender) { 2.0 } else { 1.0 };
        println!(
            "{contender:<12}{:>13.0}{:>13.0}{:>8.2}{:>10.1}{:>8.1}{:>16}{:>11.1} ms{:>12.1} ms",
            median(own, |f| f.filling_ns),
            median(own, |f| f.steady_ns),
            ratios[ratios.len() / 2],
            median(own, |f| f.live_bytes) / held,
            median(own, |f| f.peak_bytes) / held,
            format!("{:.1} to {:.1}", median(own, |f| f.doubling_bytes[0]), median(own, |f| f.doubling_bytes[1])),
            median(own, |f| f.median_ms),
            median(own, |f| f.slowest_ms),
        );
        record(record_to, contender, ids, held, own);
    }
}

fn record(to: &mut Record, contender: &str, ids: u64, held: f64, runs: &[Figures]) {
    let mut note = |figure, unit, of: &dyn Fn(&Figures) -> f64| {
        let values: Vec<f64> = runs.iter().map(of).collect();
        to.note(contender, &[("ids", ids as f64)], (figure, unit), &values);
    };
    note("filling", "ns/event", &|f| f.filling_ns);
    note("steady", "ns/event", &|f| f.steady_ns);
    note("memory", "bytes/id", &|f| f.live_bytes / held);
    note("peak memory", "bytes/id", &|f| f.peak_bytes / held);
    note("slowest epoch", "ms", &|f| f.slowest_ms);
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(contender) = &arguments.only {
        println!("{}", run(&arguments, contender).to_array().map(|figure| figure.to_string()).join(" "));
        return;
    }
    let mut record = Record::new("dedup", Some("plain loop"));
    for ids in &arguments.ids {
        compare(&arguments, *ids, &mut record);
    }
}
