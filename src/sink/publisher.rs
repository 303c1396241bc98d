//! The one writer, as everybody else sees it: takes what the workers deliver, and publishes closed epochs in groups.
//!
//! A group brings every table to the same epoch; then the next group starts. Epochs that close while a group is being
//! written coalesce into the next one. The writing itself is done by `writer`, on a thread and an async runtime of its own:
//! a worker hands over a batch and goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::tally::EpochSummary;
use tidemark_delta::{Lake, OnForeignChanges, TableSpec};
use tidemark_store::{Cause, Patience};
use timely::scheduling::SyncActivator;

use super::breaker::{Breaker, Tripped};
use super::opened::Tables;
use super::repair::Repair;
use super::writer::{Pace, Writer};
use crate::permit::Permit;
use crate::sink::tables::Clock;
use crate::telemetry::{Stage, Telemetry};

/// Why publishing ended early.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A table could not be written.
    #[error(transparent)]
    Delta(#[from] tidemark_delta::Error),
    /// Rows did not fit the schema of their table: a bug.
    #[error("rows do not fit their table: {0}")]
    Rows(#[from] ArrowError),
    /// Another instance has our place.
    #[error(transparent)]
    Displaced(tidemark_checkpoint::Error),
    /// The breaker has ended the run, after the epoch was published.
    #[error("{0}")]
    Tripped(Box<Tripped>),
    /// The writer could not be started.
    #[error("cannot start the table writer: {0}")]
    Start(#[from] std::io::Error),
}

impl SinkError {
    /// What is behind it, by what can be done about it.
    pub(super) fn cause(&self) -> Cause {
        match self {
            SinkError::Delta(error) => error.cause(),
            _ => Cause::Lasting,
        }
    }
}

impl From<Tripped> for SinkError {
    fn from(tripped: Tripped) -> SinkError {
        SinkError::Tripped(Box::new(tripped))
    }
}

/// What one worker has for one table in one closed epoch.
#[derive(Debug)]
pub struct Delivery {
    /// Index of the table in [`Options::specs`].
    pub table: usize,
    /// The epoch.
    pub epoch: Epoch,
    /// The rows; `None` when the epoch changes nothing there.
    pub batch: Option<RecordBatch>,
}

/// How and where to write.
pub struct Options {
    /// Where the tables are, who writes them, and how they are kept.
    pub lake: Lake,
    /// The tables.
    pub specs: Vec<TableSpec>,
    /// How often to publish.
    pub pace: Pace,
    /// How many workers deliver.
    pub workers: usize,
    /// How tables that cannot be written are met.
    pub patience: Patience,
    /// Leave to write.
    pub permit: Permit,
    /// Ends the run when too much is rejected, if anything does.
    pub breaker: Option<Breaker>,
    /// Told of every publication.
    pub telemetry: Arc<Telemetry>,
    /// Tells the present time.
    pub now: Clock,
    /// What is done about changes of others.
    pub on_foreign_changes: OnForeignChanges,
    /// Longest time between two rounds of maintenance, where nothing is published.
    pub maintain_every: Duration,
}

/// What has been published so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Newest epoch in all tables.
    pub epoch: Epoch,
    /// Groups written.
    pub publications: u64,
    /// Time that the newest group took.
    pub last_took: Duration,
    /// Newest watermark.
    pub watermark: Option<Micros>,
    /// Sums over all epochs that the dataflow has closed.
    pub received: u64,
    /// Accepted events among them.
    pub accepted: u64,
    /// Duplicates among them.
    pub duplicates: u64,
    /// Rejected events among them.
    pub rejected: u64,
    /// Newest epoch that the dataflow has closed.
    pub closed_epoch: Epoch,
}

impl Progress {
    /// The progress of a pipeline of which everything up to `epoch` is known.
    pub fn after(epoch: Epoch, counters: &Counters) -> Progress {
        Progress {
            epoch,
            closed_epoch: epoch,
            received: counters.received,
            accepted: counters.accepted,
            duplicates: counters.duplicates,
            rejected: counters.rejected_total(),
            ..Progress::default()
        }
    }
}

/// What the writer is told.
pub(super) enum Message {
    Delivery(Delivery),
    Summary(Box<EpochSummary>),
    Hurry,
    Drain(Epoch),
    Finish,
}

/// What the writer and those who hand over to it both see.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) visible: AtomicU64,
    /// Bytes of rows that were delivered and are not published.
    pub(super) held: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<SinkError>>,
    wake: Mutex<Vec<SyncActivator>>,
    pub(super) told: Mutex<Option<Told>>,
    pub(super) progress: Mutex<Progress>,
}

/// Whoever is told of each epoch that readers see.
pub(super) type Told = Box<dyn Fn(Epoch) + Send>;

