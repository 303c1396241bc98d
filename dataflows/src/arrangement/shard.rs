//! One shard of the index: groups of slots, an id in either of two of them.
//!
//! An id goes to the group that has more room, which fills groups so evenly that nine slots in ten can be taken before
//! two are full together. What is forgotten is room: it is overwritten where it stands, so ids that come and go need
//! no sweep, and nothing but more of them makes a shard grow.

use super::group::{Entry, Group, Stamp};
use super::lanes::{SLOTS, Set};
use super::{Remembered, Scrambled};
use crate::event::Epoch;
use crate::watermark::Bucket;

/// A shard that is as full as this, in 256ths, grows as soon as two groups are full together, the first shard at the
/// lower bound and the last at the upper one: all shards fill at the same pace, and should not grow together.
const FULL: std::ops::RangeInclusive<usize> = 230..=247;

/// Where an id stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    group: usize,
    slot: usize,
}

/// What a search found.
pub(super) enum Search {
    /// The id.
    Known(Place),
    /// That the id is not there, and where it may go.
    Free(Place),
    /// That the id is not there, and that both its groups are full.
    Full,
}

/// One shard. Codes of buckets count from its own `base`, so it needs no other shard to move on.
pub(super) struct Shard {
    groups: Box<[Group]>,
    /// The bucket with code 1.
    base: Bucket,
    /// The first remembered bucket when the base could not be moved to where it would have helped.
    fixed_at: Option<Bucket>,
    /// Slots with something in them, forgotten or not.
    held: usize,
    /// Groups that shrinking leaves.
    floor: usize,
    /// What sets its growth apart from that of other shards, from 0 to 255.
    stagger: u8,
}

/// The two groups of an id, of so many; the same one twice only if there is no other.
#[inline]
fn homes(key: Scrambled, groups: usize) -> [usize; 2] {
    // The shard was chosen by the upper half of the hash; upper bits of a product depend on all the bits below them.
    let spread = key.hash().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let first = scale(spread >> 32, groups);
    let second = first + 1 + scale(spread & 0xffff_ffff, groups - 1);
    [first, if second < groups { second } else { second - groups }]
}

/// 32 bits, brought evenly to less than `to`, or to 0.
#[inline]
pub(super) fn scale(bits: u64, to: usize) -> usize {
    ((bits * to as u64) >> 32) as usize
}

/// A free slot in the group of the two that has more of them.
#[inline]
fn roomier(groups: &[Group], [first, second]: [usize; 2], forgotten: Stamp) -> Option<Place> {
    choose([first, second], [groups[first].free(forgotten), groups[second].free(forgotten)])
}

#[inline]
fn choose(homes: [usize; 2], free: [Set; 2]) -> Option<Place> {
    let which = usize::from(free[1].count() > free[0].count());
    free[which].any().map(|slot| Place { group: homes[which], slot })
}

/// Makes room in one of two full groups by moving one of their ids to its other group. Returns the empty slot, and
/// whether something forgotten was overwritten for it.
fn vacate(groups: &mut [Group], homes_of_key: [usize; 2], forgotten: Stamp, epoch: Epoch) -> Option<(Place, bool)> {
    for group in homes_of_key {
        for slot in 0..SLOTS {
            let entry = groups[group].entry(slot, epoch);
            let other = homes(entry.key, groups.len()).into_iter().find(|home| *home != group)?;
            if let Some(to) = groups[other].free(forgotten).any() {
                let overwritten = groups[other].stamp(to) != Stamp(0);
                groups[other].put(to, entry, epoch);
                groups[group].clear(slot);
                return Some((Place { group, slot }, overwritten));
            }
        }
    }
    None
}

