//! The order in which things become durable: generation, fences, adoption, cuts, effects, manifests.
//!
//! [`claim`] wins a generation. The caller then fences every table with it, and only then reads the past
//! ([`Claimed::read`]): what an older generation may still do from now on changes neither. [`Claimed::adopt`] seals the
//! places at which older generations would write next, records what was found, and opens the two logs.
//!
//! Safety rests on the fences, the seals and the recorded adoption. A lock or lease on top is courtesy.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemark_dataflows::event::Epoch;

pub use crate::claims::{Bid, check_newest, claim, claim_of, displaced, lineage, newest_generation};
use tidemark_store::Store;

use crate::envelope::Digest;
use crate::error::Error;
use crate::names;
use crate::records::{Adoption, Change, Cut, Cuts, Identity, Link, Manifest, Record, Seal, Span};

/// A generation that was won.
#[derive(Clone)]
pub struct Claimed {
    pub(crate) store: Store,
    pub(crate) generation: u64,
    pub(crate) lineage: u64,
}

/// A manifest with its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Restorable {
    /// Its place.
    pub link: Link,
    /// What it says.
    pub manifest: Manifest,
}

/// What is stored of a pipeline.
#[derive(Debug)]
pub struct Past {
    /// What the pipeline is.
    pub identity: Identity,
    /// The manifests that can be read, newest first, of those that the newest generation adopted or wrote.
    pub manifests: Vec<Restorable>,
    /// Every cut that counts and is still there, by epoch.
    pub cuts: BTreeMap<Epoch, Cut>,
    /// Epoch of the last cut; 0 before the first.
    pub last_cut: Epoch,
    /// Every change of a setting that was accepted, oldest first. Who accepts another one adds it here, and adopts with the
    /// settings after it.
    pub changes: Vec<Change>,
    /// What could not be read, and what was done instead.
    pub warnings: Vec<Error>,
    adopted_by: u64,
    spans: Vec<Span>,
    next_sequence: u64,
}

impl Past {
    /// The cuts after `epoch`, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when one of them is not there.
    pub fn cuts_after(&self, epoch: Epoch) -> Result<Vec<Cut>, Error> {
        let wanted = epoch + 1..=self.last_cut;
        let found = wanted.map(|epoch| {
            self.cuts
                .get(&epoch)
                .cloned()
                .ok_or_else(|| Error::Missing { what: format!("the cut of epoch {epoch}, below cuts/,") })
        });
        found.collect()
    }

    /// The generation whose record this is.
    pub fn generation(&self) -> u64 {
        self.adopted_by
    }
}

/// The manifest that a link names.
///
/// # Errors
///
/// [`Error::Missing`] when it is not there, [`Error::Damaged`] when it is another one.
pub fn manifest_of(store: &Store, link: &Link) -> Result<Restorable, Error> {
    let name = names::linked(link);
    read_manifest(store, &name, Some(link.digest))?.ok_or(Error::Missing { what: name })
}

