//! One shard of the index: a hash table that grows, shrinks and clears its tombstones at points of our choice.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Fingerprint, Hashes, Remembered};
use crate::event::{Epoch, EventId};
use crate::watermark::Bucket;

/// Entries that a table of this many cells takes before hashbrown itself would grow it.
fn capacity_of(cells: usize) -> usize {
    cells / 8 * 7
}

/// The bucket in the upper 40 bits (instants up to 9999 in seconds need 38), the low 24 bits of the admitting epoch in
/// the lower ones.
#[derive(Copy, Clone)]
struct Stamp(u64);

const EPOCH_BITS: u32 = 24;

impl Stamp {
    #[inline]
    fn new(bucket: Bucket, epoch: Epoch) -> Self {
        Stamp(bucket.0 << EPOCH_BITS | epoch & ((1 << EPOCH_BITS) - 1))
    }

    #[inline]
    fn bucket(self) -> Bucket {
        Bucket(self.0 >> EPOCH_BITS)
    }

    #[inline]
    fn is_of(self, epoch: Epoch) -> bool {
        (self.0 ^ epoch) & ((1 << EPOCH_BITS) - 1) == 0
    }
}

/// 32 bytes, aligned so that none lies across two cache lines.
#[derive(Copy, Clone)]
#[repr(align(32))]
pub(super) struct Slot {
    id: EventId,
    fingerprint: Fingerprint,
    stamp: Stamp,
}

impl Slot {
    #[inline]
    pub(super) fn new(id: EventId, remembered: Remembered, epoch: Epoch) -> Self {
        Slot { id, fingerprint: remembered.fingerprint, stamp: Stamp::new(remembered.bucket, epoch) }
    }

    #[inline]
    pub(super) fn id(&self) -> EventId {
        self.id
    }

    #[inline]
    pub(super) fn remembered(&self) -> Remembered {
        Remembered { bucket: self.stamp.bucket(), fingerprint: self.fingerprint }
    }

    /// Whether it may have been admitted in this epoch; wrong once in 2^24 epochs.
    #[inline]
    pub(super) fn may_be_of(&self, epoch: Epoch) -> bool {
        self.stamp.is_of(epoch)
    }
}

/// One shard.
///
/// All shards fill at the same pace, so tables that grew when full would all be moved in the same epoch. Each shard
/// therefore makes room while it still has some `spare`, from an eighth of its capacity down to nothing along the shards.
pub(super) struct Shard {
    table: HashTable<Slot>,
    /// Capacity that shrinking leaves.
    floor: usize,
    /// Room at which this shard is rebuilt.
    spare: usize,
    /// This shard's part of an eighth of the capacity, in 256ths.
    stagger: usize,
}

impl Shard {
    /// An empty shard with room for `floor` entries; `stagger` of 0 to 255 sets its growth point apart from others.
    pub(super) fn new(floor: usize, stagger: usize) -> Self {
        let mut shard = Shard { table: HashTable::new(), floor, spare: 0, stagger };
        shard.replace_table(floor);
        shard
    }

    fn replace_table(&mut self, capacity: usize) -> HashTable<Slot> {
        let old = std::mem::replace(&mut self.table, HashTable::with_capacity(capacity));
        self.spare = capacity_of(self.table.num_buckets()) * (256 - self.stagger) / (8 * 256);
        old
    }

    /// Moves what is remembered to a table with the given capacity; returns how many forgotten entries were left behind.
    fn rebuild(&mut self, capacity: usize, oldest: Bucket, hashes: &Hashes) -> usize {
        let old = self.replace_table(capacity);
        let before = old.len();
        for slot in old {
            if slot.stamp.bucket() >= oldest {
                self.table.insert_unique(hashes.index(slot.id), slot, |slot| hashes.index(slot.id));
            }
        }
        before - self.table.len()
    }

    /// Ensures room for one entry more; returns how many forgotten entries were dropped for it.
    #[inline]
    pub(super) fn make_room(&mut self, oldest: Bucket, hashes: &Hashes) -> usize {
        // The capacity that hashbrown states shrinks with each tombstone.
        if self.table.capacity() - self.table.len() > self.spare { 0 } else { self.grow(oldest, hashes) }
    }

    #[cold]
    fn grow(&mut self, oldest: Bucket, hashes: &Hashes) -> usize {
        let capacity = capacity_of(self.table.num_buckets());
        let kept = self.table.iter().filter(|slot| slot.stamp.bucket() >= oldest).count();
        // Left to itself, hashbrown doubles a table that is more than half full even if tombstones are what fills it.
        let enough = kept + self.spare + capacity / 32 < capacity;
        self.rebuild(if enough { capacity } else { (capacity + 1).max(28) }, oldest, hashes)
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, id: EventId) -> Option<&Slot> {
        self.table.find(hash, |slot| slot.id == id)
    }

    /// Loads what a search for the hash looks at.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.table.find(hash, |_| true).map_or(0, |slot| slot.stamp.0)
    }

    #[inline]
    pub(super) fn entry(&mut self, hash: u64, id: EventId, hashes: &Hashes) -> Entry<'_, Slot> {
        self.table.entry(hash, |slot| slot.id == id, |slot| hashes.index(slot.id))
    }

    /// Drops what is forgotten and gives memory back if little is left; returns how many entries were dropped.
    pub(super) fn sweep(&mut self, oldest: Bucket, hashes: &Hashes) -> usize {
        let before = self.table.len();
        self.table.retain(|slot| slot.stamp.bucket() >= oldest);
        let left = self.table.len();
        let capacity = capacity_of(self.table.num_buckets());
        if capacity > self.floor.max(28) && left <= capacity / 4 {
            let wanted = (2 * left).max(self.floor);
            // A pre-sized table whose floor needs all its cells stays.
            if wanted <= capacity / 2 {
                self.rebuild(wanted, oldest, hashes);
            }
        }
        before - left
    }

    pub(super) fn cells(&self) -> usize {
        self.table.num_buckets()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.table.allocation_size()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.table.iter()
    }
}
