//! One input as the reading thread sees it: a file that can be closed, opened again and wound back, or a stream that
//! cannot.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use tidemark_dataflows::block::{Block, Body};
use tidemark_dataflows::event::{Offset, PartitionId};

use super::cursor::{Digested, part};
use super::heads::Judge;
use super::lines::{Fill, LineSplitter};
use super::packing::{self, Packing, Unpacked};
use crate::source::error::RESTORE_FILE;
use crate::source::{ContentDigest, PartitionInfo, SourceError};

/// Most that a pipe gives at once, on Linux.
const PIPE_BYTES: usize = 64 << 10;

/// Where the bytes of a partition come from.
pub(super) enum Input {
    /// A regular file and the size that it had when the source was opened: what is added later is read by a later run.
    File { path: PathBuf, bytes: u64, packing: Option<Packing> },
    /// A named pipe or a device. Opening it can take as long as reading it.
    Pipe { path: PathBuf, packing: Option<Packing> },
    /// A stream that is open: read once, from start to end, and its writer may take his time.
    Stream(Box<dyn Read + Send>),
    /// A file that earlier runs have read to its end, and that is not there any more.
    Gone,
}

impl Input {
    /// Whether reading can take for ever.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Input::Pipe { .. } | Input::Stream(_))
    }

    /// Whether it can be read again from a place in its middle only by unpacking it from its start.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self, Input::File { packing: Some(_), .. })
    }
}

/// Where reading can begin again: right before a line.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In the bytes that the input holds, unpacked.
    bytes: u64,
    /// Events before it.
    events: u64,
    /// Their digest.
    digest: ContentDigest,
}

/// What comes next in an input.
pub(super) enum Next {
    /// Events.
    Block(Digested),
    /// Events that an earlier run has read. Ask again.
    Passed,
    /// Nothing.
    End(End),
}

/// The end of an input.
pub(super) struct End {
    /// How many events it has.
    pub(super) events: u64,
    /// Its last line, if nothing ends it and it is no event.
    pub(super) half: Option<Digested>,
}

/// An input that is open.
enum Open {
    Plain(io::Take<File>),
    Unpacked(Unpacked),
    Stream(Box<dyn Read + Send>),
}

impl Read for Open {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Open::Plain(file) => file.read(into),
            Open::Unpacked(unpacked) => unpacked.read(into),
            Open::Stream(stream) => stream.read(into),
        }
    }
}

/// Reads one input block by block.
pub(super) struct InputReader {
    info: PartitionInfo,
    input: Input,
    partition: PartitionId,
    judge: Arc<Judge>,
    open: Option<Open>,
    lines: LineSplitter,
    /// Digest of all events that `lines` has counted.
    digest: ContentDigest,
    /// The same as it was when nothing ended the last of them yet, where it may have been another one.
    unended: Option<ContentDigest>,
    /// The first event that is handed out.
    from: u64,
    /// Set until the events before `from` have been compared with what an earlier run read.
    resumed: Option<Option<ContentDigest>>,
    /// Whether it was said that something is left at the end.
    warned: bool,
}

impl InputReader {
    pub(super) fn new(info: PartitionInfo, input: Input, partition: PartitionId, judge: Arc<Judge>) -> Self {
        let fill = if input.is_stream() { Fill::Available } else { Fill::Whole };
        let lines = LineSplitter::new(partition, fill);
        let digest = ContentDigest::EMPTY;
        let (open, unended, resumed) = (None, None, None);
        Self { info, input, partition, judge, open, lines, digest, unended, from: 0, resumed, warned: false }
    }

    /// Goes on after an earlier run that has read everything before `at`, and the digest that it had, if that is known.
    pub(super) fn resume(&mut self, at: u64, before: Option<ContentDigest>) {
        (self.from, self.resumed) = (at, Some(before));
    }

    /// Whether reading can take for ever.
    pub(super) fn is_stream(&self) -> bool {
        self.input.is_stream()
    }

