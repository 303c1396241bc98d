//! What a running pipeline measures of itself, for whoever watches it.
//!
//! Whoever does the work writes here, once an epoch or once a publication and never for a single event; whoever watches
//! reads without holding anybody up. It knows nobody: not what is measured, and not who looks.

mod figures;
pub mod follow;
mod held;
mod histogram;
mod late;
pub mod mask;
mod outcomes;
mod stages;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tidemark_dataflows::event::{Epoch, Micros, PartitionId};
use tidemark_dataflows::tally::EpochSummary;

use self::follow::Told;
pub use figures::{ChannelFigures, Figures, NEWEST_REFUSED, Refused, Shown, TOP_USERS, UserFigures, WholeFigures};
pub use held::{Held, HeldMeter};
pub use histogram::{Counted, Histogram};
pub use late::LateMeter;
pub use outcomes::{Decided, Outcomes};
pub use stages::{Stage, Stages};

/// Stands for an instant that has not come yet.
const NEVER: i64 = i64::MIN;

/// Everything that is measured.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// How far each stage has come.
    pub stages: Stages,
    /// What became of the events.
    pub outcomes: Outcomes,
    /// What holds the watermark back.
    pub held_back: HeldMeter,
    /// Whether many events are late.
    pub late: LateMeter,
    /// Rejected events whose payloads the cap has left out.
    pub omitted_payloads: AtomicU64,
    /// What came before this run.
    pub before: OnceLock<Decided>,
    /// How far each partition had been read at the last cut.
    pub partitions: Partitions,
    /// The index of remembered ids, by worker of this process.
    pub index: OnceLock<Vec<IndexMeter>>,
    /// Rows on their way to the writer of the tables.
    pub deliveries: DeliveryMeter,
    /// Publications.
    pub publications: PublicationMeter,
    /// Commits, by table.
    pub tables: OnceLock<Vec<TableMeter>>,
    /// Checkpoints.
    pub checkpoints: CheckpointMeter,
    /// What was restored at the start.
    pub restore: OnceLock<Restore>,
    /// What the tables hold.
    pub shown: Shown,
    /// The newest rejected events of earlier runs, newest first; there once they have been read.
    pub refused_before: OnceLock<Vec<Refused>>,
}

impl Telemetry {
    /// Notes what became of the events of an epoch. To be called by one thread only.
    pub fn decided(&self, summary: &EpochSummary) {
        self.outcomes.add(summary);
        self.held_back.note(summary, self.since_begun().newest);
        self.late.note(&summary.tally);
        self.stages.follower.tell(|_| Told::Decided(Box::new(summary.clone())));
    }

    /// What became of the events since the pipeline was begun.
    pub fn since_begun(&self) -> Decided {
        let since_start = self.outcomes.read();
        self.before.get().map_or_else(|| since_start.clone(), |before| before.with(&since_start))
    }

    /// Notes that a checkpoint is wanted as of the end of an epoch.
    pub fn ask_for_checkpoint(&self, epoch: Epoch, at: Micros) {
        self.checkpoints.ask(epoch, at);
        self.stages.follower.tell(|_| Told::Asked { epoch, at });
    }

    /// Notes a publication up to `epoch`, which was closed at `closed` and is seen by readers now.
    pub fn published(&self, epoch: Epoch, took: Duration, closed: Option<Micros>, now: Micros) {
        let latency_us = closed.map_or(0, |closed| u64::try_from(now.0.saturating_sub(closed.0)).unwrap_or(0));
        self.publications.took.observe(took);
        self.publications.latency.observe(Duration::from_micros(latency_us));
        self.publications.last_latency_us.store(latency_us, Relaxed);
        self.publications.last.set(Some(now));
        self.stages.reached(Stage::Published, epoch);
    }
}

/// The partitions of the source, by number. Some may join later.
#[derive(Debug, Default)]
pub struct Partitions(RwLock<Vec<Arc<PartitionMeter>>>);

