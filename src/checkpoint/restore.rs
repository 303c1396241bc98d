//! From stored runs back to the state of the dataflow.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::{Past, Restorable};
use tidemark_checkpoint::records::{Manifest, Run};
use tidemark_checkpoint::runs::ids::{self, IdRun};
use tidemark_checkpoint::runs::totals::{self, Key};
use tidemark_dataflows::event::UserId;
use tidemark_dataflows::metrics::{ChannelKey, Totals};
use tidemark_dataflows::pipeline::{Restored, Settings};
use tidemark_store::Store;

use crate::telemetry::{ChannelFigures, Figures, WholeFigures};

/// The state as of a manifest, checked and in memory, for all workers of this process.
#[derive(Clone)]
pub struct Loaded {
    /// The manifest; `None` where everything is replayed from the first epoch on.
    pub from: Option<Restorable>,
    ids: Arc<Vec<IdRun>>,
    users: Arc<Vec<(UserId, Totals)>>,
    channels: Arc<Vec<(ChannelKey, Totals)>>,
}

impl Loaded {
    /// The state before the first epoch.
    pub fn nothing() -> Loaded {
        Loaded { from: None, ids: Arc::default(), users: Arc::default(), channels: Arc::default() }
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
        let (users, channels) = totals(store, manifest)?;
        let (users, channels) = (Arc::new(users), Arc::new(channels));
        Ok(Loaded { from: Some(restorable.clone()), ids: Arc::new(id_runs), users, channels })
    }

    /// What the metrics are, for those who show them.
    pub fn figures(&self) -> Figures {
        let mut figures =
            Figures { epoch: self.from.as_ref().map_or(0, |from| from.manifest.epoch), ..Figures::default() };
        for ((channel, event_type), totals) in self.channels.iter() {
            let whole = &mut figures.whole;
            whole.deposits += totals.deposits;
            whole.withdrawals += totals.withdrawals;
            whole.deposit_count += totals.deposit_count;
            whole.withdrawal_count += totals.withdrawal_count;
            let key = (channel.as_str().to_owned(), event_type.as_str().to_owned());
            let row = ChannelFigures { count: totals.count(), amount: totals.deposits + totals.withdrawals };
            figures.channels.insert(key, row);
        }
        for (user, totals) in self.users.iter().filter(|(_, totals)| totals.count() > 0) {
            if figures.may_rank(totals.count()) {
                let Totals { deposits, withdrawals, deposit_count, withdrawal_count, .. } = *totals;
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
        restored.users = dealt(&self.users, worker, workers);
        restored.channels = dealt(&self.channels, worker, workers);
        let (ids, users) = (restored.index.len(), restored.users.len());
        tracing::debug!(worker, ids, users, took_ms = started.elapsed().as_millis(), "taken up");
        restored
    }
}

fn dealt<T: Clone>(rows: &[T], worker: usize, workers: usize) -> Vec<T> {
    rows.iter().skip(worker).step_by(workers).cloned().collect()
}

/// Totals of users and of channels, as a manifest has them.
type AllTotals = (Vec<(UserId, Totals)>, Vec<(ChannelKey, Totals)>);

/// The totals of a manifest, without what it remembers.
///
/// # Errors
///
/// When the store cannot be read, or a run is not sound.
pub fn totals(store: &Store, manifest: &Manifest) -> Result<AllTotals, Error> {
    Ok((newest_totals(store, &manifest.users)?, newest_totals(store, &manifest.channels)?))
}

fn newest_totals<K: Key>(store: &Store, runs: &[Run]) -> Result<Vec<(K, Totals)>, Error> {
    let objects = read(store, runs)?;
    let decoded = runs.iter().zip(&objects).map(|(run, object)| totals::decode(&run.name, object));
    let mut decoded = decoded.collect::<Result<Vec<_>, _>>()?;
    if decoded.len() > 1 {
        let merged = totals::merge(&decoded);
        decoded = vec![totals::decode("merged totals", &merged)?];
    }
    Ok(decoded.first().map(|run| run.iter().collect()).unwrap_or_default())
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