    /// Whether it holds something open.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Closes a file; the next read opens it again where this one stopped. A stream would be lost.
    pub(super) fn close(&mut self) {
        if !self.is_stream() {
            self.open = None;
        }
    }

    /// Whether what comes next has been read by an earlier run.
    pub(super) fn is_behind(&self) -> bool {
        self.lines.events() < self.from
    }

    /// Leaves out what lies before `next`, unless an earlier run is still being compared.
    pub(super) fn skip_to(&mut self, next: u64) {
        if self.resumed.is_none() {
            self.from = self.from.max(next);
        }
    }

    /// Goes back to a place, and gives the events from `next` on again. Only for files.
    pub(super) fn rewind(&mut self, place: Place, next: u64) {
        self.close();
        self.lines = LineSplitter::after(self.partition, Fill::Whole, place.bytes, place.events);
        (self.digest, self.unended, self.from) = (place.digest, None, next);
    }

    /// What comes next. Reads about `chunk_bytes`.
    pub(super) fn next(&mut self, chunk_bytes: usize) -> Result<Next, SourceError> {
        let place = Place { bytes: self.lines.line_position(), events: self.lines.events(), digest: self.digest };
        let block = match self.read(chunk_bytes) {
            Ok(block) => block,
            Err(error) => {
                let packed = self.input.is_packed().then(|| packing::damaged(&self.info, &error)).flatten();
                return Err(packed.unwrap_or_else(|| SourceError::unavailable(self.info.label(), "read", error)));
            }
        };
        let Some(mut block) = block else { return self.end(None).map(Next::End) };
        let last = self.lines.is_at_end() && !self.is_stream();
        if last && self.leaves(&block) {
            self.lines.leave_last();
            let digest = ContentDigest::of(&block);
            let half = Digested { block, before: self.digest, digest, place };
            return self.end(Some(half)).map(Next::End);
        }
        if last {
            // More white space may come before its end does, as that of a writer of CRLF.
            trim_last(&mut block);
        }
        self.hand_over(block, place)
    }

