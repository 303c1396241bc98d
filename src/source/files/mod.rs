//! Files of newline-delimited JSON, and standard input: each is one partition, and comes to an end.
//!
//! The body of an event is its line without the `\n`; lines of white space alone are no events and take no offset.
//! Files are read, not mapped into memory: touching a map of a file that someone has truncated kills the process with
//! SIGBUS, while a read returns an error or an early end. Compressed files are left out: pipe them through their own
//! tool into standard input.

mod ahead;
mod input;
mod inputs;
mod lines;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::time::Duration;

use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use self::ahead::{Ahead, Taken};
use self::input::{Input, InputReader};
use super::{MAX_BLOCK_EVENTS, PartitionInfo, Pull, Source, SourceError};

pub use self::ahead::ReadAhead;

/// How long a pull waits for the disk or for the writer of a pipe.
const PATIENCE: Duration = Duration::from_millis(50);

/// Events from files and streams.
pub struct FileSource {
    partitions: Vec<PartitionInfo>,
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
        Self::start(inputs::resolve(inputs)?, ahead)
    }

    /// One partition called `name` that reads `stream` to its end.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn from_stream(name: &str, stream: Box<dyn Read + Send>, ahead: ReadAhead) -> Result<Self, SourceError> {
        let info = PartitionInfo { name: name.into(), path: None, bytes: None };
        Self::start(vec![(info, Input::Stream(stream))], ahead)
    }

    fn start(inputs: Vec<(PartitionInfo, Input)>, ahead: ReadAhead) -> Result<Self, SourceError> {
        let chunk_bytes = ahead.block_bytes_for(inputs.len());
        let mut partitions = Vec::with_capacity(inputs.len());
        let mut readers = Vec::with_capacity(inputs.len());
        for (index, (info, input)) in inputs.into_iter().enumerate() {
            readers.push(InputReader::new(display_name(&info), input, PartitionId(index as u32), chunk_bytes));
            partitions.push(info);
        }
        let ahead = Ahead::start(readers, ahead)
            .map_err(|error| SourceError::unavailable("file source", "given a thread", error))?;
        let cursors = partitions.iter().map(|_| Cursor::default()).collect();
        Ok(Self { partitions, ahead, cursors })
    }

    /// What errors about `partition` call it.
    fn name_of(&self, partition: PartitionId) -> String {
        self.partitions.get(partition.0 as usize).map_or_else(|| format!("partition {}", partition.0), display_name)
    }
}

/// Where the consumer stands in a partition.
#[derive(Default)]
struct Cursor {
    /// The block that was taken last, unless all of it has been handed out.
    block: Option<Block>,
    /// Offset of the next event to hand out.
    next: u64,
}

impl Cursor {
    /// At most `max_events` events that start at `from`, if the block at hand holds that offset.
    fn piece(&mut self, from: u64, max_events: usize) -> Option<Block> {
        let block = self.block.take()?;
        let first = block.first_offset.0;
        self.next = first + block.len() as u64;
        if from >= self.next {
            return None;
        }
        let start = usize::try_from(from.checked_sub(first)?).ok()?;
        let stop = block.len().min(start + max_events);
        if start == 0 && stop == block.len() {
            return Some(block);
        }
        let inside = |&(index, whole): &(u32, u64)| {
            let index = index as usize;
            (start..stop).contains(&index).then(|| ((index - start) as u32, whole))
        };
        let piece = Block {
            partition: block.partition,
            first_offset: Offset(from),
            arrival: block.arrival.clone(),
            bytes: block.bytes.clone(),
            bodies: block.bodies[start..stop].to_vec(),
            oversized: block.oversized.iter().filter_map(inside).collect(),
        };
        if stop < block.len() {
            self.next = first + stop as u64;
            self.block = Some(block);
        }
        Some(piece)
    }
}

fn display_name(info: &PartitionInfo) -> String {
    info.path.as_ref().map_or_else(|| info.name.clone(), |path| path.display().to_string())
}

impl Source for FileSource {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    fn is_bounded(&self) -> bool {
        true
    }

    /// Reads from start to end: what lies before `from` is passed over, and `from` never goes back.
    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError> {
        let index = partition.0 as usize;
        loop {
            let Some(cursor) = self.cursors.get_mut(index) else { return Ok(Pull::End) };
            let next = cursor.next;
            if from.0 < next {
                let problem = format!("events before offset {next} have been read and cannot be read again");
                return Err(SourceError::usage(self.name_of(partition), problem, "open the source again"));
            }
            if let Some(mut piece) = cursor.piece(from.0, max_events.clamp(1, MAX_BLOCK_EVENTS)) {
                piece.arrival = Arrival::Opening(now);
                return Ok(Pull::Block(piece));
            }
            let next = cursor.next;
            match self.ahead.take(index, PATIENCE)? {
                Taken::Block(block) => cursor.block = Some(block),
                Taken::Pending => return Ok(Pull::Pending),
                Taken::End if next < from.0 => {
                    let problem = format!("it ends after {next} events, but has been read up to event {}", from.0);
                    return Err(SourceError::changed(self.name_of(partition), problem));
                }
                Taken::End => return Ok(Pull::End),
            }
        }
    }
}
