//! The index behind deduplication: which event ids are remembered, and what the accepted event of each said.
//!
//! One operator fills it ([`crate::distinct`]); others read it as of a closed epoch. It forgets by watermark, so its
//! size is bounded by the ids within the horizon. It knows nothing of streams, and what it answers never depends on
//! whether a sweep has run: an entry that is still in memory but forgotten under the watermark is not there.
//!
//! A differential trace would remember for ever, or hold a retraction for each id until it expires and merge all of
//! them again whenever the frontier moves. This is a sharded hash table instead, 27 bytes a slot; see
//! [`crate::baselines`] for the comparison.

mod buckets;
mod far;
mod group;
mod hash;
mod lanes;
mod shard;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub use self::hash::{Fingerprint, Hashes, Scrambled};

use self::buckets::BucketCounts;
use self::far::Far;
use self::lanes::SLOTS;
use self::shard::{Search, Shard};
use crate::event::{Epoch, EventId, Micros};
use crate::watermark::{Bucket, Horizon};

/// How fast forgotten entries are cleared away. It changes memory and pauses, never an answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SweepRate {
    /// Cells looked at for each event that a worker receives. What is forgotten is overwritten without being swept; this
    /// is for memory that fewer ids than before leave over.
    pub cells_per_event: usize,
    /// Cells looked at in each epoch besides. At least one shard is swept in an epoch that finds anything forgotten.
    pub cells_per_epoch: usize,
}

