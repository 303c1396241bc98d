//! One input as the reading thread sees it: a file that can be closed and opened again, or a stream that cannot.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use tidemark_dataflows::event::PartitionId;

use super::cursor::Digested;
use super::lines::{Fill, LineSplitter};
use crate::source::SourceError;
use crate::source::error::RESTORE_FILE;

/// Most that a pipe gives at once, on Linux.
const PIPE_BYTES: usize = 64 << 10;

/// Where the bytes of a partition come from.
pub(super) enum Input {
    /// A regular file and the size that it had when the source was opened.
    File { path: PathBuf, bytes: u64 },
    /// A pipe or a terminal: read once, from start to end, and whoever writes to it may take his time.
    Stream(Box<dyn Read + Send>),
}

/// Reads one input block by block.
pub(super) struct InputReader {
    name: String,
    input: Input,
    open: Option<File>,
    lines: LineSplitter,
}

impl InputReader {
    /// `name` is what errors call the input.
    pub(super) fn new(name: String, input: Input, partition: PartitionId, chunk_bytes: usize) -> Self {
        let (chunk_bytes, fill) = match &input {
            // One byte more than the file, so that small files cost no more than their size.
            Input::File { bytes, .. } if *bytes > 0 => {
                (usize::try_from(bytes + 1).unwrap_or(usize::MAX).min(chunk_bytes), Fill::Whole)
            }
            Input::File { .. } => (chunk_bytes, Fill::Whole),
            Input::Stream(_) => (chunk_bytes.min(PIPE_BYTES), Fill::Available),
        };
        Self { name, input, open: None, lines: LineSplitter::new(partition, chunk_bytes, fill) }
    }

    /// Whether reading can take for ever.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.input, Input::Stream(_))
    }

    /// Whether it holds a file open.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Closes the file; the next read opens it again where this one stopped.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// The next events, or `None` at the end.
    pub(super) fn next_block(&mut self) -> Result<Option<Digested>, SourceError> {
        let read = match &mut self.input {
            Input::Stream(stream) => self.lines.next_block(stream.as_mut()),
            Input::File { path, .. } => {
                let file = match self.open.take() {
                    Some(file) => Ok(file),
                    None => File::open(path).and_then(|file| seek_to(file, self.lines.bytes_read())),
                };
                file.and_then(|file| self.lines.next_block(self.open.insert(file)))
            }
        };
        let block = read.map_err(|error| SourceError::unavailable(&self.name, "read", error))?;
        if block.is_none() {
            self.close();
            self.check_length()?;
        }
        Ok(block.map(Digested::new))
    }

    /// A file that ends early has lost events, which must not pass for the end of the input.
    fn check_length(&self) -> Result<(), SourceError> {
        match self.input {
            Input::File { bytes, .. } if self.lines.bytes_read() < bytes => {
                let read = self.lines.bytes_read();
                let problem = format!("it was cut from {bytes} to {read} bytes while it was read");
                Err(SourceError::changed(&self.name, problem, RESTORE_FILE))
            }
            _ => Ok(()),
        }
    }
}

fn seek_to(mut file: File, position: u64) -> io::Result<File> {
    if position > 0 {
        file.seek(SeekFrom::Start(position))?;
    }
    Ok(file)
}
