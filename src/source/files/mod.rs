//! Files of newline-delimited JSON, and standard input: each is one partition, and comes to an end.
//!
//! The body of an event is its line without the `\n`; lines of white space alone are no events and take no offset. The
//! last line of a file that no `\n` ends is an event if it is whole, else it is left: its writer may not be done. Files
//! that end in `.gz` or `.zst` are read as what they hold.
//! Files are read, not mapped into memory: touching a map of a file that someone has truncated kills the process with
//! SIGBUS, while a read returns an error or an early end.

mod ahead;
mod cursor;
mod heads;
#[cfg(test)]
mod heads_tests;
mod input;
mod inputs;
#[cfg(test)]
mod inputs_tests;
mod lines;
mod options;
#[cfg(test)]
mod order_tests;
mod packing;
mod reader;
#[cfg(test)]
mod resume_tests;
mod rounds;
#[cfg(test)]
mod scale_tests;
mod stock;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use tidemark_dataflows::block::Arrival;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};

use self::ahead::{Ahead, Taken};
use self::cursor::Cursor;
use self::heads::{Found, Judge};
use self::input::{Input, InputReader};
pub(super) use self::inputs::STDIN_NAME;
use self::inputs::{Absent, Resolved};
use self::rounds::Rounds;
use super::error::RESTORE_FILE;
use super::{
    ContentDigest, Head, MAX_BLOCK_EVENTS, PartitionInfo, Pull, Source, SourceError, SourceIdentity, Standing,
};

pub use self::options::{FileOptions, ReadAhead};

/// How long a pull waits for the disk or for the writer of a pipe, where no thread is woken.
const PATIENCE: Duration = Duration::from_millis(50);

/// The instant at which a replay pulls.
const REPLAY: Micros = Micros(i64::MAX);

/// Events from files and streams.
pub struct FileSource {
    partitions: Vec<PartitionInfo>,
    /// In the order of the partitions, until reading begins.
    inputs: Vec<Input>,
    /// What was named and is not there, until it is known whether that is an error.
    absent: Vec<Absent>,
    options: FileOptions,
    /// Which partitions are streams.
    streams: Vec<bool>,
    cursors: Vec<Cursor>,
    /// Where earlier runs stopped, and the digests that they had.
    resumed: Vec<Option<Option<ContentDigest>>>,
    reading: Option<Reading>,
    consumer: Option<Thread>,
}

/// What there is once reading has begun.
struct Reading {
    ahead: Ahead,
    rounds: Rounds,
    /// What is left of each partition, as it was found last.
    found: Vec<Option<Found>>,
    /// Since when it is not known whether anything more comes from standard input.
    silent: Option<Instant>,
}

impl FileSource {
    /// Opens `inputs`: files, directories (all files in them and below that end in `.ndjson` or `.jsonl`, or that and
    /// `.gz` or `.zst`, where nothing on the way begins with `.` or `_`), glob patterns, and `-` for standard input,
    /// which becomes a partition named `stdin`.
    ///
    /// Partitions are named by their paths below the directory, or the fixed part of the pattern, that was named; by
    /// their file names where they were named themselves. They are ordered by file name, bytewise, then by absolute
    /// path; a file that is named twice counts once.
    ///
    /// # Errors
    ///
    /// No input at all, an input that does not exist or cannot be read, a directory or pattern without a file, two
    /// files of one name, `-` beside anything else.
    pub fn open(inputs: &[String], options: impl Into<FileOptions>) -> Result<Self, SourceError> {
        let (options, Resolved { partitions, mut absent }) = (options.into(), inputs::resolve(inputs)?);
        if !options.ordered && !absent.is_empty() {
            return Err(absent.swap_remove(0).error);
        }
        Ok(Self::of(partitions, absent, options))
    }

    /// One partition called `name` that reads `stream` to its end.
    pub fn from_stream(name: &str, stream: Box<dyn Read + Send>, options: impl Into<FileOptions>) -> Self {
        Self::of(vec![(inputs::stdin_info(name), Input::Stream(stream))], Vec::new(), options.into())
    }

    fn of(partitions: Vec<(PartitionInfo, Input)>, absent: Vec<Absent>, options: FileOptions) -> Self {
        let mut source = Self {
            partitions: Vec::new(),
            inputs: Vec::new(),
            absent,
            options,
            streams: Vec::new(),
            cursors: Vec::new(),
            resumed: Vec::new(),
            reading: None,
            consumer: None,
        };
        source.set(partitions);
        source
    }

    /// Makes these the partitions, in this order.
    fn set(&mut self, partitions: Vec<(PartitionInfo, Input)>) {
        self.cursors = partitions.iter().map(|_| Cursor::new()).collect();
        self.resumed = vec![None; partitions.len()];
        self.streams = partitions.iter().map(|(_, input)| input.is_stream()).collect();
        (self.partitions, self.inputs) = partitions.into_iter().unzip();
    }

