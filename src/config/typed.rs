//! The configuration as the runtime uses it: plain fields, checked, in whole units.
//!
//! The fields mirror `default.toml`, where each one's meaning and range stand; serde refuses to build this from a table
//! of settings that has another key, or lacks one.

use super::azure::Azure;
use super::cluster::Cluster;
use super::eventhubs::EventHubs;
use super::http::Http;
use super::place::Place;
use rustix::fs::Mode;
use rustix::process::umask;
use serde::Deserialize;
use std::{num::NonZero, thread::available_parallelism, time::Duration};
use tidemark_checkpoint::names;
use tidemark_delta::OnForeignChanges;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The pipeline as a whole.
    pub pipeline: Pipeline,
    /// Where events come from.
    pub source: Source,
    /// The event hub.
    pub eventhubs: EventHubs,
    /// The embedded generator.
    pub generator: Generator,
    /// How the stream is cut.
    pub epochs: Epochs,
    /// The contract of an event.
    pub contract: Contract,
    /// When too much is rejected.
    pub breaker: Breaker,
    /// What is kept of rejected events.
    pub quarantine: Quarantine,
    /// The order in which files are read.
    pub files: Files,
    /// What the watermark follows.
    pub watermark: Watermark,
    /// Watermark and deduplication.
    pub dedup: Dedup,
    /// What is written, and where.
    pub output: Output,
    /// How tables are written.
    pub sink: Sink,
    /// Cuts and checkpoints.
    pub checkpoint: Checkpoint,
    /// How failing stores are met.
    pub store: Store,
    /// Azure Storage, and who we are there.
    pub azure: Azure,
    /// Threads.
    pub runtime: Runtime,
    /// The processes that run the pipeline together.
    pub cluster: Cluster,
    /// Console, API and metrics.
    pub http: Http,
    /// Spans for a collector.
    pub traces: Traces,
    /// Logging.
    pub log: Log,
    /// Whether this start takes changes as they are that others have made to the tables. No setting: a flag of one start.
    #[serde(skip)]
    pub accept_changes: bool,
}

/// How long a cut of few events waits for others at most.
const LINGER_MAX: Duration = Duration::from_secs(5);

impl Config {
    /// Where cuts and checkpoints lie.
    pub fn checkpoint_path(&self) -> Place {
        self.checkpoint.path.clone().unwrap_or_else(|| self.output.path.join(names::IN_OUTPUT))
    }

    /// Shortest time between publications. In an object store it decides most of what a day costs.
    pub fn publish_interval(&self) -> Duration {
        let suitable = if matches!(self.output.path, Place::Local(_)) { 1 } else { 10 };
        self.sink.publish_interval.unwrap_or(Duration::from_secs(suitable))
    }

    /// How long a cut of few events waits for others, to go into one object with them: not at all on a disk. Between two
    /// publications nobody waits for it.
    pub fn cut_linger(&self) -> Duration {
        match self.checkpoint_path() {
            Place::Local(_) => Duration::ZERO,
            Place::Azure(_) => (self.publish_interval() / 2).min(LINGER_MAX),
        }
    }

    /// Whether the interval holds also where the trigger is shorter: if it was asked for, or saves requests.
    pub fn publishes_past_the_trigger(&self) -> bool {
        self.sink.publish_interval.is_some() || !matches!(self.output.path, Place::Local(_))
    }
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Name under which transactions are filed: ASCII letters, digits, `-`, `_`.
    pub name: String,
}

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The embedded generator.
    Generate,
    /// An event hub.
    EventHubs,
    /// Files of newline-delimited JSON.
    File,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Which source is read.
    pub kind: SourceKind,
    /// Files, directories and globs, or `-`; not empty if `kind` is [`SourceKind::File`].
    pub inputs: Vec<String>,
}

/// `[generator]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Seed of the events.
    pub seed: u64,
    /// First instant in microseconds since 1970-01-01T00:00:00Z; `None` is now.
    pub start: Option<i64>,
    /// Events per second over all partitions; 0 is as fast as possible.
    pub rate: u64,
    /// Number of events; 0 is without end.
    pub events: u64,
    /// Number of different users, at least 1.
    pub users: u64,
    /// Number of partitions, at least 1.
    pub partitions: usize,
    /// Share of events delivered twice. The four shares add up to at most 1.
    pub duplicates: f64,
    /// Share of events that break a rule.
    pub invalid: f64,
    /// Share of events behind the watermark.
    pub late: f64,
    /// Share of events out of order but in time.
    pub disordered: f64,
}

