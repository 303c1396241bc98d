//! The thread that writes runs and manifests, off the workers' time.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::compaction::Tiers;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::{self, ManifestLog};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Counters, EventTimes, Identity, Manifest, Position, Run};
use tidemark_checkpoint::runs::ids;
use tidemark_checkpoint::runs::totals;
use tidemark_dataflows::arrangement::Remembered;
use tidemark_dataflows::event::{Epoch, EventId, Micros};
use tidemark_dataflows::metrics::{self, Metric, Totals};
use tidemark_dataflows::watermark::{Bucket, Horizon};
use tidemark_store::Store;
use tidemark_store::failpoint;
use timely::scheduling::SyncActivator;

use crate::permit::Permit;
use crate::telemetry::{Stage, Telemetry};

/// The first error of the threads that make things durable. It ends the run.
#[derive(Default)]
pub struct Faults {
    failed: AtomicBool,
    first: Mutex<Option<Error>>,
    wake: Mutex<Vec<SyncActivator>>,
}

impl Faults {
    /// Reports an error that its thread cannot go on after.
    pub fn report(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        // Whoever is gone needs no waking.
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        wake.iter().for_each(|activator| {
            let _ = activator.activate();
        });
    }

    /// Registers an operator to be scheduled after a fault: what it waits for may never come.
    pub fn wake_on_report(&self, activator: SyncActivator) {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).push(activator);
    }

    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Takes the first one.
    pub fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a run is made of.
pub enum Content {
    /// Admitted ids; of several entries for one id the last counts.
    Ids(Vec<(EventId, Remembered)>),
    /// Absolute totals of a metric.
    Totals {
        /// Its name.
        metric: &'static str,
        /// How many keys they are of.
        rows: usize,
        /// Lays them down, on the thread that writes.
        encode: Box<dyn FnOnce() -> Bytes + Send>,
    },
}

/// Which list of the manifest a run belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum List {
    /// Remembered ids.
    Ids,
    /// Totals of the metric of that name.
    Totals(String),
}

impl List {
    fn name(&self) -> &str {
        match self {
            List::Ids => "ids",
            List::Totals(metric) => metric,
        }
    }
}

impl Content {
    /// Totals of a metric.
    pub fn totals<M: Metric>(rows: Vec<(M::Key, Totals)>) -> Content {
        Content::Totals { metric: M::NAME, rows: rows.len(), encode: Box::new(move || totals::encode(&rows)) }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        match self {
            Content::Ids(ids) => ids.is_empty(),
            Content::Totals { rows, .. } => *rows == 0,
        }
    }

    /// The list that it belongs to.
    pub fn list(&self) -> List {
        match self {
            Content::Ids(_) => List::Ids,
            Content::Totals { metric, .. } => List::Totals((*metric).to_owned()),
        }
    }
}

/// Where the writer leaves the run once it is durable.
pub type Ticket = Arc<OnceLock<Run>>;

enum Message {
    Write { content: Content, ticket: Ticket, wake: SyncActivator },
    Begin { epoch: Epoch, positions: Vec<Position> },
    Complete { epoch: Epoch, counters: Counters, times: EventTimes, runs: Vec<(List, Run)> },
}

/// What has been checkpointed so far, for those who watch.
#[derive(Debug, Default)]
pub struct Checkpointed {
    /// Epoch of the newest manifest.
    pub epoch: AtomicU64,
    /// How many manifests this run has written.
    pub manifests: AtomicU64,
    /// What the newest one took from its last receipt on, in microseconds.
    pub took_us: AtomicU64,
}

/// A handle to the writer.
#[derive(Clone)]
pub struct CheckpointWriter {
    messages: Sender<Message>,
    faults: Arc<Faults>,
    progress: Arc<Checkpointed>,
    completes: bool,
}

/// What the writer works with.
pub struct Options {
    /// Where runs go.
    pub store: Store,
    /// Where manifests go; none where another process writes them.
    pub log: Option<ManifestLog>,
    /// The generation that writes.
    pub generation: u64,
    /// The process that writes: runs are named after it.
    pub process: usize,
    /// What the pipeline is.
    pub identity: Identity,
    /// When ids are forgotten.
    pub horizon: Horizon,
    /// The manifest that was restored.
    pub restored: Option<Manifest>,
    /// How many manifests are kept.
    pub keep: usize,
    /// Leave to write.
    pub permit: Permit,
    /// Tells the present time.
    pub now: fn() -> Micros,
    /// Told of every checkpoint.
    pub telemetry: Arc<Telemetry>,
}