impl Default for SweepRate {
    fn default() -> Self {
        SweepRate { cells_per_event: 2, cells_per_epoch: 1 << 14 }
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
    /// bucket together, and a tenth more to be on the safe side.
    /// Memory for them is taken at the start (28 bytes each) and kept, and hardly anything needs to be moved until
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
    /// It was admitted in this epoch, or exactly a multiple of 2^32 epochs ago.
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
/// assert_eq!(index.admit(index.key(id), Micros(500_000), Fingerprint(9), 1), Admission::New);
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
    far: Far,
    counts: BucketCounts,
    watermark: Option<Micros>,
    /// First bucket that is remembered under `watermark`.
    oldest: Bucket,
    /// Shard that the next sweep begins with.
    cursor: usize,
    /// The last epoch in which an id was admitted.
    epoch: Epoch,
    /// What was admitted since the log was last taken; `None` if nobody asked for one.
    log: Option<Vec<(EventId, Remembered)>>,
}

/// An arrangement that its operator fills and others on the same worker read between steps.
pub type SharedArrangement = Rc<RefCell<TimeBoundedArrangement>>;

/// Least number of shards. More make each move shorter and cost cache: 256 headers are 14 KiB.
const SHARDS: usize = 256;

/// Most ids that a shard is laid out for: moving them takes less than a millisecond.
const SHARD_IDS: usize = 1 << 16;

/// How many shards of how many groups hold `expected` ids, in 64ths of their slots.
const EXPECTED_LOAD: usize = 62;

fn layout(expected: usize) -> (usize, usize) {
    let shards = expected.div_ceil(SHARD_IDS).max(SHARDS);
    let groups = expected.saturating_mul(64).div_ceil(SLOTS * EXPECTED_LOAD);
    (shards, groups.div_ceil(shards))
}

impl TimeBoundedArrangement {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        let (shards, groups) = layout(settings.expected_ids);
        TimeBoundedArrangement {
            settings,
            hashes: Hashes::new(settings.key),
            shards: (0..shards).map(|index| Shard::new(groups, (index * 256 / shards) as u8)).collect(),
            far: Far::default(),
            counts: BucketCounts::default(),
            watermark: None,
            oldest: Bucket(0),
            cursor: 0,
            epoch: 0,
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

    /// What the other methods find an id by.
    #[inline]
    pub fn key(&self, id: EventId) -> Scrambled {
        self.hashes.scramble(id)
    }

    #[inline]
    fn shard_of(&self, key: Scrambled) -> usize {
        shard::scale(key.hash() >> 32, self.shards.len())
    }

    /// The watermark that it was last advanced to.
    pub fn watermark(&self) -> Option<Micros> {
        self.watermark
    }

    /// Moves the watermark on, never back: what it passes is forgotten at once, and overwritten or cleared away later.
    pub fn advance(&mut self, watermark: Option<Micros>) {
        self.watermark = self.watermark.max(watermark);
        self.oldest = self.settings.horizon.oldest_remembered(self.watermark);
        self.counts.forget_before(self.oldest);
    }

    /// Admits an id under the current watermark, unless it is remembered.
    #[inline]
    pub fn admit(&mut self, key: Scrambled, time: Micros, fingerprint: Fingerprint, epoch: Epoch) -> Admission {
        let (found, known) = self.search(key, epoch);
        if let Some(known) = known {
            return known;
        }
        let kept = Remembered { bucket: self.settings.horizon.bucket_of(time), fingerprint };
        self.epoch = epoch;
        self.take_in(key, kept, &found, true);
        Admission::New
    }

    /// Touches the memory that admitting these ids will need. Their misses overlap here; met one by one, each would
    /// be waited for.
    #[inline]
    pub fn look_ahead(&self, keys: impl Iterator<Item = Scrambled>) {
        let touched = keys.fold(0, |touched, key| touched ^ self.shards[self.shard_of(key)].touch(key));
        // Without a use of the result, the loads would be optimised away.
        std::hint::black_box(touched);
    }

    /// What [`Self::admit`] would find, without admitting anything.
    #[inline]
    pub fn lookup(&self, key: Scrambled, epoch: Epoch) -> Option<Admission> {
        self.search(key, epoch).1
    }

    /// Where an id may go in its shard, or what is known of it.
    #[inline]
    fn search(&self, key: Scrambled, epoch: Epoch) -> (Search, Option<Admission>) {
        let shard = &self.shards[self.shard_of(key)];
        let found = shard.search(key, self.oldest);
        let known = match found {
            Search::Known(at) => Some((shard.remembered(at), shard.may_be_of(at, epoch))),
            _ if self.far.is_empty() => None,
            _ => self.far.find(key, self.oldest, epoch),
        };
        let admission = |(known, this_epoch)| match this_epoch {
            true => Admission::ThisEpoch(known),
            false => Admission::Earlier(known),
        };
        (found, known.map(admission))
    }

    /// Takes in an id that is not remembered.
    #[inline]
    fn take_in(&mut self, key: Scrambled, kept: Remembered, found: &Search, fresh: bool) {
        self.counts.add(kept.bucket);
        if let Some(log) = self.log.as_mut().filter(|_| fresh) {
            log.push((self.hashes.unscramble(key), kept));
        }
        let (oldest, epoch, shards) = (self.oldest, self.epoch, self.shards.len());
        let index = self.shard_of(key);
        let shard = &mut self.shards[index];
        if shard.ensure_code(kept.bucket, oldest) {
            let place = match found {
                Search::Free(at) => Some(*at),
                _ => shard.make_room(key, oldest, self.counts.total() / shards, epoch),
            };
            if let Some(at) = place {
                return shard.put(at, key, kept, fresh, epoch);
            }
        }
        self.far.put(key, kept, fresh.then_some(epoch));
    }

    /// Puts another event of the same id in the place of the one that was admitted, as it turned out to be the first.
    /// Does nothing if the id is not remembered.
    pub fn replace(&mut self, id: EventId, time: Micros, fingerprint: Fingerprint, epoch: Epoch) {
        let key = self.key(id);
        if let (found, Some(Admission::Earlier(known) | Admission::ThisEpoch(known))) = self.search(key, epoch) {
            let kept = Remembered { bucket: self.settings.horizon.bucket_of(time), fingerprint };
            self.epoch = epoch;
            self.put_in_place(key, known, kept, &found, true);
        }
    }

    /// Overwrites what is known of an id.
    fn put_in_place(&mut self, key: Scrambled, known: Remembered, kept: Remembered, found: &Search, fresh: bool) {
        match found {
            Search::Known(at) => {
                let shard = self.shard_of(key);
                self.shards[shard].remove(*at);
            }
            _ => self.far.remove(key),
        }
        self.counts.remove(known.bucket);
        let (found, _) = self.search(key, self.epoch);
        self.take_in(key, kept, &found, fresh);
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
        let key = self.key(id);
        match self.search(key, self.epoch) {
            (found, None) => self.take_in(key, remembered, &found, false),
            (found, Some(Admission::Earlier(known) | Admission::ThisEpoch(known))) => {
                if known.bucket < remembered.bucket {
                    self.put_in_place(key, known, remembered, &found, false);
                }
            }
            (_, Some(Admission::New)) => {}
        }
    }

    /// What is remembered of an id under a watermark. Under one before [`Self::watermark`], ids that have been
    /// forgotten since may be missing.
    pub fn get(&self, id: EventId, watermark: Option<Micros>) -> Option<Remembered> {
        let oldest = self.settings.horizon.oldest_remembered(watermark);
        match self.search(self.key(id), self.epoch).1? {
            Admission::Earlier(known) | Admission::ThisEpoch(known) => (known.bucket >= oldest).then_some(known),
            Admission::New => None,
        }
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

    /// Entries in memory: the remembered ones and those that are neither overwritten nor cleared away yet.
    pub fn len(&self) -> usize {
        self.far.len() + self.shards.iter().map(Shard::held).sum::<usize>()
    }

    /// Whether there is no entry in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap that the index and its log take, but for the bookkeeping of the allocator and some 100 bytes a
    /// bucket.
    pub fn heap_bytes(&self) -> usize {
        let log = self.log.as_ref().map_or(0, |log| log.capacity() * size_of::<(EventId, Remembered)>());
        let shards = self.shards.iter().map(Shard::heap_bytes).sum::<usize>();
        log + self.shards.capacity() * size_of::<Shard>() + shards + self.far.heap_bytes()
    }

    /// Every id that is remembered under [`Self::watermark`], in no order.
    pub fn iter(&self) -> impl Iterator<Item = (EventId, Remembered)> {
        let near = self.shards.iter().flat_map(|shard| shard.iter(self.oldest));
        near.chain(self.far.iter(self.oldest)).map(|(key, kept)| (self.hashes.unscramble(key), kept))
    }

    /// Clears away forgotten entries, shard by shard from where the last sweep ended, until `cells` cells have been
    /// looked at or nothing forgotten is left. Shards that have become mostly empty give memory back.
    pub fn sweep(&mut self, cells: usize) {
        let mut forgotten = self.len() - self.counts.total();
        let mut looked_at = 0;
        for _ in 0..self.shards.len() {
            if forgotten == 0 {
                return;
            }
            if self.cursor == 0 {
                let before = self.far.len();
                self.far.sweep(self.oldest);
                forgotten -= before - self.far.len();
            }
            let shard = &mut self.shards[self.cursor];
            let before = shard.held();
            looked_at += shard.cells();
            shard.sweep(self.oldest, self.epoch);
            forgotten -= before - shard.held();
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
            .field("resident", &self.len())
            .field("watermark", &self.watermark)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}
