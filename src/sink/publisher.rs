//! The one writer: gathers what the workers deliver, and publishes closed epochs in groups.
//!
//! A group brings every table to the same epoch; then the next group starts. Epochs that close while a group is being
//! written coalesce into the next one. Everything here runs on a thread and an async runtime of its own: a worker hands
//! over a batch and goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::future::join_all;
use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::tally::EpochSummary;
use tidemark_delta::{Lake, Outcome, Published, TableSpec, TableWriter};
use timely::scheduling::SyncActivator;
use tokio::runtime::Runtime;

use super::coalesce::coalesce;
use super::opened::Tables;
use super::patience::{PAUSE, Patience};
use crate::health::Health;
use crate::permit::Permit;
use crate::sink::figures;
use crate::sink::tables::Clock;
use crate::telemetry::{Stage, TableMeter, Telemetry};

/// Longest interval that slow publications bring about. What an outage took is no pace.
const PACED_MAX: Duration = Duration::from_secs(5);

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
    /// The writer could not be started.
    #[error("cannot start the table writer: {0}")]
    Start(#[from] std::io::Error),
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
    /// Shortest time from the start of one publication to the start of the next.
    pub interval: Duration,
    /// How many workers deliver.
    pub workers: usize,
    /// How long a table that cannot be written is tried again. A full disk is waited for without end.
    pub give_up_after: Duration,
    /// Told of tables that cannot be written.
    pub health: Arc<Health>,
    /// Leave to write.
    pub permit: Permit,
    /// Told of every publication.
    pub telemetry: Arc<Telemetry>,
    /// Tells the present time.
    pub now: Clock,
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

enum Message {
    Delivery(Delivery),
    Summary(EpochSummary),
    Hurry,
    Drain,
    Finish,
}

#[derive(Default)]
struct Shared {
    visible: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<SinkError>>,
    wake: Mutex<Vec<SyncActivator>>,
    told: Mutex<Option<Told>>,
    progress: Mutex<Progress>,
}

/// Whoever is told of each epoch that readers see.
type Told = Box<dyn Fn(Epoch) + Send>;

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
    /// Starts the writer for epochs after the one that `progress` says is in all tables.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(tables: Tables, progress: Progress) -> Result<(Publisher, JoinHandle<()>), SinkError> {
        let (to_writer, messages) = channel();
        let shared = Arc::new(Shared::default());
        shared.visible.store(progress.epoch, Ordering::Release);
        let first_group = tables.in_any().filter(|held| *held > progress.epoch);
        *lock(&shared.progress) = progress;
        let (telemetry, whole) = (Arc::clone(&tables.options.telemetry), tables.writers.len() * tables.options.workers);
        let publisher = Publisher { to_writer, shared: Arc::clone(&shared), telemetry, whole };
        let writer = Writer::new(tables, shared, first_group);
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || writer.run(&messages))?;
        Ok((publisher, thread))
    }

    /// Hands over what a worker has for a table in a closed epoch. Every worker does so for every table and epoch.
    pub fn deliver(&self, delivery: Delivery) {
        if let Some(epoch) = self.telemetry.deliveries.delivered(delivery.epoch, self.whole) {
            self.telemetry.stages.reached(Stage::Delivered, epoch);
        }
        self.send(Message::Delivery(delivery));
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
        self.send(Message::Summary(summary));
    }

    /// The newest epoch that readers see in every table; everything, once publishing has failed, so that nobody waits.
    pub fn visible(&self) -> Epoch {
        if self.has_failed() { Epoch::MAX } else { self.shared.visible.load(Ordering::Acquire) }
    }

    /// Asks for a publication as soon as there is anything to publish, ahead of the interval.
    pub fn hurry(&self) {
        self.send(Message::Hurry);
    }

    /// Lets no publication wait for the interval any more: everything has been read.
    pub fn drain(&self) {
        self.send(Message::Drain);
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
    fn fail(&self, error: SinkError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // A worker that is gone needs no waking.
        lock(&self.wake).retain(|activator| activator.activate().is_ok());
    }
}

