//! `tidemark run`: runs the pipeline, and shows how it goes.

use crate::cli::flags::{OfRun, SettingFlags};
use crate::cli::{Global, check_memory};
use crate::cluster::supervisor::end_with_it;
use crate::config::Config;
use crate::exit::{ExitStatus, Failure};
use crate::http::{HttpError, Server};
use crate::quarantine::newest::newest;
use crate::report::reader::Reader;
use crate::report::{live::Live, summary};
use crate::runtime::Ended;
use crate::runtime::allowance::check_threads;
use crate::runtime::{Observer, Stores};
use crate::source::{PartitionStatus, PartitionStatuses};
use crate::telemetry::{NEWEST_REFUSED, Telemetry};
use crate::{runtime, signals};
use clap::Args;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Builder;

const EXAMPLES: &str = "Examples:
  tidemark run                                   generated events into ./data, until Ctrl-C
  tidemark run --input events/ --output tables   every file below events, then end
  tidemark run --input events/ --dry-run         what that would count, without a trace
  tidemark generate --stdout | tidemark run --input -";

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// Displace an instance that is still running on this checkpoint; it can write nothing any more
    #[arg(long)]
    pub take_over: bool,
    /// Take changes as they are that others have made to the tables' rows; from then on `evidence` names them, and passes
    #[arg(long)]
    pub accept_changes: bool,
    /// Read and compute everything from the beginning, print the summary, and write nothing anywhere
    #[arg(long, conflicts_with_all = ["take_over", "accept_changes", "supervised"])]
    pub dry_run: bool,
    /// Standard input says when to end: for those whom `tidemark cluster` has started
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl Run {
    /// Runs until the source ends or a signal comes, and prints the three metrics as they then stand.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let mut effective = global.start(&self.settings)?;
        if self.dry_run {
            rehearse(&mut effective.config)?;
        }
        check_memory(&effective, effective.config.cluster.processes)?;
        check_threads(&effective.config)?;
        effective.config.accept_changes = self.accept_changes;
        let config = &effective.config;
        config.output.readable_by.keep_others_out();
        let stop = signals::stop_flag().map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
        if self.supervised {
            end_with_it().map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
        }
        let console = Server::start(&effective, &stop).map_err(not_served)?;
        let ended = match config.cluster.process {
            0 => self.lead(config, &stop, console.as_ref(), out),
            _ => follow(config, &stop, console.as_ref()),
        };
        if let Some(console) = console {
            console.end();
        }
        ended
    }

    fn lead(
        &self,
        config: &Config,
        stop: &Arc<AtomicBool>,
        console: Option<&Server>,
        out: &mut dyn Write,
    ) -> Result<ExitStatus, Failure> {
        let (mut live, mut traces, mut partitions) = (None, None, PartitionStatuses::default());
        let mut telemetry = Arc::<Telemetry>::default();
        let stores = if self.dry_run { Stores::in_memory() } else { Stores::default() };
        let watch = |observer: Observer| {
            let vitals = &observer.status;
            tracing::info!(tables = vitals.output, workers = config.runtime.worker_count(), "running");
            if vitals.resumed_after > 0 {
                tracing::info!(epoch = vitals.resumed_after, "going on where an earlier run stopped");
            }
            telemetry = Arc::clone(&vitals.telemetry);
            telemetry.late.warn_beyond(config.watermark.warn_late_share);
            partitions.clone_from(&vitals.partitions);
            if let Some(console) = console {
                console.observe(vitals.clone());
                show_what_was_rejected(config, &vitals.telemetry);
            }
            traces = Traced::start(config, &vitals.telemetry);
            live = Some(Live::start(observer));
        };
        let outcome = runtime::run_in(config, self.take_over, stop, watch, stores.clone());
        if let Some(live) = live {
            live.end();
        }
        if let Some(traces) = traces {
            traces.end();
        }
        partitions.all().iter().for_each(|partition| tell(partition));
        let outcome = outcome?;
        let ended = match outcome.ended {
            Ended::Exhausted => "the input has ended",
            Ended::Stopped => "stopped as asked",
        };
        if outcome.ended == Ended::Exhausted
            && outcome.progress.epoch == outcome.resumed_after
            && outcome.resumed_after > 0
            && outcome.events == 0
        {
            tracing::info!(epoch = outcome.resumed_after, "nothing to do: an earlier run had read the whole input");
        }
        tracing::info!(
            events = outcome.events,
            epochs = outcome.progress.epoch,
            "{ended}; {}",
            if self.dry_run { "nothing was written" } else { "everything is published" }
        );
        let text = summary::of(config, &outcome, telemetry.since_begun().rejected, stores)?;
        out.write_all(text.as_bytes()).map_err(Failure::output)?;
        Ok(ExitStatus::Done)
    }
}

