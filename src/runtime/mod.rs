//! The one place that composes: source, leader, readers, workers and publisher, from a checked configuration.
//!
//! ```text
//! source -> reader -> lanes -> workers (decode .. metrics, deliver) -> publisher -> tables
//!             |  ^
//!           leader: epochs -> cuts
//! ```

pub mod access;
pub mod allowance;
pub mod backpressure;
pub mod build;
pub mod checkpoint_schedule;
pub mod clock;
pub mod epochs;
#[cfg(test)]
mod epochs_tests;
mod error;
pub mod follower;
mod guard;
mod identity;
mod lanes;
mod leader;
mod leader_link;
mod lease;
mod lineage;
mod lock;
mod meter;
mod older_rule;
mod partitions;
mod peers;
pub mod probe;
mod ranges;
mod reader;
mod replay;
mod run_context;
mod start;
mod threads;
mod worker;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::pipeline::Settings;
use tidemark_store::failpoint;

use self::checkpoint_schedule::CheckpointSchedule;
use self::epochs::Epochs;
use self::lanes::lanes;
use self::leader_link::{LeaderLink, Mailbox, Stop};
use self::peers::Peers;
use self::reader::PartitionReader;
use self::run_context::RunContext;
use self::start::{Recovered, begin};
use self::threads::{Writers, join};
use self::worker::Plan;
use self::workers::Workers;
use crate::cluster::ending;
use crate::cluster::links::Links;
use crate::cluster::messages::Message;
use crate::config::Config;
use crate::health::Health;
use crate::sink::publisher::{Delivery, Progress, Publisher, SinkError};
use crate::sink::tables::{ManifestText, NetFlow, PartitionNames, RunManifest, SoFar, Table, specs};
use crate::source::{PartitionStatuses, Source};
use crate::telemetry::Telemetry;

pub use self::epochs::Ended;
pub use self::reader::ReadCounters;
pub use crate::storage::Stores;
pub use error::RunError;

/// Where the tables of a dry run are, in words.
const NOWHERE: &str = "nowhere: this is a dry run";

/// What somebody who only watches a run can see of it.
#[derive(Clone)]
pub struct Observer {
    /// What every process can be asked.
    pub status: RunStatus,
    /// What has been computed and published.
    pub publisher: Publisher,
}

/// What can be asked of a process that takes part in a run, whichever it is, without holding it up.
#[derive(Clone)]
pub struct RunStatus {
    /// What has been read.
    pub counters: Arc<ReadCounters>,
    /// What does not work at the moment.
    pub health: Arc<Health>,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// How far each partition has been read, where the source knows how far they go.
    pub partitions: PartitionStatuses,
    /// Size of the input in bytes, where it is known.
    pub total_bytes: Option<u64>,
    /// What is read, in words.
    pub source: String,
    /// Where the tables are.
    pub output: String,
    /// The last epoch that an earlier run has cut; 0 where there was none.
    pub resumed_after: Epoch,
}

impl RunStatus {
    /// What can be asked of a run that begins; `told` is what is read and where the tables are, in words, and the last epoch
    /// that an earlier run has cut.
    fn of(
        context: &RunContext,
        source: &dyn Source,
        counters: Arc<ReadCounters>,
        (from, output, resumed_after): (String, String, Epoch),
    ) -> RunStatus {
        RunStatus {
            counters,
            health: Arc::clone(&context.health),
            telemetry: Arc::clone(&context.telemetry),
            partitions: source.statuses(),
            total_bytes: source.total_bytes(),
            source: from,
            output,
            resumed_after,
        }
    }
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
/// this is process 0, the leader; the others [follow](follower::run).
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
    let peers = Peers::join(config, stop)?;
    let links = peers.as_ref().map(|peers| peers.links);
    let outcome = run_among(config, take_over, stop, watch, stores, peers);
    match (&outcome, links) {
        (Err(error), Some(links)) => links.fail(error.status(), &error.to_string()),
        (Ok(_), Some(links)) => links.say_done(),
        (_, None) => {}
    }
    outcome
}

