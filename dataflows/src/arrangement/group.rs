//! A group of slots: what is kept of up to 19 ids, in 512 bytes.
//!
//! The first cache line says all that a search for an id that is not there needs. The slots behind it are looked at
//! when a tag agrees, and written when an id is taken in; they lie in the same page.

use super::lanes::{self, LANES, SLOTS, Set, Stamps};
use super::{Fingerprint, Scrambled};
use crate::event::Epoch;

/// When what stands in a slot is forgotten, and three bits more to tell its id from others: a code for the bucket in
/// the upper 12 bits, larger for later buckets, and bits of the scrambled id in the lower ones. 0 for nothing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u16);

const ID_BITS: u32 = 3;

impl Stamp {
    /// Codes are less than this; 0 stands for an empty slot.
    pub(super) const CODES: u64 = (1 << 12) - 1;

    #[inline]
    pub(super) fn new(code: u64, key: Scrambled) -> Self {
        debug_assert!(code > 0 && code < Self::CODES);
        Stamp((code as u16) << ID_BITS | Self::id_bits(key))
    }

    /// The greatest stamp of the codes before this one.
    #[inline]
    pub(super) fn last_before(code: u64) -> Self {
        Stamp(((code << ID_BITS) - 1) as u16)
    }

    #[inline]
    pub(super) fn code(self) -> u64 {
        u64::from(self.0 >> ID_BITS)
    }

    #[inline]
    fn id_bits(key: Scrambled) -> u16 {
        (key.0 >> 8) as u16 & ((1 << ID_BITS) - 1)
    }

    #[inline]
    fn may_be_of(self, key: Scrambled) -> bool {
        (self.0 ^ Self::id_bits(key)) & ((1 << ID_BITS) - 1) == 0
    }
}

/// The scrambled id but for its first byte, which is the tag, and the fingerprint.
#[derive(Copy, Clone)]
#[repr(C)]
struct Slot {
    id: [u8; 15],
    fingerprint: [u8; 8],
}

/// What is kept of one id, taken out of its slot.
#[derive(Copy, Clone)]
pub(super) struct Entry {
    pub(super) key: Scrambled,
    pub(super) stamp: Stamp,
    pub(super) fingerprint: Fingerprint,
    /// Whether it was admitted in the epoch that is given with it.
    pub(super) fresh: bool,
}

/// A group lies in one page, and its head in one cache line.
#[derive(Clone)]
#[repr(C, align(512))]
pub(super) struct Group {
    /// The bit of a slot says whether it was filled in `epoch`.
    stamps: Stamps,
    tags: [u8; LANES],
    /// The last epoch in which an id was admitted to this group, its low bits.
    epoch: u32,
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Group>() == 512 && std::mem::offset_of!(Group, slots) == 64);

impl Group {
    pub(super) const EMPTY: Group = Group {
        stamps: Stamps::EMPTY,
        tags: [0; LANES],
        epoch: 0,
        slots: [Slot { id: [0; 15], fingerprint: [0; 8] }; SLOTS],
    };

    /// Loads the head.
    #[inline]
    pub(super) fn touch(&self) -> u32 {
        self.epoch
    }

    /// The slots with nothing in them, or with what is forgotten if stamps up to `forgotten` are.
    #[inline]
    pub(super) fn free(&self, forgotten: Stamp) -> Set {
        self.stamps.at_most(forgotten.0)
    }

    /// The slots with something in them that is not forgotten.
    pub(super) fn taken(&self, forgotten: Stamp) -> impl Iterator<Item = usize> {
        (0..SLOTS).filter(move |slot| self.stamp(*slot).0 > forgotten.0)
    }

    /// The slot that holds an id which is not forgotten.
    #[inline]
    pub(super) fn find(&self, key: Scrambled, forgotten: Stamp) -> Option<usize> {
        let (tag, id) = split(key);
        lanes::equal(&self.tags, tag).find(|slot| {
            let stamp = self.stamp(*slot);
            stamp.may_be_of(key) && stamp.0 > forgotten.0 && self.slots[*slot].id == id
        })
    }

    #[inline]
    pub(super) fn stamp(&self, slot: usize) -> Stamp {
        Stamp(self.stamps.get(slot))
    }

    #[inline]
    pub(super) fn fingerprint(&self, slot: usize) -> Fingerprint {
        Fingerprint(u64::from_le_bytes(self.slots[slot].fingerprint))
    }

    pub(super) fn key(&self, slot: usize) -> Scrambled {
        join(self.tags[slot], &self.slots[slot].id)
    }

    /// Whether the slot may have been filled in this epoch; wrong once in 2^32 epochs.
    #[inline]
    pub(super) fn may_be_of(&self, slot: usize, epoch: Epoch) -> bool {
        self.epoch == epoch as u32 && self.stamps.bit(slot)
    }

    pub(super) fn entry(&self, slot: usize, epoch: Epoch) -> Entry {
        Entry {
            key: self.key(slot),
            stamp: self.stamp(slot),
            fingerprint: self.fingerprint(slot),
            fresh: self.may_be_of(slot, epoch),
        }
    }

    /// Fills a slot.
    #[inline]
    pub(super) fn put(&mut self, slot: usize, entry: Entry, epoch: Epoch) {
        if entry.fresh && self.epoch != epoch as u32 {
            self.epoch = epoch as u32;
            self.stamps.clear_bits();
        }
        let (tag, id) = split(entry.key);
        self.stamps.set(slot, entry.stamp.0, entry.fresh);
        self.tags[slot] = tag;
        self.slots[slot] = Slot { id, fingerprint: entry.fingerprint.0.to_le_bytes() };
    }

    pub(super) fn clear(&mut self, slot: usize) {
        self.stamps.set(slot, 0, false);
    }

    /// Empties the slots whose stamps are at most `forgotten`; returns how many had something in them.
    pub(super) fn drop_forgotten(&mut self, forgotten: Stamp) -> usize {
        self.stamps.clear_up_to(forgotten.0)
    }

    /// Takes `by` from the code of every slot with something in it, all of which are greater.
    pub(super) fn lower_codes(&mut self, by: u64) {
        self.stamps.lower((by << ID_BITS) as u16);
    }
}

/// The first byte of a scrambled id, and the others.
#[inline]
fn split(key: Scrambled) -> (u8, [u8; 15]) {
    let [tag, id @ ..] = key.0.to_le_bytes();
    (tag, id)
}

fn join(tag: u8, id: &[u8; 15]) -> Scrambled {
    let mut bytes = [tag; 16];
    bytes[1..].copy_from_slice(id);
    Scrambled(u128::from_le_bytes(bytes))
}
