//! What a checkpoint costs, and what a start from it takes: runs of ids and of totals laid down and forced to the disk;
//! read back, checked, and taken up by workers.
//!
//! `cargo run --release -p tidemark-benches --bin checkpoint -- [--ids 1000000,10000000] [--users 500,1000000] [--runs 4]
//! [--workers 2] [--rounds 3] [--json FILE]`
//!
//! The first number of ids goes with the first number of users, and so on. The reference for writing is a plain file with
//! the same bytes, forced to the disk; that for restoring is one thread that reads the same files and puts all ids into an
//! ordinary hash table. What was just written is read from the page cache: a start on another machine waits for its store
//! besides.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../dataflows/benches/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use common::figures::{Figures, median, number, numbers};
use common::mix;
use hashbrown::HashMap;
use tidemark::checkpoint::restore::Loaded;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::Restorable;
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Counters, Link, Manifest, Run};
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::{Fingerprint, Remembered, Settings as IndexSettings, SweepRate};
use tidemark_dataflows::block::Block;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Epoch, EpochMark, EventId, Micros, UserId};
use tidemark_dataflows::metrics::{ByUser, Metric, Totals};
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{Inputs, Metrics, Results, Settings, tidemark};
use tidemark_dataflows::watermark::Horizon;
use tidemark_store::{Patience, Store};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Input;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOUR: i64 = 3_600_000_000;
const HORIZON: Horizon = Horizon { watermark_delay_us: HOUR, dedup_retention_us: 24 * HOUR };
/// 2026-01-01T00:00:00Z, when the newest event happened.
const NOW: i64 = 1_767_225_600_000_000;
const EPOCH: Epoch = 7;

/// What each group of steps is compared with.
const REFERENCES: [&str; 3] = ["ids: a plain file", "totals: a plain file", "restore: a plain hash table"];

#[derive(Copy, Clone)]
struct Size {
    ids: u64,
    users: u64,
    runs: u64,
    workers: usize,
}

/// The ids of one run, in the order of their arrival: UUIDs of version 7, the time in their high bits.
fn admitted(size: Size, run: u64) -> Vec<(EventId, Remembered)> {
    let per_run = size.ids / size.runs;
    let one = |n: u64| {
        let (a, b) = (mix(n), mix(!n));
        let time = NOW - 24 * HOUR + (i128::from(24 * HOUR) * i128::from(n) / i128::from(size.ids)) as i64;
        let millis = u128::from(time.unsigned_abs() / 1000);
        let id = millis << 80 | 7 << 76 | u128::from(a & 0xfff) << 64 | 1 << 63 | u128::from(b >> 2);
        (EventId(id), Remembered { bucket: HORIZON.bucket_of(Micros(time)), fingerprint: Fingerprint(a) })
    };
    (run * per_run..(run + 1) * per_run).map(one).collect()
}

fn totals_of(users: u64) -> Vec<(UserId, Totals)> {
    let one = |n: u64| {
        let draw = mix(n);
        let totals = Totals {
            deposits: i128::from(draw % 10_000_000),
            withdrawals: i128::from(draw >> 32),
            deposit_count: draw % 900,
            withdrawal_count: draw % 500,
            first_seen: Micros(NOW - HOUR),
            last_seen: Micros(NOW),
        };
        (UserId(format!("user_{:08}", mix(n) % 100_000_000).into()), totals)
    };
    (0..users).map(one).collect()
}

