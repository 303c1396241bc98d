//! Raw input: a run of consecutive event bodies of one partition, not looked into.
//!
//! A block is the unit that readers hand to workers. Any worker can decode any block, because a body's place
//! (partition and offset) travels with it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Micros, Offset, PartitionId, Position};

/// Longest event body that the contract admits, in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// How many bytes of a body a rejected event keeps. A reader may drop the rest of a body over [`MAX_BODY_BYTES`].
pub const MAX_KEPT_BYTES: usize = 64 << 10;

/// When the events of a block arrived; only R140 looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// All at the opening time of their epoch: the source has no arrival times.
    Opening(Micros),
    /// Each at its own time, in the order of the bodies: the broker's enqueued times.
    Each(Arc<[Micros]>),
}

/// Consecutive event bodies of one partition.
#[derive(Clone, Debug)]
pub struct Block {
    /// The partition they come from.
    pub partition: PartitionId,
    /// Offset of the first body; the others follow without a gap.
    pub first_offset: Offset,
    /// When they arrived.
    pub arrival: Arrival,
    /// The memory that holds the bodies.
    pub bytes: Bytes,
    /// Where in `bytes` each body lies, in the order of offsets.
    pub bodies: Vec<Range<u32>>,
    /// Bodies of more than [`MAX_BODY_BYTES`], as (index, whole length in bytes): of these `bytes` holds the first
    /// [`MAX_KEPT_BYTES`] only. In order of index, and almost always empty.
    pub oversized: Vec<(u32, u64)>,
}

/// One event body, with all that the contract needs to judge it.
#[derive(Copy, Clone, Debug)]
pub struct Body<'a> {
    /// The bytes; of an oversized body only the first [`MAX_KEPT_BYTES`].
    pub bytes: &'a [u8],
    /// Length of the whole body in bytes. More than `bytes.len()` for an oversized body, else equal.
    pub whole_len: u64,
    /// Where it stands in its source.
    pub at: Position,
    /// When it arrived.
    pub arrival: Micros,
}

impl Block {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether there is no event in it.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// The body at `index`, or `None` beyond the last.
    pub fn body(&self, index: usize) -> Option<Body<'_>> {
        let range = self.bodies.get(index)?;
        let bytes = self.bytes.get(range.start as usize..range.end as usize)?;
        let whole_len = if self.oversized.is_empty() {
            bytes.len() as u64
        } else {
            let found = self.oversized.binary_search_by_key(&index, |(i, _)| *i as usize);
            found.map_or(bytes.len() as u64, |i| self.oversized[i].1)
        };
        let arrival = match &self.arrival {
            Arrival::Opening(at) => *at,
            Arrival::Each(times) => *times.get(index)?,
        };
        let at = Position { partition: self.partition, offset: Offset(self.first_offset.0 + index as u64) };
        Some(Body { bytes, whole_len, at, arrival })
    }

    /// All bodies, in the order of their offsets.
    pub fn iter(&self) -> impl Iterator<Item = Body<'_>> {
        (0..self.len()).filter_map(|index| self.body(index))
    }

    /// The body at `offset`, when it lies in this block.
    pub fn at_offset(&self, offset: Offset) -> Option<Body<'_>> {
        let index = offset.0.checked_sub(self.first_offset.0)?;
        self.body(usize::try_from(index).ok()?)
    }
}
