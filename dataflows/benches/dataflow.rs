//! The whole computation without files, tables and checkpoints: blocks of bodies in memory to rows of metrics, beside
//! the speed of light, which is one plain thread that decodes, deduplicates and aggregates in ordinary hash maps.
//!
//! `cargo bench -p tidemark-dataflows --bench dataflow -- --events 2000000 --users 500 --epoch-events 100000 --rounds 5
//! [--workers 0,1,2] [--json FILE]`
//!
//! Contenders take turns within a process: 0 workers are the plain thread. Times are wall time; beside them stands
//! processor time of the process. With `--workers 1` alone and few events it can be run under an instruction counter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_wrap, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::figures::{Figures, median, number, numbers};
use common::{mix, process_seconds};
use tidemark_dataflows::arrangement::{Settings as IndexSettings, SweepRate};
use tidemark_dataflows::baselines::Plain;
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::*;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{Inputs, Restored, Settings, Unread, tidemark};
use tidemark_dataflows::watermark::{Behind, Horizon};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOUR: i64 = 3_600_000_000;
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000_000;
/// As a reader gives them: half a megabyte.
const BLOCK_EVENTS: u64 = 1_900;

#[derive(Copy, Clone)]
struct Size {
    events: u64,
    users: u64,
    epoch_events: u64,
}

fn body(n: u64, users: u64, out: &mut String) {
    // One event in twenty repeats an earlier one.
    let n = if mix(n ^ 0x77).is_multiple_of(20) { n.saturating_sub(1 + mix(n) % 5000) } else { n };
    let (a, b) = (mix(n), mix(!n));
    let (minutes, seconds, millis) = (n / 6_000_000 % 60, n / 100_000 % 60, n / 100 % 1000);
    let kind = ["deposit_completed", "withdrawal_completed"][(a >> 12) as usize % 2];
    let channel = ["web", "mobile", "api"][(a >> 13) as usize % 3];
    let id = (a >> 48, b >> 52, 0x8000 | (b >> 32 & 0xfff), b & 0xffff_ffff_ffff);
    write!(
        out,
        "{{\"event_id\": \"{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}\", \"user_id\": \"user_{:05}\", \
         \"event_time\": \"2026-01-01T10:{minutes:02}:{seconds:02}.{millis:03}Z\", \
         \"ingest_time\": \"2026-01-01T10:{minutes:02}:{seconds:02}.{millis:03}Z\", \"event_type\": \"{kind}\", \
         \"amount\": {}.{:02}, \"currency\": \"GBP\", \"channel\": \"{channel}\"}}",
        n as u32,
        id.0,
        id.1,
        id.2,
        id.3,
        (a >> 20) % users,
        1 + b % 500,
        a % 100,
    )
    .unwrap();
}

fn blocks(size: Size) -> Vec<(Epoch, Block)> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < size.events {
        let epoch = 1 + first / size.epoch_events;
        let last = (first + BLOCK_EVENTS).min(epoch * size.epoch_events).min(size.events);
        let (mut text, mut bodies) = (String::new(), Vec::new());
        for n in first..last {
            let start = text.len() as u32;
            body(n, size.users, &mut text);
            bodies.push(start..text.len() as u32);
            text.push('\n');
        }
        let block = Block {
            partition: PartitionId(0),
            first_offset: Offset(first),
            arrival: Arrival::Opening(Micros(START + 24 * HOUR)),
            bytes: Bytes::from(text),
            bodies,
            oversized: Vec::new(),
            sections: Vec::new(),
        };
        blocks.push((epoch, block));
        first = last;
    }
    blocks
}

fn settings(size: Size, workers: usize) -> Settings {
    let horizon = Horizon { watermark_delay_us: HOUR, dedup_retention_us: 24 * HOUR };
    let expected_ids = size.events as usize / workers;
    Settings {
        contract: Contract { max_future_skew_us: HOUR, id_key: [1, 2], curated: false },
        index: IndexSettings { horizon, key: [3, 4], expected_ids, sweep: SweepRate::default() },
        log_admissions: None,
        payload_cap: PayloadCap::default(),
        witnesses: 10,
        uncounted: None,
    }
}