/// A mutex is poisoned only when a thread panicked, and a panic ends the process.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has been delivered of one epoch.
#[derive(Default)]
struct Pending {
    deliveries: usize,
    batches: Vec<(usize, RecordBatch)>,
}

struct Writer {
    tables: Vec<TableWriter>,
    options: Options,
    shared: Arc<Shared>,
    runtime: Runtime,
    pending: BTreeMap<Epoch, Pending>,
    /// Watermark and closing time of each epoch that is not published yet.
    times: BTreeMap<Epoch, (Option<Micros>, Micros)>,
    /// Tables differ up to this epoch: the first group ends exactly there, and makes them equal.
    first_group: Option<Epoch>,
    last_start: Option<Instant>,
    last_took: Duration,
    hurried: bool,
    draining: bool,
    finishing: bool,
}

impl Writer {
    fn new(tables: Tables, shared: Arc<Shared>, first_group: Option<Epoch>) -> Self {
        let Tables { writers, options, runtime } = tables;
        Writer {
            tables: writers,
            options,
            shared,
            runtime,
            pending: BTreeMap::new(),
            times: BTreeMap::new(),
            first_group,
            last_start: None,
            last_took: Duration::ZERO,
            hurried: false,
            draining: false,
            finishing: false,
        }
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(self.wait()) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.finishing = true,
            }
            messages.try_iter().for_each(|message| self.take(message));
            let complete = self.complete();
            if let Some(epoch) = complete.filter(|_| self.finishing || self.due_in().is_zero()) {
                if let Err(error) = self.publish(epoch) {
                    self.shared.fail(error);
                    return;
                }
            } else if complete.is_none() && self.finishing {
                return;
            }
        }
    }

    /// How long to wait for a message before looking again.
    fn wait(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(1);
        if self.complete().is_some() { self.due_in().min(IDLE) } else { IDLE }
    }

    /// Time until the interval admits the next publication.
    fn due_in(&self) -> Duration {
        if self.hurried || self.draining {
            return Duration::ZERO;
        }
        // Publishing takes half of the time at most: the more a group holds, the less each of its epochs costs.
        let interval = self.options.interval.max((2 * self.last_took).min(PACED_MAX));
        self.last_start.map_or(Duration::ZERO, |at| (at + interval).saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Delivery(Delivery { table, epoch, batch }) => {
                let pending = self.pending.entry(epoch).or_default();
                pending.deliveries += 1;
                pending.batches.extend(batch.map(|batch| (table, batch)));
            }
            Message::Summary(summary) => {
                self.times.insert(summary.mark.epoch, (summary.tally.watermark, summary.mark.closed));
            }
            Message::Hurry => self.hurried = true,
            Message::Drain => self.draining = true,
            Message::Finish => self.finishing = true,
        }
    }

    /// The epoch up to which can be published: the newest one up to which every worker has delivered for every table.
    fn complete(&self) -> Option<Epoch> {
        let whole = self.tables.len() * self.options.workers;
        let newest = self.pending.iter().take_while(|(_, p)| p.deliveries == whole).last().map(|(epoch, _)| *epoch);
        match self.first_group {
            Some(first) => newest.filter(|newest| *newest >= first).and(Some(first)),
            None => newest,
        }
    }

    /// Brings every table to `epoch`.
    fn publish(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        let started = Instant::now();
        self.last_start = Some(started);
        self.hurried = false;
        let later = self.pending.split_off(&(epoch + 1));
        let group = std::mem::replace(&mut self.pending, later);
        let mut batches: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.tables.len()];
        for (table, batch) in group.into_values().flat_map(|pending| pending.batches) {
            if let Some(slot) = batches.get_mut(table) {
                slot.push(batch);
            }
        }
        let later = self.times.split_off(&(epoch + 1));
        let times = std::mem::replace(&mut self.times, later);
        let closed = times.last_key_value().map(|(_, (_, closed))| *closed);
        let watermark_us = times.into_values().filter_map(|(watermark, _)| watermark).max().map(|w| w.0);

        let whole = self.options.specs.iter().zip(&batches).map(|(spec, batches)| coalesce(spec, batches));
        let whole = whole.collect::<Result<Vec<_>, _>>()?;
        self.commit(epoch, watermark_us, &whole)?;
        self.first_group = None;
        self.last_took = started.elapsed();
        figures::show(&self.options, epoch, &whole);
        self.announce(epoch, self.last_took, closed);
        reach("group-published");
        self.maintain()?;
        reach("maintained");
        Ok(())
    }

    /// Commits to every table; waits for those that cannot be written, as long as that can help.
    fn commit(
        &mut self,
        epoch: Epoch,
        watermark_us: Option<i64>,
        batches: &[Option<RecordBatch>],
    ) -> Result<(), SinkError> {
        let mut patience = Patience::new(&self.options);
        loop {
            reach("before-table");
            self.options.permit.wait().map_err(SinkError::Displaced)?;
            let meters = self.options.telemetry.tables.get().into_iter().flatten();
            let tables = self.tables.iter_mut().zip(batches).zip(meters);
            let commits = tables.map(|((table, batch), meter)| async move {
                let (place, begun) = (format!("table {}", table.spec().name), Instant::now());
                let committed = table.publish(epoch, watermark_us, batch.as_ref()).await;
                reach("table-committed");
                note(meter, epoch, batch.as_ref(), begun, &committed);
                (place, committed)
            });
            let results = self.runtime.block_on(join_all(commits));
            let mut whole = true;
            for (place, result) in results {
                whole &= patience.settle(&place, result.map(drop))?;
            }
            if whole {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn announce(&self, epoch: Epoch, took: Duration, closed: Option<Micros>) {
        self.shared.visible.store(epoch, Ordering::Release);
        self.options.telemetry.published(epoch, took, closed, (self.options.now)());
        let mut progress = lock(&self.shared.progress);
        progress.epoch = epoch;
        progress.publications += 1;
        progress.last_took = took;
        drop(progress);
        tracing::debug!(epoch, took_ms = took.as_millis(), "published");
        self.shared.wake();
        if let Some(told) = lock(&self.shared.told).as_ref() {
            told(epoch);
        }
    }

    /// Compaction, clean-up and checkpoints of logs, as far as they are due. What fails for want of the store is tried again
    /// next time.
    fn maintain(&mut self) -> Result<(), SinkError> {
        let now = std::time::SystemTime::now();
        self.options.permit.wait().map_err(SinkError::Displaced)?;
        let results = self.runtime.block_on(join_all(self.tables.iter_mut().map(|table| table.maintain(now))));
        let mut results: Vec<_> = results.into_iter().map(|done| done.map(drop)).collect();
        // One table after each group: commits of all tables come to the same number at the same time, and the next group
        // would wait for all their checkpoints.
        let turn = self.tables.iter().map(TableWriter::commits_since_checkpoint).max();
        let turn = self.tables.iter().position(|table| Some(table.commits_since_checkpoint()) == turn);
        for (index, table) in self.tables.iter_mut().enumerate() {
            results.push(self.runtime.block_on(table.checkpoint_log(turn == Some(index))).map(drop));
        }
        for result in results {
            match result {
                Err(error) if error.is_retryable() => tracing::warn!(%error, "maintenance put off"),
                other => other?,
            }
        }
        Ok(())
    }
}

/// Notes what came of an attempt to commit to a table.
fn note(
    meter: &TableMeter,
    epoch: Epoch,
    batch: Option<&RecordBatch>,
    begun: Instant,
    committed: &Result<Published, tidemark_delta::Error>,
) {
    match committed {
        Ok(Published { outcome: Outcome::Skipped, .. }) => {}
        Ok(Published { version, .. }) => {
            meter.committed(*version, epoch, batch.map_or(0, RecordBatch::num_rows), begun.elapsed());
        }
        Err(_) => meter.failed(),
    }
}