fn run_among(
    config: &Config,
    take_over: bool,
    stop: &Arc<AtomicBool>,
    watch: impl FnOnce(Observer),
    stores: Stores,
    peers: Option<Peers>,
) -> Result<Outcome, RunError> {
    let workers = config.runtime.worker_count();
    let output = if stores.are_dry() { NOWHERE.to_owned() } else { config.output.path.display().to_string() };
    let context = RunContext::default();
    let (recovered, outputs) = context.starting(stop, || begin(config, workers, take_over, &context, stores))?;
    if let Some(give_back) = recovered.lock.give_back().filter(|_| peers.is_some()) {
        ending::give_back_before(give_back);
    }
    let held = outputs.0.in_any().unwrap_or(0);
    let settings =
        build::settings(config, workers * config.cluster.processes, &recovered.identity, &recovered.positions);
    let manifest = build::manifest_text(config, &output, &recovered.source.identity());
    let mut writers = Writers::start(config, settings.index.horizon, &recovered, outputs, &manifest, &context)?;
    let names = PartitionNames::new(recovered.positions.iter().map(|position| position.partition.clone()));
    let plan = plan(config, settings, &recovered, &writers, &manifest, &names, &context);
    let start = peers.as_ref().map(|_| peers::start_message(&recovered, held));
    meter::begin(&context.telemetry, &recovered, workers);
    let starting_point = recovered.starting_point(build::cut_rule(config));
    let Recovered { lock: _held, source, loaded, after, positions, replay, .. } = recovered;
    // The workers let go of what was restored once they have taken it up.
    drop(loaded);
    let resumed_after = starting_point.epoch;
    let (publisher, counters) = (writers.publisher.clone(), Arc::new(ReadCounters::default()));
    let told = (manifest.source.clone(), output, resumed_after);
    let status = RunStatus::of(&context, source.as_ref(), Arc::clone(&counters), told);
    watch(Observer { status, publisher: publisher.clone() });

    let started = (Instant::now(), clock::now());
    let (feeder, lanes) = lanes(workers);
    let (links, incoming, data) = Peers::parts(peers);
    let guards = Workers::start(lanes, plan, data.map(|data| (data, config.cluster.process)))?;
    let (cuts, cutting) = writers.cut(feeder.announcer(), links)?;
    let (mailbox, received) = Mailbox::new();
    let (leader, told) = channel();
    let parts = leader::Parts {
        cuts,
        checkpoints: writers.checkpoints.clone(),
        counters: Arc::clone(&counters),
        telemetry: Arc::clone(&context.telemetry),
        names,
        mailbox: mailbox.clone(),
        links,
        publisher: publisher.clone(),
        stop: Arc::clone(stop),
        health: Arc::clone(&context.health),
    };
    let schedule = schedule(config, &writers);
    let epochs = Epochs::new(build::cut_rule(config), config.cluster.processes, schedule, starting_point);
    if let (Some(links), Some(incoming), Some(start)) = (links, incoming, start) {
        peers::listen(incoming, leader.clone())?;
        peers::say_start(links, start);
    }
    publisher.tell_of_publications(move |epoch| {
        links.iter().for_each(|links| links.broadcast(&Message::Visible(epoch)));
        mailbox.wake();
    });
    let leading = leader::start(epochs, parts, told)?;
    let link = LeaderLink::Local { leader, publisher: publisher.clone(), faults: Arc::clone(&context.faults) };
    let limits = build::limits(config);
    let parts = reader::Parts { source, feeder, limits, counters: Arc::clone(&counters), link, mailbox: received };
    let reader = PartitionReader::new(parts, after, positions);
    let ended = read(reader, &replay, held, leading, &publisher);
    let nothing = || publish_nothing(config, &publisher, &manifest, started.1);
    let ended = finish(ended, links, cutting, guards, &mut writers, nothing)?;
    Ok(Outcome {
        ended,
        progress: publisher.progress(),
        resumed_after,
        events: counters.events.load(Ordering::Relaxed),
        bytes: counters.bytes.load(Ordering::Relaxed),
        took: started.0.elapsed(),
    })
}

/// When checkpoints are asked for, where any are kept.
fn schedule(config: &Config, writers: &Writers) -> Option<CheckpointSchedule> {
    let newest = writers.checkpoints.as_ref()?.progress().epoch.load(Ordering::Acquire);
    Some(CheckpointSchedule::new(config.checkpoint.interval, newest, Instant::now()))
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
        (ended, _) => ended,
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
    recovered: &Recovered,
    writers: &Writers,
    manifest: &ManifestText,
    names: &PartitionNames,
    context: &RunContext,
) -> Plan {
    Plan {
        settings,
        curated: config.output.curated,
        partitions: names.clone(),
        manifest: manifest.clone(),
        publisher: Some(writers.publisher.clone()),
        gathered: config.cluster.is_shared().then(|| config.runtime.worker_count()),
        checkpoints: writers.checkpoints.clone(),
        loaded: recovered.loaded.clone(),
        after: recovered.after,
        counters: recovered.counters.clone(),
        telemetry: Arc::clone(&context.telemetry),
    }
}

/// Reads to the end, and waits for the leader. Consumes the reader, and with it the lanes' feeder: the workers run dry.
fn read(
    mut reader: PartitionReader,
    replay: &[Cut],
    held: Epoch,
    leading: JoinHandle<leader::Led>,
    publisher: &Publisher,
) -> Result<Ended, RunError> {
    // The first publication waits for the newest epoch that a table holds, and would wait for ever.
    let replayed = reader.replay(replay, held).inspect_err(|_| publisher.abandon());
    failpoint("replayed");
    match replayed.and_then(|()| reader.follow()) {
        Ok(()) | Err(Stop::Drained) => {}
        Err(Stop::Failed(error)) => return Err(error),
    }
    drop(reader);
    let led = leading.join().map_err(|_| RunError::Worker("the leader ended by a panic".to_owned()))?;
    let (ended, last) = led.inspect_err(|_| publisher.abandon())?;
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
