//! Reads the partitions of this process: hands their blocks to its workers as part of the open epoch, and reports which
//! offsets those were. When an epoch is opened and closed is decided by the [leader](super::leader), in this process or
//! another; this reads its messages and follows them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tidemark_checkpoint::records::Position;
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Epoch, Micros, Offset, PartitionId};

use super::backpressure::{InFlight, Limits, Room};
use super::clock;
use super::lanes::Feeder;
use super::leader_link::{LeaderLink, Stop};
use crate::cluster::messages::{Message, Quota, Report};
use crate::source::{Pull, Source, source_bytes};

/// How long a reader sleeps when there is nothing to do and nothing wakes it.
pub(super) const IDLE: Duration = Duration::from_millis(5);

/// How long to rest where nothing comes: the longer nothing has come, the longer, and never so long that the first event
/// after it would be late by anything that one sees. What can wake a reader does; this is for what cannot.
#[derive(Debug, Default)]
struct Rest {
    rounds: u32,
}

impl Rest {
    /// Rounds after which it is quiet: half a second.
    const QUIET: u32 = 100;

    /// After a round that moved something, or did not.
    fn after(&mut self, moved: bool) -> Option<Duration> {
        self.rounds = if moved { 0 } else { self.rounds.saturating_add(1) };
        match self.rounds {
            0 => None,
            rounds if rounds < Self::QUIET => Some(IDLE),
            _ => Some(4 * IDLE),
        }
    }
}

/// What has been read so far, for those who show it.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// Events read.
    pub events: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// The newest epoch that was opened.
    pub epoch: AtomicU64,
}

/// What a reader is made of.
pub(super) struct Parts {
    /// Where events come from; resumed at the positions of the restored checkpoint.
    pub(super) source: Box<dyn Source>,
    /// Where blocks go.
    pub(super) feeder: Feeder,
    /// How much may be on its way.
    pub(super) limits: Limits,
    /// For those who watch.
    pub(super) counters: Arc<ReadCounters>,
    /// To the leader.
    pub(super) link: LeaderLink,
    /// From the leader.
    pub(super) mailbox: Receiver<Message>,
}

/// What a reader is at.
enum Task {
    /// Nothing is asked for. A live source is read all the same: the first event has an epoch opened.
    Idle,
    /// The leader wants to know how the partitions stand, for an epoch that is opened then.
    Looking(Micros),
    /// Reads whatever comes, until the epoch is closed.
    Live,
    /// Reads so many more events of each of these files.
    Files(Vec<(usize, u64)>),
    /// Reads what is left in the inbox, so many events at most.
    Rest(u64),
    /// The epoch is closed for this reader.
    Reporting,
}

/// A block that was read and not handed on.
struct Pending {
    partition: usize,
    block: Block,
    bytes: u64,
    /// There was room for it.
    admitted: bool,
}

/// The partitions that this process reads, and how far it has read them.
pub(super) struct PartitionReader {
    pub(super) parts: Parts,
    /// Which partitions those are.
    /// Their numbers ascend.
    pub(super) own: Vec<usize>,
    /// The offset of each partition that comes next.
    pub(super) positions: Vec<Offset>,
    /// How far each partition had been read at the last cut.
    pub(super) at_cut: Vec<Position>,
    /// Offsets without events that were passed over since the last cut.
    pub(super) missing: Vec<Vec<std::ops::Range<u64>>>,
    /// Which partitions give nothing any more.
    pub(super) ended: Vec<bool>,
    /// The epoch that is read, or comes next.
    pub(super) epoch: Epoch,
    /// When it was opened, if it is.
    pub(super) opened: Option<Micros>,
    task: Task,
    /// Where in `own` live reading goes on: behind the partition that gave the last block.
    turn: usize,
    /// What the leader has said and is not done yet, but for the end.
    queued: VecDeque<Message>,
    pending: Option<Pending>,
    in_flight: InFlight,
    /// Events and bytes of the open epoch.
    in_epoch: (u64, u64),
    /// What the leader has been told of the epoch: that it is wanted, and that it is full.
    told: (bool, bool),
    /// The leader has been told that nothing comes any more.
    over: bool,
    /// The least enqueued time of what other processes hold, as the leader said last.
    pub(super) others: Option<Micros>,
    /// The same of this process, as the leader was told last.
    pub(super) in_hand: Option<Micros>,
    /// When partitions were last looked for.
    pub(super) looked: Instant,
    /// Epochs up to this one are published in one group, so they do not wait for each other.
    pub(super) together: Epoch,
    /// Events and bytes that were reported.
    reported: (u64, u64),
}

