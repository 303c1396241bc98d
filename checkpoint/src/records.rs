//! The small objects: what generations, cuts and manifests say. JSON inside the envelope.
//!
//! Times are microseconds since 1970, and named so. Members are added only together with a new format version, unless whoever
//! does not know them understands the rest as well without. What was not written yet is empty or left out when it is read.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::{Epoch, EpochMark, Micros, PartitionId};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::{EpochSummary, Tally};
use tidemark_dataflows::watermark::{self, Horizon, Progress};

use crate::envelope::{self, Digest, Kind};
use crate::error::Error;
use crate::inbox;
use bytes::Bytes;

pub use crate::times::{EventTimes, PartitionTimes};

/// A record that is stored as an object of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The kind of the object.
    const KIND: Kind;

    /// The object that holds this record.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when the record cannot be written as JSON, which would be a bug.
    fn to_object(&self, name: &str) -> Result<Bytes, Error> {
        let body = serde_json::to_vec(self).map_err(|error| Error::damaged(name, error.to_string()))?;
        Ok(envelope::wrap(Self::KIND, &body))
    }

    /// Reads the record back.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Version`] when the object is not what was written.
    fn of_object(name: &str, object: &Bytes) -> Result<Self, Error> {
        let body = envelope::unwrap(Self::KIND, name, object)?;
        serde_json::from_slice(&body).map_err(|error| Error::damaged(name, error.to_string()))
    }
}

/// Who claims a generation. Information for people; nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// Name of the machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// When it started.
    pub started_us: i64,
    /// Version of the program.
    pub program: String,
}

/// The claim of a generation: whoever writes it first has the number for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The number.
    pub generation: u64,
    /// By whom.
    pub by: Claimant,
    /// Drawn at random, so that no two claims are equal.
    pub nonce: u64,
    /// The lineage of the pipeline: that of every claim before it. None where a version of before claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<u64>,
}

/// To which pipeline an output belongs, whichever checkpoint comes along with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLock {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Its lineage.
    pub lineage: u64,
    /// Where its checkpoint lay when it was written. For people only.
    pub checkpoint: String,
    /// When that was.
    pub since_us: i64,
}

impl OutputLock {
    /// Its name below [`names::IN_OUTPUT`](crate::names::IN_OUTPUT) in the output.
    pub const NAME: &str = "output";
}

/// What a pipeline computes, and from what: fixed by its first start. With another identity, what is stored would
/// mean something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Drawn at the first start; every manifest, every table and the lock of the output repeat it.
    pub lineage: u64,
    /// When the pipeline was started for the first time.
    pub created_us: i64,
    /// Key of the hash of ids that are no UUIDs.
    pub id_key: [u64; 2],
    /// Key of the hashes of the index.
    pub index_key: [u64; 2],
    /// The settings that change results, by their keys in the configuration, as people write them.
    pub settings: BTreeMap<String, String>,
    /// What the source says of itself.
    pub source: serde_json::Value,
}

/// Names an object of the chain of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The generation that wrote it.
    pub generation: u64,
    /// Its number in the chain, from 1.
    pub sequence: u64,
    /// The epoch as of whose end it is.
    pub epoch: Epoch,
    /// Hash of the object.
    pub digest: Digest,
}

/// Cuts that one generation wrote.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The generation.
    pub generation: u64,
    /// First epoch.
    pub first: Epoch,
    /// Last epoch.
    pub last: Epoch,
}

/// The past that a generation goes on from. What any older generation wrote besides is of no account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The generation that adopts.
    pub generation: u64,
    /// The generation whose past that is, and whose places it has sealed; 0 where there was none. None where a version of before
    /// adopted: then it is the one before it that adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
    /// What the pipeline is.
    pub identity: Identity,
    /// The last epoch that was cut; 0 before the first. This generation cuts the one after it.
    pub last_cut: Epoch,
    /// Which generation cut the epochs up to that one, as far back as the oldest manifest needs them.
    pub cuts: Vec<Span>,
    /// The manifests that can be restored, newest first. Empty: everything is replayed from the first epoch on.
    pub manifests: Vec<Link>,
    /// Every change of a setting that was ever accepted, oldest first. The settings of the identity are those after all of
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// An accepted change of a setting that results depend on. An adoption makes it durable before it has an effect; every
/// manifest from then on repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The first epoch that is computed with it.
    pub epoch: Epoch,
    /// The setting, by its key in the configuration.
    pub setting: String,
    /// What it was in the epochs before, where it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is from this epoch on, where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The events of one partition in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Name of the partition.
    pub partition: String,
    /// Its number.
    pub index: u32,
    /// First offset.
    pub from: u64,
    /// One past the last offset.
    pub to: u64,
    /// Digest of the content before `to`, where the source knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One epoch: which events it holds, and when it was open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The epoch.
    pub epoch: Epoch,
    /// When it was opened.
    pub opened_us: i64,
    /// When it was closed.
    pub closed_us: i64,
    /// Its events: partitions without any are left out. One with holes in its offsets has a range for each run of events.
    pub ranges: Vec<Range>,
    /// The partitions that were behind at the closing, in order; every other one was caught up. `None`: the epoch was cut
    /// before cuts said so, and the watermark after it does not wait for any partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Vec<Behind>>,
    /// Partitions that no earlier cut knows, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Joined>,
}