/// Nanoseconds of each step, for each row of what it works on.
#[derive(Default)]
struct Steps(Vec<(&'static str, Vec<f64>)>);

impl Steps {
    fn timed<T>(&mut self, step: &'static str, rows: u64, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add(step, begun.elapsed().as_secs_f64() * 1e9 / rows as f64);
        result
    }

    fn add(&mut self, step: &'static str, nanoseconds: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, values)) => values.push(nanoseconds),
            None => self.0.push((step, vec![nanoseconds])),
        }
    }
}

fn stored(store: &Store, name: String, rows: u64, object: Bytes, newest_bucket: Option<u64>) -> Run {
    let run = Run { name, rows, bytes: object.len() as u64, digest: Digest::of_object(&object), newest_bucket };
    store.create(&run.name, object).unwrap();
    run
}

/// Writes a file and forces it to the disk.
fn plain_file(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Lays down all runs. Returns the manifest that names them.
fn write(size: Size, folder: &Path, store: &Store, steps: &mut Steps) -> Restorable {
    let per_run = size.ids / size.runs;
    let mut id_runs = Vec::new();
    for number in 0..size.runs {
        let admitted = admitted(size, number);
        let (object, stats) = steps.timed("ids: lay down", per_run, || ids::encode(admitted, HORIZON.bucket_us()));
        let beside = folder.join(format!("plain-{number}"));
        steps.timed("ids: a plain file", per_run, || plain_file(&beside, &object));
        let name = names::run(1, 0, number + 1, "ids");
        let newest = Some(stats.newest.0);
        id_runs.push(steps.timed("ids: write", per_run, || stored(store, name, stats.count, object, newest)));
    }
    let rows = totals_of(size.users);
    let object = steps.timed("totals: lay down", size.users, || totals::encode(&rows));
    let beside = folder.join("plain-totals");
    steps.timed("totals: a plain file", size.users, || plain_file(&beside, &object));
    let name = names::run(1, 0, size.runs + 1, "users");
    let users = steps.timed("totals: write", size.users, || stored(store, name, size.users, object, None));
    let link = Link { generation: 1, sequence: 1, epoch: EPOCH, digest: users.digest };
    let manifest = Manifest {
        generation: 1,
        sequence: 1,
        epoch: EPOCH,
        pipeline: "bench".to_owned(),
        lineage: 1,
        written_us: NOW,
        positions: Vec::new(),
        counters: Counters { newest_event_time_us: Some(NOW), ..Counters::default() },
        event_times: None,
        ids: id_runs,
        metrics: BTreeMap::from([(ByUser::NAME.to_owned(), vec![users])]),
        changes: Vec::new(),
        previous: None,
    };
    Restorable { link, manifest }
}

/// One thread, an ordinary hash table, nothing checked.
fn plain_table(size: Size, folder: &Path) -> usize {
    let mut table: HashMap<u128, u64> = HashMap::with_capacity(size.ids as usize);
    for number in 0..size.runs {
        let bytes = std::fs::read(folder.join(format!("plain-{number}"))).unwrap();
        // As many entries of 24 bytes as there are ids, wherever they begin: what is in them does not matter here.
        let entries = bytes[bytes.len() % 24..].as_chunks::<24>().0.iter();
        table.extend(entries.map(|entry| {
            let (id, fingerprint) = entry.split_first_chunk().expect("24 bytes hold 16");
            (u128::from_le_bytes(*id), fingerprint.iter().map(|byte| u64::from(*byte)).sum())
        }));
    }
    table.len()
}

fn settings(size: Size) -> Settings {
    let expected_ids = size.ids as usize / size.workers;
    Settings {
        contract: Contract { max_future_skew_us: HOUR, id_key: [1, 2], curated: false },
        index: IndexSettings { horizon: HORIZON, key: [3, 4], expected_ids, sweep: SweepRate::default() },
        log_admissions: None,
        payload_cap: PayloadCap::default(),
        witnesses: 10,
        uncounted: None,
    }
}

/// A worker's share of the totals, which nobody reads on.
struct LoadedTotals<'a> {
    loaded: &'a Loaded,
    worker: usize,
    workers: usize,
}

impl<'s> Metrics<'s> for LoadedTotals<'_> {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        self.loaded.totals::<M>(self.worker, self.workers)
    }

    fn take<M: Metric>(&mut self, _: Results<'s, M>) {}
}