impl PartitionReader {
    /// A reader that starts after `epoch`, at whose end the source had been read up to `at_cut`: a position for each
    /// partition, in order.
    pub(super) fn new(mut parts: Parts, epoch: Epoch, at_cut: Vec<Position>) -> Self {
        // The inbox has a position everywhere, and is a partition of process 0 alone.
        let own = (0..at_cut.len()).filter(|index| parts.source.reads(id_of(*index))).collect();
        parts.source.wakes(std::thread::current());
        PartitionReader {
            own,
            positions: at_cut.iter().map(|position| Offset(position.next)).collect(),
            missing: vec![Vec::new(); at_cut.len()],
            ended: vec![false; at_cut.len()],
            at_cut,
            epoch: epoch + 1,
            opened: None,
            task: Task::Idle,
            turn: 0,
            queued: VecDeque::new(),
            pending: None,
            in_flight: InFlight::default(),
            in_epoch: (0, 0),
            told: (false, false),
            over: false,
            others: None,
            in_hand: None,
            looked: Instant::now(),
            together: 0,
            reported: (0, 0),
            parts,
        }
    }

    /// Follows the leader until nothing more is to be read.
    ///
    /// # Errors
    ///
    /// [`Stop::Drained`] then; or when the source cannot be read, or something cannot be written.
    pub(super) fn follow(&mut self) -> Result<(), Stop> {
        let mut rest = Rest::default();
        loop {
            let mut moved = false;
            while let Ok(message) = self.parts.mailbox.try_recv() {
                if message == Message::Drain {
                    return Err(Stop::Drained);
                }
                self.queued.push_back(message);
            }
            // Of an epoch that is closed, the report comes first: the next one may be open already.
            while let Some(message) = self.queued.pop_front_if(|_| !matches!(self.task, Task::Reporting)) {
                self.take(message);
                moved = true;
            }
            self.parts.link.check()?;
            moved |= self.step()?;
            self.look_around();
            if let Some(rest) = rest.after(moved) {
                std::thread::park_timeout(rest);
            }
        }
    }

    /// Lets go of source and lanes; the link stays.
    pub(super) fn end(self) -> LeaderLink {
        self.parts.link
    }

    /// Whether this process reads a partition.
    pub(super) fn reads(&self, partition: usize) -> bool {
        self.own.binary_search(&partition).is_ok()
    }

    /// Does what the leader says.
    fn take(&mut self, message: Message) {
        match message {
            Message::Look(_, opened) => self.task = Task::Looking(opened),
            Message::Open(epoch, at, quota) => {
                // An epoch that nothing came in after all has given its number back.
                self.epoch = epoch;
                self.open_at(at);
                self.task = match quota {
                    Quota::Whatever => Task::Live,
                    Quota::Files(files) => {
                        let own = files.into_iter().map(|(index, events)| (index as usize, events));
                        Task::Files(own.filter(|(partition, _)| self.reads(*partition)).collect())
                    }
                    Quota::Rest(events) => Task::Rest(events),
                };
            }
            Message::Close(epoch) if epoch == self.epoch => self.task = Task::Reporting,
            Message::Join(joined) => self.join(&joined),
            Message::Align(others) => self.align(others),
            Message::OthersOver => self.parts.source.others_have_ended(),
            _ => {}
        }
    }

    /// Reads, hands on or reports a little. Returns whether anything has moved.
    fn step(&mut self) -> Result<bool, Stop> {
        if !self.hand_on()? {
            return Ok(false);
        }
        match std::mem::replace(&mut self.task, Task::Idle) {
            Task::Idle if self.parts.limits.live_events.is_some() => self.read_live(),
            Task::Idle => Ok(false),
            Task::Looking(opened) => {
                let standings = self.standings(opened)?;
                let known = standings.is_some();
                match standings {
                    Some(standings) => self.parts.link.send(Message::Standings(standings)),
                    None => self.task = Task::Looking(opened),
                }
                Ok(known)
            }
            Task::Live => {
                self.task = Task::Live;
                self.read_live()
            }
            Task::Files(files) => self.read_files(files),
            Task::Rest(events) => self.read_rest(events),
            Task::Reporting => {
                self.task = Task::Reporting;
                self.report()
            }
        }
    }

