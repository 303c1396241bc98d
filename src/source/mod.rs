//! Where events come from: files, standard input, and a generator that needs nothing at all.
//!
//! A source hands out [`Block`]s, runs of raw event bodies of one partition. It neither looks into a body nor cuts
//! epochs: the runtime decides which offsets an epoch takes, asks for exactly those, and asks for the same offsets
//! again when it replays. So nothing that is computed may depend on how bodies happen to be grouped into blocks.

mod digest;
mod error;
pub mod eventhubs;
pub mod files;
pub mod generator;
mod identity;
mod inbox;
#[cfg(test)]
mod inbox_tests;

use std::path::PathBuf;

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
pub use tidemark_eventhubs::status::{PartitionStatus, PartitionStatuses};

pub use digest::{ContentDigest, NotADigest};
pub use error::{SourceError, SourceErrorKind};
pub use eventhubs::EventHubsSource;
pub use files::{FileOptions, FileSource, ReadAhead};
pub use generator::{EventGenerator, EventWriter, GeneratorOptions, GeneratorSource, Pacing};
pub use identity::{FileIdentity, HubIdentity, SourceIdentity};
pub use inbox::WithInbox;

/// Most events of one block. Keeps a block of very short lines from holding up a worker.
pub const MAX_BLOCK_EVENTS: usize = 8192;

/// What is known of a partition before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// What the tables call it (`source_partition`): the path of a file below what was named, or the partition's number.
    pub name: String,
    /// The file behind it, if there is one.
    pub path: Option<PathBuf>,
    /// Its size in bytes when the source was opened, compressed if it is, where that is known.
    pub bytes: Option<u64>,
}

impl PartitionInfo {
    /// Whether it is a file of earlier runs that is not there any more, because it had ended.
    pub fn is_gone(&self) -> bool {
        self.path.is_none() && self.bytes == Some(0)
    }

    /// What messages call it: the path where there is one, else the name.
    pub fn label(&self) -> String {
        self.path.as_ref().map_or_else(|| self.name.clone(), |path| path.display().to_string())
    }

    /// The error of an input whose events before `offset` have another digest than those that were read there once.
    pub(crate) fn rewritten_before(&self, offset: Offset) -> SourceError {
        let problem = format!("the events before offset {} are not what they were when they were read", offset.0);
        SourceError::changed(self.label(), problem, self.restoration())
    }

    /// The error of an input that holds only `events` events, but was read up to `offset` once.
    pub(crate) fn shortened(&self, events: u64, offset: Offset) -> SourceError {
        let problem = format!("it ends after {events} events, but has been read up to event {}", offset.0);
        SourceError::changed(self.label(), problem, self.restoration())
    }

    fn restoration(&self) -> &'static str {
        if self.bytes.is_some() { error::RESTORE_FILE } else { error::FEED_AGAIN }
    }
}

/// The answer to [`Source::pull`].
#[derive(Clone, Debug)]
pub enum Pull {
    /// Events that follow on one another; at least one. They start at the offset asked for, or behind it where there are
    /// no events in between, and never will be.
    Block(Block),
    /// Nothing yet: not due, or not read. Ask again later.
    Pending,
    /// There is no event at or after the offset asked for, and never will be.
    End,
}

/// What is left of a partition that is not read any further for the moment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: a file that has ended, a live partition whose newest event has been read as far as anybody has heard.
    CaughtUp,
    /// More is there, or nobody can tell.
    Behind(Head),
}

/// What the next events of a file say of event time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The head time; none where nothing valid is in sight, and for partitions that are no files.
    pub time: Option<Micros>,
    /// An epoch that is opened at this instant or later may see another head time: by then an event that was in the future
    /// (R140) is so no more. The greatest [`Micros`] where that does not happen.
    pub until: Micros,
}

impl Head {
    /// A partition that is behind and has no head time.
    pub const NONE: Head = Head { time: None, until: Micros(i64::MAX) };
}

/// A partition that was found while the source is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is known of it.
    pub info: PartitionInfo,
    /// Where reading it begins.
    pub from: Offset,
}

/// Which partitions this process reads, where several processes read one source: each its own, all of them together
/// every one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of this process.
    pub process: usize,
    /// Number of processes.
    pub processes: usize,
}

impl Share {
    /// Every partition.
    pub const WHOLE: Share = Share { process: 0, processes: 1 };

    /// Whether the partition with this number is read here. What only one process can read is read by the first.
    pub fn reads(self, index: usize, indivisible: bool) -> bool {
        let reader = if indivisible { 0 } else { index % self.processes.max(1) };
        reader == self.process
    }
}

/// A place that events come from, in partitions numbered from 0.
///
/// The runtime keeps the positions: every pull names the offset that it starts at.
pub trait Source: Send {
    /// The partitions in the order of their [`PartitionId`]. New ones come behind those that are there, and only by
    /// [`order`](Self::order) and [`join`](Self::join).
    fn partitions(&self) -> &[PartitionInfo];

    /// Gives the partitions that earlier runs knew the numbers that they had: those in `known`, in order. Others come behind
    /// them. Called before anything but [`settle`](Self::settle), with nothing at the first start of a pipeline. The flag
    /// says which of them had ended, or had given nothing yet: such a file may be gone, and is then a partition without
    /// further events.
    ///
    /// # Errors
    ///
    /// When one that had not ended is not there any more.
    fn order(&mut self, known: &[(String, bool)]) -> Result<(), SourceError> {
        let now = self.partitions();
        let lost = known.iter().zip(0..).find(|((name, _), at)| now.get(*at).is_none_or(|info| info.name != *name));
        lost.map_or(Ok(()), |((name, _), _)| {
            let problem = "it was read by an earlier run and is not there any more";
            Err(SourceError::changed(name.as_str(), problem, "give the same inputs again"))
        })
    }

