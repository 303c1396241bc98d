//! Files of newline-delimited JSON, and standard input: each is one partition, and comes to an end.
//!
//! The body of an event is its line without the `\n`; lines of white space alone are no events and take no offset.
//! Files are read, not mapped into memory: touching a map of a file that someone has truncated kills the process with
//! SIGBUS, while a read returns an error or an early end. Compressed files are left out: pipe them through their own
//! tool into standard input.

mod ahead;
mod cursor;
mod input;
mod inputs;
mod lines;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::time::{Duration, Instant};

use tidemark_dataflows::block::Arrival;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};

use self::ahead::{Ahead, Taken};
use self::cursor::{Cursor, Differs};
use self::input::{Input, InputReader};
use super::{ContentDigest, MAX_BLOCK_EVENTS, PartitionInfo, Pull, Share, Source, SourceError, SourceIdentity};

pub use self::ahead::ReadAhead;

/// How long a pull waits for the disk or for the writer of a pipe.
const PATIENCE: Duration = Duration::from_millis(50);

/// Events from files and streams.
pub struct FileSource {
    partitions: Vec<PartitionInfo>,
    /// Which of them are read here.
    read: Vec<bool>,
    ahead: Ahead,
    cursors: Vec<Cursor>,
}

impl FileSource {
    /// Opens `inputs`: files, directories (all files directly in them that end in `.ndjson` or `.jsonl` and are not
    /// hidden), glob patterns, and `-` for standard input, which becomes a partition named `stdin`.
    ///
    /// Partitions are ordered by file name, bytewise, then by absolute path; a file that is named twice counts once.
    ///
    /// # Errors
    ///
    /// No input at all, an input that does not exist or cannot be read, a directory or pattern without a file,
    /// `-` given twice.
    pub fn open(inputs: &[String], ahead: ReadAhead) -> Result<Self, SourceError> {
        Self::open_share(inputs, ahead, Share::WHOLE)
    }

    /// The same where other processes read some of them. Of streams, only the first process reads any.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub fn open_share(inputs: &[String], ahead: ReadAhead, share: Share) -> Result<Self, SourceError> {
        Self::start(inputs::resolve(inputs)?, ahead, share)
    }

    /// One partition called `name` that reads `stream` to its end.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn from_stream(name: &str, stream: Box<dyn Read + Send>, ahead: ReadAhead) -> Result<Self, SourceError> {
        let info = PartitionInfo { name: name.into(), path: None, bytes: None };
        Self::start(vec![(info, Input::Stream(stream))], ahead, Share::WHOLE)
    }

    fn start(inputs: Vec<(PartitionInfo, Input)>, ahead: ReadAhead, share: Share) -> Result<Self, SourceError> {
        let reads = |(index, (_, input)): (usize, &(_, Input))| share.reads(index, matches!(input, Input::Stream(_)));
        let read: Vec<bool> = inputs.iter().enumerate().map(reads).collect();
        let chunk_bytes = ahead.block_bytes_for(read.iter().filter(|read| **read).count());
        let mut partitions = Vec::with_capacity(inputs.len());
        let mut readers = Vec::with_capacity(inputs.len());
        for (index, (info, input)) in inputs.into_iter().enumerate() {
            let reader = || InputReader::new(info.label(), input, PartitionId(index as u32), chunk_bytes);
            readers.push(read[index].then(reader));
            partitions.push(info);
        }
        let ahead = Ahead::start(readers, ahead)
            .map_err(|error| SourceError::unavailable("file source", "given a thread", error))?;
        let cursors = partitions.iter().map(|_| Cursor::new()).collect();
        Ok(Self { partitions, read, ahead, cursors })
    }

    /// What errors about `partition` call it.
    fn name_of(&self, partition: PartitionId) -> String {
        self.partitions
            .get(partition.0 as usize)
            .map_or_else(|| format!("partition {}", partition.0), PartitionInfo::label)
    }
}

impl Source for FileSource {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    fn reads(&self, partition: PartitionId) -> bool {
        self.read.get(partition.0 as usize).copied().unwrap_or(false)
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn identity(&self) -> SourceIdentity {
        SourceIdentity::of_files(&self.partitions)
    }

    /// Nothing is read yet: the first pull passes over what lies before, digests it and compares.
    fn resume(&mut self, at: Position, before: Option<ContentDigest>) -> Result<(), SourceError> {
        let cursor = self.cursors.get_mut(at.partition.0 as usize).filter(|cursor| cursor.is_unread());
        let Some(cursor) = cursor else {
            let problem = "a place to go on from can be given only before it is read";
            return Err(SourceError::usage(self.name_of(at.partition), problem, "open the source again"));
        };
        cursor.resume(at.offset, before);
        Ok(())
    }

    fn digest(&self, partition: PartitionId) -> Option<ContentDigest> {
        self.cursors.get(partition.0 as usize)?.digest()
    }

    /// Reads from start to end: what lies before `from` is passed over, and `from` never goes back. Passing over many
    /// events takes several pulls, of which all but the last give [`Pull::Pending`].
    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError> {
        let index = partition.0 as usize;
        let deadline = Instant::now() + PATIENCE;
        let (Some(cursor), Some(info)) = (self.cursors.get_mut(index), self.partitions.get(index)) else {
            return Ok(Pull::End);
        };
        let floor = cursor.floor();
        if from.0 < floor {
            let problem = format!("events before offset {floor} have been read and cannot be read again");
            return Err(SourceError::usage(info.label(), problem, "open the source again"));
        }
        loop {
            if cursor.reach(from.0).map_err(|Differs { before }| info.rewritten_before(before))? {
                if let Some(mut piece) = cursor.hand_out(max_events.clamp(1, MAX_BLOCK_EVENTS)) {
                    piece.arrival = Arrival::Opening(now);
                    return Ok(Pull::Block(piece));
                }
            } else if Instant::now() >= deadline {
                return Ok(Pull::Pending);
            }
            match self.ahead.take(index, deadline)? {
                Taken::Block(block) => cursor.add(block),
                Taken::Pending => return Ok(Pull::Pending),
                Taken::End if cursor.next() < from.0 => return Err(info.shortened(cursor.next(), from)),
                Taken::End => return Ok(Pull::End),
            }
        }
    }
}