impl CheckpointWriter {
    /// Starts the thread. It ends when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(options: Options, faults: Arc<Faults>) -> io::Result<(CheckpointWriter, JoinHandle<()>)> {
        let (messages, received) = channel();
        let progress = Arc::new(Checkpointed::default());
        progress.epoch.store(options.restored.as_ref().map_or(0, |manifest| manifest.epoch), Ordering::Release);
        let completes = options.log.is_some();
        let writer = Writer::new(options, Arc::clone(&progress));
        let reported = Arc::clone(&faults);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writer.run(&received, &reported))?;
        Ok((CheckpointWriter { messages, faults, progress, completes }, thread))
    }

    /// Writes a run; `wake` is scheduled once the ticket holds it.
    pub fn write(&self, content: Content, wake: SyncActivator) -> Ticket {
        let ticket = Ticket::default();
        self.send(Message::Write { content, ticket: Arc::clone(&ticket), wake });
        ticket
    }

    /// Tells how far the source had been read at the end of an epoch that a checkpoint is taken of.
    pub fn begin(&self, epoch: Epoch, positions: Vec<Position>) {
        self.send(Message::Begin { epoch, positions });
    }

    /// Everything up to the end of `epoch` is in durable runs and in the tables.
    pub fn complete(&self, epoch: Epoch, counters: Counters, times: EventTimes, runs: Vec<(List, Run)>) {
        self.send(Message::Complete { epoch, counters, times, runs });
    }

    /// Registers an operator to be scheduled once writing has failed.
    pub fn wake_on_failure(&self, activator: SyncActivator) {
        self.faults.wake_on_report(activator);
    }

    /// Whether writing has failed: then nobody should wait for it.
    pub fn has_failed(&self) -> bool {
        self.faults.any()
    }

    /// Whether it writes manifests too: of several processes, one does.
    pub fn completes(&self) -> bool {
        self.completes
    }

    /// What has been checkpointed so far.
    pub fn progress(&self) -> Arc<Checkpointed> {
        Arc::clone(&self.progress)
    }

    fn send(&self, message: Message) {
        // The thread is gone only after a fault.
        let _ = self.messages.send(message);
    }
}

struct Writer {
    store: Store,
    log: Option<ManifestLog>,
    generation: u64,
    process: usize,
    identity: Identity,
    horizon: Horizon,
    keep: usize,
    permit: Permit,
    now: fn() -> Micros,
    telemetry: Arc<Telemetry>,
    ids: Vec<Run>,
    /// The runs of each metric.
    totals: BTreeMap<String, Vec<Run>>,
    begun: Vec<(Epoch, Vec<Position>)>,
    /// Runs that were merged into others since the last manifest.
    replaced: Vec<String>,
    next_run: u64,
    progress: Arc<Checkpointed>,
}

impl Writer {
    fn new(options: Options, progress: Arc<Checkpointed>) -> Writer {
        let Options { store, log, generation, process, identity, horizon, restored, keep, permit, now, telemetry } =
            options;
        let (ids, mut totals) = restored.map(|manifest| (manifest.ids, manifest.metrics)).unwrap_or_default();
        // Each metric has its list, from the first manifest on.
        for metric in metrics::names() {
            totals.entry(metric.to_owned()).or_default();
        }
        let (begun, replaced) = (Vec::new(), Vec::new());
        Writer {
            store,
            log,
            generation,
            process,
            identity,
            horizon,
            keep,
            permit,
            now,
            telemetry,
            ids,
            totals,
            begun,
            replaced,
            next_run: 1,
            progress,
        }
    }