    /// Reads whatever has come, until there is a block that cannot be handed on. The partitions take turns, so that those
    /// that never run dry do not keep others waiting where there is little room.
    fn read_live(&mut self) -> Result<bool, Stop> {
        if self.is_full() {
            return Ok(false);
        }
        let mut moved = false;
        for at in self.turn..self.turn + self.own.len() {
            let at = at % self.own.len();
            let partition = self.own[at];
            let left = self.parts.limits.live_events.map_or(u64::MAX, |most| most.saturating_sub(self.in_epoch.0));
            if !self.ended[partition] && self.pull(partition, left, clock::steady())? {
                moved = true;
                self.turn = at + 1;
                if !self.hand_on()? || self.is_full() {
                    return Ok(true);
                }
            }
        }
        if !self.over && self.own.iter().all(|partition| self.ended[*partition]) {
            self.over = true;
            self.parts.link.send(Message::Over);
        }
        Ok(moved)
    }

    /// Whether the open epoch holds as much as it may. The leader is told, and closes it.
    fn is_full(&mut self) -> bool {
        let Limits { live_events, bytes, .. } = self.parts.limits;
        let full =
            self.in_epoch.0 > 0 && live_events.is_some_and(|most| self.in_epoch.0 >= most || self.in_epoch.1 >= bytes);
        if full && !std::mem::replace(&mut self.told.1, true) {
            self.parts.link.send(Message::Full(self.epoch));
        }
        full
    }

    /// Reads the next blocks of files that still have to give something. What comes to the inbox meanwhile goes into the
    /// same epoch.
    fn read_files(&mut self, mut files: Vec<(usize, u64)>) -> Result<bool, Stop> {
        let mut moved = false;
        for (partition, left) in &mut files {
            while *left > 0 {
                let before = self.positions[*partition].0;
                if !self.pull(*partition, *left, clock::now())? {
                    if self.ended[*partition] {
                        *left = 0;
                        moved = true;
                    }
                    break;
                }
                moved = true;
                let end = self.pending.as_ref().map_or(before, |pending| pending.end());
                *left = left.saturating_sub(end.saturating_sub(before));
                if !self.hand_on()? {
                    self.task = Task::Files(files);
                    return Ok(true);
                }
            }
        }
        files.retain(|(_, left)| *left > 0);
        if let Some(inbox) = self.inbox().filter(|_| !moved || files.is_empty()) {
            moved |= self.pull(inbox, u64::MAX, clock::now())?;
        }
        moved |= files.is_empty();
        self.task = if files.is_empty() { Task::Reporting } else { Task::Files(files) };
        Ok(moved)
    }

    /// The partition that is no file: the runtime adds it behind those of the source.
    fn inbox(&self) -> Option<usize> {
        let inbox = |partition: &&usize| self.parts.source.is_beside(id_of(**partition));
        self.own.iter().find(inbox).copied().filter(|partition| !self.ended[*partition])
    }

    /// Reads from the inbox, once no file has anything more.
    fn read_rest(&mut self, left: u64) -> Result<bool, Stop> {
        self.parts.source.others_have_ended();
        // A file that was at its end from the beginning has not said so yet.
        for at in 0..self.own.len() {
            let partition = self.own[at];
            if !self.ended[partition] && !self.parts.source.is_beside(id_of(partition)) {
                self.pull(partition, 1, clock::now())?;
            }
        }
        let Some(inbox) = self.inbox() else {
            self.task = Task::Reporting;
            return Ok(true);
        };
        if left > 0 && self.pull(inbox, left, clock::now())? {
            let events = self.pending.as_ref().map_or(0, |pending| pending.block.len() as u64);
            self.task = Task::Rest(left.saturating_sub(events));
            return Ok(true);
        }
        // Until a look has found nothing, there may be more.
        let known = left == 0 || self.ended[inbox];
        self.task = if known { Task::Reporting } else { Task::Rest(left) };
        Ok(known)
    }

