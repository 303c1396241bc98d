//! What has been read and not yet taken, between the threads that read and the one that consumes.
//!
//! Only partitions that are pulled are read ahead, within a fixed amount of memory. Of the others the next few events are
//! looked at when somebody asks, and nothing of them stays.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tidemark_dataflows::event::Micros;

use super::cursor::{Cursor, Digested};
use super::heads::{Found, Judge, Sight};
use super::input::{End, InputReader, Next};
use super::options::ReadAhead;
use super::reader;
use super::stock::{Back, Ending, Lane, Shelf, Stock, Turn};
use crate::source::{Head, SourceError, Standing};

/// The consumer is woken for answers at most this often while there are more questions.
const BETWEEN_WAKES: Duration = Duration::from_millis(5);

/// What the stock of a partition holds.
pub(super) enum Taken {
    Block(Digested),
    Pending,
    End,
}

/// What the threads share.
pub(super) struct Shared {
    settings: ReadAhead,
    pub(super) judge: Arc<Judge>,
    stock: Mutex<Stock>,
    /// Something was added for the consumer.
    filled: Condvar,
    /// Something changed for the readers.
    changed: Condvar,
}

/// The consumer's end. Dropping it stops the threads.
pub(super) struct Ahead {
    shared: Arc<Shared>,
}