/// A partition of which more is there to be read. In JSON it is the list of the two, as each cut of thousands of files holds
/// thousands of these.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, Option<i64>)", into = "(u32, Option<i64>)")]
pub struct Behind {
    /// Its number.
    pub index: u32,
    /// The head time of a file after the epoch, where it has one.
    pub head_us: Option<i64>,
}

impl From<(u32, Option<i64>)> for Behind {
    fn from((index, head_us): (u32, Option<i64>)) -> Behind {
        Behind { index, head_us }
    }
}

impl From<Behind> for (u32, Option<i64>) {
    fn from(behind: Behind) -> Self {
        (behind.index, behind.head_us)
    }
}

/// A partition that joins a pipeline which has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Name of the partition.
    pub partition: String,
    /// Its number: the one after the greatest so far.
    pub index: u32,
    /// The offset at which reading it begins.
    pub from: u64,
}

impl From<&Behind> for watermark::Behind {
    fn from(behind: &Behind) -> Self {
        watermark::Behind { partition: PartitionId(behind.index), head: behind.head_us.map(Micros) }
    }
}

impl Cut {
    /// What the dataflow is told of it. How many events were `missing` follows from the cut before.
    pub fn mark(&self, missing: u64) -> EpochMark {
        let (opened, closed) = (Micros(self.opened_us), Micros(self.closed_us));
        EpochMark { epoch: self.epoch, opened, closed, missing, waits: self.behind.is_some() }
    }

    /// Number of events in it.
    pub fn events(&self) -> u64 {
        self.ranges.iter().map(|range| range.to.saturating_sub(range.from)).sum()
    }
}

/// Several cuts that were made durable together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    /// The generation.
    pub generation: u64,
    /// The lineage of the pipeline; none in cuts of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<u64>,
    /// Consecutive cuts.
    pub cuts: Vec<Cut>,
}

/// Put by a later generation where an earlier one would write next: nothing can be written there any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The later generation.
    pub by: u64,
}

/// How far a partition has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Name of the partition.
    pub partition: String,
    /// Its number. Numbers are given once, from 0 without gaps, and stay what they are.
    pub index: u32,
    /// Offset of the next event.
    pub next: u64,
    /// Digest of the content before it, where the source knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether it had ended by then: a file that has may be gone. One that has grown since is read on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// Sums over all epochs of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// When the first epoch was opened.
    pub stream_start_us: Option<i64>,
    /// When the newest epoch was closed.
    pub last_closed_us: Option<i64>,
    /// Number of epochs.
    pub epochs: u64,
    /// Events that came in.
    pub received: u64,
    /// Events that count.
    pub accepted: u64,
    /// Events that repeat an accepted one.
    pub duplicates: u64,
    /// Rejected events by reason; reasons without any are left out.
    pub rejected: BTreeMap<String, u64>,
    /// The greatest event time among the events that passed the contract.
    pub newest_event_time_us: Option<i64>,
    /// Ids remembered after the newest epoch.
    pub retained_ids: u64,
}

impl Counters {
    /// Adds an epoch, which is later than all before it.
    pub fn add(&mut self, summary: &EpochSummary) {
        let EpochSummary { mark, tally, .. } = summary;
        self.stream_start_us.get_or_insert(mark.opened.0);
        self.last_closed_us = self.last_closed_us.max(Some(mark.closed.0));
        self.epochs += 1;
        self.received += tally.received;
        self.accepted += tally.accepted;
        self.duplicates += tally.duplicates;
        for reason in Reason::ALL {
            let count = tally.rejected_for(reason);
            if count > 0 {
                *self.rejected.entry(reason.as_str().to_owned()).or_default() += count;
            }
        }
        self.newest_event_time_us = self.newest_event_time_us.max(tally.newest.map(|time| time.0));
        self.retained_ids = tally.retained_ids;
    }

