//! Generations: each claimed, each adopting what the one before left, and the one before sealed.

use super::{About, Look};
use crate::inspect::Slot;
use crate::names;
use crate::prune::REMEMBERED_GENERATIONS;
use crate::records::{Adoption, Identity};

/// The identity of a generation, with the changes of settings that the next one has accepted. None where those that are
/// known are missing there, or one does not fit: it begins with the epoch after the last cut, and leads from what was set.
fn after_changes(older: &Adoption, newer: &Adoption) -> Option<Identity> {
    let accepted = newer.changes.strip_prefix(&older.changes[..])?;
    let mut identity = older.identity.clone();
    for change in accepted {
        let key = change.setting.clone();
        let before = match change.after.clone() {
            Some(after) => identity.settings.insert(key, after),
            None => identity.settings.remove(&key),
        };
        if change.epoch != newer.last_cut + 1 || before != change.before {
            return None;
        }
    }
    Some(identity)
}

impl<'a> Look<'a> {
    /// Each generation and the one that succeeded it, from the newest back. One that adopted a past after a later generation
    /// had read it is passed over: nobody goes on from it. Next to an adoption that cannot be read, nothing is known.
    fn successions(&self) -> Vec<(&'a Adoption, &'a Adoption)> {
        let mut found = Vec::new();
        let mut adoptions = self.stored.adoptions.iter().rev().peekable();
        while let (Some(newer), Some(next)) = (adoptions.next(), adoptions.peek()) {
            let Some(newer) = newer.record() else { continue };
            let followed = newer.follows.or_else(|| names::number(&next.name));
            while adoptions.next_if(|older| names::number(&older.name) > followed).is_some() {}
            if let Some(older) = adoptions.peek().and_then(|older| older.record()) {
                found.push((older, newer));
            }
        }
        found
    }

    /// The oldest generation whose traces are all there; those of older ones may be half cleared away.
    fn remembered(&self) -> u64 {
        let newest = self.stored.adoptions.iter().filter_map(|object| names::number(&object.name)).max();
        newest.unwrap_or(0).saturating_sub(REMEMBERED_GENERATIONS)
    }

    pub(super) fn check_generations(&mut self) {
        let stored = self.stored;
        let unreadable = stored.claims.iter().filter_map(|object| object.content.as_ref().err());
        let unreadable = unreadable.chain(stored.adoptions.iter().filter_map(|object| object.content.as_ref().err()));
        unreadable.for_each(|error| self.damaged(About::Generations, error));
        if self.adoption.is_none() {
            self.find(About::Generations, names::ADOPTIONS, "no generation's adoption can be read");
        }
        for object in &stored.adoptions {
            let Some(adoption) = object.record() else { continue };
            self.figures.generations += 1;
            if names::number(&object.name) != Some(adoption.generation) {
                self.find(About::Generations, &object.name, format!("it is of generation {}", adoption.generation));
            }
            let claimed = stored.claims.iter().any(|claim| names::number(&claim.name) == Some(adoption.generation));
            if !claimed && adoption.generation >= self.remembered() {
                self.find(About::Generations, names::claim(adoption.generation), "missing, though it was adopted");
            }
            self.check_spans(&object.name, adoption);
        }
        for (older, newer) in self.successions() {
            self.check_succession(older, newer);
        }
    }

    /// The cuts that an adoption takes over follow on one another, up to the last one.
    fn check_spans(&mut self, name: &str, adoption: &Adoption) {
        let oldest = adoption.manifests.last().map_or(0, |link| link.epoch);
        let mut next = None;
        for span in &adoption.cuts {
            let follows = next.map_or(span.first <= oldest + 1, |next| span.first == next);
            if !follows || span.last < span.first || span.generation >= adoption.generation {
                let (generation, first, last) = (span.generation, span.first, span.last);
                let what = format!("it adopts epochs {first} to {last} of generation {generation}, which do not fit");
                self.find(About::Generations, name, what);
            }
            next = Some(span.last + 1);
        }
        if adoption.cuts.last().map_or(oldest, |span| span.last) != adoption.last_cut {
            let what = format!("the epochs that it adopts do not end with its last cut, {}", adoption.last_cut);
            self.find(About::Generations, name, what);
        }
        if adoption.manifests.first().is_some_and(|link| link.epoch > adoption.last_cut) {
            self.find(About::Generations, name, "it adopts a manifest of an epoch that was not cut");
        }
    }

    /// A generation goes on from what the one before it had.
    fn check_succession(&mut self, older: &Adoption, newer: &Adoption) {
        let name = names::adoption(newer.generation);
        if Some(&newer.identity) != after_changes(older, newer).as_ref() {
            self.find(
                About::Generations,
                &name,
                format!("its identity is not that of generation {}", older.generation),
            );
        }
        if newer.last_cut < older.last_cut {
            let what = format!("its last cut is {}, before that of generation {}", newer.last_cut, older.generation);
            self.find(About::Generations, &name, what);
        }
        let known = |link| older.manifests.contains(link);
        for link in newer.manifests.iter().filter(|link| link.generation != older.generation && !known(link)) {
            let what = format!("it adopts {}, which generation {} did not have", names::linked(link), older.generation);
            self.find(About::Generations, &name, what);
        }
    }

    /// Where a generation was succeeded, there are seals, and nothing of it behind them.
    pub(super) fn check_seals(&mut self) {
        let stored = self.stored;
        let remembered = self.remembered();
        for (older, newer) in self.successions() {
            if older.generation < remembered {
                continue;
            }
            self.figures.seals += 1;
            let by = |seal_by: u64| older.generation < seal_by && seal_by <= newer.generation;
            let place = names::cuts(older.generation, newer.last_cut + 1);
            match stored.cuts.iter().find(|object| object.name == place).map(|object| &object.content) {
                Some(Ok(Slot::Seal(seal))) if by(seal.by) => {}
                Some(Err(error)) => self.damaged(About::Seals, error),
                Some(Ok(_)) => self.find(About::Seals, &place, "there is no seal of a later generation"),
                None => self.find(About::Seals, &place, "the seal is missing"),
            }
            let forked = stored.cuts_of(older.generation).filter(|object| object.written().is_some());
            let forked = forked.filter(|object| names::number(&object.name) > Some(newer.last_cut));
            for object in forked {
                let what = format!("it was written after generation {} had taken over", newer.generation);
                self.find(About::Seals, &object.name, what);
            }
            match stored.manifests_of(older.generation).next_back() {
                Some(object) if object.seal().is_some_and(|seal| by(seal.by)) => {}
                Some(object) if object.content.is_err() => {
                    object.content.as_ref().err().into_iter().for_each(|error| self.damaged(About::Seals, error));
                }
                Some(object) => self.find(About::Seals, &object.name, "no seal follows it"),
                None => self.find(About::Seals, names::manifests_of(older.generation), "the seal is missing"),
            }
        }
    }
}
