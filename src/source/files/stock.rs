//! What lies on the shelves, and what a thread has to do next.

use std::collections::VecDeque;
use std::thread::Thread;
use std::time::Instant;

use tidemark_dataflows::event::Micros;

use super::cursor::Digested;
use super::heads::{Found, Judge};
use super::input::Place;
use super::options::ReadAhead;
use crate::source::SourceError;

/// How reading a partition ended.
pub(super) enum Ending {
    AtEnd,
    Failed(SourceError),
}

/// What is known of a partition, and what is wanted of it.
pub(super) struct Shelf {
    pub(super) lane: usize,
    pub(super) blocks: VecDeque<Digested>,
    pub(super) ending: Option<Ending>,
    /// How many events it has, once its end has been met.
    pub(super) events: Option<u64>,
    /// Its last line, if that is no event.
    pub(super) half: Option<Digested>,
    /// It is pulled at present.
    pub(super) active: bool,
    /// It stands among those of its lane that are read ahead.
    pub(super) queued: bool,
    /// It stands in the questions of its lane.
    pub(super) asked: bool,
    /// Somebody waits for it.
    pub(super) awaited: bool,
    /// The next events of a partition that is not pulled are wanted: from where on, and for which opening.
    pub(super) look: Option<(u64, Micros)>,
    pub(super) found: Option<Found>,
    /// Where its reader has to go back to, since blocks were given back.
    pub(super) rewind: Back,
}

impl Shelf {
    /// That of a partition which this lane reads. One that nobody reads here has as many events as it is given.
    pub(super) fn new(lane: usize, events: Option<u64>) -> Self {
        Self {
            lane,
            blocks: VecDeque::new(),
            ending: events.map(|_| Ending::AtEnd),
            events,
            half: None,
            active: false,
            queued: false,
            asked: false,
            awaited: false,
            look: None,
            found: None,
            rewind: None,
        }
    }

    /// Whether it is to be read ahead.
    fn has_room(&self, settings: &ReadAhead) -> bool {
        self.active && self.ending.is_none() && self.blocks.len() < settings.blocks
    }

    pub(super) fn failure(&self) -> Option<&SourceError> {
        self.ending.as_ref().and_then(|ending| match ending {
            Ending::Failed(error) => Some(error),
            Ending::AtEnd => None,
        })
    }
}

/// What one thread has to read.
#[derive(Default)]
pub(super) struct Lane {
    /// Partitions that somebody waits for, in turn.
    pub(super) questions: VecDeque<usize>,
    /// Partitions that are read ahead and have room, in turn.
    pub(super) ahead: VecDeque<usize>,
    /// Partitions that have just come to rest.
    pub(super) resting: Vec<usize>,
}

pub(super) struct Stock {
    pub(super) shelves: Vec<Shelf>,
    pub(super) lanes: Vec<Lane>,
    /// Memory of all blocks on all shelves.
    pub(super) bytes: usize,
    /// How many partitions are pulled at present.
    pub(super) reading: usize,
    /// The consumer is gone.
    pub(super) closed: bool,
    /// The thread to wake, and when it was woken last.
    pub(super) consumer: Option<(Thread, Instant)>,
    /// Something has come that it waits for, and it was not woken yet.
    pub(super) owed: bool,
}

/// Where a reader has to go back to, and the first event that is wanted from there.
pub(super) type Back = Option<(Place, u64)>;

/// What a thread has to do next.
pub(super) enum Turn {
    /// Close these: nobody reads them at present.
    Rest(Vec<(usize, Back)>),
    /// Read.
    Work { partition: usize, back: Back, task: Task, chunk_bytes: usize },
}

#[derive(Copy, Clone)]
pub(super) enum Task {
    /// Read one more block.
    Read,
    /// Look at the events from this one on, for an epoch that is opened at that instant.
    Look(u64, Micros),
}

impl Stock {
    /// Puts a partition in the queue of its reader; in front where a pull waits for it.
    pub(super) fn ask(&mut self, partition: usize, first: bool) {
        let Some(shelf) = self.shelves.get_mut(partition) else { return };
        shelf.awaited = true;
        if std::mem::replace(&mut shelf.asked, true) {
            return;
        }
        let questions = &mut self.lanes[shelf.lane].questions;
        if first { questions.push_front(partition) } else { questions.push_back(partition) }
    }

    /// Gives back the blocks of a file from the one at `kept` on. `at_hand` lies before all of them.
    pub(super) fn give_back(&mut self, partition: usize, kept: usize, at_hand: Back) {
        let Some(shelf) = self.shelves.get_mut(partition).filter(|shelf| shelf.lane == 0) else { return };
        let begin = |digested: &Digested| (digested.place, digested.block.first_offset.0);
        let Some(back) = at_hand.or_else(|| shelf.blocks.get(kept).map(begin)) else { return };
        self.bytes -= shelf.blocks.drain(kept..).map(|digested| digested.memory()).sum::<usize>();
        if shelf.failure().is_none() {
            (shelf.ending, shelf.half) = (None, None);
        }
        shelf.rewind = Some(back);
    }

    /// Wakes the consumer, if something has come that it waits for.
    pub(super) fn wake(&mut self) {
        if let Some((thread, woken)) = self.consumer.as_mut().filter(|_| self.owed) {
            (*woken, self.owed) = (Instant::now(), false);
            thread.unpark();
        }
    }

    /// The next thing to do in a lane, if there is any.
    pub(super) fn turn(&mut self, lane: usize, settings: &ReadAhead, judge: &Judge) -> Option<Turn> {
        let resting = std::mem::take(&mut self.lanes[lane].resting);
        if !resting.is_empty() {
            let back = |partition: usize| (partition, self.shelves[partition].rewind.take());
            return Some(Turn::Rest(resting.into_iter().map(back).collect()));
        }
        let question = self.question(lane);
        if question.is_none() {
            self.wake();
        }
        let (partition, task) = question.or_else(|| Some((self.ahead(lane, settings)?, Task::Read)))?;
        let chunk_bytes = match task {
            Task::Read => settings.block_bytes_for(self.reading),
            Task::Look(..) => judge.expected_bytes().clamp(1, settings.block_bytes.max(1)),
        };
        let back = self.shelves[partition].rewind.take();
        Some(Turn::Work { partition, back, task, chunk_bytes })
    }

    /// The next question that is still one.
    fn question(&mut self, lane: usize) -> Option<(usize, Task)> {
        while let Some(partition) = self.lanes[lane].questions.pop_front() {
            let shelf = &mut self.shelves[partition];
            shelf.asked = false;
            if shelf.ending.is_some() {
                continue;
            }
            let look = shelf.look.take().filter(|_| !shelf.active);
            return Some((partition, look.map_or(Task::Read, |(next, opened)| Task::Look(next, opened))));
        }
        None
    }

    /// Lines a partition up to be read ahead, if there is room on its shelf.
    pub(super) fn queue(&mut self, partition: usize, settings: &ReadAhead) {
        let Some(shelf) = self.shelves.get_mut(partition) else { return };
        if shelf.has_room(settings) && !std::mem::replace(&mut shelf.queued, true) {
            self.lanes[shelf.lane].ahead.push_back(partition);
        }
    }

    /// The next partition that can be read ahead.
    fn ahead(&mut self, lane: usize, settings: &ReadAhead) -> Option<usize> {
        while self.bytes < settings.total_bytes {
            let partition = self.lanes[lane].ahead.pop_front()?;
            let shelf = &mut self.shelves[partition];
            shelf.queued = false;
            if shelf.has_room(settings) {
                return Some(partition);
            }
        }
        None
    }
}
