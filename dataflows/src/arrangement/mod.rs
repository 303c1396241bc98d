//! The index behind deduplication: which event ids are remembered, and what the accepted event of each said.
//!
//! One operator fills it ([`crate::distinct`]); others read it as of a closed epoch. It forgets by watermark, so its
//! size is bounded by the ids within the horizon. It knows nothing of streams, and what it answers never depends on
//! whether a sweep has run: an entry that is still in memory but forgotten under the watermark is not there.
//!
//! A differential trace would remember for ever, or hold a retraction for each id until it expires and merge all of
//! them again whenever the frontier moves. This is a sharded hash table of 32-byte slots instead; see
//! [`crate::baselines`] for the comparison.

mod buckets;
mod hash;
mod shard;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::hash_table::Entry;
use serde::{Deserialize, Serialize};

pub use self::hash::{Fingerprint, Hashes};

use self::buckets::BucketCounts;
use self::shard::{Shard, Slot};
use crate::event::{Epoch, EventId, Micros};
use crate::watermark::{Bucket, Horizon};

/// How fast forgotten entries are cleared away. It changes memory and pauses, never an answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SweepRate {
    /// Cells looked at for each event that a worker receives. With eight, forgotten entries take up about
    /// a tenth of the memory while events come as fast as they can be decided.
    pub cells_per_event: usize,
    /// Cells looked at in each epoch besides. At least one shard is swept in an epoch that finds anything forgotten.
    pub cells_per_epoch: usize,
}

impl Default for SweepRate {
    fn default() -> Self {
        SweepRate { cells_per_event: 8, cells_per_epoch: 1 << 14 }
    }
}

/// Settings of a [`TimeBoundedArrangement`].
#[derive(Copy, Clone, Debug)]
pub struct Settings {
    /// When ids are late and when they are forgotten.
    pub horizon: Horizon,
    /// Secret key of the pipeline; the same on every worker and after each restart.
    pub key: [u64; 2],
    /// How many ids this worker will hold at once: those of an event time as long as watermark delay, retention and a
    /// bucket together, and a tenth more for what is forgotten but not cleared away yet.
    /// Memory for them is taken at the start (45 bytes each) and kept, and hardly anything needs to be moved until
    /// there are more. Zero starts small.
    pub expected_ids: usize,
    /// How fast to clear away what is forgotten.
    pub sweep: SweepRate,
}

/// What is kept of an accepted event.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remembered {
    /// The bucket of its event time, which decides when it is forgotten.
    pub bucket: Bucket,
    /// What it said.
    pub fingerprint: Fingerprint,
}

/// What became of an id that asked for admission.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was not remembered, and now is.
    New,
    /// It was admitted in an earlier epoch.
    Earlier(Remembered),
    /// It was admitted in this epoch, or exactly a multiple of 2^24 epochs ago.
    ThisEpoch(Remembered),
}

/// An index from event id to [`Remembered`] that forgets by watermark.
///
/// On request it also keeps a log of what it admits, for checkpoints: see [`Self::log_admissions`].
///
/// ```
/// use tidemark_dataflows::arrangement::{Admission, Fingerprint, Settings, SweepRate, TimeBoundedArrangement};
/// use tidemark_dataflows::event::{EventId, Micros};
/// use tidemark_dataflows::watermark::Horizon;
///
/// let horizon = Horizon { watermark_delay_us: 24_000_000, dedup_retention_us: 24_000_000 };
/// let settings = Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() };
/// let mut index = TimeBoundedArrangement::new(settings);
/// let id = EventId(42);
/// assert_eq!(index.admit(index.hash(id), id, Micros(500_000), Fingerprint(9), 1), Admission::New);
/// assert_eq!(index.retained(None), 1);
/// assert_eq!(index.next_forgotten_at(), Some(Micros(25_000_000)));
///
/// // Remembered until the watermark is 24 s past the full second.
/// index.advance(Some(Micros(24_999_999)));
/// assert!(index.get(id, index.watermark()).is_some());
/// index.advance(Some(Micros(25_000_000)));
/// assert!(index.get(id, index.watermark()).is_none());
/// assert_eq!((index.retained(index.watermark()), index.next_forgotten_at()), (0, None));
/// ```
pub struct TimeBoundedArrangement {
    settings: Settings,
    hashes: Hashes,
    shards: Vec<Shard>,
    counts: BucketCounts,
    /// Entries in memory, the forgotten ones included.
    resident: usize,
    watermark: Option<Micros>,
    /// First bucket that is remembered under `watermark`.
    oldest: Bucket,
    /// Shard that the next sweep begins with.
    cursor: usize,
    /// What was admitted since the log was last taken; `None` if nobody asked for one.
    log: Option<Vec<(EventId, Remembered)>>,
}

/// An arrangement that its operator fills and others on the same worker read between steps.
pub type SharedArrangement = Rc<RefCell<TimeBoundedArrangement>>;

/// Least number of shards. More make each move shorter and cost cache: 256 headers are 16 KiB.
const SHARDS: usize = 256;