impl Partitions {
    /// Adds a partition that is read from `next` on.
    pub fn add(&self, name: &str, next: u64) {
        let meter = PartitionMeter { name: name.to_owned(), next: AtomicU64::new(next) };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(meter));
    }

    /// Notes that everything before `next` is cut.
    pub fn reached(&self, index: u32, next: u64) {
        let meters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        meters.get(index as usize).iter().for_each(|meter| meter.next.store(next, Relaxed));
    }

    /// The name of one, by its number; the number where it is not known.
    pub fn name(&self, PartitionId(index): PartitionId) -> String {
        let meters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        meters.get(index as usize).map_or_else(|| index.to_string(), |meter| meter.name.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<PartitionMeter>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One partition of the source.
#[derive(Debug)]
pub struct PartitionMeter {
    /// What the tables call it.
    pub name: String,
    /// The offset after the last one that was cut.
    pub next: AtomicU64,
}

/// The index of remembered ids of one worker.
#[derive(Debug, Default)]
pub struct IndexMeter {
    /// Bytes of memory.
    pub bytes: AtomicU64,
    /// Entries in memory, those included that are forgotten and not cleared away yet.
    pub entries: AtomicU64,
    expires_at: Instant,
}

impl IndexMeter {
    /// Notes the state of the index.
    pub fn set(&self, bytes: usize, entries: usize, expires_at: Option<Micros>) {
        self.bytes.store(bytes as u64, Relaxed);
        self.entries.store(entries as u64, Relaxed);
        self.expires_at.set(expires_at);
    }

    /// The watermark at which ids are forgotten next.
    pub fn expires_at(&self) -> Option<Micros> {
        self.expires_at.get()
    }
}

/// An instant, or none yet.
#[derive(Debug)]
pub struct Instant(AtomicI64);

impl Default for Instant {
    fn default() -> Self {
        Instant(AtomicI64::new(NEVER))
    }
}

impl Instant {
    /// Sets it.
    pub fn set(&self, at: Option<Micros>) {
        self.0.store(at.map_or(NEVER, |at| at.0), Relaxed);
    }

    /// The instant.
    pub fn get(&self) -> Option<Micros> {
        Some(self.0.load(Relaxed)).filter(|at| *at != NEVER).map(Micros)
    }
}

/// What the workers have handed to the writer of the tables, however busy that is.
#[derive(Debug, Default)]
pub struct DeliveryMeter(Mutex<BTreeMap<Epoch, usize>>);

impl DeliveryMeter {
    /// Notes one delivery of an epoch, of `whole` in all; returns the newest epoch that is complete by it. To be called
    /// once an epoch for each worker and table, which come to epochs in order.
    pub fn delivered(&self, epoch: Epoch, whole: usize) -> Option<Epoch> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting.entry(epoch).or_default() += 1;
        let mut complete = None;
        while let Some(first) = waiting.first_entry().filter(|first| *first.get() >= whole) {
            complete = Some(first.remove_entry().0);
        }
        complete
    }
}

/// Groups of commits, one to each table.
#[derive(Debug, Default)]
pub struct PublicationMeter {
    /// How long they took.
    pub took: Histogram,
    /// From the closing of the newest epoch of each to the moment at which readers saw it.
    pub latency: Histogram,
    /// When the newest one was there.
    pub last: Instant,
    /// What the newest one took from the closing of its epoch on, in microseconds.
    pub last_latency_us: AtomicU64,
}

/// Commits to one table.
#[derive(Debug)]
pub struct TableMeter {
    /// The table.
    pub name: String,
    /// Its newest version.
    pub version: AtomicU64,
    /// The newest epoch in it.
    pub epoch: AtomicU64,
    /// How long commits took.
    pub took: Histogram,
    /// What the newest commit took, in microseconds.
    pub last_us: AtomicU64,
    /// Rows that were committed.
    pub rows: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Commits of others that have changed rows and are not settled.
    pub foreign: AtomicU64,
    /// All of them that this process has met.
    pub foreign_total: AtomicU64,
}

impl TableMeter {
    /// Nothing yet of a table.
    pub fn new(name: impl Into<String>) -> TableMeter {
        TableMeter {
            name: name.into(),
            version: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            took: Histogram::default(),
            last_us: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            foreign_total: AtomicU64::new(0),
        }
    }

    /// Notes a commit.
    pub fn committed(&self, version: u64, epoch: Epoch, rows: usize, took: Duration) {
        self.version.store(version, Relaxed);
        self.epoch.store(epoch, Relaxed);
        self.took.observe(took);
        self.last_us.store(micros(took), Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    /// Notes an attempt that failed.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}

/// Checkpoints.
#[derive(Debug, Default)]
pub struct CheckpointMeter {
    /// How long they took from their last receipt on.
    pub took: Histogram,
    /// What the newest one took, in microseconds.
    pub last_us: AtomicU64,
    /// When the newest one was written.
    pub written: Instant,
    /// Bytes of all its runs.
    pub bytes: AtomicU64,
    /// Rows in them.
    pub rows: AtomicU64,
    /// Number of runs.
    pub runs: AtomicU64,
    asked: AtomicU64,
    asked_at: Instant,
}

impl CheckpointMeter {
    /// Notes that one is wanted as of the end of an epoch.
    fn ask(&self, epoch: Epoch, at: Micros) {
        self.asked_at.set(Some(at));
        self.asked.store(epoch, Relaxed);
    }

    /// Since when one is wanted that is later than that of `epoch`.
    pub fn wanted_since(&self, epoch: Epoch) -> Option<Micros> {
        self.asked_at.get().filter(|_| self.asked.load(Relaxed) > epoch)
    }

    /// Notes what the newest checkpoint is made of.
    pub fn describe(&self, written: Micros, bytes: u64, rows: u64, runs: usize) {
        self.written.set(Some(written));
        self.bytes.store(bytes, Relaxed);
        self.rows.store(rows, Relaxed);
        self.runs.store(runs as u64, Relaxed);
    }

    /// Notes how long it took.
    pub fn took(&self, took: Duration) {
        self.took.observe(took);
        self.last_us.store(micros(took), Relaxed);
    }
}

/// What was restored at the start.
#[derive(Clone, Copy, Debug)]
pub struct Restore {
    /// As of the end of this epoch.
    pub epoch: Epoch,
    /// Remembered ids.
    pub ids: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Time that reading and checking took.
    pub took: Duration,
    /// Epochs after it that had been cut and were computed again.
    pub replayed: u64,
}

/// A duration in whole microseconds.
pub(crate) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
