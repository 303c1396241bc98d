//! Keyed hashes: where an id lives, and what an accepted event said.
//!
//! The key is secret, so nobody can choose ids that all meet on one worker or in one shard. Producers do
//! choose ids freely, and UUIDs of version 7 share their high bits for hours: no raw bit of an id is used for anything.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::event::{Event, EventId};

/// 64 bits that stand for `user_id`, `event_time`, `event_type`, `amount` and `channel` of an event.
///
/// Two different events share one with a chance of 2^-64, and nobody without the key can make it happen. If it does,
/// a conflicting duplicate passes for a plain one: neither is ever counted, so no money depends on it. Checkpoints hold
/// fingerprints, so another function needs another checkpoint format.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

/// An id after a keyed permutation: the index finds ids by it, and keeps it in their place. 64 bits of it are a hash of
/// the id, so they need not be stored beside it, and one of its bytes serves as the tag of its slot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Scrambled(pub(super) u128);

impl Scrambled {
    /// The half that depends on all bits of the id.
    #[inline]
    pub fn hash(self) -> u64 {
        self.0 as u64
    }
}

/// The hash functions of one pipeline, all drawn from its key. The same key gives the same functions in every process
/// and on every restart.
#[derive(Copy, Clone)]
pub struct Hashes {
    id: [u64; 2],
    route: u64,
    scramble: [u64; 4],
    contents: [u64; 4],
}

/// The 128-bit product, folded: every bit of the result depends on all bits of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Hashes {
    /// Draws the functions from a key.
    pub fn new(key: [u64; 2]) -> Self {
        let draw = |label: u64| {
            let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
            hasher.write_u64(label);
            // An odd factor with its top bit set neither loses bits nor leaves the upper half of the product empty.
            hasher.finish() | (1 << 63) | 1
        };
        Hashes {
            id: [draw(0), draw(1)],
            route: draw(2),
            scramble: [draw(3), draw(8), draw(9), draw(10)],
            contents: [draw(4), draw(5), draw(6), draw(7)],
        }
    }

    /// Which worker owns an id: this modulo their number. Independent of [`Hashes::scramble`], or each worker would use
    /// a fraction of its table only.
    #[inline]
    pub fn route(&self, id: EventId) -> u64 {
        fold(fold(id.0 as u64 ^ self.id[0], (id.0 >> 64) as u64 ^ self.id[1]), self.route)
    }

    /// Where an id lives within its worker. Two rounds of a Feistel network: each half is mixed into the other.
    #[inline]
    pub fn scramble(&self, id: EventId) -> Scrambled {
        let [k0, k1, k2, k3] = self.scramble;
        let (low, high) = (id.0 as u64, (id.0 >> 64) as u64);
        let low = low ^ fold(high ^ k0, k1);
        let high = high ^ fold(low ^ k2, k3);
        Scrambled(u128::from(low) << 64 | u128::from(high))
    }

    /// The id that was scrambled.
    #[inline]
    pub fn unscramble(&self, key: Scrambled) -> EventId {
        let [k0, k1, k2, k3] = self.scramble;
        let (low, high) = ((key.0 >> 64) as u64, key.0 as u64);
        let high = high ^ fold(low ^ k2, k3);
        let low = low ^ fold(high ^ k0, k1);
        EventId(u128::from(high) << 64 | u128::from(low))
    }

    /// What R210 compares. A multiply for each 16 bytes, where SipHash needs a dozen steps for each 8.
    #[inline]
    pub fn fingerprint(&self, event: &Event) -> Fingerprint {
        let [k0, k1, k2, k3] = self.contents;
        let user = event.user.0.as_bytes();
        // The length stands before the bytes, so that padding cannot make two users equal.
        let rest = (user.len() as u64) << 16 | (event.event_type as u64) << 8 | event.channel as u64;
        let mut state = fold(event.time.0.cast_unsigned() ^ k0, event.amount.0.cast_unsigned() ^ k1);
        state = fold(state ^ rest, k2);
        let (chunks, tail) = user.as_chunks::<16>();
        for chunk in chunks {
            state = absorb(state, k3, chunk);
        }
        if !tail.is_empty() {
            let mut padded = [0; 16];
            padded[..tail.len()].copy_from_slice(tail);
            state = absorb(state, k3, &padded);
        }
        Fingerprint(state)
    }
}

