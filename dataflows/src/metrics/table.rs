//! The running totals of many keys in memory: entries in an arena that never moves, behind an index of hashes.
//!
//! Updates come a batch at a time, and the memory that a batch needs is touched before it is used: met one by one, each
//! miss would be waited for.

use std::hash::{BuildHasher, Hash};

use differential_dataflow::difference::Semigroup;
use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Row, Totals};
use crate::event::Epoch;

/// How many updates are looked up ahead of their addition.
const LOOK_AHEAD: usize = 32;

/// Entries that are allocated at once. Growth moves none of them.
const CHUNK: usize = 1 << 12;

/// Keyed hashes of keys. The key is the pipeline's secret, so nobody can choose users that all meet on one worker.
#[derive(Clone, Debug)]
pub(super) struct KeyHashes(FixedState);

impl KeyHashes {
    pub(super) fn new(key: [u64; 2]) -> Self {
        // What deduplication draws from the same key is kept apart by other functions.
        KeyHashes(FixedState::with_seed(key[0] ^ key[1].rotate_left(32)))
    }

    /// Which worker owns a key: this modulo their number.
    #[inline]
    pub(super) fn route<K: Hash>(&self, key: &K) -> u64 {
        self.0.hash_one(key) >> 32
    }

    /// Where a key lives within its worker. Shares no bit with [`Self::route`].
    #[inline]
    fn index<K: Hash>(&self, key: &K) -> u32 {
        self.0.hash_one(key) as u32
    }
}

/// 32 bits of hash, spread over the bits that the table looks at.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// An entry as the index sees it. The hash is kept, so that growth looks at no key.
#[derive(Copy, Clone)]
struct Cell {
    hash: u32,
    /// Place of the entry; 2^32 of them would be half a terabyte on one worker.
    place: u32,
}

struct Slot<K> {
    key: K,
    totals: Totals,
    /// The epoch that last changed it.
    changed: Epoch,
    /// Whether it changed since [`TotalsTable::take_unsaved`].
    unsaved: bool,
}

/// Totals by key.
pub(super) struct TotalsTable<K> {
    hashes: KeyHashes,
    index: HashTable<Cell>,
    chunks: Vec<Vec<Slot<K>>>,
    /// Places of the entries that the epoch at hand has changed.
    changed: Vec<u32>,
    /// Places of those that changed since they were last taken; `None` where nobody takes them.
    unsaved: Option<Vec<u32>>,
    probes: Vec<u32>,
}

impl<K: Hash + Eq + Clone> TotalsTable<K> {
    /// An empty table. With `saves`, what changes is noted for [`Self::take_unsaved`].
    pub(super) fn new(hashes: KeyHashes, saves: bool) -> Self {
        let unsaved = saves.then(Vec::new);
        TotalsTable {
            hashes,
            index: HashTable::new(),
            chunks: Vec::new(),
            changed: Vec::new(),
            unsaved,
            probes: Vec::new(),
        }
    }

    /// Sets the totals of earlier runs: no news, and saved already.
    pub(super) fn restore(&mut self, totals: impl Iterator<Item = (K, Totals)>) {
        for (key, totals) in totals {
            let hash = self.hashes.index(&key);
            let place = self.place_of(hash, &key);
            if let Some(slot) = slot_at(&mut self.chunks, place) {
                slot.totals = totals;
            }
        }
    }

    /// Adds updates of one epoch. Epochs come in order, and each is [told](Self::news) before the next one begins.
    pub(super) fn add(&mut self, epoch: Epoch, updates: &[(K, Epoch, Totals)]) {
        let mut probes = std::mem::take(&mut self.probes);
        for updates in updates.chunks(LOOK_AHEAD) {
            probes.clear();
            probes.extend(updates.iter().map(|(key, ..)| self.hashes.index(key)));
            self.touch(&probes);
            for ((key, _, totals), hash) in updates.iter().zip(&probes) {
                let place = self.place_of(*hash, key);
                let Some(slot) = slot_at(&mut self.chunks, place) else { continue };
                slot.totals.plus_equals(totals);
                if slot.changed != epoch {
                    slot.changed = epoch;
                    self.changed.push(place);
                }
                if let Some(unsaved) = self.unsaved.as_mut().filter(|_| !slot.unsaved) {
                    slot.unsaved = true;
                    unsaved.push(place);
                }
            }
        }
        self.probes = probes;
    }

    /// One row for each key that changed since the last call, with its absolute totals.
    pub(super) fn news(&mut self) -> impl Iterator<Item = Row<K>> {
        let TotalsTable { changed, chunks, .. } = self;
        changed.drain(..).filter_map(|place| {
            let slot = slot_at(chunks, place)?;
            Some(Row { key: slot.key.clone(), epoch: slot.changed, totals: slot.totals })
        })
    }

    /// Each key that changed since the last call, once, with its absolute totals.
    pub(super) fn take_unsaved(&mut self) -> Vec<(K, Totals)> {
        let places = self.unsaved.as_mut().map(std::mem::take).unwrap_or_default();
        let chunks = &mut self.chunks;
        let slots = places.into_iter().filter_map(|place| {
            let slot = slot_at(chunks, place)?;
            slot.unsaved = false;
            Some((slot.key.clone(), slot.totals))
        });
        slots.collect()
    }

    /// Loads the cells that these hashes lead to, and then the entries that those lead to.
    #[inline]
    fn touch(&self, probes: &[u32]) {
        let mut places = [0; LOOK_AHEAD];
        for (place, hash) in places.iter_mut().zip(probes) {
            *place = self.index.find(spread(*hash), |_| true).map_or(0, |cell| cell.place);
        }
        let slots = places.iter().take(probes.len()).filter_map(|place| {
            let place = *place as usize;
            self.chunks.get(place / CHUNK)?.get(place % CHUNK)
        });
        // Without a use of the result, the loads would be optimised away.
        std::hint::black_box(slots.fold(0, |touched, slot| touched ^ slot.changed));
    }

    /// The place of a key, which gets one if it has none.
    #[inline]
    fn place_of(&mut self, hash: u32, key: &K) -> u32 {
        let TotalsTable { index, chunks, .. } = self;
        let is_of = |cell: &Cell| {
            let place = cell.place as usize;
            cell.hash == hash
                && chunks.get(place / CHUNK).and_then(|c| c.get(place % CHUNK)).is_some_and(|s| s.key == *key)
        };
        let place = match index.entry(spread(hash), is_of, |cell| spread(cell.hash)) {
            Entry::Occupied(known) => return known.get().place,
            Entry::Vacant(vacant) => {
                let whole = chunks.len().saturating_sub(1) * CHUNK;
                let place = (whole + chunks.last().map_or(0, Vec::len)) as u32;
                vacant.insert(Cell { hash, place });
                place
            }
        };
        let slot = Slot { key: key.clone(), totals: Totals::NONE, changed: 0, unsaved: false };
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(slot),
            None => {
                // Few keys get by with little.
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK });
                chunk.push(slot);
                self.chunks.push(chunk);
            }
        }
        place
    }
}

#[inline]
fn slot_at<K>(chunks: &mut [Vec<Slot<K>>], place: u32) -> Option<&mut Slot<K>> {
    let place = place as usize;
    chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
}
