//! A digest of the bodies that were read, to notice at a restart that an input is not the one it was.
//!
//! It guards against files that were edited, replaced or cut short, not against an attacker: who chooses the bytes can
//! choose them so that the digest stays the same. Whoever may write the input may also write what the pipeline counts.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidemark_dataflows::block::{Block, Body};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Digest of consecutive event bodies of one partition. It depends on the bodies and their order alone, never on how
/// they came in blocks. Lines that are no events, line terminators, and what lies behind the kept start of an
/// oversized body (except its length) have no part in it: no table depends on them either.
///
/// It is the value at `FACTOR` of the polynomial whose coefficients are the hashes of the bodies, modulo 2^64,
/// so that the digests of two runs can be joined without looking at their bodies again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentDigest(u64);

impl ContentDigest {
    /// Digest of no bodies at all.
    pub const EMPTY: Self = Self(0);

    /// Odd, so that the hash of each body counts with all its bits; 5 modulo 8, so that its powers repeat as late as
    /// they can (after 2^62) and bodies that change places are noticed.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Digest of all bodies of `block`.
    pub fn of(block: &Block) -> Self {
        if !block.oversized.is_empty() {
            return block.iter().fold(Self::EMPTY, |digest, body| digest.with(&body));
        }
        // Straight over the bytes, since reading pays for it at every event: less than half the time of the above.
        let bytes = |range: &Range<u32>| block.bytes.get(range.start as usize..range.end as usize);
        let bodies = block.bodies.iter().filter_map(bytes);
        bodies.fold(Self::EMPTY, |digest, body| digest.push(xxh3_64(body)))
    }

    /// The digest after one more body.
    #[must_use]
    pub fn with(self, body: &Body<'_>) -> Self {
        let hash = if body.whole_len == body.bytes.len() as u64 {
            xxh3_64(body.bytes)
        } else {
            xxh3_64_with_seed(body.bytes, body.whole_len)
        };
        self.push(hash)
    }

    fn push(self, hash: u64) -> Self {
        Self(self.0.wrapping_mul(Self::FACTOR).wrapping_add(hash))
    }

    /// This digest, had its last body not had the white space at its end; none where it has none there.
    #[must_use]
    pub fn without_space_behind(self, last: &Body<'_>) -> Option<Self> {
        let trimmed = last.bytes.trim_ascii_end();
        let whole = last.whole_len == last.bytes.len() as u64 && trimmed.len() < last.bytes.len();
        whole.then(|| Self(self.0.wrapping_sub(xxh3_64(last.bytes)).wrapping_add(xxh3_64(trimmed))))
    }

    /// The digest after `count` more bodies, whose own digest is `run`.
    #[must_use]
    pub fn followed_by(self, run: Self, count: u32) -> Self {
        Self(self.0.wrapping_mul(Self::FACTOR.wrapping_pow(count)).wrapping_add(run.0))
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no digest: not 16 hexadecimal digits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a content digest has 16 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for ContentDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        // The parser of numbers alone would let a sign pass.
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotADigest)
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use tidemark_dataflows::block::Arrival;
    use tidemark_dataflows::event::{Micros, Offset, PartitionId};

    fn block(bodies: &[Vec<u8>]) -> Block {
        let mut bytes = Vec::new();
        let range = |body: &Vec<u8>| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(body);
            start..bytes.len() as u32
        };
        Block {
            bodies: bodies.iter().map(range).collect(),
            partition: PartitionId(0),
            first_offset: Offset(0),
            arrival: Arrival::Opening(Micros(0)),
            bytes: Bytes::from(bytes),
            oversized: Vec::new(),
            sections: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn runs_join_to_the_digest_of_the_whole(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            at in any::<proptest::sample::Index>(),
        ) {
            let (left, right) = bodies.split_at(at.index(bodies.len() + 1));
            let joined = ContentDigest::of(&block(left)).followed_by(ContentDigest::of(&block(right)), right.len() as u32);
            prop_assert_eq!(joined, ContentDigest::of(&block(&bodies)));
        }

        #[test]
        fn order_and_borders_of_bodies_matter(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..30), 2..20),
            (a, b) in (any::<proptest::sample::Index>(), any::<proptest::sample::Index>()),
        ) {
            let whole = ContentDigest::of(&block(&bodies));
            let (a, b) = (a.index(bodies.len()), b.index(bodies.len()));
            let mut swapped = bodies.clone();
            swapped.swap(a, b);
            prop_assert_eq!(whole == ContentDigest::of(&block(&swapped)), bodies == swapped);
            let mut moved = bodies.clone();
            let byte = moved[0].pop().unwrap();
            moved[1].insert(0, byte);
            prop_assert_ne!(whole, ContentDigest::of(&block(&moved)));
        }

        #[test]
        fn text_gives_the_digest_back(digest in any::<u64>().prop_map(ContentDigest)) {
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(json.len(), 18);
            prop_assert_eq!(serde_json::from_str::<ContentDigest>(&json).unwrap(), digest);
        }
    }

    #[test]
    fn the_length_of_an_oversized_body_matters() {
        let digest = |whole_len| {
            let mut block = block(&[vec![b'x'; 1000]]);
            block.oversized = vec![(0, whole_len)];
            ContentDigest::of(&block)
        };
        assert_ne!(digest(2_000_000), digest(2_000_001));
        assert_ne!(digest(2_000_000), ContentDigest::of(&block(&[vec![b'x'; 1000]])));
    }

    #[test]
    fn digests_are_the_same_for_ever() {
        // Stored in checkpoints: another value here would refuse every pipeline that is running.
        let digest = ContentDigest::of(&block(&[b"one".to_vec(), b"two".to_vec()]));
        assert_eq!(digest.to_string(), "bf046c81f1509bab");
        assert_eq!(ContentDigest::EMPTY.to_string(), "0000000000000000");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "+123456789abcdef", "123", "0123456789abcdeg", "00123456789abcdef", "０123456789abcd"] {
            assert_eq!(text.parse::<ContentDigest>(), Err(NotADigest), "{text}");
        }
    }
}
