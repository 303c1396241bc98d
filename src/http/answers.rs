//! What the API answers, and so what the console and `status` show. The description of the API is made from these types.
//!
//! Money is text with two decimals, since a JSON number would be rounded; instants are RFC 3339 in UTC; durations are
//! seconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pipeline at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// What is read.
    pub source: String,
    /// Where the tables are.
    pub output: String,
    /// Number of this process.
    pub process: usize,
    /// Number of processes.
    pub processes: usize,
    /// Worker threads of this process.
    pub workers: usize,
    /// When this process was started.
    pub started: String,
    /// How long ago that was.
    pub uptime_seconds: f64,
    /// `starting`, `running` or `stopping`.
    pub state: String,
    /// Whether it does its work.
    pub ready: bool,
    /// Why it does not.
    pub reasons: Vec<String>,
    /// Time, as the stream sees it.
    pub time: Times,
    /// What became of all events since the pipeline was begun.
    pub events: Events,
    /// Speed at the moment.
    pub rates: Rates,
    /// What this process has read since it was started.
    pub read: Read,
    /// The partitions; the first 64 of them.
    pub partitions: Vec<Partition>,
    /// Number of all partitions.
    pub partition_count: usize,
    /// How each service gets on.
    pub services: Vec<Service>,
    /// What the process takes of the machine.
    pub usage: Usage,
}

/// Time, as the stream sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// By the clock of this machine.
    pub now: String,
    /// The greatest event time so far.
    pub newest_event_time: Option<String>,
    /// Events at or before it are late.
    pub watermark: Option<String>,
    /// How far the watermark stays behind what event time has come to.
    pub watermark_delay_seconds: f64,
    /// What holds the watermark back, as of the newest epoch: a partition of which more is there to be read, and which has
    /// not come as far in event time as the others. None where nothing does.
    pub held_back: Option<HeldBack>,
    /// How long an id is remembered, in event time.
    pub retention_seconds: f64,
    /// How far the newest event time of the newest epoch lay behind the closing of that epoch.
    pub event_time_lag_seconds: Option<f64>,
    /// Number of remembered ids.
    pub remembered_ids: u64,
    /// Number of ids that room was made for at the start.
    pub expected_ids: u64,
    /// Memory of the index of ids in this process.
    pub index_bytes: u64,
    /// The watermark at which ids are forgotten next.
    pub next_expiry: Option<String>,
    /// How far the watermark has to go until then.
    pub next_expiry_in_seconds: Option<f64>,
}

/// The partition that holds the watermark back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldBack {
    /// What the tables call it.
    pub partition: String,
    /// How far it has come in event time. None where that is not known: nothing valid of it has been read yet, and the
    /// watermark stays where it is.
    pub event_time: Option<String>,
    /// How far that lies behind the newest event time.
    pub behind_seconds: Option<f64>,
    /// When the first epoch was closed from which on the same partition has held it back in each, as far as this process
    /// knows.
    pub since: String,
    /// How long ago that was.
    pub since_seconds: f64,
}

/// What became of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Events that came in: the sum of the next three.
    pub received: u64,
    /// Events that count.
    pub accepted: u64,
    /// Events that repeat an accepted one.
    pub duplicates: u64,
    /// Events that broke a rule.
    pub rejected: u64,
    /// Events that were missing in the source.
    pub missing: u64,
}

/// Speed over the last seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Time that they are taken over.
    pub window_seconds: f64,
    /// Events read.
    pub read_per_second: f64,
    /// Bytes read.
    pub bytes_per_second: f64,
    /// Events decided.
    pub decided_per_second: f64,
    /// Accepted events.
    pub accepted_per_second: f64,
    /// Duplicates.
    pub duplicates_per_second: f64,
    /// Rejected events.
    pub rejected_per_second: f64,
    /// Rows written to tables.
    pub rows_per_second: f64,
    /// Publications.
    pub publications_per_second: f64,
}

/// What this process has read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Events.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
    /// Size of the whole input, where it is known.
    pub total_bytes: Option<u64>,
    /// Events that wait in the source, where that is known.
    pub lag_events: Option<u64>,
    /// Between the arrivals of the newest event and of the last that was read, where that is known.
    pub lag_seconds: Option<u64>,
}

/// A partition of the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// What the tables call it.
    pub name: String,
    /// The offset after the last one that was cut.
    pub next_offset: u64,
    /// Events that wait in it, where that is known.
    pub lag_events: Option<u64>,
    /// The same in seconds between arrivals.
    pub lag_seconds: Option<u64>,
    /// Connections that were opened anew after a fault.
    pub reconnects: Option<u64>,
}

/// A service that the pipeline depends on, or is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub healthy: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// Since when that has been so.
    pub since_seconds: f64,
    /// How often it has failed since the process was started.
    pub failures: u64,
}

/// What the process takes of the machine, where the operating system tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Processor time since the start.
    pub cpu_seconds: Option<f64>,
    /// Cores in use over the last seconds.
    pub cpu_cores: Option<f64>,
    /// Memory.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// The way of the epochs, stage by stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// The stages in order.
    pub stages: Vec<StageOf>,
    /// The stage that epochs wait for although it has not moved for a while.
    pub stuck_at: Option<String>,
    /// Epochs that were cut and that readers do not see yet.
    pub in_flight: u64,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageOf {
    /// `opened`, `cut`, `decoded`, `distinct`, `aggregated`, `delivered`, `published` or `checkpointed`.
    pub name: String,
    /// The newest epoch that it has finished.
    pub epoch: u64,
    /// Epochs that the stage before has finished and this one has not. An epoch that is still being read does not count.
    pub behind: u64,
    /// How long it has been behind without finishing an epoch.
    pub waiting_seconds: f64,
    /// What passes it: events, or rows where it writes tables.
    pub per_second: f64,
}