/// What is stored of a pipeline, without claiming anything: for those who look, and for a first check of settings.
/// `None` where nothing was ever adopted.
///
/// # Errors
///
/// When something without which nothing can be restored is damaged or of another format version.
pub fn look(store: &Store) -> Result<Option<Past>, Error> {
    let mut adoptions = store.list(names::ADOPTIONS)?;
    while let Some(newest) = adoptions.pop() {
        let Some(generation) = names::number(&newest.name) else { continue };
        let Some(object) = store.read(&newest.name)? else { continue };
        match adoption_at(&newest.name, generation, &object) {
            Ok(adoption) => return read_past(store, adoption).map(Some),
            // Nothing follows from a record that was never completed: its generation has cut nothing.
            Err(Error::Damaged { .. }) if store.list(&names::cuts_of(generation))?.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn adoption_at(name: &str, generation: u64, object: &Bytes) -> Result<Adoption, Error> {
    let adoption = Adoption::of_object(name, object)?;
    if adoption.generation == generation { Ok(adoption) } else { Err(misplaced(name)) }
}

/// What is said of a sound object that somebody has put there.
pub(crate) const OF_ANOTHER: &str = "it is that of another pipeline";

/// A sound object under the name of another.
fn misplaced(name: &str) -> Error {
    Error::damaged(name, "it is what was written under another name")
}

fn read_past(store: &Store, adoption: Adoption) -> Result<Past, Error> {
    let (generation, lineage) = (adoption.generation, adoption.identity.lineage);
    let mut warnings = Vec::new();
    let mut next_sequence = first_sequence(&adoption.manifests);
    let manifests = read_manifests(store, &adoption, &mut next_sequence, &mut warnings)?;
    let mut cuts = BTreeMap::new();
    for span in &adoption.cuts {
        let read = read_cuts(store, span.generation, lineage, &mut warnings)?.into_iter();
        cuts.extend(read.filter(|cut| names::holds(span, cut.epoch)).map(|cut| (cut.epoch, cut)));
    }
    let own =
        read_cuts(store, generation, lineage, &mut warnings)?.into_iter().filter(|cut| cut.epoch > adoption.last_cut);
    cuts.extend(own.map(|cut| (cut.epoch, cut)));
    // Cuts that a kept manifest covers may have been pruned. A gap behind that shows when they are asked for.
    let restorable = manifests.first().map_or(0, |found| found.link.epoch);
    let last_cut = cuts.keys().next_back().copied().unwrap_or(0).max(adoption.last_cut).max(restorable);
    let mut spans = adoption.cuts;
    if last_cut > adoption.last_cut {
        spans.push(Span { generation, first: adoption.last_cut + 1, last: last_cut });
    }
    Ok(Past {
        identity: adoption.identity,
        manifests,
        cuts,
        last_cut,
        changes: adoption.changes,
        warnings,
        adopted_by: generation,
        spans,
        next_sequence,
    })
}

/// The number of the first manifest of a generation that adopts these, newest first. Whoever reads the adoption, and so
/// whoever seals, comes to the same number.
fn first_sequence(adopted: &[Link]) -> u64 {
    adopted.first().map_or(0, |link| link.sequence) + 1
}

/// The manifests that the generation wrote, newest first, and then those that it adopted. `next` becomes the number of
/// the one that it would write next.
fn read_manifests(
    store: &Store,
    adoption: &Adoption,
    next: &mut u64,
    warnings: &mut Vec<Error>,
) -> Result<Vec<Restorable>, Error> {
    let mut found: Vec<Restorable> = Vec::new();
    for listed in store.list(&names::manifests_of(adoption.generation))?.into_iter().rev() {
        let read = read_manifest(store, &listed.name, None);
        if !matches!(read, Ok(None)) {
            *next = names::number(&listed.name).map_or(*next, |number| (*next).max(number + 1));
        }
        match read {
            Ok(Some(restorable)) if restorable.manifest.lineage == adoption.identity.lineage => found.push(restorable),
            Ok(_) => {}
            Err(error @ Error::Damaged { .. }) => warnings.push(error),
            Err(error) => return Err(error),
        }
    }
    for link in &adoption.manifests {
        match read_manifest(store, &names::linked(link), Some(link.digest)) {
            Ok(Some(restorable)) => found.push(restorable),
            // Once there are two newer ones, it may have been pruned.
            Ok(None) => {}
            Err(error @ Error::Damaged { .. }) => warnings.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `None` where there is no manifest under that name: nothing at all, or a seal.
fn read_manifest(store: &Store, name: &str, digest: Option<Digest>) -> Result<Option<Restorable>, Error> {
    let Some(object) = store.read(name)? else { return Ok(None) };
    if Seal::of_object(name, &object).is_ok() {
        return Ok(None);
    }
    let manifest = manifest_at(name, &object)?;
    let found = Digest::of_object(&object);
    if digest.is_some_and(|digest| digest != found) {
        return Err(Error::damaged(name, "it is another manifest than the one that was adopted"));
    }
    let Manifest { generation, sequence, epoch, .. } = manifest;
    Ok(Some(Restorable { link: Link { generation, sequence, epoch, digest: found }, manifest }))
}

/// The cuts in a generation's folder, in order. Damaged objects are left out and told of.
fn read_cuts(store: &Store, generation: u64, lineage: u64, warnings: &mut Vec<Error>) -> Result<Vec<Cut>, Error> {
    let names: Vec<String> = store.list(&names::cuts_of(generation))?.into_iter().map(|object| object.name).collect();
    let mut cuts = Vec::new();
    for (name, object) in names.iter().zip(store.read_all(&names)?) {
        let Some(object) = object else { continue };
        if Seal::of_object(name, &object).is_ok() {
            continue;
        }
        match cuts_at(name, generation, lineage, &object) {
            Ok(found) => cuts.extend(found),
            Err(error @ Error::Damaged { .. }) => warnings.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(cuts)
}

fn manifest_at(name: &str, object: &Bytes) -> Result<Manifest, Error> {
    let manifest = Manifest::of_object(name, object)?;
    let own = names::manifest(manifest.generation, manifest.sequence) == name;
    if own { Ok(manifest) } else { Err(misplaced(name)) }
}

fn cuts_at(name: &str, generation: u64, lineage: u64, object: &Bytes) -> Result<Vec<Cut>, Error> {
    let Cuts { generation: by, lineage: of, cuts } = Cuts::of_object(name, object)?;
    if of.is_some_and(|of| of != lineage) {
        return Err(Error::damaged(name, OF_ANOTHER));
    }
    let first = cuts.first().map_or(0, |cut| cut.epoch);
    let consecutive = cuts.iter().zip(first..).all(|(cut, epoch)| cut.epoch == epoch);
    if by == generation && names::cuts(by, first) == name && consecutive { Ok(cuts) } else { Err(misplaced(name)) }
}

impl Claimed {
    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The lineage of the pipeline.
    pub fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Reads what is stored, and keeps older generations from adding to it. Call it only once every table is fenced.
    ///
    /// # Errors
    ///
    /// As for [`look`]; [`Error::Fenced`] when a later generation has been there.
    pub fn read(&self) -> Result<Option<Past>, Error> {
        loop {
            let Some(past) = look(&self.store)? else { return Ok(None) };
            if past.adopted_by >= self.generation {
                return Err(Error::Fenced { by: past.adopted_by, ours: self.generation });
            }
            if self.seal(&past)? {
                return Ok(Some(past));
            }
        }
    }

    /// Takes the places at which the generation of `past` would write next. Returns whether both were free: otherwise it
    /// has just written there, and that counts.
    fn seal(&self, past: &Past) -> Result<bool, Error> {
        let next_cut = names::cuts(past.adopted_by, past.last_cut + 1);
        let next_manifest = names::manifest(past.adopted_by, past.next_sequence);
        let cut = self
            .take(&next_cut, |object| cuts_at(&next_cut, past.adopted_by, past.identity.lineage, object).map(drop))?;
        let manifest = self.take(&next_manifest, |object| manifest_at(&next_manifest, object).map(drop))?;
        Ok(cut && manifest)
    }

    /// Puts a seal there. Returns whether nothing that counts lies there: if not this seal, then that of another, or
    /// something that [`look`] passes over as well.
    fn take(&self, name: &str, counts: impl Fn(&Bytes) -> Result<(), Error>) -> Result<bool, Error> {
        let seal = Seal { by: self.generation };
        match self.store.create(name, seal.to_object(name)?) {
            Ok(()) => return Ok(true),
            Err(tidemark_store::Error::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(object) = self.store.read(name)? else { return Ok(false) };
        if Seal::of_object(name, &object).is_ok() {
            return Ok(true);
        }
        match counts(&object) {
            Ok(()) => Ok(false),
            Err(Error::Damaged { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Records what this generation goes on from, and opens its logs. `past` has been [read](Self::read) by it, and
    /// `restored` is the manifest whose state was taken up.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn adopt(self, identity: Identity, past: Option<&Past>, restored: Option<&Link>) -> Result<Journal, Error> {
        // What is newer than the restored one could not be read or restored.
        let manifests = past.map_or(&[][..], |past| &past.manifests[..]).iter();
        let kept: Vec<Kept> = manifests.skip_while(|found| Some(&found.link) != restored).map(Kept::of).collect();
        let manifests: Vec<Link> = kept.iter().map(|kept| kept.link.clone()).collect();
        let oldest = manifests.last().map_or(0, |link| link.epoch);
        let cuts = past.map_or(&[][..], |past| &past.spans[..]).iter().filter(|span| span.last > oldest);
        let last_cut = past.map_or(0, |past| past.last_cut);
        let changes = past.map_or(&[][..], |past| &past.changes[..]).to_vec();
        let cuts = cuts.copied().collect();
        let (generation, follows) = (self.generation, Some(past.map_or(0, Past::generation)));
        let adoption = Adoption { generation, follows, identity, last_cut, cuts, manifests, changes };
        let (name, lineage) = (names::adoption(self.generation), adoption.identity.lineage);
        self.store.create(&name, adoption.to_object(&name)?)?;
        let store = self.store;
        let sequence = first_sequence(&adoption.manifests);
        let (adopted_cut, changes, swept) = (last_cut, adoption.changes, false);
        Ok(Journal {
            cuts: CutLog { store: store.clone(), generation, lineage, next: last_cut + 1 },
            manifests: ManifestLog { store, generation, sequence, kept, adopted_cut, changes, swept },
        })
    }
}

/// The two logs of a generation, for the two threads that write them.
pub struct Journal {
    /// The cuts.
    pub cuts: CutLog,
    /// The manifests.
    pub manifests: ManifestLog,
}

/// Writes cuts, in order and without a gap.
pub struct CutLog {
    store: Store,
    generation: u64,
    lineage: u64,
    next: Epoch,
}

impl CutLog {
    /// The epoch that comes next.
    pub fn next(&self) -> Epoch {
        self.next
    }

    /// Makes consecutive cuts durable, in one object.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when a later generation has taken over, [`Error::Store`] when the store fails for good.
    pub fn append(&mut self, cuts: Vec<Cut>) -> Result<(), Error> {
        let Some(last) = cuts.last().map(|cut| cut.epoch) else { return Ok(()) };
        let name = names::cuts(self.generation, self.next);
        let record = Cuts { generation: self.generation, lineage: Some(self.lineage), cuts };
        self.store
            .create(&name, record.to_object(&name)?)
            .map_err(|error| fenced(error, &self.store, self.generation))?;
        self.next = last + 1;
        Ok(())
    }
}

/// A place of ours that somebody else has taken: a later generation, and nobody else, does that.
fn fenced(error: tidemark_store::Error, store: &Store, ours: u64) -> Error {
    let tidemark_store::Error::Taken { name } = &error else { return error.into() };
    match store.read(name) {
        Ok(Some(object)) => match Seal::of_object(name, &object) {
            Ok(seal) => Error::Fenced { by: seal.by, ours },
            Err(_) => error.into(),
        },
        Ok(None) => error.into(),
        Err(error) => error.into(),
    }
}

/// Writes manifests, each of which names the one before it, and prunes what no kept manifest needs.
pub struct ManifestLog {
    pub(crate) store: Store,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// Manifests that can be restored, newest first.
    pub(crate) kept: Vec<Kept>,
    /// The last epoch that an older generation cut.
    pub(crate) adopted_cut: Epoch,
    /// The changes of settings that were adopted.
    changes: Vec<Change>,
    /// Whether what older generations left behind has been cleared away.
    pub(crate) swept: bool,
}

/// A manifest that can be restored, and what it needs: runs, and the inbox from a position on.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) link: Link,
    pub(crate) runs: Vec<String>,
    pub(crate) inbox: u64,
}

impl Kept {
    fn of(found: &Restorable) -> Kept {
        let runs = found.manifest.runs().map(|run| run.name.clone()).collect();
        Kept { link: found.link.clone(), runs, inbox: found.manifest.inbox_position() }
    }
}

impl ManifestLog {
    /// The newest manifest.
    pub fn newest(&self) -> Option<&Link> {
        self.kept.first().map(|kept| &kept.link)
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Publishes a manifest; its generation, number, predecessor and accepted changes are filled in here.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when a later generation has taken over, [`Error::Store`] when the store fails for good.
    pub fn publish(&mut self, mut manifest: Manifest) -> Result<Link, Error> {
        manifest.generation = self.generation;
        manifest.sequence = self.sequence;
        manifest.previous = self.newest().cloned();
        manifest.changes.clone_from(&self.changes);
        let name = names::manifest(self.generation, self.sequence);
        let object = manifest.to_object(&name)?;
        let digest = Digest::of_object(&object);
        self.store.create(&name, object).map_err(|error| fenced(error, &self.store, self.generation))?;
        let link = Link { generation: self.generation, sequence: self.sequence, epoch: manifest.epoch, digest };
        self.sequence += 1;
        self.kept.insert(0, Kept::of(&Restorable { link: link.clone(), manifest }));
        Ok(link)
    }
}
