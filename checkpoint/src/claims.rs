//! Generations: numbers that are given once, and the lineage that all of one pipeline share.

use tidemark_store::{Store, failpoint};

use crate::error::Error;
use crate::journal::Claimed;
use crate::names;
use crate::records::{Adoption, Claim, Claimant, Record};

/// What an instance claims a generation with.
pub struct Bid<'a> {
    /// Who claims.
    pub by: &'a Claimant,
    /// Drawn at random.
    pub nonce: u64,
    /// A lineage drawn at random, for a pipeline that has none yet.
    pub lineage: u64,
    /// The greatest generation that is known from elsewhere: that of a table which was fenced, though the checkpoint is an
    /// older copy. 0 where there is none.
    pub above: u64,
    /// Refuses where the lock of the checkpoint is with another instance by now.
    pub still_held: &'a dyn Fn() -> Result<(), Error>,
}

impl<'a> Bid<'a> {
    /// A bid without a lock, that knows of no tables; the nonce is the lineage of a pipeline that has none.
    pub fn unlocked(by: &'a Claimant, nonce: u64) -> Bid<'a> {
        Bid { by, nonce, lineage: nonce, above: 0, still_held: &|| Ok(()) }
    }
}

/// Wins the next generation: a number that no other instance has, and that is greater than all before it.
///
/// The lock is looked at after the number was found, and the number is won after that. So of two instances that had the
/// lock one after the other, the later one has the greater generation or the earlier one has none: an instance that was
/// stopped before its claim and displaced meanwhile harms nobody when it wakes up.
///
/// # Errors
///
/// When the store cannot be read or written, or the bid says that the lock is lost.
pub fn claim(store: &Store, bid: &Bid<'_>) -> Result<Claimed, Error> {
    loop {
        let newest = newest_generation(store)?.max(bid.above);
        let lineage = lineage(store)?.unwrap_or(bid.lineage);
        let generation = newest + 1;
        (bid.still_held)()?;
        failpoint("generation-numbered");
        let name = names::claim(generation);
        let claim = Claim { generation, by: bid.by.clone(), nonce: bid.nonce, lineage: Some(lineage) };
        match store.create(&name, claim.to_object(&name)?) {
            Ok(()) => return Ok(Claimed { store: store.clone(), generation, lineage }),
            Err(tidemark_store::Error::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The lineage of the pipeline whose checkpoint this is; `None` where none was ever claimed, and where nothing that tells
/// it can be read.
///
/// # Errors
///
/// When the store cannot be read.
pub fn lineage(store: &Store) -> Result<Option<u64>, Error> {
    for folder in [names::ADOPTIONS, names::GENERATIONS] {
        for listed in store.list(folder)?.iter().rev() {
            let Some(object) = store.read(&listed.name)? else { continue };
            let told = match folder {
                names::ADOPTIONS => {
                    Adoption::of_object(&listed.name, &object).map(|found| Some(found.identity.lineage))
                }
                _ => Claim::of_object(&listed.name, &object).map(|found| found.lineage),
            };
            match told {
                Ok(Some(lineage)) => return Ok(Some(lineage)),
                Ok(None) | Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// What stands in the claim of a generation; `None` where it was never claimed.
///
/// # Errors
///
/// When the store cannot be read, or the claim is damaged.
pub fn claim_of(store: &Store, generation: u64) -> Result<Option<Claim>, Error> {
    let name = names::claim(generation);
    store.read(&name)?.map(|object| Claim::of_object(&name, &object)).transpose()
}

/// The greatest generation that was ever claimed or recorded; 0 before the first.
///
/// # Errors
///
/// When the store cannot be read.
pub fn newest_generation(store: &Store) -> Result<u64, Error> {
    let mut newest = 0;
    for folder in [names::GENERATIONS, names::ADOPTIONS] {
        newest =
            newest.max(store.list(folder)?.iter().filter_map(|object| names::number(&object.name)).max().unwrap_or(0));
    }
    Ok(newest)
}

/// Refuses to go on when a generation after `ours` has been claimed.
///
/// # Errors
///
/// [`Error::Fenced`] when there is one.
pub fn check_newest(store: &Store, ours: u64) -> Result<(), Error> {
    let by = newest_generation(store)?;
    if by > ours { Err(Error::Fenced { by, ours }) } else { Ok(()) }
}

/// Why something stored is missing or not what it was, to an instance of generation `ours`: where a later one has been claimed,
/// that is why.
pub fn displaced(error: Error, store: &Store, ours: u64) -> Error {
    match (error, check_newest(store, ours)) {
        (
            Error::Damaged { .. } | Error::Missing { .. } | Error::Store(tidemark_store::Error::Taken { .. }),
            Err(fenced @ Error::Fenced { .. }),
        ) => fenced,
        (error, _) => error,
    }
}
