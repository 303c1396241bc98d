//! Clearing away what no kept manifest needs, so that the folder of a pipeline stays small.
//!
//! It begins after a manifest has become durable, and first makes sure that no later generation has been claimed. A
//! generation that is claimed after that finds this manifest or the one before it, and both are kept with all that they
//! name. So an instance that is stopped at any point in here, and woken after it was displaced, deletes nothing that
//! is needed: the list of what is deleted was fixed before.

use std::collections::HashSet;

use tidemark_store::{Listed, failpoint};

use crate::error::Error;
use crate::journal::{Kept, ManifestLog, check_newest};
use crate::names;

/// How many generations leave their claim, adoption and seals behind, for those who look for what happened.
pub(crate) const REMEMBERED_GENERATIONS: u64 = 16;

impl ManifestLog {
    /// Keeps the newest `keep` manifests (at least two, so that one can fall back) and deletes what is needed by older
    /// ones alone, and of `replaced`, runs of this generation that were merged into others, what no kept one names.
    /// Returns how many objects were deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when a later generation has been claimed, [`Error::Store`] when the store fails for good.
    pub fn prune(&mut self, keep: usize, replaced: Vec<String>) -> Result<usize, Error> {
        check_newest(&self.store, self.generation)?;
        let dropped = self.kept.split_off(keep.max(2).min(self.kept.len()));
        let needed: HashSet<&str> = self.kept.iter().flat_map(|kept| &kept.runs).map(String::as_str).collect();
        let mut doomed: Vec<String> = dropped.iter().map(|kept| names::linked(&kept.link)).collect();
        let runs = dropped.into_iter().flat_map(|kept: Kept| kept.runs).chain(replaced);
        doomed.extend(runs.filter(|run| !needed.contains(run.as_str())));
        let oldest = self.kept.last().map_or(0, |kept| kept.link.epoch);
        if self.kept.len() >= 2 {
            doomed.extend(passed(&self.store.list(&names::cuts_of(self.generation))?, oldest + 1));
            // Whoever restores a kept manifest, or a later one, reads the inbox from its position on. The newest object
            // stays, since the place of the next one follows from it.
            let read = self.kept.iter().map(|kept| kept.inbox).min().unwrap_or(0);
            if read > 0 {
                doomed.extend(passed(&self.store.list(names::INBOX)?, read));
            }
        }
        // Until then, a manifest that is kept may need what older generations wrote: also their cuts, of which those after
        // it are replayed.
        let ours = self.kept.iter().all(|kept| kept.link.generation == self.generation);
        let sweep = !self.swept && self.kept.len() >= 2 && ours && oldest >= self.adopted_cut;
        if sweep {
            doomed.extend(self.left_behind(&needed)?);
        }
        doomed.sort_unstable();
        doomed.dedup();
        failpoint("pruning");
        self.store.delete(&doomed)?;
        self.swept |= sweep;
        Ok(doomed.len())
    }

    /// What older generations left, once none of it is needed: unfinished runs, cuts and manifests that nobody adopted.
    fn left_behind(&self, needed: &HashSet<&str>) -> Result<Vec<String>, Error> {
        let remembered = self.generation.saturating_sub(REMEMBERED_GENERATIONS);
        let mut doomed = Vec::new();
        for folder in [names::GENERATIONS, names::ADOPTIONS] {
            let listed = self.store.list(folder)?.into_iter().map(|object| object.name);
            doomed.extend(listed.filter(|name| names::number(name).is_some_and(|generation| generation < remembered)));
        }
        let runs = self.store.list(names::RUNS)?.into_iter().map(|object| object.name);
        // A run of this generation, of whichever process, may be on its way into a manifest.
        let older = |name: &String| names::generation(name).is_some_and(|generation| generation < self.generation);
        doomed.extend(runs.filter(|name| older(name) && !needed.contains(name.as_str())));
        for folder in [names::CUTS, names::MANIFESTS] {
            let listed: Vec<String> = self.store.list(folder)?.into_iter().map(|object| object.name).collect();
            for (at, name) in listed.iter().enumerate() {
                let Some(generation) = names::generation(name) else { continue };
                // The last object of a generation is the seal that keeps it from writing.
                let last = listed.get(at + 1).and_then(|next| names::generation(next)) != Some(generation);
                let stays = last && generation >= remembered;
                if generation < self.generation && !stays {
                    doomed.push(name.clone());
                }
            }
        }
        Ok(doomed)
    }
}

/// Objects that are named after the first thing in them, and hold nothing from `next` on: those that another object
/// follows which begins at or before it.
fn passed(listed: &[Listed], next: u64) -> Vec<String> {
    let followed = listed.iter().zip(listed.iter().skip(1));
    let passed = followed.filter(|(_, after)| names::number(&after.name).is_some_and(|first| first <= next));
    passed.map(|(object, _)| object.name.clone()).collect()
}
