//! The one place that composes: source, coordinator, workers and publisher, from a checked configuration.
//!
//! ```text
//! source -> coordinator -> lanes -> workers (decode .. metrics, deliver) -> publisher -> tables
//! ```

pub mod clock;
pub mod coordinator;
mod error;
mod feed;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::distinct::Settings as DistinctSettings;
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::watermark::Horizon;
use timely::WorkerConfig;

use self::coordinator::{Coordinator, CutRule, Ended, Intake, Limits};
use self::feed::{Lane, lanes};
use self::worker::{Plan, work};
use crate::config::{Config, SourceKind};
use crate::sink::publisher::{Delivery, Options, Progress, Publisher};
use crate::sink::tables::{ManifestText, NetFlow, RunManifest, Table, specs};
use crate::source::Source;

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
    let source = crate::source::open(config)?;
    let total_bytes = source.total_bytes();
    let partitions: Vec<String> = source.partitions().iter().map(|partition| partition.name.clone()).collect();
    let workers = config.runtime.worker_count();
    let output = config.output.path.display().to_string();

    let (publisher, writer) = Publisher::start(publisher_options(config, workers)?)?;
    if let Some(epoch) = publisher.resumed_at() {
        return Err(RunError::OutputInUse { output, epoch });
    }
    let manifest = manifest_text(config, &output);
    let plan = Plan {
        settings: settings(config, workers)?,
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
    let cutting = (cut_rule(config), limits(config));
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

fn start_workers(lanes: Vec<Lane>, plan: Plan) -> Result<timely::WorkerGuards<()>, RunError> {
    let lanes: Arc<[Mutex<Option<Lane>>]> = lanes.into_iter().map(|lane| Mutex::new(Some(lane))).collect();
    let config = timely::Config { communication: timely::CommunicationConfig::Process(lanes.len()), worker: WorkerConfig::default() };
    timely::execute(config, move |worker| {
        let lane = lanes.get(worker.index()).and_then(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).take());
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
    let fits = |error| RunError::Sink(crate::sink::publisher::SinkError::Rows(error));
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

fn settings(config: &Config, workers: usize) -> Result<Settings, RunError> {
    let key = || getrandom::u64().map_err(|error| RunError::Randomness(error.to_string()));
    let expected_ids = usize::try_from(config.dedup.expected_ids).unwrap_or(usize::MAX) / workers;
    Ok(Settings {
        contract: Contract {
            max_future_skew_us: micros(config.contract.max_future_skew),
            id_key: [key()?, key()?],
            curated: config.output.curated,
        },
        distinct: DistinctSettings {
            horizon: Horizon {
                watermark_delay_us: micros(config.dedup.watermark_delay),
                dedup_retention_us: micros(config.dedup.retention),
            },
            expected_ids,
            fingerprint_key: [key()?, key()?],
        },
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn cut_rule(config: &Config) -> CutRule {
    match config.source.kind {
        SourceKind::File => CutRule::Events(config.epochs.events),
        SourceKind::Generate => CutRule::Trigger(config.epochs.trigger),
    }
}

fn limits(config: &Config) -> Limits {
    Limits { epochs: config.epochs.max_in_flight, bytes: config.epochs.max_bytes_in_flight }
}

fn publisher_options(config: &Config, workers: usize) -> Result<Options, RunError> {
    let sink = &config.sink;
    let interval = match cut_rule(config) {
        // A live source sets the pace by itself; waiting longer than its trigger would only add latency.
        CutRule::Trigger(trigger) => sink.publish_interval.min(trigger),
        CutRule::Events(_) => sink.publish_interval,
    };
    let policy = tidemark_delta::MaintenancePolicy {
        checkpoint_interval: sink.log_checkpoint_every,
        log_retention: sink.log_retention,
        retention: sink.file_retention,
        compact_after_files: sink.compact_after_files,
        target_file_bytes: sink.compact_target,
        maintain_every: sink.maintain_every,
        ..Default::default()
    };
    Ok(Options {
        store: tidemark_delta::StoreOptions::local(&config.output.path)?,
        identity: tidemark_delta::Identity { pipeline: config.pipeline.name.clone(), generation: 1 },
        specs: specs(config.output.curated),
        policy,
        interval,
        workers,
    })
}

fn manifest_text(config: &Config, output: &str) -> ManifestText {
    let dedup = &config.dedup;
    ManifestText {
        output_path: output.to_owned(),
        source: match config.source.kind {
            SourceKind::File => format!("file: {}", config.source.inputs.join(", ")),
            SourceKind::Generate => format!("generate: seed {}", config.generator.seed),
        },
        dedup_scope: format!(
            "event_id, watermark delay {} s, retention {} s of event time",
            dedup.watermark_delay.as_secs_f64(),
            dedup.retention.as_secs_f64()
        ),
    }
}
