//! The one place that composes: source, coordinator, workers and publisher, from a checked configuration.
//!
//! ```text
//! source -> coordinator -> lanes -> workers (decode .. metrics, deliver) -> publisher -> tables
//! ```

pub mod access;
pub mod build;
pub mod clock;
pub mod coordinator;
mod crew;
mod cutter;
mod error;
mod feed;
pub mod flight;
pub mod follow;
mod identity;
mod lease;
mod lock;
mod meter;
mod others;
mod pace;
pub mod probe;
mod share;
mod start;
mod threads;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::pipeline::Settings;

use self::coordinator::{Coordinator, CutRule, Ended, Inside, Intake};
use self::crew::Workers;
use self::cutter::Cutter;
use self::feed::lanes;
use self::others::Others;
use self::pace::Pace;
use self::share::Share;
use self::start::{Begun, Watched, begin};
use self::threads::{Writers, join};
use self::worker::Plan;
use crate::cluster::ending;
use crate::cluster::links::Links;
use crate::cluster::messages::Message;
use crate::config::Config;
use crate::health::Health;
use crate::sink::publisher::{Delivery, Progress, Publisher, SinkError};
use crate::sink::tables::{ManifestText, NetFlow, RunManifest, SoFar, Table, specs};
use crate::source::PartitionStatus;
use crate::telemetry::Telemetry;

pub use crate::storage::Stores;
pub use error::RunError;

/// Where the tables of a dry run are, in words.
const NOWHERE: &str = "nowhere: this is a dry run";

/// What somebody who only watches a run can see of it.
#[derive(Clone)]
pub struct Observer {
    /// What every process can be asked.
    pub vitals: Vitals,
    /// What has been computed and published.
    pub publisher: Publisher,
}

/// What can be asked of a process that takes part in a run, whichever it is, without holding it up.
#[derive(Clone)]
pub struct Vitals {
    /// What has been read.
    pub intake: Arc<Intake>,
    /// What does not work at the moment.
    pub health: Arc<Health>,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// How far each partition has been read, where the source knows how far they go.
    pub partitions: Vec<Arc<PartitionStatus>>,
    /// Size of the input in bytes, where it is known.
    pub total_bytes: Option<u64>,
    /// What is read, in words.
    pub source: String,
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
/// on from where an earlier run on the same output stopped, however that ended. Where several processes run it together
/// this is process 0; the others [follow](follow::follow).
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

/// As [`run`], with stores that the caller has made. With those of [`Stores::in_memory`] it is a dry run: everything is read
/// and computed from the beginning, and nothing is written but to them; it needs a configuration without checkpoints.
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
    let others = Others::join(config, stop)?;
    let links = others.as_ref().map(|others| others.links);
    let outcome = lead(config, take_over, stop, watch, stores, others);
    match (&outcome, links) {
        (Err(error), Some(links)) => links.fail(error.status(), &error.to_string()),
        (Ok(_), Some(links)) => links.say_done(),
        (_, None) => {}
    }
    outcome
}