    /// What is left of a partition of this process once everything before `next` has been read, for an epoch that is
    /// opened at `opened`. None while that is not known: ask again.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    fn standing(
        &mut self,
        partition: PartitionId,
        next: Offset,
        opened: Micros,
    ) -> Result<Option<Standing>, SourceError>;

    /// Partitions that were found since this was asked before. They are read once they have [joined](Self::join).
    fn discovered(&mut self) -> Vec<Found> {
        Vec::new()
    }

    /// Takes up a partition that was found here or by another process, behind all others.
    fn join(&mut self, _partition: Found) {}

    /// Notes that everything before `next` is cut, and up to which enqueued time partitions may be read on: none where
    /// other processes have nothing in hand.
    fn align(&mut self, _cut: &[Offset], _others: Option<Micros>) {}

    /// The least enqueued time of the events that have come to this process and are not cut; none where there are none.
    fn oldest_in_hand(&self) -> Option<Micros> {
        None
    }

    /// Names the thread that pulls: it is woken when something has come.
    fn wakes(&mut self, _reader: std::thread::Thread) {}

    /// Whether this process reads a partition. Those that it does not are never pulled.
    fn reads(&self, _partition: PartitionId) -> bool {
        true
    }

    /// Whether a partition is no part of the source, but was put beside it: it is never behind, and no file.
    fn is_beside(&self, _partition: PartitionId) -> bool {
        false
    }

    /// Called again and again once all partitions that other processes read have ended.
    fn others_have_ended(&mut self) {}

    /// Whether every partition comes to an end by itself.
    fn is_bounded(&self) -> bool;

    /// Size of the whole input in bytes, where every partition knows its own.
    fn total_bytes(&self) -> Option<u64> {
        self.partitions().iter().map(|partition| partition.bytes).sum()
    }

    /// What is read, for the check that a restart reads the same.
    fn identity(&self) -> SourceIdentity;

    /// Settles where reading begins, before [`identity`](Self::identity) is asked for: as an earlier run did, whose
    /// identity is `stored`, or anew. Whether that one fits is not asked.
    ///
    /// # Errors
    ///
    /// When the source has to be asked, and does not answer.
    fn settle(&mut self, _stored: Option<&SourceIdentity>) -> Result<(), SourceError> {
        Ok(())
    }

    /// Where a pipeline that has read nothing yet begins.
    fn beginning(&self, _partition: PartitionId) -> Offset {
        Offset(0)
    }

    /// Called once, after every [`resume`](Self::resume) and before the first pull, by the instance with this generation:
    /// greater than that of every instance before it. A source that others could read at the same time keeps them away.
    ///
    /// # Errors
    ///
    /// What comes next is not there any more, or the source cannot be read.
    fn start(&mut self, _generation: u64) -> Result<(), SourceError> {
        Ok(())
    }

    /// How far each partition has been read, where there is more to know than the positions.
    fn statuses(&self) -> PartitionStatuses {
        PartitionStatuses::default()
    }

    /// Tells, before the first pull of a partition, that an earlier run has read everything before `at`, and the
    /// digest that it had. Pulls then start at that offset. A source that reads from the start again compares what it
    /// passes over: the first [`standing`](Self::standing) that is known has compared it, and so has the first pull that
    /// gives anything but [`Pull::Pending`], also where it gives [`Pull::End`]. Call it for every partition, and ask for
    /// every one, also those that have been read to their end.
    ///
    /// # Errors
    ///
    /// The partition has been read from already, or there is none of that number.
    fn resume(&mut self, at: Position, before: Option<ContentDigest>) -> Result<(), SourceError>;

    /// Digest of all event bodies of `partition` before the end of what pulls have handed out; until the first block,
    /// of those before the place where reading was resumed, as it was given. Digests of the same source at the same
    /// offset differ only if the content before it has changed. `None` where the content follows from the source's
    /// [`identity`](Self::identity), and where it was not given.
    fn digest(&self, partition: PartitionId) -> Option<ContentDigest>;

    /// Whether what [`digest`](Self::digest) is of can have had this digest once: a line that nothing ended may have got its
    /// end since.
    fn can_have_had(&self, partition: PartitionId, digest: ContentDigest) -> bool {
        self.digest(partition) == Some(digest)
    }

    /// The next events of `partition`: those that start at `from`, at most `max_events` of them (zero counts as one)
    /// and at most [`MAX_BLOCK_EVENTS`]. Where offsets are missing, none of a block lies `max_events` or more behind
    /// `from`, unless there is none before.
    ///
    /// It may wait for a moment, never for long, so that the caller can look for a signal between two calls. A source
    /// that produces in real time gives nothing that is due after `now`; a replay asks for it with the greatest
    /// [`Micros`], as what was cut once has been due. The block's arrival is `now` for sources without arrival times:
    /// the caller replaces it once it knows the opening time of the epoch.
    ///
    /// # Errors
    ///
    /// `from` lies before what was pulled last, or before the place of the resumption, and the source cannot go back;
    /// `from` lies beyond the end, or the events before the resumption are not what they were (then the input has
    /// changed since that was recorded); or the input cannot be read.
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
