//! Reads files ahead of those who decode them, within a fixed amount of memory.
//!
//! All regular files share one thread, which reads what the consumer waits for, else the partition with the least
//! in stock. Each stream has a thread of its own, since a read from it can block for ever. Nobody joins the threads:
//! they end with their input, or at the block after the consumer is gone.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::cursor::Digested;
use super::input::InputReader;
use crate::source::SourceError;

/// Files that one process keeps open at the same time; others are opened again when their turn comes.
const MAX_OPEN_FILES: usize = 128;

/// How far reading may run ahead.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// Bytes of one block, unless there are so many partitions that it has to be less.
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
    const MIN_BLOCK_BYTES: usize = 32 << 10;
    /// Positions in a block are 32 bits wide.
    const MAX_BLOCK_BYTES: usize = 1 << 30;

    /// The block size for this many partitions: each has a block at hand, and all of them together stay within
    /// `total_bytes` as long as blocks do not get too small for it.
    pub(super) fn block_bytes_for(&self, partitions: usize) -> usize {
        let share = (self.total_bytes / partitions.max(1)).max(Self::MIN_BLOCK_BYTES);
        self.block_bytes.min(share).clamp(1, Self::MAX_BLOCK_BYTES)
    }
}

/// What the stock of a partition holds.
pub(super) enum Taken {
    Block(Digested),
    Pending,
    End,
}

/// How reading a partition ended.
enum Ending {
    AtEnd,
    Failed(SourceError),
}

#[derive(Default)]
struct Queue {
    blocks: VecDeque<Digested>,
    ending: Option<Ending>,
}

#[derive(Default)]
struct Stock {
    queues: Vec<Queue>,
    /// Memory of all blocks in all queues.
    bytes: usize,
    /// The partition that the consumer waits for. It is read even when there is no room: else the blocks of the
    /// others, which the consumer does not ask for, could keep it waiting for ever.
    wanted: Option<usize>,
    /// The consumer is gone.
    closed: bool,
}

struct Shared {
    settings: ReadAhead,
    stock: Mutex<Stock>,
    /// Something was added for the consumer.
    filled: Condvar,
    /// Something changed for the readers.
    taken: Condvar,
}

/// The consumer's end. Dropping it stops the threads.
pub(super) struct Ahead {
    shared: Arc<Shared>,
}

impl Ahead {
    /// Starts reading. `readers` are in the order of their partitions; one that has none is at its end.
    pub(super) fn start(readers: Vec<Option<InputReader>>, settings: ReadAhead) -> io::Result<Self> {
        let queue = |reader: &Option<InputReader>| Queue {
            blocks: VecDeque::new(),
            ending: reader.is_none().then_some(Ending::AtEnd),
        };
        let queues = readers.iter().map(queue).collect();
        let stock = Mutex::new(Stock { queues, ..Stock::default() });
        let shared = Arc::new(Shared { settings, stock, filled: Condvar::new(), taken: Condvar::new() });
        let ahead = Self { shared: Arc::clone(&shared) };
        let (streams, files): (Vec<_>, Vec<_>) = readers
            .into_iter()
            .enumerate()
            .filter_map(|(index, reader)| Some((index, reader?)))
            .partition(|(_, reader)| reader.is_stream());
        let threads = std::iter::once(files).chain(streams.into_iter().map(|stream| vec![stream]));
        for readers in threads.filter(|readers| !readers.is_empty()) {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("tidemark-read".into()).spawn(move || read_all(&shared, readers))?;
        }
        Ok(ahead)
    }

    /// Takes the next block of `partition`, and waits for it until `deadline`.
    pub(super) fn take(&self, partition: usize, deadline: Instant) -> Result<Taken, SourceError> {
        let mut stock = self.shared.lock();
        loop {
            let Some(queue) = stock.queues.get_mut(partition) else { return Ok(Taken::End) };
            if let Some(block) = queue.blocks.pop_front() {
                stock.bytes -= memory(&block);
                self.shared.taken.notify_all();
                return Ok(Taken::Block(block));
            }
            match &queue.ending {
                Some(Ending::AtEnd) => return Ok(Taken::End),
                Some(Ending::Failed(error)) => return Err(error.clone()),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Taken::Pending);
            }
            stock.wanted = Some(partition);
            self.shared.taken.notify_all();
            let waited = self.shared.filled.wait_timeout(stock, left);
            stock = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.taken.notify_all();
    }
}

impl Shared {
    /// No holder of the lock can leave the stock half changed, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one of `readers` may read on, and returns its index; `None` when there is nothing left to do.
    fn next_turn(&self, readers: &[(usize, InputReader)]) -> Option<usize> {
        let mut stock = self.lock();
        loop {
            let at_end = |&(partition, _): &(usize, _)| stock.queues[partition].ending.is_some();
            if stock.closed || readers.iter().all(at_end) {
                return None;
            }
            if let Some(index) = self.choose(&stock, readers) {
                return Some(index);
            }
            stock = self.taken.wait(stock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn choose(&self, stock: &Stock, readers: &[(usize, InputReader)]) -> Option<usize> {
        let in_stock = |partition: usize| {
            let queue = &stock.queues[partition];
            queue.ending.is_none().then_some(queue.blocks.len())
        };
        if let Some(wanted) = stock.wanted.filter(|&wanted| in_stock(wanted) == Some(0)) {
            let found = readers.iter().position(|(partition, _)| *partition == wanted);
            if found.is_some() {
                return found;
            }
        }
        if stock.bytes >= self.settings.total_bytes {
            return None;
        }
        let with_room = readers.iter().enumerate().filter_map(|(index, (partition, _))| {
            in_stock(*partition).filter(|&blocks| blocks < self.settings.blocks).map(|blocks| (blocks, index))
        });
        with_room.min().map(|(_, index)| index)
    }

    fn put(&self, partition: usize, read: Result<Option<Digested>, SourceError>) {
        let mut stock = self.lock();
        if let Ok(Some(block)) = &read {
            stock.bytes += memory(block);
        }
        let queue = &mut stock.queues[partition];
        match read {
            Ok(Some(block)) => queue.blocks.push_back(block),
            Ok(None) => queue.ending = Some(Ending::AtEnd),
            Err(error) => queue.ending = Some(Ending::Failed(error)),
        }
        if stock.wanted == Some(partition) {
            stock.wanted = None;
        }
        self.filled.notify_all();
    }
}

/// What one thread does: reads its partitions until all have ended or the consumer is gone.
fn read_all(shared: &Shared, mut readers: Vec<(usize, InputReader)>) {
    let mut open = VecDeque::new();
    while let Some(index) = shared.next_turn(&readers) {
        if !readers[index].1.is_open() && !readers[index].1.is_stream() {
            open.push_back(index);
            if open.len() > MAX_OPEN_FILES
                && let Some(oldest) = open.pop_front()
            {
                readers[oldest].1.close();
            }
        }
        let read = readers[index].1.next_block();
        if !readers[index].1.is_open() {
            open.retain(|&other| other != index);
        }
        shared.put(readers[index].0, read);
    }
}

/// What a block holds in memory, in bytes.
fn memory(Digested { block, .. }: &Digested) -> usize {
    block.bytes.len() + size_of_val(block.bodies.as_slice())
}