/// Copies what is not forgotten to so many groups; `None` if they do not do. Returns how many slots are taken.
fn refill(from: &[Group], size: usize, forgotten: Stamp, epoch: Epoch) -> Option<(Box<[Group]>, usize)> {
    let mut groups = vec![Group::EMPTY; size].into_boxed_slice();
    let nothing = Stamp::last_before(1);
    let mut held = 0;
    for group in from {
        for slot in group.taken(forgotten) {
            let entry = group.entry(slot, epoch);
            let homes = homes(entry.key, size);
            let free = roomier(&groups, homes, nothing);
            let place = free.or_else(|| vacate(&mut groups, homes, nothing, epoch).map(|(place, _)| place))?;
            groups[place.group].put(place.slot, entry, epoch);
            held += 1;
        }
    }
    Some((groups, held))
}

impl Shard {
    /// An empty shard of so many groups.
    pub(super) fn new(groups: usize, stagger: u8) -> Self {
        let floor = groups.max(1);
        let groups = vec![Group::EMPTY; floor].into_boxed_slice();
        Shard { groups, base: Bucket(0), fixed_at: None, held: 0, floor, stagger }
    }

    /// The greatest stamp of what is forgotten if buckets before `oldest` are.
    #[inline]
    fn forgotten(&self, oldest: Bucket) -> Stamp {
        Stamp::last_before((oldest.0.saturating_sub(self.base.0) + 1).min(Stamp::CODES))
    }

    /// Loads what a search for the key looks at first.
    #[inline]
    pub(super) fn touch(&self, key: Scrambled) -> u32 {
        let [first, second] = homes(key, self.groups.len());
        self.groups[first].touch() ^ self.groups[second].touch()
    }

    /// Looks for an id among what is remembered if buckets from `oldest` on are.
    #[inline]
    pub(super) fn search(&self, key: Scrambled, oldest: Bucket) -> Search {
        let forgotten = self.forgotten(oldest);
        let homes = homes(key, self.groups.len());
        let [first, second] = homes.map(|home| &self.groups[home]);
        let free = [first.free(forgotten), second.free(forgotten)];
        if let Some(slot) = first.find(key, forgotten) {
            return Search::Known(Place { group: homes[0], slot });
        }
        if let Some(slot) = second.find(key, forgotten) {
            return Search::Known(Place { group: homes[1], slot });
        }
        choose(homes, free).map_or(Search::Full, Search::Free)
    }

    /// What is kept of the id at a place.
    #[inline]
    pub(super) fn remembered(&self, at: Place) -> Remembered {
        let group = &self.groups[at.group];
        let bucket = Bucket(self.base.0 + group.stamp(at.slot).code() - 1);
        Remembered { bucket, fingerprint: group.fingerprint(at.slot) }
    }

    /// Whether the id at a place may have been admitted in this epoch; wrong once in 2^32 epochs.
    #[inline]
    pub(super) fn may_be_of(&self, at: Place, epoch: Epoch) -> bool {
        self.groups[at.group].may_be_of(at.slot, epoch)
    }

    /// Whether a bucket has a code; if not, and moving the base to `oldest` helps, that is done.
    #[inline]
    pub(super) fn ensure_code(&mut self, bucket: Bucket, oldest: Bucket) -> bool {
        self.has_code(bucket) || self.move_base(bucket, oldest)
    }

    #[inline]
    fn has_code(&self, bucket: Bucket) -> bool {
        bucket.0.wrapping_sub(self.base.0) < Stamp::CODES - 1
    }

    #[cold]
    fn move_base(&mut self, bucket: Bucket, oldest: Bucket) -> bool {
        // What did not help once does not until more is forgotten.
        if self.fixed_at != Some(oldest) {
            self.drop_forgotten(oldest, 0);
            self.fixed_at = Some(oldest);
        }
        if self.held == 0 {
            // Buckets before this one may follow as well as later ones.
            self.base = Bucket(bucket.0.saturating_sub(Stamp::CODES / 2)).max(oldest);
            self.fixed_at = None;
        }
        self.has_code(bucket)
    }

    /// Puts an id that is not there to a free place. Its bucket has a code.
    #[inline]
    pub(super) fn put(&mut self, at: Place, key: Scrambled, kept: Remembered, fresh: bool, epoch: Epoch) {
        let stamp = Stamp::new(kept.bucket.0 - self.base.0 + 1, key);
        let group = &mut self.groups[at.group];
        self.held += usize::from(group.stamp(at.slot) == Stamp(0));
        group.put(at.slot, Entry { key, stamp, fingerprint: kept.fingerprint, fresh }, epoch);
    }