    /// Rejected events for all reasons.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// The same sums as the dataflow counts them.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            received: self.received,
            accepted: self.accepted,
            duplicates: self.duplicates,
            retained_ids: self.retained_ids,
            newest: self.newest_event_time_us.map(Micros),
            ..Tally::default()
        };
        for reason in Reason::ALL {
            tally.reject(reason, self.rejected.get(reason.as_str()).copied().unwrap_or_default());
        }
        tally
    }
}

/// A file of sorted rows that manifests name: see [`runs`](crate::runs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the object.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Hash of the object.
    pub digest: Digest,
    /// Of a run of ids, the latest bucket of event time: with it the whole run is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_bucket: Option<u64>,
}

/// The state of the pipeline as of the end of an epoch. Whoever finds one may rely on every table holding that epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The generation that wrote it.
    pub generation: u64,
    /// Number in the chain, from 1.
    pub sequence: u64,
    /// The epoch.
    pub epoch: Epoch,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The lineage of its [`Identity`].
    pub lineage: u64,
    /// When it was written.
    pub written_us: i64,
    /// How far each partition has been read, in the order of their numbers.
    pub positions: Vec<Position>,
    /// Sums over all epochs so far.
    pub counters: Counters,
    /// What the watermark goes on from. `None`: cuts did not say yet which partitions were behind, and the watermark follows
    /// from the greatest event time of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_times: Option<EventTimes>,
    /// Remembered ids, oldest run first.
    pub ids: Vec<Run>,
    /// The totals of each metric by its name, oldest run first: later rows replace earlier ones.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, Vec<Run>>,
    /// The changes of settings that were accepted so far: those of the adoption.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The manifest before it.
    pub previous: Option<Link>,
}

impl Manifest {
    /// What the watermark goes on from. Before manifests held event times, it followed the greatest one at once.
    pub fn progress(&self, horizon: Horizon) -> Progress {
        let newest = self.counters.newest_event_time_us.map(Micros);
        let Some(times) = &self.event_times else { return Progress::without_waiting(horizon, newest) };
        let list = |times: &[i64]| times.iter().copied().map(Micros).collect();
        Progress {
            watermark: times.watermark_us.map(Micros),
            newest,
            overall: list(&times.newest_us),
            partitions: times.partitions.iter().map(|of| (PartitionId(of.index), list(&of.newest_us))).collect(),
        }
    }

    /// The watermark of the epoch after it.
    pub fn next_watermark(&self, horizon: Horizon) -> Option<Micros> {
        match &self.event_times {
            Some(times) => times.watermark_us.map(Micros),
            None => horizon.watermark(self.counters.newest_event_time_us.map(Micros)),
        }
    }

    /// All runs that it names.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.ids.iter().chain(self.metrics.values().flatten())
    }

    /// The partition that is the [inbox](crate::inbox::Inbox), where it is known yet.
    pub fn inbox(&self) -> Option<&Position> {
        inbox_among(&self.positions)
    }

    /// How far the [inbox](crate::inbox::Inbox) has been read.
    pub fn inbox_position(&self) -> u64 {
        self.inbox().map_or(0, |inbox| inbox.next)
    }
}

/// The partition that is the [inbox](crate::inbox::Inbox), found by its name. Partitions that joined later stand behind it.
/// A file of the same name that was there at the first start stands before it, and none may join later.
pub fn inbox_among(positions: &[Position]) -> Option<&Position> {
    positions.iter().rfind(|position| position.partition == inbox::PARTITION)
}

impl Record for Claim {
    const KIND: Kind = Kind::Generation;
}

impl Record for OutputLock {
    const KIND: Kind = Kind::Output;
}

impl Record for Adoption {
    const KIND: Kind = Kind::Adoption;
}

impl Record for Cuts {
    const KIND: Kind = Kind::Cuts;
}

impl Record for Seal {
    const KIND: Kind = Kind::Seal;
}

impl Record for Manifest {
    const KIND: Kind = Kind::Manifest;
}