/// What becomes of events by the rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Sums since the pipeline was begun.
    pub events: Events,
    /// Every rule, in the order of checking.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, as in `rejection_reason`.
    pub name: String,
    /// When an event breaks it.
    pub meaning: String,
    /// Events that broke it since the pipeline was begun.
    pub rejected: u64,
}

/// The rejected events that came last. Those of earlier runs are there once they have been read from the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// The newest first; at most 50.
    pub events: Vec<RejectedEvent>,
}

/// A rejected event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectedEvent {
    /// When it was rejected.
    pub at: String,
    /// The rule that it broke.
    pub reason: String,
    /// Its id, if it has one.
    pub event_id: Option<String>,
    /// Partition.
    pub partition: String,
    /// Offset in it.
    pub offset: u64,
    /// Epoch.
    pub epoch: u64,
    /// The start of its body, with letters and digits masked.
    pub masked_payload: String,
}

/// What readers see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// The epoch that every table holds.
    pub epoch: u64,
    /// Groups of commits since the process was started.
    pub publications: u64,
    /// When the newest one was there.
    pub published: Option<String>,
    /// From the closing of its epoch to then.
    pub latency_seconds: Option<f64>,
    /// M1.
    pub net_flow: NetFlow,
    /// M2: the users with the most events.
    pub top_users: Vec<User>,
    /// M3.
    pub channels: Vec<Channel>,
    /// Every table.
    pub tables: Vec<Table>,
}

/// M1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetFlow {
    /// Sum of deposits in pounds.
    pub total_deposits: String,
    /// Sum of withdrawals in pounds.
    pub total_withdrawals: String,
    /// Their difference.
    pub net_flow: String,
    /// Number of deposits.
    pub deposit_count: u64,
    /// Number of withdrawals.
    pub withdrawal_count: u64,
}

/// A row of M2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user.
    pub user_id: String,
    /// Sum of deposits in pounds.
    pub total_deposits: String,
    /// Sum of withdrawals in pounds.
    pub total_withdrawals: String,
    /// Number of deposits.
    pub deposit_count: u64,
    /// Number of withdrawals.
    pub withdrawal_count: u64,
}

/// A row of M3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Channel.
    pub channel: String,
    /// Event type.
    pub event_type: String,
    /// Number of events.
    pub event_count: u64,
    /// Their sum in pounds.
    pub total_amount: String,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: u64,
    /// The newest epoch in it.
    pub epoch: u64,
    /// Commits since the process was started.
    pub commits: u64,
    /// What the newest one took.
    pub last_commit_seconds: Option<f64>,
    /// What one takes on average.
    pub mean_commit_seconds: Option<f64>,
    /// Rows written since the process was started.
    pub rows: u64,
    /// Attempts that failed.
    pub failures: u64,
}

/// What is kept for a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Whether anything is kept.
    pub enabled: bool,
    /// Shortest time between two.
    pub interval_seconds: f64,
    /// The epoch that the newest one is of.
    pub epoch: u64,
    /// When it was written.
    pub written: Option<String>,
    /// How long ago that was.
    pub age_seconds: Option<f64>,
    /// Size of the state.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// Objects that it consists of.
    pub runs: u64,
    /// How many were written since the process was started.
    pub count: u64,
    /// What the newest one took.
    pub last_seconds: Option<f64>,
    /// What was restored at the start.
    pub restore: Option<Restore>,
}

/// What was restored at the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// As of the end of this epoch.
    pub epoch: u64,
    /// Remembered ids.
    pub ids: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Time that reading and checking took.
    pub seconds: f64,
    /// Epochs that had been cut after it and were computed again.
    pub replayed_epochs: u64,
}

/// The last hour, a value for each step; the newest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Time between two values.
    pub step_seconds: f64,
    /// The instant of the newest value, in seconds since 1970.
    pub until: f64,
    /// The values.
    pub points: Vec<Point>,
}

/// One step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Events read, per second.
    pub read: f64,
    /// Accepted events, per second.
    pub accepted: f64,
    /// Rejected events, per second.
    pub rejected: f64,
    /// The longest time from the closing of an epoch until readers saw it; none where there was no publication.
    pub latency: Option<f64>,
}

/// Everything at one instant, as it is streamed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Everything {
    /// The pipeline at a glance.
    pub status: Status,
    /// The way of the epochs.
    pub graph: Graph,
    /// The rules.
    pub contract: Contract,
    /// Rejected events.
    pub quarantine: Quarantine,
    /// What readers see.
    pub tables: Tables,
    /// What is kept for a restart.
    pub checkpoints: Checkpoints,
    /// The newest step of the history, and its instant in seconds since 1970.
    pub newest: Newest,
}

/// The newest step of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Newest {
    /// Its instant, in seconds since 1970.
    pub at: f64,
    /// Its values.
    pub point: Point,
}

/// Whether the process does its work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// Why it does not. Left out for those who have not said who they are.
    pub reasons: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What is wrong, and what would be right.
    pub error: String,
}
