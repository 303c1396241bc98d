//! Every small object of a pipeline as it lies in the store, sound or not, for those who only look: listings and checks.
//!
//! Runs are not read here; manifests name them. Nothing is written, and nothing is decided about what counts.

use bytes::Bytes;
use tidemark_store::{Listed, Store};

use crate::Error;
use crate::envelope::Digest;
use crate::names;
use crate::records::{Adoption, Claim, Cuts, Manifest, Record, Seal};

/// An object and what it says.
#[derive(Debug)]
pub struct Object<T> {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub digest: Digest,
    /// What it says, or what is wrong with it.
    pub content: Result<T, Error>,
}

/// What lies at a place in the log of a generation.
#[derive(Debug)]
pub enum Slot<T> {
    /// What the generation wrote.
    Record(T),
    /// The end that a later one set.
    Seal(Seal),
}

/// Everything but the runs, each kind in the order of names.
#[derive(Debug)]
pub struct Stored {
    /// Claims of generations.
    pub claims: Vec<Object<Claim>>,
    /// What generations adopted.
    pub adoptions: Vec<Object<Adoption>>,
    /// Manifests and their seals.
    pub manifests: Vec<Object<Slot<Manifest>>>,
    /// Cuts and their seals.
    pub cuts: Vec<Object<Slot<Cuts>>>,
}

impl<T> Object<T> {
    fn read(name: String, object: &Bytes, parse: impl Fn(&str, &Bytes) -> Result<T, Error>) -> Self {
        let content = parse(&name, object);
        Object { name, bytes: object.len() as u64, digest: Digest::of_object(object), content }
    }

    /// What it says, if it can be read.
    pub fn record(&self) -> Option<&T> {
        self.content.as_ref().ok()
    }
}

impl<T> Object<Slot<T>> {
    /// What the generation wrote there, if it did and it can be read.
    pub fn written(&self) -> Option<&T> {
        match &self.content {
            Ok(Slot::Record(record)) => Some(record),
            _ => None,
        }
    }

    /// The seal there, if it is one.
    pub fn seal(&self) -> Option<&Seal> {
        match &self.content {
            Ok(Slot::Seal(seal)) => Some(seal),
            _ => None,
        }
    }
}

impl Stored {
    /// Reads everything. An instance may be at work meanwhile: what it deletes between listing and reading is left out.
    ///
    /// The order matters: what an object relies on is read after it, and so is there.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn read(store: &Store) -> Result<Stored, Error> {
        let adoptions = folder(store, names::ADOPTIONS, Adoption::of_object)?;
        let claims = folder(store, names::GENERATIONS, Claim::of_object)?;
        let manifests = folder(store, names::MANIFESTS, slot)?;
        let cuts = folder(store, names::CUTS, slot)?;
        Ok(Stored { claims, adoptions, manifests, cuts })
    }

    /// Whether anything was ever stored.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.adoptions.is_empty() && self.manifests.is_empty() && self.cuts.is_empty()
    }

    /// The adoption that counts: the newest that can be read, as [`look`](crate::journal::look) has it.
    pub fn newest_adoption(&self) -> Option<&Adoption> {
        let has_cuts = |generation| self.cuts_of(generation).next().is_some();
        for object in self.adoptions.iter().rev() {
            match &object.content {
                Ok(adoption) => return Some(adoption),
                Err(_) if names::number(&object.name).is_some_and(has_cuts) => return None,
                Err(_) => {}
            }
        }
        None
    }

    /// The cuts and seals in the folder of a generation.
    pub fn cuts_of(&self, generation: u64) -> impl Iterator<Item = &Object<Slot<Cuts>>> {
        self.cuts.iter().filter(move |object| names::generation(&object.name) == Some(generation))
    }

    /// The manifests and seals in the folder of a generation.
    pub fn manifests_of(&self, generation: u64) -> impl DoubleEndedIterator<Item = &Object<Slot<Manifest>>> {
        self.manifests.iter().filter(move |object| names::generation(&object.name) == Some(generation))
    }

    /// All names and sizes, to see whether anything has changed.
    pub(crate) fn inventory(&self) -> Vec<(&str, Digest)> {
        let claims = self.claims.iter().map(|object| (object.name.as_str(), object.digest));
        let adoptions = self.adoptions.iter().map(|object| (object.name.as_str(), object.digest));
        let manifests = self.manifests.iter().map(|object| (object.name.as_str(), object.digest));
        let cuts = self.cuts.iter().map(|object| (object.name.as_str(), object.digest));
        claims.chain(adoptions).chain(manifests).chain(cuts).collect()
    }
}

fn slot<T: Record>(name: &str, object: &Bytes) -> Result<Slot<T>, Error> {
    match Seal::of_object(name, object) {
        Ok(seal) => Ok(Slot::Seal(seal)),
        Err(_) => T::of_object(name, object).map(Slot::Record),
    }
}

fn folder<T>(
    store: &Store,
    folder: &str,
    parse: impl Fn(&str, &Bytes) -> Result<T, Error>,
) -> Result<Vec<Object<T>>, Error> {
    let names: Vec<String> = store.list(folder)?.into_iter().map(|Listed { name, .. }| name).collect();
    let objects = store.read_all(&names)?;
    let there = names.into_iter().zip(objects).filter_map(|(name, object)| Some((name, object?)));
    Ok(there.map(|(name, object)| Object::read(name, &object, &parse)).collect())
}