fn lead(
    config: &Config,
    take_over: bool,
    stop: &Arc<AtomicBool>,
    watch: impl FnOnce(Observer),
    stores: Stores,
    others: Option<Others>,
) -> Result<Outcome, RunError> {
    let workers = config.runtime.worker_count();
    let output = if stores.are_dry() { NOWHERE.to_owned() } else { config.output.path.display().to_string() };
    let watched = Watched::default();
    let (begun, outputs) = begin(config, workers, take_over, &watched, stores)?;
    if let Some(give_back) = begun.lock.give_back().filter(|_| others.is_some()) {
        ending::give_back_before(give_back);
    }
    let held = outputs.0.in_any().unwrap_or(0);
    let settings = build::settings(config, workers * config.cluster.processes, &begun.identity);
    let mut writers = Writers::start(config, settings.index.horizon, &begun, outputs, &watched)?;
    let manifest = build::manifest_text(config, &output, &begun.source.identity());
    let plan = plan(config, settings, &begun, &writers, &manifest, &watched);
    let start = others.as_ref().map(|_| others::start_message(&begun, held));
    meter::begin(&watched.telemetry, &begun, workers);
    let Begun { lock: _held, source, loaded, after, positions, replay, .. } = begun;
    // The workers let go of what was restored once they have taken it up.
    drop(loaded);
    let resumed_after = replay.last().map_or(after, |cut| cut.epoch);
    let (publisher, intake) = (writers.publisher.clone(), Arc::new(Intake::default()));
    let vitals = Vitals {
        intake: Arc::clone(&intake),
        health: Arc::clone(&watched.health),
        telemetry: Arc::clone(&watched.telemetry),
        partitions: source.statuses(),
        total_bytes: source.total_bytes(),
        source: manifest.source.clone(),
        output,
        resumed_after,
    };
    watch(Observer { vitals, publisher: publisher.clone() });

    let started = (Instant::now(), clock::now());
    let (feeder, lanes) = lanes(workers);
    let (links, incoming, data) = Others::parts(others);
    let guards = Workers::start(lanes, plan, data.map(|data| (data, config.cluster.process)))?;
    let (cuts, cutting) = writers.cut(&feeder, links)?;
    let parts = cutter::Parts {
        cuts,
        pace: writers.checkpoints.clone().map(|writer| Pace::new(writer, config.checkpoint.interval)),
        intake: Arc::clone(&intake),
        telemetry: Arc::clone(&watched.telemetry),
        links,
        ends_by_itself: matches!(build::cut_rule(config), CutRule::Events(_)),
    };
    let cutter = Arc::new(Cutter::new(parts, resumed_after, others::at_end(&positions, &replay)));
    if let (Some(links), Some(incoming), Some(start)) = (links, incoming, start) {
        others::listen(incoming, &cutter, &publisher, stop)?;
        links.broadcast(&Message::Start(Box::new(start)));
        publisher.tell_of_publications(move |epoch| links.broadcast(&Message::Visible(epoch)));
    }
    let around =
        Inside { faults: Arc::clone(&watched.faults), publisher: publisher.clone(), cutter: Arc::clone(&cutter) };
    let limits = build::limits(config);
    let parts = share::Parts { source, feeder, limits, intake: Arc::clone(&intake), around: Box::new(around) };
    let share = Share::new(parts, after, positions);
    let coordinator = Coordinator { share, cutter, rule: build::cut_rule(config), stop: Arc::clone(stop) };
    let ended = coordinate(coordinator, &replay, held, &publisher);
    let nothing = || publish_nothing(config, &publisher, &manifest, started.1);
    let ended = finish(ended, links, cutting, guards, &mut writers, nothing)?;
    Ok(Outcome {
        ended,
        progress: publisher.progress(),
        resumed_after,
        events: intake.events.load(Ordering::Relaxed),
        bytes: intake.bytes.load(Ordering::Relaxed),
        took: started.0.elapsed(),
    })
}

/// Waits until everything that was cut is written, or says why it cannot be.
fn finish(
    ended: Result<Ended, RunError>,
    links: Option<&Links>,
    cutting: JoinHandle<()>,
    guards: Workers,
    writers: &mut Writers,
    publish_nothing: impl FnOnce() -> Result<(), RunError>,
) -> Result<Ended, RunError> {
    let ended = match (ended, links) {
        // Workers that wait for other processes cannot be waited for. Whoever writes the tables knows why.
        (Err(RunError::PublishingFailed), Some(_)) => {
            return Err(writers.failure().err().unwrap_or(RunError::PublishingFailed));
        }
        (Err(error), Some(_)) => return Err(error),
        (ended, links) => {
            links.into_iter().for_each(|links| links.broadcast(&Message::Drain));
            ended
        }
    };
    join("the writer of cuts", cutting)?;
    if let Some(links) = links {
        writers.failure()?;
        links.broadcast(&Message::End);
    }
    guards.join()?;
    if ended.is_ok() && !writers.have_failed() && writers.publisher.progress().closed_epoch == 0 {
        publish_nothing()?;
    }
    if let Some(links) = links {
        links.await_done();
    }
    let written = writers.finish();
    let ended = match ended {
        // Whoever writes the tables knows why.
        Err(RunError::PublishingFailed) => return Err(written.err().unwrap_or(RunError::PublishingFailed)),
        ended => ended?,
    };
    written?;
    Ok(ended)
}

fn plan(
    config: &Config,
    settings: Settings,
    begun: &Begun,
    writers: &Writers,
    manifest: &ManifestText,
    watched: &Watched,
) -> Plan {
    let partitions: Vec<String> = begun.source.partitions().iter().map(|partition| partition.name.clone()).collect();
    Plan {
        settings,
        curated: config.output.curated,
        partitions: partitions.into(),
        manifest: manifest.clone(),
        publisher: Some(writers.publisher.clone()),
        gathered: config.cluster.is_shared().then(|| config.runtime.worker_count()),
        checkpoints: writers.checkpoints.clone(),
        loaded: begun.loaded.clone(),
        after: begun.after,
        counters: begun.counters.clone(),
        telemetry: Arc::clone(&watched.telemetry),
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
    let (ended, last) = coordinator.run()?;
    publisher.drain(last);
    Ok(ended)
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