/// How many shards of which capacity hold `expected` ids at five sixths of their capacity. Tables have a power of two
/// of cells; choosing the number of shards to fit leaves no cells over.
fn layout(expected: usize) -> (usize, usize) {
    let wanted = expected.saturating_add(expected / 5);
    let cells = (wanted / SHARDS / 7).saturating_mul(8);
    if cells < 32 {
        return (SHARDS, 0);
    }
    let capacity = (1 << cells.ilog2()) / 8 * 7;
    (wanted.div_ceil(capacity), capacity)
}

impl TimeBoundedArrangement {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        let (shards, capacity) = layout(settings.expected_ids);
        TimeBoundedArrangement {
            settings,
            hashes: Hashes::new(settings.key),
            shards: (0..shards).map(|index| Shard::new(capacity, index * 256 / shards)).collect(),
            counts: BucketCounts::default(),
            resident: 0,
            watermark: None,
            oldest: Bucket(0),
            cursor: 0,
            log: None,
        }
    }

    /// The same, to be shared between its operator and its readers.
    pub fn shared(settings: Settings) -> SharedArrangement {
        Rc::new(RefCell::new(Self::new(settings)))
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The hash functions of the pipeline.
    pub fn hashes(&self) -> Hashes {
        self.hashes
    }

    /// The hash by which the other methods find an id.
    #[inline]
    pub fn hash(&self, id: EventId) -> u64 {
        self.hashes.index(id)
    }

    /// Bits 25 to 56 choose the shard; the table takes its cell from the low bits and its tag from the top seven.
    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        (((hash >> 25 & 0xffff_ffff) * self.shards.len() as u64) >> 32) as usize
    }

    /// The watermark that it was last advanced to.
    pub fn watermark(&self) -> Option<Micros> {
        self.watermark
    }

    /// Moves the watermark on, never back: what it passes is forgotten at once, and cleared away by [`Self::sweep`].
    pub fn advance(&mut self, watermark: Option<Micros>) {
        self.watermark = self.watermark.max(watermark);
        self.oldest = self.settings.horizon.oldest_remembered(self.watermark);
        self.counts.forget_before(self.oldest);
    }

    /// Admits an id under the current watermark, unless it is remembered. `hash` is its [`Self::hash`].
    #[inline]
    pub fn admit(&mut self, hash: u64, id: EventId, time: Micros, fingerprint: Fingerprint, epoch: Epoch) -> Admission {
        let bucket = self.settings.horizon.bucket_of(time);
        let admitted = Remembered { bucket, fingerprint };
        let slot = Slot::new(id, admitted, epoch);
        let shard = self.shard_of(hash);
        let shard = &mut self.shards[shard];
        self.resident -= shard.make_room(self.oldest, &self.hashes);
        match shard.entry(hash, id, &self.hashes) {
            Entry::Vacant(vacant) => {
                vacant.insert(slot);
                self.resident += 1;
            }
            Entry::Occupied(mut occupied) => {
                let known = occupied.get().remembered();
                if known.bucket >= self.oldest {
                    let this_epoch = occupied.get().may_be_of(epoch);
                    return if this_epoch { Admission::ThisEpoch(known) } else { Admission::Earlier(known) };
                }
                // Forgotten, so it is counted nowhere any more.
                *occupied.get_mut() = slot;
            }
        }
        self.counts.add(bucket);
        if let Some(log) = &mut self.log {
            log.push((id, admitted));
        }
        Admission::New
    }

    /// Touches the memory that admitting these hashes will need. Their misses overlap here; met one by one, each would
    /// be waited for.
    #[inline]
    pub fn look_ahead(&self, hashes: impl Iterator<Item = u64>) {
        let touched = hashes.fold(0, |touched, hash| touched ^ self.shards[self.shard_of(hash)].touch(hash));
        // Without a use of the result, the loads would be optimised away.
        std::hint::black_box(touched);
    }

    /// What [`Self::admit`] would find, without admitting anything.
    #[inline]
    pub fn lookup(&self, hash: u64, id: EventId, epoch: Epoch) -> Option<Admission> {
        let slot = self.shards[self.shard_of(hash)].find(hash, id)?;
        let known = slot.remembered();
        if known.bucket < self.oldest {
            return None;
        }
        Some(if slot.may_be_of(epoch) { Admission::ThisEpoch(known) } else { Admission::Earlier(known) })
    }

    /// Puts another event of the same id in the place of the one that was admitted, as it turned out to be the first.
    /// Does nothing if the id is not remembered.
    pub fn replace(&mut self, id: EventId, time: Micros, fingerprint: Fingerprint, epoch: Epoch) {
        let hash = self.hash(id);
        let bucket = self.settings.horizon.bucket_of(time);
        let shard = self.shard_of(hash);
        if let Entry::Occupied(mut occupied) = self.shards[shard].entry(hash, id, &self.hashes) {
            let known = occupied.get().remembered();
            if known.bucket >= self.oldest {
                let admitted = Remembered { bucket, fingerprint };
                *occupied.get_mut() = Slot::new(id, admitted, epoch);
                self.counts.remove(known.bucket);
                self.counts.add(bucket);
                if let Some(log) = &mut self.log {
                    log.push((id, admitted));
                }
            }
        }
    }

    /// Logs, from now on, every id that is admitted or replaced; what is restored is not logged.
    pub fn log_admissions(&mut self) {
        self.log.get_or_insert_default();
    }

    /// Entries in the log.
    pub fn logged(&self) -> usize {
        self.log.as_ref().map_or(0, Vec::len)
    }

    /// Takes the log: what was admitted since it was last taken, in the order of admission.
    ///
    /// An id that was replaced, or forgotten and admitted again, is in it more than once: of several entries for one id
    /// in *one* taken log the **last** counts. Logs that were taken at the end of an epoch need no order among each
    /// other: an id is replaced only within its epoch, and admitted again only with a later bucket, so the entry with
    /// the latest bucket counts, which is the rule of [`Self::restore`].
    pub fn take_log(&mut self) -> Vec<(EventId, Remembered)> {
        // The next log will be about as long: growing it step by step would move it several times.
        self.log.as_mut().map(|log| std::mem::replace(log, Vec::with_capacity(log.len()))).unwrap_or_default()
    }

    /// Takes up an id that an earlier run admitted. Of several entries for one id the one with the latest event time
    /// counts; entries that the watermark has passed are left out.
    pub fn restore(&mut self, id: EventId, remembered: Remembered) {
        if remembered.bucket < self.oldest {
            return;
        }
        let hash = self.hash(id);
        let shard = self.shard_of(hash);
        let shard = &mut self.shards[shard];
        self.resident -= shard.make_room(self.oldest, &self.hashes);
        match shard.entry(hash, id, &self.hashes) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::new(id, remembered, 0));
                self.resident += 1;
            }
            Entry::Occupied(mut occupied) => {
                let known = occupied.get().remembered().bucket;
                if known >= remembered.bucket {
                    return;
                }
                *occupied.get_mut() = Slot::new(id, remembered, 0);
                if known >= self.oldest {
                    self.counts.remove(known);
                }
            }
        }
        self.counts.add(remembered.bucket);
    }

    /// What is remembered of an id under a watermark. Under one before [`Self::watermark`], ids that have been
    /// forgotten since may be missing.
    pub fn get(&self, id: EventId, watermark: Option<Micros>) -> Option<Remembered> {
        let hash = self.hash(id);
        let known = self.shards[self.shard_of(hash)].find(hash, id)?.remembered();
        let oldest = self.settings.horizon.oldest_remembered(watermark).max(self.oldest);
        (known.bucket >= oldest).then_some(known)
    }

    /// How many ids are remembered under a watermark, or under [`Self::watermark`] if that is later. Takes a step for
    /// each bucket between the two.
    pub fn retained(&self, watermark: Option<Micros>) -> usize {
        self.counts.from(self.settings.horizon.oldest_remembered(watermark))
    }

    /// The watermark at which ids are forgotten next; none while nothing is remembered.
    pub fn next_forgotten_at(&self) -> Option<Micros> {
        self.counts.first().map(|bucket| self.settings.horizon.bucket_forgotten_at(bucket))
    }

    /// Entries in memory: the remembered ones and those that no sweep has cleared away yet.
    pub fn len(&self) -> usize {
        self.resident
    }

    /// Whether there is no entry in memory.
    pub fn is_empty(&self) -> bool {
        self.resident == 0
    }

    /// Bytes of heap that the index and its log take, but for the bookkeeping of the allocator and some 100 bytes a
    /// bucket.
    pub fn heap_bytes(&self) -> usize {
        let log = self.log.as_ref().map_or(0, |log| log.capacity() * size_of::<(EventId, Remembered)>());
        log + self.shards.capacity() * size_of::<Shard>() + self.shards.iter().map(Shard::heap_bytes).sum::<usize>()
    }

    /// Every id that is remembered under [`Self::watermark`], in no order.
    pub fn iter(&self) -> impl Iterator<Item = (EventId, Remembered)> {
        let entries = self.shards.iter().flat_map(Shard::iter).map(|slot| (slot.id(), slot.remembered()));
        entries.filter(|(_, remembered)| remembered.bucket >= self.oldest)
    }

    /// Clears away forgotten entries, shard by shard from where the last sweep ended, until `cells` cells have been
    /// looked at or nothing forgotten is left. Shards that have become mostly empty give memory back.
    pub fn sweep(&mut self, cells: usize) {
        let mut looked_at = 0;
        for _ in 0..self.shards.len() {
            if self.resident == self.counts.total() {
                return;
            }
            let shard = &mut self.shards[self.cursor];
            looked_at += shard.cells();
            self.resident -= shard.sweep(self.oldest, &self.hashes);
            self.cursor = (self.cursor + 1) % self.shards.len();
            if looked_at >= cells {
                return;
            }
        }
    }
}

impl std::fmt::Debug for TimeBoundedArrangement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimeBoundedArrangement")
            .field("retained", &self.counts.total())
            .field("resident", &self.resident)
            .field("watermark", &self.watermark)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}
