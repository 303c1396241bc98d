//! The threads that read.
//!
//! All regular files share one, which reads what somebody waits for, else ahead in the partition with the least in stock.
//! Each stream has a thread of its own, since opening and reading it can block for ever. Nobody joins the threads: they
//! end with their stream, or at the block after the consumer is gone.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use tidemark_dataflows::event::Micros;

use super::ahead::Shared;
use super::heads::{Found, Sight};
use super::input::{End, InputReader, Next};
use super::stock::{Task, Turn};
use crate::source::SourceError;

/// Files that one process keeps open at the same time; others are opened again when their turn comes.
const MAX_OPEN_FILES: usize = 32;

/// Starts the thread of a lane. `readers` have the numbers of their partitions.
pub(super) fn spawn(shared: Arc<Shared>, lane: usize, readers: Vec<(usize, InputReader)>) -> io::Result<()> {
    let partitions = readers.iter().map(|(partition, _)| partition + 1).max().unwrap_or(0);
    let mut places: Vec<Option<InputReader>> = (0..partitions).map(|_| None).collect();
    for (partition, reader) in readers {
        places[partition] = Some(reader);
    }
    let readers = Readers { shared, readers: places, open: VecDeque::new() };
    thread::Builder::new().name("tidemark-read".into()).spawn(move || readers.run(lane))?;
    Ok(())
}

/// What one thread reads.
struct Readers {
    shared: Arc<Shared>,
    /// By partition.
    readers: Vec<Option<InputReader>>,
    /// Partitions whose files are open.
    open: VecDeque<usize>,
}

impl Readers {
    fn run(mut self, lane: usize) {
        while let Some(turn) = self.shared.next_turn(lane) {
            match turn {
                Turn::Rest(resting) => {
                    for (partition, back) in resting {
                        if let Some((reader, (place, next))) = self.reader(partition).zip(back) {
                            reader.rewind(place, next);
                        }
                        self.close(partition);
                    }
                }
                Turn::Work { partition, back, task, chunk_bytes } => {
                    let shared = Arc::clone(&self.shared);
                    let Some(reader) = self.reader(partition) else { continue };
                    if let Some((place, next)) = back {
                        reader.rewind(place, next);
                    }
                    match task {
                        Task::Read => read(&shared, partition, reader, chunk_bytes),
                        Task::Look(next, opened) => {
                            let found = look(&shared, reader, (next, opened), chunk_bytes);
                            if let Some(found) = found.transpose() {
                                shared.put_found(partition, found);
                            }
                        }
                    }
                    self.note_open(partition);
                }
            }
        }
    }

    fn reader(&mut self, partition: usize) -> Option<&mut InputReader> {
        self.readers.get_mut(partition)?.as_mut()
    }

    fn close(&mut self, partition: usize) {
        if let Some(reader) = self.reader(partition) {
            reader.close();
        }
        self.open.retain(|open| *open != partition);
    }

    /// Closes the file that was opened first, where there are too many.
    fn note_open(&mut self, partition: usize) {
        let is_open = self.reader(partition).is_some_and(|reader| reader.is_open() && !reader.is_stream());
        match (is_open, self.open.contains(&partition)) {
            (true, false) => self.open.push_back(partition),
            (false, true) => self.open.retain(|open| *open != partition),
            _ => {}
        }
        if self.open.len() > MAX_OPEN_FILES
            && let Some(first) = self.open.pop_front()
        {
            self.close(first);
        }
    }
}

/// Reads the next block.
fn read(shared: &Shared, partition: usize, reader: &mut InputReader, chunk_bytes: usize) {
    while !shared.is_closed() {
        let next = reader.next(chunk_for(shared, reader, chunk_bytes));
        if matches!(next, Ok(Next::Passed)) {
            continue;
        }
        if let Some(unwanted) = shared.put(partition, next) {
            reader.rewind(unwanted.place, unwanted.block.first_offset.0);
        }
        return;
    }
}

/// Looks at the next events, and goes back to where it began. `None` when nobody waits for it any more.
fn look(
    shared: &Shared,
    reader: &mut InputReader,
    (next, opened): (u64, Micros),
    chunk_bytes: usize,
) -> Result<Option<(Found, Option<End>)>, SourceError> {
    reader.skip_to(next);
    let mut sight = Sight::new(&shared.judge, opened);
    let (mut back, mut end) = (None, None);
    while end.is_none() && !sight.is_done() {
        if shared.is_closed() {
            return Ok(None);
        }
        match reader.next(chunk_for(shared, reader, chunk_bytes))? {
            Next::Passed => {}
            Next::Block(digested) => {
                back.get_or_insert((digested.place, digested.block.first_offset.0));
                sight.add_all(digested.block.iter());
            }
            Next::End(met) => end = Some(met),
        }
    }
    match back {
        Some((place, first)) => reader.rewind(place, first),
        None => reader.close(),
    }
    Ok(Some((Found { next, opened, standing: sight.standing() }, end)))
}

/// What is only passed over is read in large pieces.
fn chunk_for(shared: &Shared, reader: &InputReader, chunk_bytes: usize) -> usize {
    if reader.is_behind() { shared.block_bytes().max(1) } else { chunk_bytes }
}
