//! The writing of checkpoints: what `tidemark::checkpoint::writer` does, as jobs.

use bytes::Bytes;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::compaction::Tiers;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::ManifestLog;
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Counters, Identity, Manifest, Position, Run};
use tidemark_checkpoint::runs::totals::Key;
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::Remembered;
use tidemark_dataflows::event::{Epoch, EventId, UserId};
use tidemark_dataflows::metrics::{ChannelKey, Totals};
use tidemark_dataflows::watermark::{Bucket, Horizon, Progress};

use crate::jobs::{Outcome, Trouble};
use crate::orders::Order;
use crate::port::{blind, store};

/// How many manifests are kept.
const KEPT: usize = 2;
/// Numbers of runs that others were merged into begin here.
const MERGED: u64 = 1_000_000;

/// Which list of the manifest a run belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Remembered ids.
    Ids,
    /// Totals by user.
    Users,
    /// Totals by channel and type.
    Channels,
}

/// What one process writes for a checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// Admitted ids.
    pub(crate) ids: Vec<(EventId, Remembered)>,
    /// Totals of users that changed.
    pub(crate) users: Vec<(UserId, Totals)>,
    /// Totals of channels that changed.
    pub(crate) channels: Vec<(ChannelKey, Totals)>,
}

/// Everything that a manifest says besides its runs.
pub(crate) struct Complete {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// How far partitions had been read by then.
    pub(crate) positions: Vec<Position>,
    /// Sums up to then.
    pub(crate) counters: Counters,
    /// How far event time had come.
    pub(crate) progress: Progress,
    /// The runs that were written for it.
    pub(crate) runs: Vec<(List, Run)>,
}

/// Writes the runs of one process, numbered from `number` on.
pub(crate) fn write_part(
    generation: u64,
    process: usize,
    number: u64,
    epoch: Epoch,
    horizon: Horizon,
    part: Part,
) -> Outcome {
    let mut runs = Vec::new();
    let mut put = |list, content: &str, object: Bytes, rows, newest: Option<Bucket>| -> Result<(), Error> {
        let name = names::run(generation, process, number + runs.len() as u64, content);
        runs.push((list, put_run(name, object, rows, newest)?));
        Ok(())
    };
    let write = || -> Result<(), Error> {
        let Part { ids, users, channels } = part;
        if !ids.is_empty() {
            let (object, stats) = ids::encode(ids, horizon.bucket_us());
            put(List::Ids, "ids", object, stats.count, Some(stats.newest))?;
        }
        if !users.is_empty() {
            put(List::Users, "users", totals::encode(&users), users.len() as u64, None)?;
        }
        if !channels.is_empty() {
            put(List::Channels, "channels", totals::encode(&channels), channels.len() as u64, None)?;
        }
        Ok(())
    };
    let written = write().map_err(Trouble::from);
    Outcome::Wrote(epoch, written.map(|()| runs))
}

fn put_run(name: String, object: Bytes, rows: u64, newest: Option<Bucket>) -> Result<Run, Error> {
    let (bytes, digest) = (object.len() as u64, Digest::of_object(&object));
    store().create(&name, object)?;
    Ok(Run { name, rows, bytes, digest, newest_bucket: newest.map(|bucket| bucket.0) })
}

/// Writes manifests, merges runs and prunes.
pub(crate) struct CheckpointWriter {
    log: ManifestLog,
    identity: Identity,
    horizon: Horizon,
    order: Order,
    ids: Vec<Run>,
    users: Vec<Run>,
    channels: Vec<Run>,
    replaced: Vec<String>,
    next_run: u64,
}

impl CheckpointWriter {
    /// A writer that goes on after a manifest.
    pub(crate) fn new(
        log: ManifestLog,
        identity: Identity,
        horizon: Horizon,
        order: Order,
        from: Option<&Manifest>,
    ) -> Self {
        let lists = from.map(|from| (from.ids.clone(), from.users.clone(), from.channels.clone()));
        let (ids, users, channels) = lists.unwrap_or_default();
        CheckpointWriter { log, identity, horizon, order, ids, users, channels, replaced: Vec::new(), next_run: MERGED }
    }