fn limit(size: Size, blocks: &[(Epoch, Block)]) -> usize {
    let mut plain = Plain::new(settings(size, 1).contract, size.events as usize);
    blocks.iter().flat_map(|(_, block)| block.iter()).filter(|body| plain.take(body)).count()
}

/// Blocks are dealt to workers in turn, two epochs ahead of what is done.
fn dataflow(size: Size, workers: usize, blocks: &Arc<Vec<(Epoch, Block)>>) {
    let blocks = Arc::clone(blocks);
    let config = timely::Config {
        communication: timely::CommunicationConfig::Process(workers),
        worker: timely::WorkerConfig::default(),
    };
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let settings = settings(size, peers);
        let mut input = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Block>>>::new();
        let mut marks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<EpochMark>>>::new();
        let mut behind = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Behind>>>::new();
        let probe = ProbeHandle::new();
        let aggregated = worker.dataflow(|scope| {
            let (_, checkpoints) = scope.new_input::<Vec<()>>();
            let (blocks, marks, behind) = (input.to_stream(scope), marks.to_stream(scope), behind.to_stream(scope));
            let inputs = Inputs { blocks, marks, behind, checkpoints };
            let outputs = tidemark(inputs, &settings, Restored::nothing(&settings), &mut Unread);
            outputs.summaries.probe_with(&probe);
            outputs.stages.aggregated
        });
        let mut now = 0;
        for (n, (epoch, block)) in blocks.iter().enumerate() {
            if *epoch > now {
                now = *epoch;
                input.advance_to(now);
                behind.advance_to(now);
                behind.send(Behind { partition: PartitionId(0), head: None });
                marks.advance_to(now);
                marks.send(EpochMark { epoch: now, opened: Micros(0), closed: Micros(0), missing: 0, waits: true });
                while probe.less_than(&now.saturating_sub(2)) || aggregated.less_than(&now.saturating_sub(2)) {
                    worker.step_or_park(None);
                }
            }
            if n % peers == index {
                input.send(block.clone());
                input.flush();
                worker.step();
            }
        }
    });
    drop(guards.unwrap());
}

/// Rounds of one contender: wall and processor time, in nanoseconds per event.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    processor: Vec<f64>,
}

/// Nobody at work is the plain thread.
fn name(workers: u64) -> String {
    match workers {
        0 => "limit".to_owned(),
        1 => "1 worker".to_owned(),
        _ => format!("{workers} workers"),
    }
}

fn main() {
    let size = Size {
        events: number("--events", 2_000_000),
        users: number("--users", 500),
        epoch_events: number("--epoch-events", 100_000),
    };
    let blocks = Arc::new(blocks(size));
    let contenders = numbers("--workers", &[0, 1, 2]);
    let mut times: BTreeMap<u64, Times> = BTreeMap::new();
    for _ in 0..number("--rounds", 5) {
        for workers in &contenders {
            let (begun, before) = (Instant::now(), process_seconds());
            match usize::try_from(*workers).unwrap() {
                0 => drop(std::hint::black_box(limit(size, &blocks))),
                workers => dataflow(size, workers, &blocks),
            }
            let ns = |seconds: f64| seconds * 1e9 / size.events as f64;
            let own = times.entry(*workers).or_default();
            own.wall.push(ns(begun.elapsed().as_secs_f64()));
            own.processor.push(ns(process_seconds() - before));
        }
    }
    println!("{} events, {} users, epochs of {}; ns per event, medians", size.events, size.users, size.epoch_events);
    println!("{:<12}{:>10}{:>14}{:>16}", "", "wall", "processor", "ratio to limit");
    let mut record = Figures::new("dataflow", Some("limit"));
    let light = times.get(&0).map_or(f64::NAN, |limit| median(&limit.wall));
    for (workers, Times { wall, processor }) in &times {
        let (name, middle) = (name(*workers), median(wall));
        println!("{name:<12}{middle:>10.0}{:>14.0}{:>16.2}", median(processor), light / middle);
        let Size { events, users, epoch_events } = size;
        let at = [("events", events), ("users", users), ("epoch events", epoch_events), ("workers", *workers)];
        let at = at.map(|(name, value)| (name, value as f64));
        record.note(&name, &at, ("wall", "ns/event"), wall);
        record.note(&name, &at, ("processor", "ns/event"), processor);
    }
}
