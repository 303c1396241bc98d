//! What it costs to bring the table of users to an epoch: MERGE of some rows and of all, beside appending the same rows,
//! and beside the bare file of all rows, without table, log or commit.
//!
//! `cargo run --release -p tidemark-benches --bin merge -- [--rows 500,100000,1000000] [--changed-per-mille 10] [--rounds 5] [--sync 0]
//! [--json FILE]`
//!
//! Every contender has a table of its own with that many rows, and commits in turn with the others. Time is from the call
//! to the acknowledged commit, processor time is that of all threads, bytes are what the table's folder has grown by.
//! `--sync 1` forces what the program writes to the disk, as it does by default; the bare file is never forced, so then the
//! ratio says less.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../dataflows/benches/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::RecordBatch;
use common::figures::{Figures, median, number, numbers};
use common::{mix, process_seconds};
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use tidemark::sink::tables::{Table, UserMetrics};
use tidemark_dataflows::event::{EpochMark, Micros, UserId};
use tidemark_dataflows::metrics::{Row, Totals};
use tidemark_delta::{Identity, Lake, Location, Policy, Shape, TableSpec, TableWriter};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: i64 = 1_767_225_600_000_000;
const REFERENCE: &str = "bare file, all rows";

/// Name, and whether all rows change.
const CONTENDERS: [(&str, bool); 5] = [
    ("merge, few rows", false),
    ("merge, all rows", true),
    (REFERENCE, true),
    ("append, few rows", false),
    ("append, all rows", true),
];

/// Every `step`-th user, from `first` on. The count is the epoch, so that a table that is appended to can have it for a
/// column of epochs.
fn batch(rows: u64, first: u64, step: u64, epoch: u64) -> RecordBatch {
    let row = |user: u64| {
        let draw = mix(user ^ epoch << 40);
        let totals = Totals {
            deposits: i128::from(draw % 10_000_000),
            withdrawals: i128::from(draw >> 32),
            deposit_count: epoch,
            withdrawal_count: draw % 500,
            first_seen: Micros(START + (draw % 1_000_000).cast_signed()),
            last_seen: Micros(START + epoch.cast_signed() * 1_000_000),
        };
        Row { key: UserId(format!("user_{user:08}").into()), epoch, totals }
    };
    let rows = (first..rows).step_by(usize::try_from(step).unwrap()).map(row).collect();
    let closed = Micros(START + epoch.cast_signed() * 1_000_000);
    let mark = EpochMark { epoch, opened: Micros(START), closed, missing: 0, waits: true };
    UserMetrics::default().batch(rows, &mark).unwrap().expect("there are rows")
}

/// A table and whoever writes it.
enum Writer {
    Ours(Box<TableWriter>),
    Bare(PathBuf),
}

impl Writer {
    async fn commit(self, epoch: u64, rows: RecordBatch) -> Writer {
        match self {
            Writer::Ours(mut writer) => {
                writer.publish(epoch, None, Some(&rows)).await.unwrap();
                Writer::Ours(writer)
            }
            Writer::Bare(folder) => {
                let compression = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
                let properties = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(false);
                let mut file = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).unwrap();
                file.write(&rows).unwrap();
                std::fs::write(folder.join(format!("{epoch}.parquet")), file.into_inner().unwrap()).unwrap();
                Writer::Bare(folder)
            }
        }
    }
}

async fn open(lake: &Lake, root: &Path, contender: &str) -> Writer {
    let name = contender.replace([',', ' '], "_");
    if contender == REFERENCE {
        let folder = root.join(name);
        std::fs::create_dir(&folder).unwrap();
        return Writer::Bare(folder);
    }
    let spec = TableSpec { name, ..UserMetrics::spec() };
    let spec = match contender.starts_with("append") {
        true => TableSpec { shape: Shape::Append { epoch: "deposit_count".to_owned() }, ..spec },
        false => spec,
    };
    Writer::Ours(Box::new(TableWriter::open_or_create(lake, spec).await.unwrap()))
}

fn bytes_below(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => bytes_below(&entry.path()),
        false => entry.metadata().unwrap().len() as f64,
    });
    bytes.sum()
}

/// Commits of one contender.
#[derive(Default)]
struct Commits {
    rows: usize,
    wall_ms: Vec<f64>,
    processor_ms: Vec<f64>,
    bytes: Vec<f64>,
}

async fn compare(rows: u64, step: u64, rounds: u64) -> Vec<Commits> {
    // In the working folder, since a temporary folder may be no disk at all.
    let folder = tempfile::tempdir_in(".").unwrap();
    let root = std::path::absolute(folder.path()).unwrap();
    let location = Location::parse(root.to_str().expect("a path of UTF-8"), HashMap::new()).unwrap();
    let identity = Identity { pipeline: "bench".to_owned(), generation: 1, lineage: 1 };
    let policy = Policy { sync: number("--sync", 0) == 1, ..Policy::default() };
    let lake = Lake::new(location, identity, policy).unwrap();
    let mut writers = Vec::new();
    for (contender, _) in CONTENDERS {
        writers.push(open(&lake, &root, contender).await.commit(1, batch(rows, 0, 1, 1)).await);
    }
    let mut commits: Vec<Commits> = CONTENDERS.iter().map(|_| Commits::default()).collect();
    for round in 0..rounds {
        let mut after = Vec::new();
        for ((own, writer), (_, all)) in commits.iter_mut().zip(writers).zip(CONTENDERS) {
            let epoch = round + 2;
            let (first, step) = if all { (0, 1) } else { (round % step, step) };
            let rows = batch(rows, first, step, epoch);
            own.rows = rows.num_rows();
            let before = bytes_below(&root);
            let (begun, processor) = (Instant::now(), process_seconds());
            after.push(writer.commit(epoch, rows).await);
            own.wall_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            own.processor_ms.push((process_seconds() - processor) * 1e3);
            own.bytes.push(bytes_below(&root) - before);
        }
        writers = after;
    }
    commits
}

fn main() {
    let (per_mille, rounds) = (number("--changed-per-mille", 10), number("--rounds", 5));
    let step = (1_000 / per_mille.max(1)).max(1);
    // As many threads as the program gives to its tables.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut record = Figures::new("merge", Some(REFERENCE));
    for rows in numbers("--rows", &[500, 100_000, 1_000_000]) {
        let commits = runtime.block_on(compare(rows, step, rounds));
        println!("\n{rows} rows in the table, one in {step} changed where few are; medians of {rounds} rounds\n");
        println!(
            "{:<20}{:>12}{:>10}{:>8}{:>15}{:>14}",
            "", "rows given", "ms", "ratio", "processor, ms", "bytes written"
        );
        let reference = CONTENDERS.iter().zip(&commits).find(|((name, _), _)| *name == REFERENCE);
        let light = reference.map_or(f64::NAN, |(_, commits)| median(&commits.wall_ms));
        for ((name, _), own) in CONTENDERS.iter().zip(&commits) {
            let (wall, processor, bytes) = (median(&own.wall_ms), median(&own.processor_ms), median(&own.bytes));
            let ratio = wall / light;
            println!("{name:<20}{:>12}{wall:>10.1}{ratio:>8.2}{processor:>15.0}{bytes:>14.0}", own.rows);
            let at = [("rows", rows as f64)];
            record.note(name, &at, ("commit", "ms"), &own.wall_ms);
            record.note(name, &at, ("processor", "ms"), &own.processor_ms);
            record.note(name, &at, ("written", "bytes"), &own.bytes);
        }
    }
}