    /// Makes a checkpoint whole.
    pub(crate) fn complete(mut self: Box<Self>, complete: Complete) -> Outcome {
        let epoch = complete.epoch;
        let completed = self.write(complete).map_err(Trouble::from);
        Outcome::Completed(self, epoch, completed)
    }

    fn write(&mut self, complete: Complete) -> Result<(), Error> {
        let Complete { epoch, positions, counters, progress, runs } = complete;
        for (list, run) in runs {
            self.list(list).push(run);
        }
        let oldest = self.horizon.oldest_remembered(progress.watermark);
        self.ids.retain(|run| run.newest_bucket.is_none_or(|bucket| bucket >= oldest.0));
        self.merge_ids(oldest)?;
        self.merge_totals::<UserId>(List::Users)?;
        self.merge_totals::<ChannelKey>(List::Channels)?;
        let manifest = Manifest {
            generation: 0,
            sequence: 0,
            epoch,
            pipeline: self.identity.pipeline.clone(),
            lineage: self.identity.lineage,
            written_us: 0,
            positions,
            counters,
            event_times: Some((&progress).into()),
            ids: self.ids.clone(),
            users: self.users.clone(),
            channels: self.channels.clone(),
            changes: Vec::new(),
            previous: None,
        };
        self.log.publish(manifest)?;
        let replaced = std::mem::take(&mut self.replaced);
        match self.order {
            Order::PruneWithoutClaims => blind(self.log.generation(), || self.log.prune(KEPT, replaced))?,
            _ => self.log.prune(KEPT, replaced)?,
        };
        Ok(())
    }

    fn list(&mut self, list: List) -> &mut Vec<Run> {
        match list {
            List::Ids => &mut self.ids,
            List::Users => &mut self.users,
            List::Channels => &mut self.channels,
        }
    }

    fn merge_ids(&mut self, oldest: Bucket) -> Result<(), Error> {
        loop {
            let merged = due(Tiers::IDS, &mut self.ids);
            if merged.is_empty() {
                return Ok(());
            }
            self.replaced.extend(merged.iter().map(|run| run.name.clone()));
            let decoded = merged.iter().zip(read(&merged)?).map(|(run, object)| ids::decode(&run.name, &object));
            let (object, stats) = ids::merge(&decoded.collect::<Result<Vec<_>, _>>()?, oldest)?;
            if stats.count > 0 {
                let run = put_run(self.next_name("ids"), object, stats.count, Some(stats.newest))?;
                self.ids.push(run);
            }
        }
    }

    fn merge_totals<K: Key>(&mut self, list: List) -> Result<(), Error> {
        loop {
            let merged = due(Tiers::TOTALS, self.list(list));
            if merged.is_empty() {
                return Ok(());
            }
            self.replaced.extend(merged.iter().map(|run| run.name.clone()));
            let decoded =
                merged.iter().zip(read(&merged)?).map(|(run, object)| totals::decode::<K>(&run.name, &object));
            let object = totals::merge(&decoded.collect::<Result<Vec<_>, _>>()?);
            let rows = totals::decode::<K>("merged totals", &object)?.len() as u64;
            let name = self.next_name(if list == List::Users { "users" } else { "channels" });
            let run = put_run(name, object, rows, None)?;
            self.list(list).push(run);
        }
    }

    fn next_name(&mut self, content: &str) -> String {
        self.next_run += 1;
        names::run(self.log.generation(), 0, self.next_run, content)
    }
}

/// Takes the runs off the end of a list that are to become one.
fn due(tiers: Tiers, list: &mut Vec<Run>) -> Vec<Run> {
    let rows: Vec<u64> = list.iter().map(|run| run.rows).collect();
    list.split_off(list.len() - tiers.due(&rows))
}

fn read(runs: &[Run]) -> Result<Vec<Bytes>, Error> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let objects = store().read_all(&names)?;
    let missing = |name: &String| Error::Missing { what: name.clone() };
    objects.into_iter().zip(&names).map(|(object, name)| object.ok_or_else(|| missing(name))).collect()
}