/// `[epochs]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epochs {
    /// Longest time a live source keeps an epoch open.
    pub trigger: Duration,
    /// Events of an epoch of a file source, at least 1.
    pub events: u64,
    /// Events of an epoch of a live source, at least 1.
    pub max_events: u64,
    /// Epochs cut and not yet published, at least 1.
    pub max_in_flight: usize,
    /// Bytes of bodies not yet computed and of rows not yet published.
    pub max_bytes_in_flight: u64,
}

/// `[contract]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// How far an event time may lie after its arrival.
    pub max_future_skew: Duration,
}

/// `[breaker]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Share of rejected events beyond which an epoch ends the run; 1 never does.
    pub max_rejected_share: f64,
    /// Epochs with fewer events are not judged.
    pub min_events: u64,
}

/// `[quarantine]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Bytes of payloads that are kept of each partition and epoch; `None` is without bound.
    pub max_bytes_per_epoch: Option<u64>,
    /// How long payloads stay after the closing of their epoch; `None` is for ever.
    pub keep_payloads: Option<Duration>,
}

/// `[files]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// How far the heads of files that are read together lie apart in event time.
    pub alignment: Duration,
}

/// `[watermark]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    /// Events that bear witness to an event time, from 1 to 1000.
    pub witnesses: usize,
    /// Share of late events beyond which a word is said; 1 never does.
    pub warn_late_share: f64,
}

/// `[dedup]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedup {
    /// Distance of the watermark from the greatest event time.
    pub watermark_delay: Duration,
    /// How long an id is remembered in event time; the watermark delay where the key is empty.
    pub retention: Duration,
    /// Ids to make room for at the start.
    pub expected_ids: u64,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Where tables and checkpoint lie.
    pub path: Place,
    /// Whether accepted events are written too.
    pub curated: bool,
    /// Who may read what is written to a local disk.
    pub readable_by: Readers,
}

/// Who may read what is written to a local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readers {
    /// The account of the process.
    Owner,
    /// Its group too.
    Group,
    /// Whoever the umask of the process lets.
    Umask,
}

impl Readers {
    /// Takes the right to read from all others, for every file that this process makes from now on.
    pub fn keep_others_out(self) {
        let mask = match self {
            Readers::Owner => Mode::RWXG | Mode::RWXO,
            Readers::Group => Mode::WGRP | Mode::RWXO,
            Readers::Umask => return,
        };
        let usual = umask(mask);
        // Never more than the process was started with.
        umask(usual | mask);
    }
}

/// `[sink]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Shortest time between publications; `None` is what suits the output. See [`Config::publish_interval`].
    pub publish_interval: Option<Duration>,
    /// Whether commits on a local disk are forced to it.
    pub sync: bool,
    /// What is done about changes of others to rows of the tables.
    pub foreign_changes: OnForeignChanges,
    /// Commits per checkpoint of a table's log, at least 1.
    pub log_checkpoint_every: u64,
    /// How long replaced log entries stay.
    pub log_retention: Duration,
    /// How long unused files stay.
    pub file_retention: Duration,
    /// How long the row of an epoch stays after its closing; `None` is for ever.
    pub keep_health: Option<Duration>,
    /// Small files that start a compaction, at least 2.
    pub compact_after_files: usize,
    /// Size in bytes of the files that compaction makes.
    pub compact_target: u64,
    /// Time between two rounds of maintenance.
    pub maintain_every: Duration,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Where cuts and checkpoints lie; `None` is below the output. See [`Config::checkpoint_path`].
    pub path: Option<Place>,
    /// Whether they are kept.
    pub enabled: bool,
    /// Shortest time between two checkpoints.
    pub interval: Duration,
    /// Number of checkpoints that are kept, at least 2.
    pub keep: usize,
    /// How long an instance that gives no sign of life is waited for, in object stores.
    pub lease_ttl: Duration,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// How long a failing store is tried again.
    pub give_up_after: Duration,
    /// Time after which a single request counts as failed.
    pub request_timeout: Duration,
}

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// Worker threads as configured; 0 is as many as there are cores. See [`Runtime::worker_count`].
    pub workers: usize,
}

impl Runtime {
    /// Worker threads to start, at least 1: the configured number, or the cores this process may use.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => available_parallelism().map_or(1, NonZero::get),
            workers => workers,
        }
    }
}

/// `[traces]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where spans are sent, if anywhere.
    pub endpoint: Option<String>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Levels, for everything or by module.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
}