/// What a dry run does not do: write checkpoints, keep accepted events, and speak with other processes.
fn rehearse(config: &mut Config) -> Result<(), Failure> {
    if config.cluster.is_shared() {
        let problem = format!(
            "--dry-run: one process alone runs dry, and cluster.processes is {}; set it to 1: the result does not depend on it",
            config.cluster.processes
        );
        return Err(Failure::new(ExitStatus::Usage, problem));
    }
    config.checkpoint.enabled = false;
    // In memory they would take as much as the input.
    config.output.curated = false;
    tracing::info!("a dry run: everything is read and computed from the beginning, and nothing is written");
    Ok(())
}

/// Spans for a collector, in a build that has them.
struct Traced(#[cfg(feature = "traces")] crate::traces::Traces);

impl Traced {
    /// Starts to send them where that is wanted. A run goes without them sooner than not at all.
    #[cfg(feature = "traces")]
    fn start(config: &Config, telemetry: &Arc<Telemetry>) -> Option<Traced> {
        let endpoint = config.traces.endpoint.as_deref()?;
        let started = crate::traces::Traces::start(endpoint, &config.pipeline.name, telemetry, runtime::clock::now);
        let started = started.inspect_err(|error| tracing::warn!(%error, "traces cannot be sent"));
        started.ok().flatten().map(Traced)
    }

    /// The configuration refuses to ask for them.
    #[cfg(not(feature = "traces"))]
    fn start(_config: &Config, _telemetry: &Arc<Telemetry>) -> Option<Traced> {
        None
    }

    fn end(self) {
        #[cfg(feature = "traces")]
        self.0.end();
    }
}

/// Takes part in what process 0 runs, which has the summary.
fn follow(config: &Config, stop: &Arc<AtomicBool>, console: Option<&Server>) -> Result<ExitStatus, Failure> {
    let (process, workers) = (config.cluster.process, config.runtime.worker_count());
    tracing::info!(process, processes = config.cluster.processes, workers, "running beside process 0");
    let events = runtime::follower::run(config, stop, |vitals| {
        if let Some(console) = console {
            console.observe(vitals);
        }
    })?;
    tracing::info!(process, events, "everything is published");
    Ok(ExitStatus::Done)
}

fn not_served(error: HttpError) -> Failure {
    Failure::new(if error.is_usage() { ExitStatus::Usage } else { ExitStatus::Unavailable }, error)
}

/// Reads the newest rejected events of earlier runs, beside the pipeline: nobody waits for them. What was rejected after the
/// restored epoch is computed again, and comes by itself.
fn show_what_was_rejected(config: &Config, telemetry: &Arc<Telemetry>) {
    let Some(epoch) = telemetry.restore.get().map(|restore| restore.epoch) else { return };
    let (config, telemetry) = (config.clone(), Arc::clone(telemetry));
    let read = move || {
        let found = Reader::new(&config).and_then(|reader| newest(&reader, epoch, NEWEST_REFUSED));
        match found {
            Ok(events) => drop(telemetry.refused_before.set(events)),
            Err(error) => tracing::info!(%error, "the console does not show what earlier runs have rejected"),
        }
    };
    // Without the thread they are not shown, and nothing else is lost.
    drop(Builder::new().name("rejected-before".to_owned()).spawn(read));
}

/// How reading a partition went.
fn tell(partition: &PartitionStatus) {
    let lag = partition.lag();
    tracing::info!(
        partition = partition.id(),
        next = partition.next(),
        lag_events = lag.events,
        lag_seconds = lag.seconds,
        reconnects = partition.reconnects.load(Relaxed),
        redelivered = partition.redelivered.load(Relaxed),
        missing = partition.missing.load(Relaxed),
        "read"
    );
}