    /// Begins to read, if it has not begun.
    fn reading(&mut self) -> Result<&mut Reading, SourceError> {
        if self.reading.is_none() {
            let begun = self.begin()?;
            self.reading = Some(begun);
        }
        let none = || SourceError::usage("file source", "it has not begun to read", "report this as a bug");
        self.reading.as_mut().ok_or_else(none)
    }

    fn begin(&mut self) -> Result<Reading, SourceError> {
        let judge = Arc::new(Judge::new(self.options.max_future_skew_us, self.options.witnesses));
        let inputs = std::mem::take(&mut self.inputs);
        let rounds = Rounds::new(inputs.iter().map(Input::is_packed));
        let mut readers = Vec::with_capacity(inputs.len());
        for (index, (input, info)) in inputs.into_iter().zip(&self.partitions).enumerate() {
            let next = self.cursors[index].next();
            let is_read = self.options.share.reads(index, input.is_stream()) && !matches!(input, Input::Gone);
            let reader = is_read.then(|| {
                let partition = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
                let mut reader = InputReader::new(info.clone(), input, partition, Arc::clone(&judge));
                if let Some(before) = self.resumed[index] {
                    reader.resume(next, before);
                }
                reader
            });
            readers.push((reader, next));
        }
        let ahead = Ahead::start(readers, self.options.ahead, judge, self.consumer.clone())
            .map_err(|error| SourceError::unavailable("file source", "given a thread", error))?;
        Ok(Reading { ahead, rounds, found: vec![None; self.partitions.len()], silent: None })
    }

    /// Notes that a partition is asked for. What was read ahead of those that are not pulled any more is given back.
    fn rest(&mut self, asked: usize) {
        let Some(reading) = &mut self.reading else { return };
        for left in reading.rounds.asked(asked) {
            if !self.streams[left] {
                let at_hand = self.cursors[left].release();
                reading.ahead.release(left, at_hand);
            }
        }
    }

    /// What errors about `partition` call it.
    fn name_of(&self, partition: PartitionId) -> String {
        self.partitions
            .get(partition.0 as usize)
            .map_or_else(|| format!("partition {}", partition.0), PartitionInfo::label)
    }

    /// Standard input, if that is what is read: it stands alone.
    fn is_standard_input(&self) -> bool {
        self.streams == [true] && self.partitions[0].path.is_none()
    }

    /// What is left of standard input: how long it may take until more comes, only its writer knows.
    fn standing_of_stdin(&mut self) -> Result<Option<Standing>, SourceError> {
        let at_hand = self.cursors[0].rest().next().is_some();
        let reading = self.reading()?;
        let known = if at_hand { Some(Standing::Behind(Head::NONE)) } else { reading.ahead.has_come(0)? };
        if known.is_some() {
            reading.silent = None;
            return Ok(known);
        }
        let since = *reading.silent.get_or_insert_with(Instant::now);
        Ok((since.elapsed() >= PATIENCE).then_some(Standing::Behind(Head::NONE)))
    }
}

impl Source for FileSource {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    /// A file of an earlier run that is not there any more has to be there unless it had ended, or nothing of it had been
    /// read. Then it is a partition without path and further events.
    fn order(&mut self, known: &[(String, bool)]) -> Result<(), SourceError> {
        if self.reading.is_some() {
            return Err(SourceError::usage("file source", "it has begun to read", "report this as a bug"));
        }
        let inputs = std::mem::take(&mut self.inputs);
        let mut now: Vec<_> = std::mem::take(&mut self.partitions).into_iter().zip(inputs).map(Some).collect();
        let place =
            |(place, file): (usize, &Option<(PartitionInfo, Input)>)| Some((file.as_ref()?.0.name.clone(), place));
        let places: HashMap<String, usize> = now.iter().enumerate().filter_map(place).collect();
        let mut ordered = Vec::with_capacity(now.len());
        let mut lost = None;
        for (name, ended) in known {
            let found = places.get(name).and_then(|place| now[*place].take());
            if found.is_none() && !ended {
                lost.get_or_insert_with(|| self::lost(name));
            }
            let gone = || (PartitionInfo { name: name.clone(), path: None, bytes: Some(0) }, Input::Gone);
            ordered.push(found.unwrap_or_else(gone));
        }
        ordered.extend(now.into_iter().flatten());
        self.set(ordered);
        let is_known = |name: &String| known.iter().any(|(known, _)| known == name);
        let excused = |absent: &Absent| absent.name.as_ref().map_or(!known.is_empty(), is_known);
        let missing = std::mem::take(&mut self.absent).into_iter().find(|absent| !excused(absent));
        lost.or(missing.map(|absent| absent.error)).map_or(Ok(()), Err)
    }

