//! The chain of manifests, from the newest back: each names the one before it by its hash.

use super::{About, COMPLETE, Entry, Look};
use crate::envelope::Digest;
use crate::names;
use crate::records::{Adoption, Manifest};

impl Look<'_> {
    pub(super) fn check_chain(&mut self, adoption: &Adoption) {
        let stored = self.stored;
        for object in stored.manifests_of(adoption.generation).rev() {
            match &object.content {
                Err(error) => self.damaged(About::Chain, error),
                Ok(_) if object.written().is_some() => {}
                // A generation that is just taking over.
                Ok(_) => continue,
            }
            self.chain.push(Entry { name: object.name.clone(), link: None, manifest: object.written() });
        }
        for link in &adoption.manifests {
            let name = names::linked(link);
            let object = stored.manifests.iter().find(|object| object.name == name);
            let Some(object) = object else {
                if self.chain.len() < COMPLETE {
                    self.find(About::Chain, &name, "missing, though it was adopted and is not old enough to be pruned");
                }
                continue;
            };
            if let Err(error) = &object.content {
                self.damaged(About::Chain, error);
            } else if object.digest != link.digest {
                self.find(
                    About::Chain,
                    &name,
                    format!("it is not the one that generation {} adopted", adoption.generation),
                );
            }
            self.chain.push(Entry { name, link: Some(link.clone()), manifest: object.written() });
        }
        self.check_entries(adoption);
        self.figures.manifests = self.chain.len();
        let epochs = || self.chain.iter().filter_map(|entry| entry.manifest.map(|manifest| manifest.epoch));
        self.figures.manifest_epochs = epochs().min().zip(epochs().max());
    }

    fn check_entries(&mut self, adoption: &Adoption) {
        let entries: Vec<(String, bool, &Manifest)> = self
            .chain
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), entry.link.is_none(), entry.manifest?)))
            .collect();
        for (at, (name, own, manifest)) in entries.iter().enumerate() {
            let place = names::manifest(manifest.generation, manifest.sequence);
            if place != *name {
                self.find(About::Chain, name, format!("it says that it is {place}"));
            }
            if manifest.lineage != adoption.identity.lineage || manifest.pipeline != adoption.identity.pipeline {
                self.find(About::Chain, name, format!("it is of another pipeline, {:?}", manifest.pipeline));
            }
            // Those of the newest generation repeat what it adopted, those before it what had been accepted until then.
            let accepted = adoption.changes.strip_prefix(&manifest.changes[..]);
            if accepted.is_none_or(|later| *own && !later.is_empty()) {
                self.find(About::Chain, name, "its changes of settings are not those that were adopted");
            }
            let older = entries.get(at + 1).map(|(_, _, older)| older.epoch);
            if older.is_some_and(|older| older >= manifest.epoch) {
                self.find(About::Chain, name, format!("its epoch, {}, is not after the one before it", manifest.epoch));
            }
            // The newest one's predecessor is kept; older ones' may have been pruned.
            let kept = at + 1 < COMPLETE && (*own || adoption.manifests.len() > 1);
            self.check_previous(name, manifest, kept, older.is_some());
        }
    }

    fn check_previous(&mut self, name: &str, manifest: &Manifest, kept: bool, has_older: bool) {
        let Some(link) = &manifest.previous else {
            if has_older {
                self.find(About::Chain, name, "it names no predecessor, though there is one");
            }
            return;
        };
        let place = names::linked(link);
        let found: Option<Digest> =
            self.stored.manifests.iter().find(|object| object.name == place).map(|object| object.digest);
        match found {
            Some(digest) if digest == link.digest => {}
            Some(_) => self.find(About::Chain, name, format!("its predecessor {place} is not the one that it names")),
            None if kept => self.find(About::Chain, name, format!("its predecessor {place} is missing")),
            None => {}
        }
    }

    /// Within each manifest the counts add up.
    pub(super) fn check_counts(&mut self) {
        let entries: Vec<(String, &Manifest)> =
            self.chain.iter().filter_map(|entry| Some((entry.name.clone(), entry.manifest?))).collect();
        for (name, manifest) in &entries {
            let counters = &manifest.counters;
            let (received, accepted, duplicates) = (counters.received, counters.accepted, counters.duplicates);
            let rejected = counters.rejected_total();
            if received != accepted + duplicates + rejected {
                let what = format!(
                    "received {received}, but accepted {accepted} + duplicates {duplicates} + rejected {rejected}"
                );
                self.find(About::Counts, name, what);
            }
            if counters.epochs != manifest.epoch {
                let what = format!("it counts {} epochs at the end of epoch {}", counters.epochs, manifest.epoch);
                self.find(About::Counts, name, what);
            }
            let read: u64 = manifest.positions.iter().map(|position| position.next).sum();
            self.figures.positions += 1;
            if self.counts_offsets && read != received {
                self.find(
                    About::Positions,
                    name,
                    format!("offsets add up to {read} events, but {received} were received"),
                );
            }
        }
        if let Some((_, newest)) = entries.first() {
            let counters = &newest.counters;
            (self.figures.received, self.figures.accepted) = (counters.received, counters.accepted);
            (self.figures.duplicates, self.figures.rejected) = (counters.duplicates, counters.rejected_total());
        }
    }
}
