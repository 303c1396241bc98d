//! The one place that composes: source, coordinator, workers and publisher, from a checked configuration.
//!
//! ```text
//! source -> coordinator -> lanes -> workers (decode .. metrics, deliver) -> publisher -> tables
//! ```

pub mod build;
pub mod clock;
pub mod coordinator;
mod error;
mod feed;
mod lock;
pub mod probe;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_dataflows::event::Micros;
use timely::WorkerConfig;

use self::coordinator::{Coordinator, Ended, Intake};
use self::feed::{Lane, lanes};
use self::lock::OutputLock;
use self::worker::{Plan, work};
use crate::config::Config;
use crate::sink::publisher::{Delivery, Progress, Publisher, SinkError};
use crate::sink::tables::{ManifestText, NetFlow, RunManifest, Table, specs};

pub use error::RunError;

/// What somebody who only watches a run can see of it.
#[derive(Clone)]
pub struct Observer {
    /// What has been read.
    pub intake: Arc<Intake>,
    /// What has been computed and published.
    pub publisher: Publisher,
    /// Size of the input in bytes, where it is known.
    pub total_bytes: Option<u64>,
    /// Where the tables are.
    pub output: String,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why.
    pub ended: Ended,
    /// Everything that was computed and published.
    pub progress: Progress,
    /// Events read.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// From the first read to the last commit.
    pub took: Duration,
}

/// Runs a pipeline until its source ends or `stop` is set; everything that was cut is published when it returns.
///
/// `watch` is called once, when the tables are open and the first event is about to be read.
///
/// # Errors
///
/// When the source, the tables or the machine will not have it; see [`RunError`].
pub fn run(config: &Config, stop: &Arc<AtomicBool>, watch: impl FnOnce(Observer)) -> Result<Outcome, RunError> {
    let source = build::source(config)?;
    let total_bytes = source.total_bytes();
    let partitions: Vec<String> = source.partitions().iter().map(|partition| partition.name.clone()).collect();
    let workers = config.runtime.worker_count();
    let output = config.output.path.display().to_string();

    let _held = OutputLock::take(&config.output.path)?;
    let (publisher, writer) = Publisher::start(build::publishing(config, workers)?)?;
    if let Some(epoch) = publisher.held() {
        return Err(RunError::OutputInUse { output, epoch });
    }
    let manifest = build::manifest_text(config, &output);
    let plan = Plan {
        settings: build::settings(config, workers)?,
        curated: config.output.curated,
        partitions: partitions.into(),
        manifest: manifest.clone(),
        publisher: publisher.clone(),
    };
    let intake = Arc::new(Intake::default());
    watch(Observer { intake: Arc::clone(&intake), publisher: publisher.clone(), total_bytes, output });

    let started = (Instant::now(), clock::now());
    let (feeder, lanes) = lanes(workers);
    let guards = start_workers(lanes, plan)?;
    let cutting = (build::cut_rule(config), build::limits(config));
    let coordinator =
        Coordinator::new(source, feeder, publisher.clone(), cutting, Arc::clone(stop), Arc::clone(&intake));
    // Consumes the coordinator, and with it the feeder: that closes the lanes, and the workers run dry.
    let ended = coordinator.run();
    for result in guards.join() {
        result.map_err(RunError::Worker)?;
    }
    if ended.is_ok() && publisher.progress().closed_epoch == 0 {
        publish_nothing(config, &publisher, &manifest, started.1)?;
    }
    finish(&publisher, writer)?;
    Ok(Outcome {
        ended: ended?,
        progress: publisher.progress(),
        events: intake.events.load(Ordering::Relaxed),
        bytes: intake.bytes.load(Ordering::Relaxed),
        took: started.0.elapsed(),
    })
}

fn start_workers(lanes: Vec<Lane>, plan: Plan) -> Result<timely::communication::WorkerGuards<()>, RunError> {
    let lanes: Arc<[Mutex<Option<Lane>>]> = lanes.into_iter().map(|lane| Mutex::new(Some(lane))).collect();
    let config = timely::Config {
        communication: timely::CommunicationConfig::Process(lanes.len()),
        worker: WorkerConfig::default(),
    };
    timely::execute(config, move |worker| {
        let lane =
            lanes.get(worker.index()).and_then(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(lane) = lane {
            work(worker, &lane, &plan);
        }
    })
    .map_err(RunError::Worker)
}

/// Ends the writer after everything delivered is published.
fn finish(publisher: &Publisher, writer: JoinHandle<()>) -> Result<(), RunError> {
    publisher.finish();
    if writer.join().is_err() {
        return Err(RunError::Worker("the writer of the tables ended by a panic".to_owned()));
    }
    publisher.take_failure().map_or(Ok(()), |error| Err(error.into()))
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
            RunManifest::new(manifest.clone(), true).initial(opened).map_err(fits)?
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
