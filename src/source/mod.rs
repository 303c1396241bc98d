//! Where events come from: files, standard input, and a generator that needs nothing at all.
//!
//! A source hands out [`Block`]s, runs of raw event bodies of one partition. It neither looks into a body nor cuts
//! epochs: the coordinator decides which offsets an epoch takes, asks for exactly those, and asks for the same offsets
//! again when it replays. So nothing that is computed may depend on how bodies happen to be grouped into blocks.

mod error;
pub mod files;
pub mod generator;

use std::path::PathBuf;

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

pub use error::{SourceError, SourceErrorKind};
pub use files::{FileSource, ReadAhead};
pub use generator::{EventGenerator, EventWriter, GeneratorOptions, GeneratorSource, Pacing};

/// Most events of one block. Keeps a block of very short lines from holding up a worker.
pub const MAX_BLOCK_EVENTS: usize = 8192;

/// What is known of a partition before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// What the tables call it (`source_partition`): the file name, or the partition's number.
    pub name: String,
    /// The file behind it, if there is one.
    pub path: Option<PathBuf>,
    /// Its size in bytes when the source was opened, where that is known.
    pub bytes: Option<u64>,
}

/// The answer to [`Source::pull`].
#[derive(Clone, Debug)]
pub enum Pull {
    /// Events that start at the offset asked for; at least one.
    Block(Block),
    /// Nothing yet: not due, or not read. Ask again later.
    Pending,
    /// There is no event at or after the offset asked for, and never will be.
    End,
}

/// A place that events come from, in partitions numbered from 0.
///
/// The coordinator keeps the positions: every pull names the offset that it starts at.
pub trait Source: Send {
    /// The partitions in the order of their [`PartitionId`]. It never changes.
    fn partitions(&self) -> &[PartitionInfo];

    /// Whether every partition comes to an end by itself.
    fn is_bounded(&self) -> bool;

    /// Size of the whole input in bytes, where every partition knows its own.
    fn total_bytes(&self) -> Option<u64> {
        self.partitions().iter().map(|partition| partition.bytes).sum()
    }

    /// The next events of `partition`: those that start at `from`, at most `max_events` of them (zero counts as one)
    /// and at most [`MAX_BLOCK_EVENTS`].
    ///
    /// It may wait for a moment, never for long, so that the caller can look for a signal between two calls. A source
    /// that produces in real time gives nothing that is due after `now`; a replay asks for it with the greatest
    /// [`Micros`], as what was cut once has been due. The block's arrival is `now` for sources without arrival times:
    /// the caller replaces it once it knows the opening time of the epoch.
    ///
    /// # Errors
    ///
    /// `from` lies before what was pulled last and the source cannot go back, `from` lies beyond the end (then the
    /// input is not what it was when that offset was recorded), or the input cannot be read.
    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError>;
}

/// How many bytes of its source a block stands for, line terminators included: the measure of progress that adds up to
/// [`Source::total_bytes`], but for blank lines between two blocks and a missing last line terminator.
pub fn source_bytes(block: &Block) -> u64 {
    let (Some(first), Some(last)) = (block.bodies.first(), block.bodies.last()) else { return 0 };
    let kept = u64::from(last.end.saturating_sub(first.start)) + 1;
    let dropped = |&(index, whole): &(u32, u64)| {
        let body = block.bodies.get(index as usize);
        body.map_or(0, |range| whole.saturating_sub(u64::from(range.end.saturating_sub(range.start))))
    };
    kept + block.oversized.iter().map(dropped).sum::<u64>()
}
