//! The writing of checkpoints: what `tidemark::checkpoint::writer` does, as jobs.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::compaction::Tiers;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::ManifestLog;
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Counters, Identity, Manifest, Position, Run};
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::Remembered;
use tidemark_dataflows::event::{Epoch, EventId};
use tidemark_dataflows::metrics::{AllTotals, Metric, Visit, each, totals_of};
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
    /// Totals of the metric of that name.
    Totals(&'static str),
}

/// What one process writes for a checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// Admitted ids.
    pub(crate) ids: Vec<(EventId, Remembered)>,
    /// Totals that changed.
    pub(crate) totals: AllTotals,
}

/// Lays down the totals of each metric.
struct LayDown<'a>(&'a AllTotals, Vec<(&'static str, Bytes, u64)>);

impl Visit for LayDown<'_> {
    fn metric<M: Metric>(&mut self) {
        let rows: Vec<_> = totals_of::<M>(self.0).collect();
        if !rows.is_empty() {
            self.1.push((M::NAME, totals::encode(&rows), rows.len() as u64));
        }
    }
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
        let Part { ids, totals } = part;
        if !ids.is_empty() {
            let (object, stats) = ids::encode(ids, horizon.bucket_us());
            put(List::Ids, "ids", object, stats.count, Some(stats.newest))?;
        }
        let mut laid_down = LayDown(&totals, Vec::new());
        each(&mut laid_down);
        for (metric, object, rows) in laid_down.1 {
            put(List::Totals(metric), metric, object, rows, None)?;
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
    totals: BTreeMap<String, Vec<Run>>,
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
        let (ids, totals) = from.map(|from| (from.ids.clone(), from.metrics.clone())).unwrap_or_default();
        CheckpointWriter { log, identity, horizon, order, ids, totals, replaced: Vec::new(), next_run: MERGED }
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
            match list {
                List::Ids => self.ids.push(run),
                List::Totals(metric) => self.totals.entry(metric.to_owned()).or_default().push(run),
            }
        }
        let oldest = self.horizon.oldest_remembered(progress.watermark);
        self.ids.retain(|run| run.newest_bucket.is_none_or(|bucket| bucket >= oldest.0));
        self.merge_ids(oldest)?;
        for (metric, runs) in std::mem::take(&mut self.totals) {
            let merged = self.merge_totals(&metric, runs)?;
            self.totals.insert(metric, merged);
        }
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
            metrics: self.totals.clone(),
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

    fn merge_totals(&mut self, metric: &str, mut runs: Vec<Run>) -> Result<Vec<Run>, Error> {
        loop {
            let merged = due(Tiers::TOTALS, &mut runs);
            if merged.is_empty() {
                return Ok(runs);
            }
            self.replaced.extend(merged.iter().map(|run| run.name.clone()));
            let decoded = merged.iter().zip(read(&merged)?).map(|(run, object)| totals::decode(&run.name, &object));
            let object = totals::merge(&decoded.collect::<Result<Vec<_>, _>>()?);
            let rows = totals::decode("merged totals", &object)?.len() as u64;
            runs.push(put_run(self.next_name(metric), object, rows, None)?);
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
