//! A reader that looks at the tables while they are written, and never sees time go back.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use serde_json::Value;
use tidemark_delta::{Location, Predicate, Scan};

use crate::tables::{ALWAYS, CHANNELS, HEALTH, MANIFEST, NET_FLOW, REJECTED, Shape, USER_METRICS, told};

/// Time between two looks at the logs, of which every eighth is followed by a look at the rows.
const BETWEEN: Duration = Duration::from_millis(25);

/// Counts that only grow: each is the sum of some columns of a table, or the number of its rows where it names none.
const COUNTS: [(&Shape, &[&str]); 8] = [
    (&NET_FLOW, &["deposit_count", "withdrawal_count"]),
    (&USER_METRICS, &["deposit_count", "withdrawal_count"]),
    (&USER_METRICS, &[]),
    (&CHANNELS, &["event_count"]),
    (&REJECTED, &[]),
    (&HEALTH, &[]),
    (&HEALTH, &["events_received"]),
    (&MANIFEST, &["total_events_received"]),
];

/// What one log has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Number of commits.
    pub(crate) commits: usize,
    /// Newest epoch, 0 before the first.
    pub(crate) epoch: i64,
    /// Newest generation.
    pub(crate) generation: i64,
}

/// What a reader has seen so far.
pub(crate) struct Reader {
    output: PathBuf,
    seen: BTreeMap<&'static str, Seen>,
    counts: BTreeMap<(&'static str, &'static [&'static str]), i64>,
    runtime: tokio::runtime::Runtime,
    /// How often it has looked at all rows.
    pub(crate) looks: usize,
}

impl Reader {
    pub(crate) fn new(output: &Path) -> Reader {
        Reader {
            output: output.to_owned(),
            seen: BTreeMap::new(),
            counts: BTreeMap::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            looks: 0,
        }
    }

    /// Reads what is new in the logs.
    pub(crate) fn read_logs(&mut self) {
        for shape in &ALWAYS {
            let log = self.output.join(shape.name).join("_delta_log");
            let seen = self.seen.entry(shape.name).or_default();
            while let Ok(commit) = std::fs::read_to_string(log.join(format!("{:020}.json", seen.commits))) {
                *seen = follow(shape.name, *seen, &commit);
            }
        }
    }

    /// What the log of a table has said.
    pub(crate) fn seen(&self, shape: &Shape) -> Seen {
        self.seen.get(shape.name).copied().unwrap_or_default()
    }

    /// The newest epoch that all tables hold, 0 before the first.
    pub(crate) fn epoch(&self) -> i64 {
        ALWAYS.iter().map(|shape| self.seen(shape).epoch).min().unwrap_or(0)
    }

    /// Reads the rows of tables that are there.
    pub(crate) fn read_rows(&mut self) {
        let location = Location::parse(self.output.to_str().unwrap(), HashMap::new()).unwrap();
        for (shape, columns) in COUNTS {
            if self.seen(shape).epoch == 0 {
                continue;
            }
            let scan = Scan { table: shape.name, version: None, columns, predicate: Predicate::default() };
            let count = |now: &mut i64, batch: &RecordBatch| {
                let sum = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().iter().sum::<i64>();
                *now += match columns {
                    [] => i64::try_from(batch.num_rows()).unwrap(),
                    _ => batch.columns().iter().map(sum).sum(),
                };
            };
            let now = self.runtime.block_on(scan.fold(&location, || 0, count)).unwrap();
            let before = self.counts.insert((shape.name, columns), now).unwrap_or(0);
            assert!(before <= now, "{columns:?} of {} fell from {before} to {now}", shape.name);
        }
        self.looks += 1;
    }
}

/// Checks the next commit of a log against all before it.
fn follow(table: &str, before: Seen, commit: &str) -> Seen {
    let actions: Vec<Value> = commit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let info = told(actions.iter().find_map(|action| action.get("commitInfo")).unwrap());
    let version = |application: &str| {
        let transactions = actions.iter().filter_map(|action| action.get("txn"));
        let ours = transactions.filter(|txn| txn["appId"].as_str().unwrap().ends_with(application));
        ours.map(|txn| txn["version"].as_i64().unwrap()).next()
    };
    let (epoch, generation) = (version("/epoch"), version("/fence").expect("every commit names its generation"));
    let what = format!("{table}, version {}: {info} after {before:?}", before.commits);
    assert_eq!(info["epoch"].as_i64(), epoch, "{what}");
    assert_eq!(info["generation"].as_i64(), Some(generation), "{what}");
    assert!(before.generation <= generation, "the generation falls in {what}");
    match info["kind"].as_str().unwrap() {
        "publish" => assert!(epoch > Some(before.epoch), "the epoch does not grow in {what}"),
        _ => assert!(epoch.unwrap_or(0) == before.epoch, "the epoch changes in {what}"),
    }
    Seen { commits: before.commits + 1, epoch: epoch.unwrap_or(0), generation }
}

/// A reader in a thread of its own, until it is told to end.
pub(crate) struct Watch {
    end: Sender<()>,
    thread: JoinHandle<Reader>,
}

impl Watch {
    pub(crate) fn start(output: &Path) -> Watch {
        let mut reader = Reader::new(output);
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            for round in 1usize.. {
                reader.read_logs();
                if round.is_multiple_of(8) {
                    reader.read_rows();
                }
                if ended.recv_timeout(BETWEEN) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            reader.read_logs();
            reader.read_rows();
            reader
        });
        Watch { end, thread }
    }

    /// Whether what it saw was wrong.
    pub(crate) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it after a last look; fails if it has seen anything wrong.
    pub(crate) fn end(self) -> Reader {
        let _ = self.end.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
