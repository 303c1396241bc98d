//! Comparisons of all slots of a group at once, with ordinary arithmetic on words of several small numbers, which is as
//! fast as vector instructions here and needs none.

/// Slots in a group, and lanes of its words: the last lane is no slot.
pub(super) const SLOTS: usize = 19;
pub(super) const LANES: usize = SLOTS + 1;

/// Stamps of 15 bits, each below a bit of its own that comparisons leave alone; four in a word.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Stamps([u64; LANES / 4]);

/// The upper bit of each lane of 16 bits, and the lowest.
const HIGH: u64 = 0x8000_8000_8000_8000;
const LOW: u64 = HIGH >> 15;

/// The greatest stamp, which stands in the last lane and in no slot.
const NEVER: u16 = 0x7fff;

/// Slots with stamps up to a limit. Lane *l* of word *w* is bit 16 *l* + *w*.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    /// How many there are.
    #[inline]
    pub(super) fn count(self) -> u64 {
        // Five bits for each lane: added up, three bits each, then all four.
        let [ones, twos] = [self.0 & 0x0015_0015_0015_0015, self.0 >> 1 & 0x0005_0005_0005_0005];
        let pairs = ones + twos;
        let three = 3 * LOW;
        let lanes = (pairs & three) + ((pairs >> 2) & three) + ((pairs >> 4) & LOW);
        lanes.wrapping_mul(LOW) >> 48
    }

    /// One of them.
    #[inline]
    pub(super) fn any(self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        (self.0 != 0).then_some(bit % 16 * 4 + bit / 16)
    }

    /// All of them, in no order.
    #[cfg(test)]
    fn iter(self) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self), |set| Some(Set(set.0 & set.0.wrapping_sub(1)))).map_while(Set::any)
    }
}

impl Stamps {
    pub(super) const EMPTY: Stamps = Stamps([0, 0, 0, 0, (NEVER as u64) << 48]);

    /// The stamp of a slot.
    #[inline]
    pub(super) fn get(&self, slot: usize) -> u16 {
        (self.0[slot / 4] >> (slot % 4 * 16)) as u16 & NEVER
    }

    /// The bit of a slot.
    #[inline]
    pub(super) fn bit(&self, slot: usize) -> bool {
        self.0[slot / 4] >> (slot % 4 * 16 + 15) & 1 == 1
    }

    /// Sets the stamp and the bit of a slot.
    #[inline]
    pub(super) fn set(&mut self, slot: usize, stamp: u16, bit: bool) {
        let (word, shift) = (&mut self.0[slot / 4], slot % 4 * 16);
        *word = *word & !(0xffff << shift) | u64::from(stamp | u16::from(bit) << 15) << shift;
    }

    /// Clears the bits of all slots.
    #[inline]
    pub(super) fn clear_bits(&mut self) {
        self.0.iter_mut().for_each(|word| *word &= !HIGH);
    }

    /// The upper bit in each lane whose stamp is at most the limit.
    #[inline]
    fn compare(word: u64, limit: u16) -> u64 {
        // No lane borrows from its neighbour: what is taken away is less than the upper bit.
        (((u64::from(limit) * LOW) | HIGH) - (word & !HIGH)) & HIGH
    }

    /// The slots whose stamps are at most `limit`, which is less than the greatest stamp.
    #[inline]
    pub(super) fn at_most(&self, limit: u16) -> Set {
        let [a, b, c, d, e] = self.0.map(|word| Self::compare(word, limit));
        Set(a >> 15 | b >> 14 | c >> 13 | d >> 12 | e >> 11)
    }

    /// Sets stamps up to `limit` to 0, with their bits; returns how many were not 0.
    #[inline]
    pub(super) fn clear_up_to(&mut self, limit: u16) -> usize {
        let mut cleared = 0;
        for word in &mut self.0 {
            let below = Self::compare(*word, limit);
            let filled = ((*word & !HIGH) + (HIGH - LOW)) & HIGH;
            cleared += (((below & filled) >> 15).wrapping_mul(LOW) >> 48) as usize;
            *word &= !((below >> 15) * 0xffff);
        }
        cleared
    }

