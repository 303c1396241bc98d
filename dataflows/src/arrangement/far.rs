//! Ids whose event times lie too far from those of others for the codes of a shard.
//!
//! The codes span thousands of buckets, and nothing lies further apart in the long run, since what the watermark has
//! passed is forgotten. But there is no watermark before the first events, and one epoch may hold events of many years.
//! Such ids stand here, whole, at twice the memory; they are looked for only while there are any.

use hashbrown::HashTable;

use super::{Remembered, Scrambled};
use crate::event::Epoch;
use crate::watermark::Bucket;

struct Entry {
    key: Scrambled,
    kept: Remembered,
    /// The epoch that admitted it; `None` if an earlier run did.
    epoch: Option<Epoch>,
}

/// The ids that stand in no shard.
#[derive(Default)]
pub(super) struct Far {
    table: HashTable<Entry>,
}

impl Far {
    /// Whether there is none, forgotten or not.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Their number, the forgotten ones included.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What is kept of an id, and whether this epoch admitted it.
    pub(super) fn find(&self, key: Scrambled, oldest: Bucket, epoch: Epoch) -> Option<(Remembered, bool)> {
        let entry = self.table.find(key.hash(), |entry| entry.key == key)?;
        (entry.kept.bucket >= oldest).then_some((entry.kept, entry.epoch == Some(epoch)))
    }

    /// Takes in an id, or overwrites it.
    pub(super) fn put(&mut self, key: Scrambled, kept: Remembered, epoch: Option<Epoch>) {
        let entry = self.table.entry(key.hash(), |entry| entry.key == key, |entry| entry.key.hash());
        entry.insert(Entry { key, kept, epoch });
    }

    /// Takes an id away.
    pub(super) fn remove(&mut self, key: Scrambled) {
        if let Ok(entry) = self.table.find_entry(key.hash(), |entry| entry.key == key) {
            entry.remove();
        }
    }

    /// Drops what is forgotten; gives memory back once nothing is left.
    pub(super) fn sweep(&mut self, oldest: Bucket) {
        self.table.retain(|entry| entry.kept.bucket >= oldest);
        if self.table.is_empty() {
            self.table = HashTable::new();
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.table.allocation_size()
    }

    /// All that is remembered, in no order.
    pub(super) fn iter(&self, oldest: Bucket) -> impl Iterator<Item = (Scrambled, Remembered)> {
        self.table.iter().map(|entry| (entry.key, entry.kept)).filter(move |(_, kept)| kept.bucket >= oldest)
    }
}