impl Ahead {
    /// Starts the threads. `readers` are in the order of their partitions; one that has none is at its end, which is the
    /// number of events beside it.
    pub(super) fn start(
        readers: Vec<(Option<InputReader>, u64)>,
        settings: ReadAhead,
        judge: Arc<Judge>,
        consumer: Option<Thread>,
    ) -> io::Result<Self> {
        let mut lanes: Vec<Vec<(usize, InputReader)>> = vec![Vec::new()];
        let mut shelves = Vec::with_capacity(readers.len());
        for (index, (reader, events)) in readers.into_iter().enumerate() {
            let is_stream = reader.as_ref().is_some_and(InputReader::is_stream);
            let lane = if is_stream { lanes.len() } else { 0 };
            shelves.push(Shelf::new(lane, reader.is_none().then_some(events)));
            match reader {
                Some(reader) if is_stream => lanes.push(vec![(index, reader)]),
                Some(reader) => lanes[0].push((index, reader)),
                None => {}
            }
        }
        let stock = Stock {
            shelves,
            lanes: lanes.iter().map(|_| Lane::default()).collect(),
            bytes: 0,
            reading: 0,
            closed: false,
            consumer: consumer.map(|thread| (thread, Instant::now())),
            owed: false,
        };
        let (filled, changed) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { settings, judge, stock: Mutex::new(stock), filled, changed });
        let ahead = Self { shared: Arc::clone(&shared) };
        for (lane, readers) in lanes.into_iter().enumerate().filter(|(_, readers)| !readers.is_empty()) {
            reader::spawn(Arc::clone(&shared), lane, readers)?;
        }
        Ok(ahead)
    }

    /// Names the thread that is woken when something has come. Nothing waits for it here from then on.
    pub(super) fn wakes(&self, consumer: Thread) {
        self.shared.lock().consumer = Some((consumer, Instant::now()));
    }

    /// Reads a partition ahead from now on.
    pub(super) fn activate(&self, partition: usize) {
        let mut stock = self.shared.lock();
        let Some(shelf) = stock.shelves.get_mut(partition) else { return };
        if !std::mem::replace(&mut shelf.active, true) {
            stock.reading += 1;
            stock.queue(partition, &self.shared.settings);
            self.shared.changed.notify_all();
        }
    }

    /// Gives back what was read ahead of a partition that is not pulled any more. `at_hand` is where its reader has to
    /// begin again, if the consumer had a block of it at hand. Streams keep what they have.
    pub(super) fn release(&self, partition: usize, at_hand: Back) {
        let mut stock = self.shared.lock();
        let Some(shelf) = stock.shelves.get_mut(partition) else { return };
        let (lane, was_active) = (shelf.lane, std::mem::take(&mut shelf.active));
        stock.reading -= usize::from(was_active);
        stock.give_back(partition, 0, at_hand);
        stock.lanes[lane].resting.push(partition);
        self.shared.changed.notify_all();
    }

    /// Takes the next block of `partition`. Waits for it until `deadline`, where nobody is woken.
    pub(super) fn take(&self, partition: usize, deadline: Instant) -> Result<Taken, SourceError> {
        let mut stock = self.shared.lock();
        loop {
            let Some(shelf) = stock.shelves.get_mut(partition) else { return Ok(Taken::End) };
            if let Some(block) = shelf.blocks.pop_front() {
                stock.bytes -= block.memory();
                stock.queue(partition, &self.shared.settings);
                self.shared.changed.notify_all();
                return Ok(Taken::Block(block));
            }
            match &shelf.ending {
                Some(Ending::AtEnd) => return Ok(Taken::End),
                Some(Ending::Failed(error)) => return Err(error.clone()),
                None => {}
            }
            stock.ask(partition, true);
            stock = match self.shared.wait(stock, deadline) {
                Some(stock) => stock,
                None => return Ok(Taken::Pending),
            };
        }
    }

    /// The last line of `partition`, if that is no event: it was one for earlier versions.
    pub(super) fn take_half(&self, partition: usize) -> Option<Digested> {
        let mut stock = self.shared.lock();
        let shelf = stock.shelves.get_mut(partition)?;
        let half = shelf.half.take()?;
        shelf.events = shelf.events.map(|events| events + 1);
        Some(half)
    }

    /// How many events a partition has, once that is known.
    pub(super) fn events(&self, partition: usize) -> Option<u64> {
        self.shared.lock().shelves.get(partition)?.events
    }

    /// Whether anything more of a stream has come than the consumer has at hand: then it is behind, without a look at it.
    pub(super) fn has_come(&self, partition: usize) -> Result<Option<Standing>, SourceError> {
        let mut stock = self.shared.lock();
        let Some(shelf) = stock.shelves.get(partition) else { return Ok(Some(Standing::CaughtUp)) };
        if !shelf.blocks.is_empty() {
            return Ok(Some(Standing::Behind(Head::NONE)));
        }
        match &shelf.ending {
            Some(Ending::AtEnd) => return Ok(Some(Standing::CaughtUp)),
            Some(Ending::Failed(error)) => return Err(error.clone()),
            None => {}
        }
        stock.ask(partition, false);
        self.shared.changed.notify_all();
        Ok(None)
    }

    /// What is left of a partition that is not pulled, from `next` on. Waits for it until `deadline`, where nobody is
    /// woken.
    pub(super) fn look(
        &self,
        partition: usize,
        (next, opened): (u64, Micros),
        deadline: Instant,
    ) -> Result<Option<Standing>, SourceError> {
        let mut stock = self.shared.lock();
        loop {
            let Some(shelf) = stock.shelves.get_mut(partition) else { return Ok(Some(Standing::CaughtUp)) };
            if let Some(error) = shelf.failure() {
                return Err(error.clone());
            }
            if shelf.events == Some(next) {
                return Ok(Some(Standing::CaughtUp));
            }
            if let Some(found) = shelf.found.take_if(|found| found.answers(next, opened)) {
                return Ok(Some(found.standing));
            }
            shelf.look = Some((next, opened));
            stock.ask(partition, false);
            stock = match self.shared.wait(stock, deadline) {
                Some(stock) => stock,
                None => return Ok(None),
            };
        }
    }

    /// The same for one that is pulled, or is a stream: it is looked for in what the consumer has at hand and in stock.
    pub(super) fn sight(
        &self,
        (partition, cursor): (usize, &Cursor),
        (next, opened): (u64, Micros),
        deadline: Instant,
    ) -> Result<Option<Standing>, SourceError> {
        let mut stock = self.shared.lock();
        loop {
            let Some(shelf) = stock.shelves.get(partition) else { return Ok(Some(Standing::CaughtUp)) };
            let mut sight = Sight::new(&self.shared.judge, opened);
            let ahead = shelf.blocks.iter().flat_map(|digested| digested.block.iter());
            let rest = cursor.rest().chain(ahead).filter(|body| body.at.offset.0 >= next);
            let done = sight.add_all(rest);
            match &shelf.ending {
                Some(Ending::Failed(error)) if !done => return Err(error.clone()),
                None if !done => {}
                _ => {
                    let standing = sight.standing();
                    self.shared.trim(&mut stock, partition);
                    return Ok(Some(standing));
                }
            }
            stock.ask(partition, false);
            stock = match self.shared.wait(stock, deadline) {
                Some(stock) => stock,
                None => return Ok(None),
            };
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// No holder of the lock can leave the stock half changed, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the consumer is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for something to come, where nobody is woken for it; `None` when that takes too long.
    fn wait<'a>(&self, stock: MutexGuard<'a, Stock>, deadline: Instant) -> Option<MutexGuard<'a, Stock>> {
        self.changed.notify_all();
        let left = deadline.saturating_duration_since(Instant::now());
        if stock.consumer.is_some() || left.is_zero() {
            return None;
        }
        Some(self.filled.wait_timeout(stock, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until there is something to do in a lane; `None` when there never will be.
    pub(super) fn next_turn(&self, lane: usize) -> Option<Turn> {
        let mut stock = self.lock();
        loop {
            if stock.closed {
                return None;
            }
            if let Some(turn) = stock.turn(lane, &self.settings, &self.judge) {
                return Some(turn);
            }
            stock = self.changed.wait(stock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Bytes to read at once where nothing of them is kept.
    pub(super) fn block_bytes(&self) -> usize {
        self.settings.block_bytes
    }

    /// Takes in what was read. Gives back a block that nobody wants any more.
    pub(super) fn put(&self, partition: usize, read: Result<Next, SourceError>) -> Option<Digested> {
        let mut stock = self.lock();
        let shelf = &mut stock.shelves[partition];
        let mut unwanted = None;
        match read {
            Ok(Next::Block(block)) if (shelf.active || shelf.lane > 0) && shelf.rewind.is_none() => {
                let memory = block.memory();
                shelf.blocks.push_back(block);
                stock.bytes += memory;
            }
            Ok(Next::Block(block)) => unwanted = Some(block),
            Ok(Next::Passed) => {}
            Ok(Next::End(End { events, half })) => {
                shelf.events = Some(events);
                if shelf.rewind.is_none() {
                    (shelf.ending, shelf.half) = (Some(Ending::AtEnd), half);
                }
            }
            Err(error) => shelf.ending = Some(Ending::Failed(error)),
        }
        stock.queue(partition, &self.settings);
        self.tell(&mut stock, partition);
        unwanted
    }

    /// Takes in what was found of a partition that is not pulled; where its end was met, too.
    pub(super) fn put_found(&self, partition: usize, found: Result<(Found, Option<End>), SourceError>) {
        let mut stock = self.lock();
        let shelf = &mut stock.shelves[partition];
        match found {
            Ok((found, end)) => {
                shelf.found = Some(found);
                if let Some(End { events, half }) = end {
                    shelf.events = Some(events);
                    if found.standing == Standing::CaughtUp {
                        (shelf.ending, shelf.half) = (Some(Ending::AtEnd), half);
                    }
                }
            }
            Err(error) => shelf.ending = Some(Ending::Failed(error)),
        }
        self.tell(&mut stock, partition);
    }

    /// Notes that something has come, and wakes the consumer if he waits for it: at the last answer, or from time to time.
    fn tell(&self, stock: &mut Stock, partition: usize) {
        self.filled.notify_all();
        let shelf = &mut stock.shelves[partition];
        stock.owed |= std::mem::take(&mut shelf.awaited);
        let more = !stock.lanes[shelf.lane].questions.is_empty();
        let late = stock.consumer.as_ref().is_some_and(|(_, woken)| woken.elapsed() >= BETWEEN_WAKES);
        if !more || late {
            stock.wake();
        }
    }

    /// Gives back what a look has brought of a file beyond its share, where there is no room for it.
    fn trim(&self, stock: &mut Stock, partition: usize) {
        if stock.bytes <= self.settings.total_bytes {
            return;
        }
        let share = self.settings.share(stock.reading);
        let mut bytes = 0;
        let within = |digested: &&Digested| {
            bytes += digested.memory();
            bytes <= share
        };
        let kept = stock.shelves[partition].blocks.iter().take_while(within).count();
        stock.give_back(partition, kept, None);
    }
}