/// What the slowest worker takes: for the ids, and for the totals, which go through the dataflow.
fn take_up(size: Size, loaded: Loaded) -> [f64; 2] {
    let config = timely::Config {
        communication: timely::CommunicationConfig::Process(size.workers),
        worker: timely::WorkerConfig::default(),
    };
    let slowest = Arc::new(Mutex::new([0.0_f64; 2]));
    let noted = Arc::clone(&slowest);
    let guards = timely::execute(config, move |worker| {
        let settings = settings(size);
        let begun = Instant::now();
        let restored = loaded.share(&settings, worker.index(), worker.peers());
        let ids = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut blocks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Block>>>::new();
        let mut marks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<EpochMark>>>::new();
        let aggregated = worker.dataflow(|scope| {
            let (_, checkpoints) = scope.new_input::<Vec<()>>();
            let (_, behind) = scope.new_input::<Vec<_>>();
            let (blocks, marks) = (blocks.to_stream(scope), marks.to_stream(scope));
            let inputs = Inputs { blocks, marks, behind, checkpoints };
            let mut totals = LoadedTotals { loaded: &loaded, worker: scope.index(), workers: scope.peers() };
            tidemark(inputs, &settings, restored, &mut totals).stages.aggregated
        });
        blocks.advance_to(EPOCH + 1);
        marks.advance_to(EPOCH + 1);
        while aggregated.less_than(&(EPOCH + 1)) {
            worker.step_or_park(None);
        }
        let totals = begun.elapsed().as_secs_f64();
        let mut slowest = noted.lock().unwrap();
        *slowest = [slowest[0].max(ids), slowest[1].max(totals)];
    });
    drop(guards.unwrap());
    *slowest.lock().unwrap()
}

/// One round: bytes per id and per total come back.
fn round(size: Size, steps: &mut Steps) -> [f64; 2] {
    // In the working folder, since a temporary folder may be no disk at all.
    let folder = tempfile::tempdir_in(".").unwrap();
    let store = Store::local(&folder.path().join("store"), Patience::default()).unwrap();
    let restorable = write(size, folder.path(), &store, steps);
    let bytes = |runs: &[Run], rows: u64| runs.iter().map(|run| run.bytes).sum::<u64>() as f64 / rows as f64;
    let per_row =
        [bytes(&restorable.manifest.ids, size.ids), bytes(&restorable.manifest.metrics[ByUser::NAME], size.users)];
    let kept = steps.timed("restore: a plain hash table", size.ids, || plain_table(size, folder.path()));
    assert!(kept > 0, "nothing was read");
    let loaded = steps.timed("restore: read and check all", size.ids, || Loaded::from_manifest(&store, &restorable));
    let [ids, totals] = take_up(size, loaded.unwrap());
    steps.add("restore: take up ids", ids * 1e9 / size.ids as f64);
    steps.add("restore: take up totals", totals * 1e9 / size.users as f64);
    per_row
}

fn main() {
    let (users, runs, workers) =
        (numbers("--users", &[500, 1_000_000]), number("--runs", 4), number("--workers", 2) as usize);
    let mut records = REFERENCES.map(|reference| Figures::new("checkpoint", Some(reference)));
    for (ids, users) in numbers("--ids", &[1_000_000, 10_000_000]).into_iter().zip(users) {
        let size = Size { ids, users, runs, workers };
        let at = [("ids", ids as f64), ("users", users as f64)];
        let (mut steps, mut bytes) = (Steps::default(), [0.0; 2]);
        for _ in 0..number("--rounds", 3) {
            bytes = round(size, &mut steps);
        }
        println!(
            "\n{ids} ids in {runs} runs, {users} users, {workers} workers; {:.1} bytes/id, {:.1} bytes/total\n",
            bytes[0], bytes[1]
        );
        println!("{:<30}{:>12}{:>12}", "", "ns per row", "ms in all");
        for (step, values) in &steps.0 {
            let (of_users, middle) = (step.contains("totals"), median(values));
            let rows = if of_users { users } else { ids };
            println!("{step:<30}{middle:>12.1}{:>12.1}", middle * rows as f64 / 1e6);
            let unit = if of_users { "ns/total" } else { "ns/id" };
            let of = REFERENCES.iter().position(|reference| reference.split(':').next() == step.split(':').next());
            records[of.unwrap()].note(step, &at, ("time", unit), values);
        }
        records[0].note("a run of ids", &at, ("size", "bytes/row"), &bytes[..1]);
        records[0].note("a run of totals", &at, ("size", "bytes/row"), &bytes[1..]);
    }
}
