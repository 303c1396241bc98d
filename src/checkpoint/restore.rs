//! From stored runs back to the state of the dataflow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::{Past, Restorable};
use tidemark_checkpoint::records::{Manifest, Run};
use tidemark_checkpoint::runs::ids::{self, IdRun};
use tidemark_checkpoint::runs::totals::{self, TotalsRun};
use tidemark_dataflows::metrics::{ByChannel, ByUser, Key, Metric, Totals, Visit, each};
use tidemark_dataflows::pipeline::{Restored, Settings};
use tidemark_store::Store;

use crate::telemetry::{ChannelFigures, Figures, WholeFigures};

/// The state as of a manifest, checked and in memory, for all workers of this process.
#[derive(Clone)]
pub struct Loaded {
    /// The manifest; `None` where everything is replayed from the first epoch on.
    pub from: Option<Restorable>,
    ids: Arc<Vec<IdRun>>,
    totals: Arc<StoredTotals>,
}

impl Loaded {
    /// The state before the first epoch.
    pub fn nothing() -> Loaded {
        Loaded { from: None, ids: Arc::default(), totals: Arc::default() }
    }

    /// Loads the newest manifest all of whose runs are sound. What stands in the way of newer ones is returned with it.
    ///
    /// Where none is left, the state is that before the first epoch; whether the cuts reach back as far is for the
    /// caller to see.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or a run is of another format version.
    pub fn newest(store: &Store, past: &Past) -> Result<(Loaded, Vec<Error>), Error> {
        let mut damage = Vec::new();
        for restorable in &past.manifests {
            match Loaded::from_manifest(store, restorable) {
                Ok(loaded) => return Ok((loaded, damage)),
                Err(error @ (Error::Damaged { .. } | Error::Missing { .. })) => damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((Loaded::nothing(), damage))
    }

    /// Loads a manifest and all of its runs.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or a run is not sound.
    pub fn from_manifest(store: &Store, restorable: &Restorable) -> Result<Loaded, Error> {
        let manifest = &restorable.manifest;
        let objects = read(store, &manifest.ids)?;
        let decoded = manifest.ids.iter().zip(&objects).map(|(run, object)| ids::decode(&run.name, object));
        let id_runs = decoded.collect::<Result<Vec<_>, _>>()?;
        let totals = Arc::new(StoredTotals::read(store, manifest)?);
        Ok(Loaded { from: Some(restorable.clone()), ids: Arc::new(id_runs), totals })
    }

    /// What the metrics are, for those who show them.
    pub fn figures(&self) -> Figures {
        let mut figures =
            Figures { epoch: self.from.as_ref().map_or(0, |from| from.manifest.epoch), ..Figures::default() };
        for ((channel, event_type), totals) in self.totals.of::<ByChannel>() {
            let whole = &mut figures.whole;
            whole.deposits += totals.deposits;
            whole.withdrawals += totals.withdrawals;
            whole.deposit_count += totals.deposit_count;
            whole.withdrawal_count += totals.withdrawal_count;
            let key = (channel.as_str().to_owned(), event_type.as_str().to_owned());
            let row = ChannelFigures { count: totals.count(), amount: totals.deposits + totals.withdrawals };
            figures.channels.insert(key, row);
        }
        for (user, totals) in self.totals.of::<ByUser>().filter(|(_, totals)| totals.count() > 0) {
            if figures.may_rank(totals.count()) {
                let Totals { deposits, withdrawals, deposit_count, withdrawal_count, .. } = totals;
                figures.user(user.0.as_str(), WholeFigures { deposits, withdrawals, deposit_count, withdrawal_count });
            }
        }
        figures
    }

    /// What one of `workers` workers starts with.
    pub fn share(&self, settings: &Settings, worker: usize, workers: usize) -> Restored {
        let Some(Restorable { manifest, .. }) = &self.from else { return Restored::nothing(settings) };
        let started = Instant::now();
        let mut restored = Restored::up_to(manifest.progress(settings.index.horizon), settings);
        let hashes = restored.index.hashes();
        let mine = |route: u64| route % workers as u64 == worker as u64;
        for run in self.ids.iter() {
            let ids = run.iter().filter(|(id, _)| mine(hashes.route(*id)));
            ids.for_each(|(id, known)| restored.index.restore(id, known));
        }
        let ids = restored.index.len();
        tracing::debug!(worker, ids, took_ms = started.elapsed().as_millis(), "taken up");
        restored
    }

    /// The totals of a metric that one of `workers` workers starts with. Which keys they are of does not matter.
    pub fn totals<M: Metric>(&self, worker: usize, workers: usize) -> Vec<(M::Key, Totals)> {
        self.totals.0.get(M::NAME).map(|run| run.every(worker, workers).collect()).unwrap_or_default()
    }
}

/// The totals of all metrics, each as one run that is read in place.
#[derive(Clone, Debug, Default)]
pub struct StoredTotals(BTreeMap<&'static str, TotalsRun>);

impl StoredTotals {
    /// The totals of a manifest, without what it remembers.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or a run is not sound.
    pub fn read(store: &Store, manifest: &Manifest) -> Result<StoredTotals, Error> {
        struct Reading<'a>(&'a Store, &'a Manifest, Result<StoredTotals, Error>);
        impl Visit for Reading<'_> {
            fn metric<M: Metric>(&mut self) {
                let runs = self.1.metrics.get(M::NAME).filter(|runs| !runs.is_empty());
                if let (Ok(all), Some(runs)) = (&mut self.2, runs) {
                    match newest_totals::<M::Key>(self.0, runs) {
                        Ok(run) => drop(all.0.insert(M::NAME, run)),
                        Err(error) => self.2 = Err(error),
                    }
                }
            }
        }
        let mut reading = Reading(store, manifest, Ok(StoredTotals::default()));
        each(&mut reading);
        reading.2
    }

    /// The totals of a metric.
    pub fn of<M: Metric>(&self) -> impl Iterator<Item = (M::Key, Totals)> {
        self.0.get(M::NAME).into_iter().flat_map(TotalsRun::iter::<M::Key>)
    }
}

fn newest_totals<K: Key>(store: &Store, runs: &[Run]) -> Result<TotalsRun, Error> {
    let objects = read(store, runs)?;
    let decoded = runs.iter().zip(&objects).map(|(run, object)| totals::decode_of::<K>(&run.name, object));
    let decoded = decoded.collect::<Result<Vec<_>, _>>()?;
    match decoded.as_slice() {
        [one] => Ok(one.clone()),
        several => totals::decode("merged totals", &totals::merge(several)),
    }
}

/// Reads runs, and refuses any that is not the one that the manifest names.
pub(super) fn read(store: &Store, runs: &[Run]) -> Result<Vec<Bytes>, Error> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let objects = store.read_all(&names)?;
    let check = |(run, object): (&Run, Option<Bytes>)| {
        let object = object.ok_or_else(|| Error::Missing { what: run.name.clone() })?;
        if object.len() as u64 != run.bytes || Digest::of_object(&object) != run.digest {
            return Err(Error::damaged(&run.name, "it is not the run that the manifest names"));
        }
        Ok(object)
    };
    runs.iter().zip(objects).map(check).collect()
}
