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

/// A part of an AMQP message that carries a value and no bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// One value of any type.
    Value,
    /// Lists of values.
    Sequence,
}

impl Section {
    /// What a rejected event says of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Section::Value => "AMQP value section",
            Section::Sequence => "AMQP sequence section",
        }
    }
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
    /// Bodies that came as values and no bytes, as (index, section): `bytes` holds them as JSON text. In order of index, and
    /// almost always empty.
    pub sections: Vec<(u32, Section)>,
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
    /// The section that it came in, if that was not bytes: the contract admits none.
    pub section: Option<Section>,
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
        let section = if self.sections.is_empty() {
            None
        } else {
            let found = self.sections.binary_search_by_key(&index, |(i, _)| *i as usize);
            found.ok().map(|i| self.sections[i].1)
        };
        Some(Body { bytes, whole_len, at, arrival, section })
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
