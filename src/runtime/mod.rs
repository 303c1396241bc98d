//! The one place that composes: source, coordinator, workers and publisher, from a checked configuration.
//!
//! ```text
//! source -> coordinator -> lanes -> workers (decode .. metrics, deliver) -> publisher -> tables
//! ```

pub mod access;
pub mod build;
pub mod clock;
pub mod coordinator;
mod error;
mod feed;
pub mod flight;
mod identity;
mod lease;
mod lock;
mod pace;
pub mod probe;
mod start;
mod threads;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::pipeline::Settings;
use timely::WorkerConfig;

use self::coordinator::{Coordinator, Ended, Intake, Parts};
use self::feed::{Lane, lanes};
use self::pace::Pace;
use self::start::{Begun, Watched, begin};
use self::threads::{Writers, join};
use self::worker::{Plan, work};
use crate::config::Config;
use crate::health::Health;
use crate::sink::publisher::{Delivery, Progress, Publisher, SinkError};
use crate::sink::tables::{ManifestText, NetFlow, RunManifest, SoFar, Table, specs};
use crate::source::PartitionStatus;

pub use crate::storage::Stores;
pub use error::RunError;

/// What somebody who only watches a run can see of it.
#[derive(Clone)]
pub struct Observer {
    /// What has been read.
    pub intake: Arc<Intake>,
    /// What has been computed and published.
    pub publisher: Publisher,
    /// What does not work at the moment.
    pub health: Arc<Health>,
    /// How far each partition has been read, where the source knows how far they go.
    pub partitions: Vec<Arc<PartitionStatus>>,
    /// Size of the input in bytes, where it is known.
    pub total_bytes: Option<u64>,
    /// Where the tables are.
    pub output: String,
    /// The last epoch that an earlier run has cut; 0 where there was none.
    pub resumed_after: Epoch,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why.
    pub ended: Ended,
    /// Everything that was computed and published, by earlier runs as well.
    pub progress: Progress,
    /// The last epoch that an earlier run had cut; 0 where there was none.
    pub resumed_after: Epoch,
    /// Events read.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// From the first read to the last commit.
    pub took: Duration,
}

/// Runs a pipeline until its source ends or `stop` is set; everything that was cut is published when it returns. It goes
/// on from where an earlier run on the same output stopped, however that ended.
///
/// `take_over` displaces an instance that is still there. `watch` is called once, when the past is known and the first
/// event is about to be read.
///
/// # Errors
///
/// When the source, the tables, the checkpoint or the machine will not have it; see [`RunError`].
pub fn run(
    config: &Config,
    take_over: bool,
    stop: &Arc<AtomicBool>,
    watch: impl FnOnce(Observer),
) -> Result<Outcome, RunError> {
    run_in(config, take_over, stop, watch, Stores::default())
}

/// As [`run`], with stores that the caller has made.
///
/// # Errors
///
/// As for [`run`].
pub fn run_in(
    config: &Config,
    take_over: bool,
    stop: &Arc<AtomicBool>,
    watch: impl FnOnce(Observer),
    stores: Stores,
) -> Result<Outcome, RunError> {
    let workers = config.runtime.worker_count();
    let output = config.output.path.display().to_string();
    let watched = Watched::default();
    let (begun, outputs) = begin(config, workers, take_over, &watched, stores)?;
    let held = outputs.0.in_any().unwrap_or(0);
    let settings = build::settings(config, workers, &begun.identity);
    let mut writers = Writers::start(config, settings.index.horizon, &begun, outputs, &watched)?;
    let manifest = build::manifest_text(config, &output, &begun.source.identity());
    let plan = plan(config, settings, &begun, &writers, &manifest);
    let Begun { lock: _held, source, loaded, after, positions, replay, .. } = begun;
    // The workers let go of what was restored once they have taken it up.
    drop(loaded);
    let resumed_after = replay.last().map_or(after, |cut| cut.epoch);
    let (publisher, intake) = (writers.publisher.clone(), Arc::new(Intake::default()));
    watch(Observer {
        intake: Arc::clone(&intake),
        publisher: publisher.clone(),
        health: Arc::clone(&watched.health),
        partitions: source.statuses(),
        total_bytes: source.total_bytes(),
        output: output.clone(),
        resumed_after,
    });

    let started = (Instant::now(), clock::now());
    let (feeder, lanes) = lanes(workers);
    let guards = start_workers(lanes, plan)?;
    let (cuts, cutting) = writers.cut(&feeder)?;
    let parts = Parts {
        source,
        feeder,
        cuts,
        pace: writers.checkpoints.clone().map(|writer| Pace::new(writer, config.checkpoint.interval)),
        faults: Arc::clone(&watched.faults),
        publisher: publisher.clone(),
        rule: build::cut_rule(config),
        limits: build::limits(config),
        stop: Arc::clone(stop),
        intake: Arc::clone(&intake),
    };
    let ended = coordinate(Coordinator::new(parts, after, positions), &replay, held, &publisher);
    join("the writer of cuts", cutting)?;
    for result in guards.join() {
        result.map_err(RunError::Worker)?;
    }
    if ended.is_ok() && !watched.faults.any() && publisher.progress().closed_epoch == 0 {
        publish_nothing(config, &publisher, &manifest, started.1)?;
    }
    let written = writers.finish();
    let ended = match ended {
        // Whoever writes the tables knows why.
        Err(RunError::PublishingFailed) => return Err(written.err().unwrap_or(RunError::PublishingFailed)),
        ended => ended?,
    };
    written?;
    Ok(Outcome {
        ended,
        progress: publisher.progress(),
        resumed_after,
        events: intake.events.load(Ordering::Relaxed),
        bytes: intake.bytes.load(Ordering::Relaxed),
        took: started.0.elapsed(),
    })
}

