//! Runs: each is the one that its manifests name, and can be read; and the newest totals add up to what was accepted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use tidemark_dataflows::metrics::{Metric, Totals, Visit, each, names};
use tidemark_store::Store;

use super::{About, COMPLETE, Look};
use crate::Error;
use crate::envelope::Digest;
use crate::records::{Manifest, Run};
use crate::runs::totals::TotalsRun;
use crate::runs::{ids, totals};

/// Runs that were found sound; they never change, so one look at each is enough.
#[derive(Default)]
pub(super) struct SoundRuns {
    runs: HashMap<String, Digest>,
    /// Manifest whose totals add up.
    added_up: Option<(u64, u64)>,
}

/// Which rows a run holds: remembered ids, or totals whose keys this looks at.
type Open = fn(&str, &Bytes) -> Result<TotalsRun, Error>;

/// The lists of a manifest with what opens their runs; none for remembered ids.
struct Lists<'a>(&'a Manifest, Vec<(Option<Open>, &'a [Run])>);

impl Visit for Lists<'_> {
    fn metric<M: Metric>(&mut self) {
        let runs = self.0.metrics.get(M::NAME).map_or(&[][..], Vec::as_slice);
        self.1.push((Some(totals::decode_of::<M::Key>), runs));
    }
}

impl<'a> Look<'a> {
    pub(super) fn check_runs(&mut self, store: &Store, sound: &mut SoundRuns) -> Result<(), Error> {
        let manifests: Vec<(String, &'a Manifest)> =
            self.chain.iter().filter_map(|entry| Some((entry.name.clone(), entry.manifest?))).collect();
        let mut seen: BTreeMap<&str, Digest> = BTreeMap::new();
        for (at, (name, manifest)) in manifests.iter().enumerate() {
            let mut lists = Lists(manifest, vec![(None, &manifest.ids)]);
            each(&mut lists);
            for (open, run) in lists.1.into_iter().flat_map(|(open, runs)| runs.iter().map(move |run| (open, run))) {
                if seen.insert(&run.name, run.digest).is_none() {
                    self.figures.runs += 1;
                    self.figures.rows += run.rows;
                    self.figures.bytes += run.bytes;
                }
                if sound.runs.get(&run.name) == Some(&run.digest) {
                    continue;
                }
                match store.read(&run.name)? {
                    Some(object) => match check(open, run, &object) {
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

    /// The totals of each metric are those of all accepted events.
    fn add_up(&mut self, store: &Store, sound: &mut SoundRuns, name: &str, manifest: &Manifest) -> Result<(), Error> {
        if sound.added_up == Some((manifest.generation, manifest.sequence)) {
            return Ok(());
        }
        let mut sums = Vec::new();
        let known = names().into_iter().chain(manifest.metrics.keys().map(String::as_str));
        for metric in known.collect::<BTreeSet<_>>() {
            let runs = manifest.metrics.get(metric).map_or(&[][..], Vec::as_slice);
            let Some(sum) = sum(store, runs)? else {
                self.find(About::Runs, name, "its runs went away while they were read");
                return Ok(());
            };
            sums.push((metric, sum));
        }
        let accepted = manifest.counters.accepted;
        let money = |totals: &Totals| (totals.deposits, totals.withdrawals);
        let expected = sums.first().map(|(_, sum)| money(sum));
        if sums.iter().all(|(_, sum)| sum.count() == accepted && Some(money(sum)) == expected) {
            sound.added_up = Some((manifest.generation, manifest.sequence));
        } else {
            let words = |(metric, sum): &(&str, Totals)| {
                format!("those of {metric} are of {}, in pence {:?}", sum.count(), money(sum))
            };
            let words: Vec<String> = sums.iter().map(words).collect();
            let what = format!("accepted {accepted} events, but of the totals {}", words.join(", "));
            self.find(About::Counts, name, what);
        }
        Ok(())
    }
}

/// What is wrong with a run, if anything is.
fn check(open: Option<Open>, run: &Run, object: &Bytes) -> Option<String> {
    if object.len() as u64 != run.bytes {
        return Some(format!("it has {} bytes, and the manifest says {}", object.len(), run.bytes));
    }
    if Digest::of_object(object) != run.digest {
        return Some("it is not the run that the manifest names".to_owned());
    }
    let counted = match open {
        None => ids::decode(&run.name, object).map(|ids| {
            let stats = ids.stats();
            (stats.count, run.newest_bucket.is_none_or(|bucket| bucket == stats.newest.0))
        }),
        Some(open) => open(&run.name, object).map(|run| (run.len() as u64, true)),
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
fn sum(store: &Store, runs: &[Run]) -> Result<Option<Totals>, Error> {
    let mut decoded = Vec::new();
    for run in runs {
        let Some(object) = store.read(&run.name)? else { return Ok(None) };
        decoded.push(totals::decode(&run.name, &object)?);
    }
    let merged = totals::decode("merged totals", &totals::merge(&decoded))?;
    let mut sum = Totals::NONE;
    merged.all_totals().for_each(|totals| sum.add(&totals));
    Ok(Some(sum))
}