    /// Takes `by` from all stamps but 0, each of which is greater.
    pub(super) fn lower(&mut self, by: u16) {
        for slot in (0..SLOTS).filter(|slot| self.get(*slot) > 0).collect::<Vec<_>>() {
            self.set(slot, self.get(slot) - by, self.bit(slot));
        }
    }
}

/// The slots whose tag is `tag`.
#[inline]
pub(super) fn equal(tags: &[u8; LANES], tag: u8) -> impl Iterator<Item = usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const SEVEN: u64 = 0x7f * LOW;
    let word = |bytes: [u8; 8]| {
        let differs = u64::from_le_bytes(bytes) ^ (u64::from(tag) * LOW);
        // The upper bit of each byte that is 0; nothing is carried to the next byte.
        !(((differs & SEVEN) + SEVEN) | differs | SEVEN)
    };
    let at = |at: usize| word(std::array::from_fn(|i| tags[at + i]));
    let last = word(std::array::from_fn(|i| if i < 3 { tags[16 + i] } else { !tag }));
    // Byte b of word w is bit 8 b + w.
    let mut found = at(0) >> 7 | at(8) >> 6 | last >> 5;
    std::iter::from_fn(move || {
        let bit = found.trailing_zeros() as usize;
        let slot = (found != 0).then_some(bit % 8 * 8 + bit / 8);
        found &= found.wrapping_sub(1);
        slot
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn stamps(values: [(u16, bool); SLOTS]) -> Stamps {
        let mut stamps = Stamps::EMPTY;
        values.iter().enumerate().for_each(|(slot, (stamp, bit))| stamps.set(slot, *stamp, *bit));
        stamps
    }

    /// Few values, so that many are equal, and the greatest and least ones.
    fn values() -> impl Strategy<Value = [(u16, bool); SLOTS]> {
        let stamp = prop_oneof![Just(0), 1..4u16, 0..NEVER, NEVER - 3..NEVER];
        prop::array::uniform19((stamp, any::<bool>()))
    }

    proptest! {
        #[test]
        fn words_answer_as_one_slot_after_the_other_does(
            mut values in values(), any_limit in 0..NEVER, of in 0..SLOTS, slot in 0..SLOTS, stamp in 0..NEVER, bit: bool,
        ) {
            for limit in [any_limit, values[of].0, values[of].0.saturating_sub(1), 0, NEVER - 1] {
                let mut words = stamps(values);
                let expected: BTreeSet<usize> = (0..SLOTS).filter(|slot| values[*slot].0 <= limit).collect();
                let set = words.at_most(limit);
                prop_assert_eq!(set.count() as usize, expected.len());
                prop_assert_eq!(set.any().is_some_and(|slot| expected.contains(&slot)), !expected.is_empty());
                prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), expected.clone());
                let left = std::array::from_fn(|slot| if expected.contains(&slot) { (0, false) } else { values[slot] });
                let filled = expected.iter().filter(|slot| values[**slot].0 > 0).count();
                prop_assert_eq!(words.clear_up_to(limit), filled);
                prop_assert_eq!(words, stamps(left));
                words.lower(limit);
                prop_assert_eq!(words, stamps(left.map(|(stamp, bit)| (stamp.saturating_sub(limit), bit))));
            }
            let mut words = stamps(values);
            words.set(slot, stamp, bit);
            values[slot] = (stamp, bit);
            prop_assert_eq!(words, stamps(values));
            prop_assert!((0..SLOTS).all(|slot| (words.get(slot), words.bit(slot)) == values[slot]));
            words.clear_bits();
            prop_assert_eq!(words, stamps(values.map(|(stamp, _)| (stamp, false))));
        }

        #[test]
        fn equal_tags_are_found(tags: [u8; LANES], slot in 0..SLOTS, tag in 0u8..4) {
            for (tags, tag) in [(tags, tags[slot]), (tags.map(|tag| tag % 4), tag), (tags.map(|tag| tag | 0x7f), 0xff)] {
                let expected: BTreeSet<usize> = (0..SLOTS).filter(|slot| tags[*slot] == tag).collect();
                prop_assert_eq!(equal(&tags, tag).collect::<BTreeSet<_>>(), expected);
            }
        }
    }
}
