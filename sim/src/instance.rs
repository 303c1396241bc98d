//! One start of the program: its processes, and how far it has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidemark::runtime::epochs::{Ended, Epochs};
use tidemark_checkpoint::journal::CutLog;
use tidemark_checkpoint::records::{Counters, Cut, Position, Run as StoredRun};
use tidemark_dataflows::event::Epoch;
use tidemark_dataflows::tally::EpochSummary;
use tidemark_dataflows::watermark::Progress;

use crate::checkpoint::{CheckpointWriter, List};
use crate::compute::Compute;
use crate::reader::Reader;
use crate::tables::{Change, TableWriter};

/// An instance of the program.
pub(crate) struct Instance {
    /// Number of its processes.
    pub(crate) processes: usize,
    /// Whether it came with the checkpoint of another pipeline.
    pub(crate) stranger: bool,
    /// Its generation, once it has one.
    pub(crate) generation: Option<u64>,
    /// When it was started.
    pub(crate) began: u64,
    /// It does nothing before that.
    pub(crate) paused_until: u64,
    /// How it ended, if it did.
    pub(crate) ended: Option<String>,
    /// Processes of it that are dead, or that no message reaches any more.
    pub(crate) lost: BTreeSet<usize>,
    /// Once it has started.
    pub(crate) run: Option<Box<Run>>,
    /// When the last message came over each link: they do not overtake each other.
    pub(crate) links: BTreeMap<(usize, bool), u64>,
}

/// What an instance works with once it has started.
pub(crate) struct Run {
    /// The protocol of epochs, in process 0.
    pub(crate) epochs: Epochs,
    /// One reader in each process.
    pub(crate) readers: Vec<Reader>,
    /// The dataflow.
    pub(crate) compute: Compute,
    /// Where cuts go, unless they are on their way.
    pub(crate) cuts: Option<CutLog>,
    /// What waits to be made durable and announced, in order.
    pub(crate) waiting: VecDeque<Announced>,
    /// What is being made durable.
    pub(crate) writing: Vec<Announced>,
    /// The tables, unless a group is on its way.
    pub(crate) tables: Option<Vec<TableWriter>>,
    /// Rows of closed epochs that are not published.
    pub(crate) pending: BTreeMap<Epoch, Change>,
    /// Tables differ up to this epoch: the first group ends there.
    pub(crate) first_group: Option<Epoch>,
    /// All tables hold this epoch.
    pub(crate) visible: Epoch,
    /// When the last group began.
    pub(crate) published_at: Option<u64>,
    /// Where manifests go, unless one is on its way.
    pub(crate) checkpoints: Option<Box<CheckpointWriter>>,
    /// Checkpoints that were asked for and are not durable, and how far partitions had been read by then.
    pub(crate) asked: BTreeMap<Epoch, Vec<Position>>,
    /// Checkpoints whose runs are being written, in order.
    pub(crate) open: VecDeque<OpenCheckpoint>,
    /// Sums up to the last checkpoint, and the epochs after it.
    pub(crate) counters: Counters,
    /// Epochs that are not in the counters.
    pub(crate) summaries: BTreeMap<Epoch, EpochSummary>,
    /// The number of the next run of each process.
    pub(crate) next_run: Vec<u64>,
    /// Why nothing more is cut, and the last epoch.
    pub(crate) finishing: Option<(Ended, Epoch)>,
    /// Whether it was asked to stop.
    pub(crate) stopping: bool,
    /// When the protocol is to be woken.
    pub(crate) tick_at: Option<u64>,
}

/// What is told of once everything before it is durable.
#[derive(Clone, Debug)]
pub(crate) enum Announced {
    /// An epoch was cut.
    Cut(Cut),
    /// A checkpoint is wanted.
    Checkpoint(Epoch),
}

/// A checkpoint whose runs are being written.
pub(crate) struct OpenCheckpoint {
    /// The epoch as of whose end it is.
    pub(crate) epoch: Epoch,
    /// Processes that have not written theirs.
    pub(crate) waiting: usize,
    /// The runs so far.
    pub(crate) runs: Vec<(List, StoredRun)>,
    /// How far event time had come.
    pub(crate) progress: Progress,
}

impl Instance {
    /// An instance that starts now.
    pub(crate) fn new(processes: usize, began: u64) -> Instance {
        Instance {
            processes,
            stranger: false,
            generation: None,
            began,
            paused_until: 0,
            ended: None,
            lost: BTreeSet::new(),
            run: None,
            links: BTreeMap::new(),
        }
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&self) -> bool {
        self.ended.is_none()
    }
}

impl Run {
    /// Whether everything that was cut is durable, and in the tables.
    pub(crate) fn is_through(&self) -> bool {
        let Some((_, last)) = self.finishing else { return false };
        let cut = self.cuts.is_some() && self.waiting.is_empty();
        cut && self.visible >= last && self.tables.is_some() && self.asked.is_empty()
    }
}
