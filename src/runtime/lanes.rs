//! Lanes from the reader of this process to its workers: bounded, in order, and each end wakes the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Epoch, EpochMark};
use tidemark_dataflows::watermark::Behind;

/// Blocks that may wait in one lane: enough to keep a worker busy while the reader turns to the others.
const LANE_BLOCKS: usize = 4;

/// What a worker is told, in order.
#[derive(Debug)]
pub(super) enum Feed {
    /// Decode this block as part of an epoch.
    Block(Epoch, Block),
    /// The epoch is cut, and the cut is durable; nothing more of it will come. These partitions were behind.
    Mark(EpochMark, Arc<[Behind]>),
    /// A checkpoint is wanted as of the end of this epoch, the last one that was marked.
    Checkpoint(Epoch),
}

/// State that both ends of a lane share.
#[derive(Debug)]
struct Shared {
    waiting_blocks: AtomicUsize,
    worker: OnceLock<Thread>,
    reader: Thread,
}

/// The reader's end of all lanes.
#[derive(Debug)]
pub(super) struct Feeder {
    lanes: Announcer,
    next: usize,
}

/// Tells all workers of epochs. The lanes stay open as long as there is one of these or the feeder.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcer {
    lanes: Vec<(Sender<Feed>, Arc<Shared>)>,
}

/// A worker's end of its lane.
#[derive(Debug)]
pub(super) struct Lane {
    feeds: Receiver<Feed>,
    shared: Arc<Shared>,
}

/// Opens a lane to each of `workers` workers. The calling thread is the one that is woken when a lane has room.
pub(super) fn lanes(workers: usize) -> (Feeder, Vec<Lane>) {
    let mut feeder = Feeder { lanes: Announcer::default(), next: 0 };
    let mut ends = Vec::new();
    for _ in 0..workers {
        let (sender, feeds) = channel();
        let shared = Arc::new(Shared {
            waiting_blocks: AtomicUsize::new(0),
            worker: OnceLock::new(),
            reader: std::thread::current(),
        });
        feeder.lanes.lanes.push((sender, Arc::clone(&shared)));
        ends.push(Lane { feeds, shared });
    }
    (feeder, ends)
}

impl Feeder {
    /// Hands a block to the worker with the fewest waiting, or gives it back when every lane is full.
    pub(super) fn offer(&mut self, epoch: Epoch, block: Block) -> Option<Block> {
        let waiting = |i: &usize| self.lanes.lanes[*i].1.waiting_blocks.load(Ordering::Acquire);
        let count = self.lanes.lanes.len();
        let Some(least) = (self.next..self.next + count).map(|i| i % count).min_by_key(waiting) else {
            return Some(block);
        };
        if waiting(&least) >= LANE_BLOCKS {
            return Some(block);
        }
        self.next = (least + 1) % count;
        self.lanes.lanes[least].1.waiting_blocks.fetch_add(1, Ordering::AcqRel);
        self.lanes.send(least, Feed::Block(epoch, block));
        None
    }

    /// Another end of the same lanes.
    pub(super) fn announcer(&self) -> Announcer {
        self.lanes.clone()
    }
}

impl Announcer {
    /// Tells every worker that an epoch is cut.
    pub(super) fn mark(&self, mark: EpochMark, behind: Arc<[Behind]>) {
        (0..self.lanes.len()).for_each(|lane| self.send(lane, Feed::Mark(mark, Arc::clone(&behind))));
    }

    /// Asks every worker for a checkpoint as of the end of `epoch`.
    pub(super) fn checkpoint(&self, epoch: Epoch) {
        (0..self.lanes.len()).for_each(|lane| self.send(lane, Feed::Checkpoint(epoch)));
    }

    fn send(&self, lane: usize, feed: Feed) {
        let (sender, shared) = &self.lanes[lane];
        // A worker ends only when its lane is closed from here, or with the whole process.
        let _ = sender.send(feed);
        if let Some(worker) = shared.worker.get() {
            worker.unpark();
        }
    }
}

impl Lane {
    /// Makes the calling thread the one that is woken when something was fed.
    pub(super) fn attach(&self) {
        let _ = self.shared.worker.set(std::thread::current());
    }

    /// The next feed, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none now, `Disconnected` when there will be none.
    pub(super) fn next(&self) -> Result<Feed, TryRecvError> {
        let feed = self.feeds.try_recv()?;
        if matches!(feed, Feed::Block(..)) {
            self.shared.waiting_blocks.fetch_sub(1, Ordering::AcqRel);
            self.shared.reader.unpark();
        }
        Ok(feed)
    }
}

/// The partitions that were behind when an epoch was closed, as the computation knows them.
pub(super) fn behind_of(cut: &Cut) -> Arc<[Behind]> {
    cut.behind.iter().flatten().map(Behind::from).collect()
}