    /// After a fault nothing more is written, but whoever waits is still woken, to see that.
    fn run(mut self, messages: &Receiver<Message>, faults: &Faults) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Write { content, ticket, wake } => {
                    if !faults.any() {
                        self.write(content, &ticket).unwrap_or_else(|error| faults.report(self.displaced(error)));
                    }
                    // A worker that is gone needs no waking.
                    let _ = wake.activate();
                }
                _ if faults.any() => {}
                Message::Begin { epoch, positions } => self.begun.push((epoch, positions)),
                Message::Complete { epoch, counters, times, runs } => {
                    let completed = self.complete(epoch, counters, times, runs);
                    completed.unwrap_or_else(|error| faults.report(self.displaced(error)));
                }
            }
        }
    }

    /// Whoever has been displaced may find that runs are gone.
    fn displaced(&self, error: Error) -> Error {
        journal::displaced(error, &self.store, self.generation)
    }

    fn write(&mut self, content: Content, ticket: &Ticket) -> Result<(), Error> {
        let list = content.list();
        let (object, newest_bucket) = self.encode(content)?;
        failpoint("before-run");
        let run = self.put(&list, object, newest_bucket)?;
        failpoint("run-written");
        let _ = ticket.set(run);
        Ok(())
    }

    fn encode(&self, content: Content) -> Result<(Encoded, Option<Bucket>), Error> {
        Ok(match content {
            Content::Ids(ids) => {
                let (object, stats) = ids::encode(ids, self.horizon.bucket_us());
                (Encoded { object, rows: stats.count }, Some(stats.newest))
            }
            Content::Totals { rows, encode, .. } => (Encoded { object: encode(), rows: rows as u64 }, None),
        })
    }

    fn put(&mut self, list: &List, encoded: Encoded, newest_bucket: Option<Bucket>) -> Result<Run, Error> {
        let name = names::run(self.generation, self.process, self.next_run, list.name());
        self.next_run += 1;
        let Encoded { object, rows } = encoded;
        let run = Run {
            name: name.clone(),
            rows,
            bytes: object.len() as u64,
            digest: Digest::of_object(&object),
            newest_bucket: newest_bucket.map(|bucket| bucket.0),
        };
        self.permit.wait()?;
        self.store.create(&name, object)?;
        Ok(run)
    }

    fn complete(
        &mut self,
        epoch: Epoch,
        counters: Counters,
        times: EventTimes,
        runs: Vec<(List, Run)>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        for (list, run) in runs {
            match list {
                List::Ids => self.ids.push(run),
                List::Totals(metric) => self.totals.entry(metric).or_default().push(run),
            }
        }
        let oldest = self.horizon.oldest_remembered(times.watermark_us.map(Micros));
        self.ids.retain(|run| run.newest_bucket.is_none_or(|bucket| bucket >= oldest.0));
        self.merge_ids(oldest)?;
        for (metric, runs) in std::mem::take(&mut self.totals) {
            let merged = self.merge_totals(&metric, runs)?;
            self.totals.insert(metric, merged);
        }

        let at = self.begun.iter().position(|(begun, _)| *begun == epoch);
        let positions = at.map(|at| self.begun.drain(..=at).next_back()).and_then(|begun| begun.map(|(_, p)| p));
        let manifest = Manifest {
            generation: self.generation,
            sequence: 0,
            epoch,
            pipeline: self.identity.pipeline.clone(),
            lineage: self.identity.lineage,
            written_us: (self.now)().0,
            positions: positions.unwrap_or_default(),
            counters,
            event_times: Some(times),
            ids: self.ids.clone(),
            metrics: self.totals.clone(),
            changes: Vec::new(),
            previous: None,
        };
        // Only the process that has the log is told of a checkpoint as a whole.
        let Some(log) = &mut self.log else { return Ok(()) };
        let (bytes, rows) = manifest.runs().fold((0, 0), |(bytes, rows), run| (bytes + run.bytes, rows + run.rows));
        let (runs, written) = (manifest.runs().count(), Micros(manifest.written_us));
        failpoint("before-manifest");
        self.permit.wait()?;
        log.publish(manifest)?;
        failpoint("manifest-published");
        self.permit.wait()?;
        log.prune(self.keep, std::mem::take(&mut self.replaced))?;
        failpoint("pruned");
        self.telemetry.checkpoints.describe(written, bytes, rows, runs);
        self.telemetry.checkpoints.took(started.elapsed());
        self.telemetry.stages.reached(Stage::Checkpointed, epoch);
        self.progress.took_us.store(started.elapsed().as_micros() as u64, Ordering::Release);
        self.progress.manifests.fetch_add(1, Ordering::Release);
        self.progress.epoch.store(epoch, Ordering::Release);
        tracing::debug!(epoch, took_ms = started.elapsed().as_millis(), "checkpoint");
        Ok(())
    }

    fn merge_ids(&mut self, oldest: Bucket) -> Result<(), Error> {
        loop {
            let rows: Vec<u64> = self.ids.iter().map(|run| run.rows).collect();
            let due = Tiers::IDS.due(&rows);
            if due == 0 {
                return Ok(());
            }
            let merged = self.ids.split_off(self.ids.len() - due);
            self.replaced.extend(merged.iter().map(|run| run.name.clone()));
            let objects = self.read(&merged)?;
            let decoded = merged.iter().zip(&objects).map(|(run, object)| ids::decode(&run.name, object));
            let (object, stats) = ids::merge(&decoded.collect::<Result<Vec<_>, _>>()?, oldest)?;
            if stats.count > 0 {
                let run = self.put(&List::Ids, Encoded { object, rows: stats.count }, Some(stats.newest))?;
                self.ids.push(run);
            }
            failpoint("runs-merged");
        }
    }

    fn merge_totals(&mut self, metric: &str, mut runs: Vec<Run>) -> Result<Vec<Run>, Error> {
        loop {
            let rows: Vec<u64> = runs.iter().map(|run| run.rows).collect();
            let due = Tiers::TOTALS.due(&rows);
            if due == 0 {
                return Ok(runs);
            }
            let merged = runs.split_off(rows.len() - due);
            self.replaced.extend(merged.iter().map(|run| run.name.clone()));
            let objects = self.read(&merged)?;
            let decoded = merged.iter().zip(&objects).map(|(run, object)| totals::decode(&run.name, object));
            let object = totals::merge(&decoded.collect::<Result<Vec<_>, _>>()?);
            let rows = totals::decode("merged totals", &object)?.len() as u64;
            runs.push(self.put(&List::Totals(metric.to_owned()), Encoded { object, rows }, None)?);
            failpoint("runs-merged");
        }
    }

    fn read(&self, runs: &[Run]) -> Result<Vec<Bytes>, Error> {
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        let objects = self.store.read_all(&names)?;
        let missing = |name: &String| Error::Missing { what: name.clone() };
        objects.into_iter().zip(&names).map(|(object, name)| object.ok_or_else(|| missing(name))).collect()
    }
}

/// A run that is not written yet.
struct Encoded {
    object: Bytes,
    rows: u64,
}