fn plan(config: &Config, settings: Settings, begun: &Begun, writers: &Writers, manifest: &ManifestText) -> Plan {
    let partitions: Vec<String> = begun.source.partitions().iter().map(|partition| partition.name.clone()).collect();
    Plan {
        settings,
        curated: config.output.curated,
        partitions: partitions.into(),
        manifest: manifest.clone(),
        publisher: writers.publisher.clone(),
        checkpoints: writers.checkpoints.clone(),
        loaded: begun.loaded.clone(),
        after: begun.after,
        counters: begun.counters.clone(),
    }
}

/// Consumes the coordinator, and with it the feeder: that closes the lanes, and the workers run dry.
fn coordinate(
    mut coordinator: Coordinator,
    replay: &[Cut],
    held: Epoch,
    publisher: &Publisher,
) -> Result<Ended, RunError> {
    // The first publication waits for the newest epoch that a table holds, and would wait for ever.
    coordinator.replay(replay, held).inspect_err(|_| publisher.abandon())?;
    reach("replayed");
    coordinator.run()
}

fn start_workers(lanes: Vec<Lane>, plan: Plan) -> Result<timely::communication::WorkerGuards<()>, RunError> {
    let workers = lanes.len();
    // Each worker takes its own out, so that what was restored does not stay in memory.
    let parts = lanes.into_iter().map(|lane| Mutex::new(Some((lane, plan.clone()))));
    let parts: Arc<[Mutex<Option<_>>]> = parts.collect();
    drop(plan);
    let config = timely::Config {
        communication: timely::CommunicationConfig::Process(workers),
        worker: WorkerConfig::default(),
    };
    timely::execute(config, move |worker| {
        let part =
            parts.get(worker.index()).and_then(|part| part.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some((lane, plan)) = part {
            work(worker, &lane, plan);
        }
    })
    .map_err(RunError::Worker)
}

/// An input without events still has tables: a row of zeros in the two that always have one.
fn publish_nothing(
    config: &Config,
    publisher: &Publisher,
    manifest: &ManifestText,
    opened: Micros,
) -> Result<(), RunError> {
    let fits = |error| RunError::Sink(SinkError::Rows(error));
    for (table, spec) in specs(config.output.curated).iter().enumerate() {
        let batch = if spec.name == NetFlow::spec().name {
            NetFlow { first_worker: true }.initial(opened).map_err(fits)?
        } else if spec.name == RunManifest::spec().name {
            RunManifest::new(manifest.clone(), true, SoFar::default()).initial(opened).map_err(fits)?
        } else {
            None
        };
        publisher.deliver(Delivery { table, epoch: 0, batch });
        for _ in 1..config.runtime.worker_count() {
            publisher.deliver(Delivery { table, epoch: 0, batch: None });
        }
    }
    Ok(())
}
