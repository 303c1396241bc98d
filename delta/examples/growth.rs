//! How tables grow: epochs are published to a keyed and an append table, and every tenth of the way files, bytes and
//! milliseconds are printed.
//!
//! ```text
//! growth [EPOCHS=300] [KEYS=6] [ROWS=6] [CLEAN_EVERY=100] [SYNC=0]
//! ```
//!
//! KEYS rows live in the keyed table, ROWS of them change per epoch, and as many rows are appended. Every CLEAN_EVERY
//! epochs an hour is pretended to pass, so that what died before expires; 0 lets nothing expire. SYNC is 1 for files that
//! survive a power failure. Tables lie in the directory for temporary files: TMPDIR chooses the disk.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidemark_delta::{Identity, Lake, Location, Policy, Shape, TableSpec, TableWriter};

const HOUR: Duration = Duration::from_secs(3_601);

fn spec(name: &str, shape: Shape) -> TableSpec {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("epoch", DataType::Int64, false),
        Field::new("total", DataType::Decimal128(38, 2), false),
    ]));
    TableSpec {
        name: name.to_owned(),
        comment: "A table that grows".to_owned(),
        schema,
        shape,
        bounded: vec![],
        checks: vec![],
        expiry: None,
    }
}

fn rows(spec: &TableSpec, epoch: i64, ids: impl Iterator<Item = i64>) -> Result<RecordBatch, Box<dyn Error>> {
    let ids: Vec<i64> = ids.collect();
    let totals = Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(id * 1_000 + epoch)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("user_{id:08}")))),
        Arc::new(Int64Array::from_iter_values(ids.iter().map(|_| epoch))),
        Arc::new(totals.with_precision_and_scale(38, 2)?),
    ];
    Ok(RecordBatch::try_new(spec.schema.clone(), columns)?)
}

/// Files and bytes of a directory, not of those below it.
fn size(directory: &Path) -> std::io::Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        if metadata.is_file() {
            files += 1;
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
}

/// Milliseconds spent, and the longest single one.
#[derive(Default)]
struct Spent {
    publishing: Vec<f64>,
    maintaining: Vec<f64>,
}

impl Spent {
    fn report(&mut self) -> String {
        let mut line = String::new();
        for (name, times) in [("publish", &mut self.publishing), ("maintain", &mut self.maintaining)] {
            times.sort_by(f64::total_cmp);
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let longest = times.last().copied().unwrap_or_default();
            line.push_str(&format!("  {name} {median:.1} ms median, {longest:.1} max"));
            times.clear();
        }
        line
    }
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|text| text.parse::<i64>()).collect::<Result<Vec<_>, _>>()?;
    let number = |index: usize, default: i64| numbers.get(index).copied().unwrap_or(default);
    let (epochs, keys, changed, clean) = (number(0, 300), number(1, 6), number(2, 6), number(3, 100));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let policy = Policy { sync: number(4, 0) != 0, ..Policy::default() };
    runtime.block_on(grow(epochs, keys, changed.min(keys), clean, policy))
}

async fn grow(epochs: i64, keys: i64, changed: i64, clean: i64, policy: Policy) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::TempDir::new()?;
    let root = directory.path().to_str().ok_or("the temporary directory is not UTF-8")?;
    let identity = Identity { pipeline: "growth".to_owned(), generation: 1, lineage: 1 };
    let lake = Lake::new(Location::parse(root, HashMap::new())?, identity, policy)?;
    let shapes = [
        ("keyed", Shape::Keyed { key: vec!["id".to_owned()] }),
        ("append", Shape::Append { epoch: "epoch".to_owned() }),
    ];
    let mut writers = Vec::new();
    for (name, shape) in shapes {
        writers.push((TableWriter::open_or_create(&lake, spec(name, shape)).await?, Spent::default()));
    }
    let (begin, mut pretended) = (Instant::now(), Duration::ZERO);
    for epoch in 1..=epochs {
        if clean > 0 && epoch % clean == 0 {
            pretended += HOUR;
        }
        for (writer, spent) in &mut writers {
            let ids = (0..if epoch == 1 { keys } else { changed }).map(|i| (i + epoch * 7) % keys);
            let batch = rows(writer.spec(), epoch, ids)?;
            let start = Instant::now();
            writer.publish(u64::try_from(epoch)?, Some(epoch), Some(&batch)).await?;
            writer.checkpoint_log(true).await?;
            spent.publishing.push(millis(start));
            let start = Instant::now();
            writer.maintain(SystemTime::now() + pretended).await?;
            spent.maintaining.push(millis(start));
        }
        if epoch % (epochs / 10).max(1) == 0 {
            for (writer, spent) in &mut writers {
                let table = directory.path().join(&writer.spec().name);
                let ((files, bytes), (log, log_bytes)) = (size(&table)?, size(&table.join("_delta_log"))?);
                println!(
                    "{epoch:>6} {:<6} {files:>5} files {bytes:>9} B  {log:>5} log {log_bytes:>9} B{}",
                    writer.spec().name,
                    spent.report()
                );
            }
        }
    }
    println!("{epochs} epochs in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}
