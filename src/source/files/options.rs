//! What a source of files can be told.

use crate::source::Share;

/// How far reading may run ahead.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// Bytes of one block, unless so many partitions are read at once that it has to be less.
    pub block_bytes: usize,
    /// Blocks that wait for the consumer, in one partition.
    pub blocks: usize,
    /// Bytes that wait for the consumer, in all partitions together.
    pub total_bytes: usize,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { block_bytes: 512 << 10, blocks: 4, total_bytes: 64 << 20 }
    }
}

impl ReadAhead {
    /// Smallest block that keeps the cost of a read small against the cost of its bytes.
    const MIN_BLOCK_BYTES: usize = 8 << 10;
    /// Positions in a block are 32 bits wide.
    const MAX_BLOCK_BYTES: usize = 1 << 30;

    /// The block size where this many partitions are read at once: each has a block at hand, and all of them together
    /// stay within `total_bytes` as long as blocks do not get too small for it.
    pub(super) fn block_bytes_for(&self, partitions: usize) -> usize {
        self.block_bytes.min(self.share(partitions)).clamp(1, Self::MAX_BLOCK_BYTES)
    }

    /// What one of this many partitions that are read at once may hold.
    pub(super) fn share(&self, partitions: usize) -> usize {
        (self.total_bytes / partitions.max(1)).max(Self::MIN_BLOCK_BYTES)
    }
}

/// How files are read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// How far reading may run ahead.
    pub ahead: ReadAhead,
    /// Which partitions this process reads. Of streams, only the first process reads any.
    pub share: Share,
    /// How far an event time may lie after the opening of its epoch (R140), in microseconds.
    pub max_future_skew_us: i64,
    /// How many events decide the head time of a file.
    pub witnesses: usize,
    /// Whether [`order`](crate::source::Source::order) follows: inputs that are not there are then no errors before it
    /// has said which of them earlier runs had read to their end.
    pub ordered: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            ahead: ReadAhead::default(),
            share: Share::WHOLE,
            max_future_skew_us: 3_600_000_000,
            witnesses: 10,
            ordered: false,
        }
    }
}

impl From<ReadAhead> for FileOptions {
    fn from(ahead: ReadAhead) -> Self {
        Self { ahead, ..Self::default() }
    }
}