/// A handle to the writer, for the operators and for the runtime.
#[derive(Clone)]
pub struct Publisher {
    to_writer: Sender<Message>,
    shared: Arc<Shared>,
    telemetry: Arc<Telemetry>,
    /// Deliveries that make an epoch whole.
    whole: usize,
}

impl Publisher {
    /// Starts the writer for epochs after the one that `progress` says is in all tables. With a `repair` it writes merged tables
    /// anew that others have changed.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        tables: Tables,
        progress: Progress,
        repair: Option<Repair>,
    ) -> Result<(Publisher, JoinHandle<()>), SinkError> {
        let (to_writer, messages) = channel();
        let shared = Arc::new(Shared::default());
        shared.visible.store(progress.epoch, Ordering::Release);
        let first_group = tables.in_any().filter(|held| *held > progress.epoch);
        *lock(&shared.progress) = progress;
        let (telemetry, whole) = (Arc::clone(&tables.options.telemetry), tables.writers.len() * tables.options.workers);
        let publisher = Publisher { to_writer, shared: Arc::clone(&shared), telemetry, whole };
        let writer = Writer::new(tables, shared, first_group, repair);
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || writer.run(&messages))?;
        Ok((publisher, thread))
    }

    /// Hands over what a worker has for a table in a closed epoch. Every worker does so for every table and epoch.
    pub fn deliver(&self, delivery: Delivery) {
        self.shared.held.fetch_add(delivery.batch.as_ref().map_or(0, bytes_of), Ordering::Relaxed);
        if let Some(epoch) = self.telemetry.deliveries.delivered(delivery.epoch, self.whole) {
            self.telemetry.stages.reached(Stage::Delivered, epoch);
        }
        self.send(Message::Delivery(delivery));
    }

    /// The newest epoch of which everything was delivered, and the bytes of rows that are not published yet.
    pub fn held(&self) -> (Epoch, u64) {
        (self.telemetry.stages.of(Stage::Delivered), self.shared.held.load(Ordering::Relaxed))
    }

    /// Tells of an epoch that the dataflow has closed, before anything of it is delivered by the same worker.
    pub fn summarise(&self, summary: EpochSummary) {
        let mut progress = lock(&self.shared.progress);
        progress.received += summary.tally.received;
        progress.accepted += summary.tally.accepted;
        progress.duplicates += summary.tally.duplicates;
        progress.rejected += summary.tally.rejected_total();
        progress.watermark = progress.watermark.max(summary.tally.watermark);
        progress.closed_epoch = summary.mark.epoch;
        drop(progress);
        self.send(Message::Summary(Box::new(summary)));
    }

    /// The newest epoch that readers see in every table; everything, once publishing has failed, so that nobody waits.
    pub fn visible(&self) -> Epoch {
        if self.has_failed() { Epoch::MAX } else { self.shared.visible.load(Ordering::Acquire) }
    }

    /// Asks for a publication as soon as there is anything to publish, ahead of the interval.
    pub fn hurry(&self) {
        self.send(Message::Hurry);
    }

    /// Tells the last epoch, since everything has been read: it is published as soon as it is whole, with all before it.
    pub fn drain(&self, last: Epoch) {
        self.send(Message::Drain(last));
    }

    /// Ends the writer once all that was delivered is published.
    pub fn finish(&self) {
        self.send(Message::Finish);
    }

    /// Ends publishing with an error.
    pub fn fail(&self, error: SinkError) {
        self.shared.fail(error);
    }

    /// Lets nobody wait for publications any more: what they wait for will not come.
    pub fn abandon(&self) {
        self.shared.failed.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Whether publishing has failed.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Takes the error that ended publishing, if one did.
    pub fn take_failure(&self) -> Option<SinkError> {
        lock(&self.shared.failure).take()
    }

    /// What has been published so far.
    pub fn progress(&self) -> Progress {
        lock(&self.shared.progress).clone()
    }

    /// Registers an operator to be scheduled after each publication.
    pub fn wake_on_publication(&self, activator: SyncActivator) {
        lock(&self.shared.wake).push(activator);
    }

    /// Has `told` called with each epoch once it is in all tables.
    pub fn tell_of_publications(&self, told: impl Fn(Epoch) + Send + 'static) {
        *lock(&self.shared.told) = Some(Box::new(told));
    }

    fn send(&self, message: Message) {
        // The writer is gone only after a failure, which the runtime learns from `has_failed`.
        let _ = self.to_writer.send(message);
    }
}

impl Shared {
    pub(super) fn fail(&self, error: SinkError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn wake(&self) {
        // A worker that is gone needs no waking.
        lock(&self.wake).retain(|activator| activator.activate().is_ok());
    }
}

/// Bytes of memory that rows take.
pub(super) fn bytes_of(rows: &RecordBatch) -> u64 {
    rows.get_array_memory_size() as u64
}

/// A mutex is poisoned only when a thread panicked, and a panic ends the process.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