    /// Takes away the id at a place.
    pub(super) fn remove(&mut self, at: Place) {
        self.groups[at.group].clear(at.slot);
        self.held -= 1;
    }

    /// Makes room for an id whose groups are both full. `share` is the number of remembered ids in the average shard.
    #[cold]
    pub(super) fn make_room(&mut self, key: Scrambled, oldest: Bucket, share: usize, epoch: Epoch) -> Option<Place> {
        let (least, most) = (*FULL.start(), *FULL.end());
        let full = self.groups.len() * SLOTS * (least + (most - least) * usize::from(self.stagger) / 255) / 256;
        if share < full {
            let homes = homes(key, self.groups.len());
            let forgotten = self.forgotten(oldest);
            if let Some((place, overwritten)) = vacate(&mut self.groups, homes, forgotten, epoch) {
                self.held -= usize::from(overwritten);
                return Some(place);
            }
        }
        self.rebuild(self.next_size(), oldest, epoch);
        match self.search(key, oldest) {
            Search::Free(place) => Some(place),
            Search::Known(_) | Search::Full => None,
        }
    }

    /// The size to grow to: a quarter more, in steps that differ from shard to shard, so that shards which grew in the
    /// same epoch do not meet again. Steps of a quarter move each id four times in the long run, and leave a tenth of
    /// the slots unused on average; doubling would move it once and leave a third.
    fn next_size(&self) -> usize {
        let least = self.groups.len() + self.groups.len().div_ceil(10);
        // In 256ths of a group.
        let mut size = 256 + usize::from(self.stagger) / 4;
        while size / 256 < least {
            size += size / 4;
        }
        size / 256
    }

    /// Moves what is remembered to so many groups, or to more if these do not do.
    fn rebuild(&mut self, mut size: usize, oldest: Bucket, epoch: Epoch) {
        let forgotten = self.forgotten(oldest);
        (self.groups, self.held) = loop {
            match refill(&self.groups, size, forgotten, epoch) {
                Some(done) => break done,
                None => size += size / 8 + 1,
            }
        };
    }

    /// Drops what is forgotten, and moves the base if more than `lag` buckets passed it.
    fn drop_forgotten(&mut self, oldest: Bucket, lag: u64) {
        let forgotten = self.forgotten(oldest);
        self.held -= self.groups.iter_mut().map(|group| group.drop_forgotten(forgotten)).sum::<usize>();
        let passed = oldest.0.saturating_sub(self.base.0);
        if passed > lag {
            self.base = oldest;
            if self.held > 0 {
                self.groups.iter_mut().for_each(|group| group.lower_codes(passed));
            }
        }
    }

    /// Drops what is forgotten and gives memory back if little is left.
    pub(super) fn sweep(&mut self, oldest: Bucket, epoch: Epoch) {
        // Long before codes run out, so that hardly a shard has to do it when an id is waiting.
        self.drop_forgotten(oldest, Stamp::CODES / 4);
        let wanted = (self.held * 2).div_ceil(SLOTS).max(self.floor);
        if wanted <= self.groups.len() / 2 {
            self.rebuild(wanted, oldest, epoch);
        }
    }

    /// Slots with something in them, forgotten or not.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn cells(&self) -> usize {
        self.groups.len() * SLOTS
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.groups)
    }

    /// What is remembered if buckets from `oldest` on are, in no order.
    pub(super) fn iter(&self, oldest: Bucket) -> impl Iterator<Item = (Scrambled, Remembered)> {
        let forgotten = self.forgotten(oldest);
        self.groups.iter().enumerate().flat_map(move |(index, group)| {
            let places = group.taken(forgotten).map(move |slot| Place { group: index, slot });
            places.map(move |at| (group.key(at.slot), self.remembered(at)))
        })
    }
}