    fn read(&mut self, chunk_bytes: usize) -> io::Result<Option<Block>> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        let chunk_bytes = match self.input {
            Input::Pipe { .. } | Input::Stream(_) => chunk_bytes.min(PIPE_BYTES),
            // One byte more than there is, so that small files cost no more than their size.
            Input::File { bytes, packing: None, .. } => {
                let left = bytes.saturating_sub(self.lines.bytes_read()).saturating_add(1);
                usize::try_from(left).unwrap_or(usize::MAX).min(chunk_bytes)
            }
            Input::File { .. } | Input::Gone => chunk_bytes,
        };
        let block = self.lines.next_block(&mut open, chunk_bytes);
        self.open = Some(open);
        block
    }

    /// Opens the input where the lines have come to.
    fn reopen(&mut self) -> io::Result<Open> {
        let read = self.lines.bytes_read();
        match &mut self.input {
            Input::File { path, bytes, packing: None } => {
                let mut file = File::open(path)?;
                if read > 0 {
                    file.seek(SeekFrom::Start(read))?;
                }
                Ok(Open::Plain(file.take(bytes.saturating_sub(read))))
            }
            Input::File { path, bytes, packing: Some(packing) } => {
                let mut unpacked = Unpacked::new(*packing, File::open(path)?.take(*bytes))?;
                io::copy(&mut (&mut unpacked).take(read), &mut io::sink())?;
                Ok(Open::Unpacked(unpacked))
            }
            Input::Pipe { path, packing: None } => Ok(Open::Stream(Box::new(File::open(path)?))),
            Input::Pipe { path, packing: Some(packing) } => {
                Unpacked::new(*packing, File::open(path)?).map(Open::Unpacked)
            }
            Input::Stream(stream) => Ok(Open::Stream(std::mem::replace(stream, Box::new(io::empty())))),
            Input::Gone => Ok(Open::Stream(Box::new(io::empty()))),
        }
    }

    /// Whether the last line of a file, which nothing ends, is left: its writer may not be done.
    fn leaves(&self, last: &Block) -> bool {
        self.is_cut_short() || last.iter().any(|body| !self.judge.is_whole(body))
    }

    fn is_cut_short(&self) -> bool {
        matches!(&self.open, Some(Open::Unpacked(unpacked)) if unpacked.cut_short)
    }

    /// Digests a block, and leaves out what lies before the first event that is asked for.
    fn hand_over(&mut self, block: Block, place: Place) -> Result<Next, SourceError> {
        let (first, count) = (block.first_offset.0, block.len());
        let known = usize::try_from(self.from.saturating_sub(first)).unwrap_or(usize::MAX);
        let unended = |digest: ContentDigest, last: Option<Body<'_>>| digest.without_space_behind(&last?);
        if known >= count {
            self.digest = self.digest.followed_by(ContentDigest::of(&block), count as u32);
            self.unended = unended(self.digest, block.iter().last());
            return Ok(Next::Passed);
        }
        let bodies = block.iter().take(known);
        let before = bodies.fold(self.digest, |digest, body| digest.with(&body));
        if known > 0 {
            self.unended = unended(before, block.iter().nth(known - 1));
        }
        self.compare(before)?;
        let block = if known == 0 { block } else { part(&block, known, count) };
        let digest = ContentDigest::of(&block);
        self.digest = before.followed_by(digest, block.len() as u32);
        Ok(Next::Block(Digested { block, before, digest, place }))
    }

    /// Compares what lies before the first event that is asked for with what an earlier run read there.
    fn compare(&mut self, before: ContentDigest) -> Result<(), SourceError> {
        let expected = self.resumed.flatten();
        if expected.is_some_and(|expected| expected != before && Some(expected) != self.unended) {
            return Err(self.info.rewritten_before(Offset(self.from)));
        }
        self.resumed = None;
        Ok(())
    }

    fn end(&mut self, mut half: Option<Digested>) -> Result<End, SourceError> {
        let cut_short = self.is_cut_short();
        self.close();
        self.check_length()?;
        let mut events = self.lines.events();
        // Earlier versions took such a line for an event.
        if self.from == events + 1
            && let Some(half) = half.take()
        {
            (self.digest, self.unended) = (self.digest.followed_by(half.digest, 1), None);
            events = self.from;
        }
        if events < self.from {
            return Err(self.info.shortened(events, Offset(self.from)));
        }
        self.compare(self.digest)?;
        if (half.is_some() || cut_short) && !std::mem::replace(&mut self.warned, true) {
            let file = self.info.label();
            if cut_short {
                tracing::warn!(file, events, "the file is cut short: it is read to its last whole line");
            } else {
                tracing::warn!(file, events, "the last line has no end and is no event: it is left until it is whole");
            }
        }
        Ok(End { events, half })
    }

    /// A file that ends early has lost events, which must not pass for the end of the input.
    fn check_length(&self) -> Result<(), SourceError> {
        let Input::File { path, bytes, packing } = &self.input else { return Ok(()) };
        let read = match packing {
            None => self.lines.bytes_read(),
            Some(_) => path.metadata().map_or(*bytes, |metadata| metadata.len()),
        };
        if read >= *bytes {
            return Ok(());
        }
        let problem = format!("it was cut from {bytes} to {read} bytes while it was read");
        Err(SourceError::changed(self.info.label(), problem, RESTORE_FILE))
    }
}

/// Takes away the white space behind the last body.
fn trim_last(block: &mut Block) {
    let Block { bytes, bodies, .. } = block;
    if let Some(range) = bodies.last_mut()
        && let Some(body) = bytes.get(range.start as usize..range.end as usize)
    {
        range.end = range.start + body.trim_ascii_end().len() as u32;
    }
}