#[inline]
fn absorb(state: u64, key: u64, bytes: &[u8; 16]) -> u64 {
    let word = u128::from_le_bytes(*bytes);
    fold(state ^ word as u64, key ^ (word >> 64) as u64)
}

impl std::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Hashes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Channel, EventType, Micros, Pence, Position, UserId};
    use std::collections::HashSet;

    fn event(user: &str) -> Event {
        Event {
            id: EventId(1),
            user: UserId(user.into()),
            time: Micros(1),
            amount: Pence(1),
            at: Position::default(),
            origin: 0,
            event_type: EventType::Deposit,
            channel: Channel::Web,
            curated: None,
        }
    }

    #[test]
    fn a_fingerprint_looks_at_the_five_members_and_at_nothing_else() {
        let hashes = Hashes::new([1, 2]);
        let base = event("user");
        let mut same = base.clone();
        (same.id, same.origin, same.at.offset.0) = (EventId(2), 3, 4);
        assert_eq!(hashes.fingerprint(&same), hashes.fingerprint(&base));
        let mut prints = HashSet::from([hashes.fingerprint(&base)]);
        for user in [
            "",
            "User",
            "user\0",
            "a-user-of-16-byte",
            "a-user-of-exactly-32-bytes-aaaaa",
            "a-user-of-exactly-32-bytes-aaaab",
        ] {
            assert!(prints.insert(hashes.fingerprint(&event(user))), "{user}");
        }
        assert!(prints.insert(hashes.fingerprint(&Event { time: Micros(2), ..base.clone() })));
        assert!(prints.insert(hashes.fingerprint(&Event { amount: Pence(2), ..base.clone() })));
        assert!(prints.insert(hashes.fingerprint(&Event { event_type: EventType::Withdrawal, ..base.clone() })));
        assert!(prints.insert(hashes.fingerprint(&Event { channel: Channel::Mobile, ..base.clone() })));
        assert!(prints.insert(Hashes::new([1, 3]).fingerprint(&base)));
    }

    #[test]
    fn what_is_scrambled_can_be_told_again() {
        let hashes = Hashes::new([5, 6]);
        for n in (0..2000u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(n as u32))
        {
            for id in [EventId(n), EventId(n >> 64), EventId(n % 64), EventId(u128::MAX - n % 64)] {
                assert_eq!(hashes.unscramble(hashes.scramble(id)), id);
            }
        }
    }

    /// Ids that differ in a few bits only: counters, UUIDs of version 7 within a millisecond, high halves only.
    #[test]
    fn ids_with_few_varying_bits_spread_evenly_over_workers_and_within_a_worker() {
        let hashes = Hashes::new([3, 4]);
        for shift in [0, 20, 62, 64, 80, 112] {
            let mut cells = [[0u32; 64]; 2];
            for n in 0..64_000u128 {
                let id = EventId((0x0190_0000_0000_7000_8000 << 48) ^ (n << shift));
                // Shift 112 leaves 16 bits: each id is met once there.
                if shift < 112 || n < 1 << 16 {
                    cells[(hashes.route(id) % 2) as usize][(hashes.scramble(id).hash() % 64) as usize] += 1;
                }
            }
            // 500 in each cell, give or take 22; seven of those are allowed.
            let (least, most) = cells.iter().flatten().fold((u32::MAX, 0), |(l, m), c| (l.min(*c), m.max(*c)));
            assert!(least > 345 && most < 655, "shift {shift}: {least} to {most}");
        }
    }
}