    /// Takes the next block of a partition, to be handed on. Returns whether there was one.
    pub(super) fn pull(&mut self, partition: usize, at_most: u64, now: Micros) -> Result<bool, Stop> {
        let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
        match self.parts.source.pull(id_of(partition), self.positions[partition], at_most, now)? {
            Pull::Pending => Ok(false),
            Pull::End => {
                self.ended[partition] = true;
                Ok(false)
            }
            Pull::Block(block) => {
                let bytes = source_bytes(&block);
                self.pending = Some(Pending { partition, block, bytes, admitted: false });
                Ok(true)
            }
        }
    }

    /// Hands on the block that was read last, if there is one. Returns whether there is none any more: it may have to wait
    /// for its epoch, for room or for a worker.
    pub(super) fn hand_on(&mut self) -> Result<bool, Stop> {
        let Some(mut pending) = self.pending.take() else { return Ok(true) };
        let Some(opened) = self.opened else {
            if !std::mem::replace(&mut self.told.0, true) {
                self.parts.link.send(Message::Wanted(self.epoch));
            }
            self.pending = Some(pending);
            return Ok(false);
        };
        if !pending.admitted && !self.has_room(pending.bytes) {
            self.pending = Some(pending);
            return Ok(false);
        }
        pending.admitted = true;
        let Pending { partition, mut block, bytes, admitted } = pending;
        if matches!(block.arrival, Arrival::Opening(_)) {
            block.arrival = Arrival::Opening(opened);
        }
        let (first, events) = (block.first_offset.0, block.len() as u64);
        if let Some(block) = self.parts.feeder.offer(self.epoch, block) {
            self.pending = Some(Pending { partition, block, bytes, admitted });
            return Ok(false);
        }
        let next = &mut self.positions[partition].0;
        if first > *next {
            self.missing[partition].push(*next..first);
        }
        *next = first + events;
        self.parts.counters.events.fetch_add(events, Ordering::Relaxed);
        self.parts.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.in_flight.add(bytes);
        self.in_epoch = (self.in_epoch.0 + events, self.in_epoch.1 + bytes);
        Ok(true)
    }

    /// Whether `bytes` more may be on their way.
    fn has_room(&mut self, bytes: u64) -> bool {
        self.in_flight.note(self.parts.link.reached());
        let room = self.in_flight.room(bytes, self.parts.limits);
        if self.epoch <= self.together {
            return true;
        }
        if room == Room::AfterPublication {
            self.parts.link.hurry();
        }
        room == Room::Enough
    }

    /// Takes up that the epoch is open.
    pub(super) fn open_at(&mut self, at: Micros) {
        self.opened = Some(at);
        if self.in_flight.begin(self.epoch) {
            self.parts.counters.epoch.store(self.epoch, Ordering::Relaxed);
        }
    }

    /// Turns to the next epoch.
    pub(super) fn go_on_after(&mut self, epoch: Epoch) {
        (self.opened, self.epoch) = (None, epoch + 1);
        (self.in_epoch, self.told) = ((0, 0), (false, false));
    }

    /// Reports what was read of the epoch, once it is known how the partitions stand; returns whether it is.
    fn report(&mut self) -> Result<bool, Stop> {
        let Some(opened) = self.opened else {
            self.task = Task::Idle;
            return Ok(true);
        };
        let Some(standings) = self.standings(opened)? else { return Ok(false) };
        let epoch = self.epoch;
        let (ranges, missing) = self.take_ranges();
        self.go_on_after(epoch);
        self.task = Task::Idle;
        let counters = &self.parts.counters;
        let read = (counters.events.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed));
        let before = std::mem::replace(&mut self.reported, read);
        let read = (read.0 - before.0, read.1 - before.1);
        self.parts.link.send(Message::Report(Report { epoch, ranges, missing, standings, read }));
        self.align(self.others);
        Ok(true)
    }
}

impl Pending {
    fn end(&self) -> u64 {
        self.block.first_offset.0 + self.block.len() as u64
    }
}

pub(super) fn id_of(partition: usize) -> PartitionId {
    PartitionId(u32::try_from(partition).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_only_where_nothing_has_come_for_long() {
        let mut rest = Rest::default();
        assert_eq!(rest.after(true), None);
        assert!((1..Rest::QUIET).all(|_| rest.after(false) == Some(IDLE)));
        assert_eq!((rest.after(false), rest.after(false)), (Some(4 * IDLE), Some(4 * IDLE)));
        assert_eq!((rest.after(true), rest.after(false)), (None, Some(IDLE)));
    }
}
