//! Runs: each is the one that its manifests name, and can be read; and the newest totals add up to what was accepted.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tidemark_dataflows::event::UserId;
use tidemark_dataflows::metrics::{ChannelKey, Totals};
use tidemark_store::Store;

use super::{About, COMPLETE, Look};
use crate::Error;
use crate::envelope::Digest;
use crate::records::{Manifest, Run};
use crate::runs::totals::{Key, TotalsRun};
use crate::runs::{ids, totals};

/// Runs that were found sound; they never change, so one look at each is enough.
#[derive(Default)]
pub(super) struct SoundRuns {
    runs: HashMap<String, Digest>,
    /// Manifest whose totals add up.
    added_up: Option<(u64, u64)>,
}

/// Which rows a run holds.
#[derive(Copy, Clone)]
enum Rows {
    Ids,
    Users,
    Channels,
}

impl<'a> Look<'a> {
    pub(super) fn check_runs(&mut self, store: &Store, sound: &mut SoundRuns) -> Result<(), Error> {
        let manifests: Vec<(String, &'a Manifest)> =
            self.chain.iter().filter_map(|entry| Some((entry.name.clone(), entry.manifest?))).collect();
        let mut seen: BTreeMap<&str, Digest> = BTreeMap::new();
        for (at, (name, manifest)) in manifests.iter().enumerate() {
            let kinds =
                [(Rows::Ids, &manifest.ids), (Rows::Users, &manifest.users), (Rows::Channels, &manifest.channels)];
            for (rows, run) in kinds.iter().flat_map(|(rows, runs)| runs.iter().map(move |run| (*rows, run))) {
                if seen.insert(&run.name, run.digest).is_none() {
                    self.figures.runs += 1;
                    self.figures.rows += run.rows;
                    self.figures.bytes += run.bytes;
                }
                if sound.runs.get(&run.name) == Some(&run.digest) {
                    continue;
                }
                match store.read(&run.name)? {
                    Some(object) => match check(rows, run, &object) {
                        None => drop(sound.runs.insert(run.name.clone(), run.digest)),
                        Some(what) => self.find(About::Runs, &run.name, what),
                    },
                    // What an older manifest alone needs may be in the middle of being pruned.
                    None if at < COMPLETE => {
                        self.find(About::Runs, &run.name, format!("missing, though {name} needs it"))
                    }
                    None => {}
                }
            }
        }
        match manifests.first() {
            Some((name, newest)) if self.findings.is_empty() => self.add_up(store, sound, name, newest),
            _ => Ok(()),
        }
    }

    /// The totals of users and of channels are those of all accepted events.
    fn add_up(&mut self, store: &Store, sound: &mut SoundRuns, name: &str, manifest: &Manifest) -> Result<(), Error> {
        if sound.added_up == Some((manifest.generation, manifest.sequence)) {
            return Ok(());
        }
        let users = sum::<UserId>(store, &manifest.users)?;
        let channels = sum::<ChannelKey>(store, &manifest.channels)?;
        let (Some(users), Some(channels)) = (users, channels) else {
            self.find(About::Runs, name, "its runs went away while they were read");
            return Ok(());
        };
        let count = |totals: &Totals| totals.deposit_count + totals.withdrawal_count;
        let accepted = manifest.counters.accepted;
        let money = |totals: &Totals| (totals.deposits, totals.withdrawals);
        if count(&users) != accepted || count(&channels) != accepted || money(&users) != money(&channels) {
            let (by_user, by_channel) = (count(&users), count(&channels));
            let what = format!(
                "accepted {accepted} events, but the totals of users are of {by_user} and those of channels of \
                 {by_channel}; in pence {:?} and {:?}",
                money(&users),
                money(&channels)
            );
            self.find(About::Counts, name, what);
        } else {
            sound.added_up = Some((manifest.generation, manifest.sequence));
        }
        Ok(())
    }
}

/// What is wrong with a run, if anything is.
fn check(rows: Rows, run: &Run, object: &Bytes) -> Option<String> {
    if object.len() as u64 != run.bytes {
        return Some(format!("it has {} bytes, and the manifest says {}", object.len(), run.bytes));
    }
    if Digest::of_object(object) != run.digest {
        return Some("it is not the run that the manifest names".to_owned());
    }
    let counted = match rows {
        Rows::Ids => ids::decode(&run.name, object).map(|ids| {
            let stats = ids.stats();
            (stats.count, run.newest_bucket.is_none_or(|bucket| bucket == stats.newest.0))
        }),
        Rows::Users => totals::decode::<UserId>(&run.name, object).map(|run| (run.len() as u64, true)),
        Rows::Channels => totals::decode::<ChannelKey>(&run.name, object).map(|run| (run.len() as u64, true)),
    };
    match counted {
        Err(Error::Damaged { what, .. }) => Some(format!("damaged: {what}")),
        Err(error) => Some(error.to_string()),
        Ok((count, _)) if count != run.rows => Some(format!("it has {count} rows, and the manifest says {}", run.rows)),
        Ok((_, false)) => Some("its newest bucket is not the one that the manifest says".to_owned()),
        Ok(_) => None,
    }
}

/// The sum over the newest row of each key; `None` when a run is gone.
fn sum<K: Key>(store: &Store, runs: &[Run]) -> Result<Option<Totals>, Error> {
    let mut decoded: Vec<TotalsRun<K>> = Vec::new();
    for run in runs {
        let Some(object) = store.read(&run.name)? else { return Ok(None) };
        decoded.push(totals::decode(&run.name, &object)?);
    }
    let merged = totals::decode::<K>("merged totals", &totals::merge(&decoded))?;
    let mut sum = Totals::NONE;
    for (_, totals) in merged.iter() {
        sum.deposits += totals.deposits;
        sum.withdrawals += totals.withdrawals;
        sum.deposit_count += totals.deposit_count;
        sum.withdrawal_count += totals.withdrawal_count;
    }
    Ok(Some(sum))
}