    fn standing(
        &mut self,
        partition: PartitionId,
        next: Offset,
        opened: Micros,
    ) -> Result<Option<Standing>, SourceError> {
        let (index, deadline) = (partition.0 as usize, Instant::now() + PATIENCE);
        let Some(&is_stream) = self.streams.get(index) else { return Ok(Some(Standing::CaughtUp)) };
        check_floor(&self.partitions[index], &self.cursors[index], next)?;
        self.reading()?;
        self.rest(index);
        self.cursors[index].reach(next.0);
        if self.is_standard_input() {
            return self.standing_of_stdin();
        }
        let (Some(reading), cursor) = (self.reading.as_mut(), &self.cursors[index]) else { return Ok(None) };
        if let Some(found) = reading.found[index].filter(|found| found.answers(next.0, opened)) {
            return Ok(Some(found.standing));
        }
        let known = if is_stream || reading.rounds.is_active(index) {
            reading.ahead.sight((index, cursor), (next.0, opened), deadline)?
        } else {
            reading.ahead.look(index, (next.0, opened), deadline)?
        };
        if known == Some(Standing::CaughtUp)
            && let Some(events) = reading.ahead.events(index).filter(|events| *events < next.0)
        {
            return Err(self.partitions[index].shortened(events, next));
        }
        reading.found[index] = known.map(|standing| Found { next: next.0, opened, standing });
        Ok(known)
    }

    fn wakes(&mut self, reader: Thread) {
        if let Some(reading) = &self.reading {
            reading.ahead.wakes(reader.clone());
        }
        self.consumer = Some(reader);
    }

    fn reads(&self, partition: PartitionId) -> bool {
        let index = partition.0 as usize;
        self.streams.get(index).is_some_and(|is_stream| self.options.share.reads(index, *is_stream))
    }

    fn is_bounded(&self) -> bool {
        true
    }

    /// None where something is compressed: nobody knows how much that is before it has been read.
    fn total_bytes(&self) -> Option<u64> {
        let packed = |info: &PartitionInfo| {
            info.path.as_ref().is_some_and(|path| packing::of(path, "").is_ok_and(|packing| packing.is_some()))
        };
        let whole = |info: &PartitionInfo| info.bytes.filter(|_| !packed(info));
        self.partitions.iter().map(whole).sum()
    }

    fn identity(&self) -> SourceIdentity {
        SourceIdentity::of_files(&self.partitions)
    }

    /// Nothing is read yet: the first look or pull passes over what lies before, digests it and compares.
    fn resume(&mut self, at: Position, before: Option<ContentDigest>) -> Result<(), SourceError> {
        let index = at.partition.0 as usize;
        let unread = self.reading.is_none();
        let (Some(cursor), true) = (self.cursors.get_mut(index), unread) else {
            let problem = "a place to go on from can be given only before it is read";
            return Err(SourceError::usage(self.name_of(at.partition), problem, "open the source again"));
        };
        cursor.resume(at.offset, before);
        self.resumed[index] = Some(before);
        Ok(())
    }

    fn digest(&self, partition: PartitionId) -> Option<ContentDigest> {
        self.cursors.get(partition.0 as usize)?.digest()
    }

    fn can_have_had(&self, partition: PartitionId, digest: ContentDigest) -> bool {
        self.cursors.get(partition.0 as usize).is_some_and(|cursor| cursor.can_have_had(digest))
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
        let (index, deadline) = (partition.0 as usize, Instant::now() + PATIENCE);
        self.reading()?;
        let parts = (self.reading.as_mut(), self.cursors.get_mut(index), self.partitions.get(index));
        let (Some(reading), Some(cursor), Some(info)) = parts else { return Ok(Pull::End) };
        check_floor(info, cursor, from)?;
        if reading.rounds.pulled(index) {
            reading.ahead.activate(index);
        }
        loop {
            if cursor.reach(from.0) {
                if let Some(mut piece) = cursor.hand_out(max_events.clamp(1, MAX_BLOCK_EVENTS)) {
                    piece.arrival = Arrival::Opening(now);
                    return Ok(Pull::Block(piece));
                }
            } else if Instant::now() >= deadline {
                return Ok(Pull::Pending);
            }
            match reading.ahead.take(index, deadline)? {
                Taken::Block(block) => cursor.add(block),
                Taken::Pending => return Ok(Pull::Pending),
                Taken::End if cursor.next() < from.0 => return Err(info.shortened(cursor.next(), from)),
                // A replay asks for what was cut: earlier versions cut such a line.
                Taken::End => match (now == REPLAY).then(|| reading.ahead.take_half(index)).flatten() {
                    Some(half) => cursor.add(half),
                    None => return Ok(Pull::End),
                },
            }
        }
    }
}

/// Files are read from start to end.
fn check_floor(info: &PartitionInfo, cursor: &Cursor, from: Offset) -> Result<(), SourceError> {
    let floor = cursor.next();
    if from.0 >= floor {
        return Ok(());
    }
    let problem = format!("events before offset {floor} have been read and cannot be read again");
    Err(SourceError::usage(info.label(), problem, "open the source again"))
}

/// The error of a file that earlier runs have begun, and that is not there.
fn lost(name: &str) -> SourceError {
    let problem = "an earlier run has read it, but not to its end, and it is not among the inputs any more";
    SourceError::changed(name, problem, RESTORE_FILE)
}
