//! The epochs that are open or not yet cut: puts together what each process has read of them, and cuts them in order.
//!
//! Only process 0 has one. It knows nothing of when to open and to close: see [`super::coordinator`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::{Cut, Position, Range};
use tidemark_dataflows::event::{Epoch, Micros};

use super::clock;
use super::pace::Pace;
use super::share::{Intake, go_to_end};
use crate::checkpoint::cuts::{Announced, CutWriter};
use crate::cluster::links::Links;
use crate::cluster::messages::{Message, Report};
use crate::telemetry::{PartitionMeter, Stage, Telemetry};

/// What a cutter works with.
pub(super) struct Parts {
    /// Where cuts go.
    pub(super) cuts: CutWriter,
    /// When a checkpoint is due; none where nothing is kept.
    pub(super) pace: Option<Pace>,
    /// For whoever watches.
    pub(super) intake: Arc<Intake>,
    /// The same of epochs and partitions.
    pub(super) telemetry: Arc<Telemetry>,
    /// The other processes, if there are any.
    pub(super) links: Option<&'static Links>,
    /// Whether a process whose partitions have ended takes no part in later epochs. If not, it is asked at the end of
    /// each.
    pub(super) ends_by_itself: bool,
}

/// Cuts epochs.
pub(super) struct Cutter {
    intake: Arc<Intake>,
    links: Option<&'static Links>,
    ends_by_itself: bool,
    state: Mutex<State>,
}

struct State {
    /// None once nothing is cut any more.
    cuts: Option<CutWriter>,
    pace: Option<Pace>,
    telemetry: Arc<Telemetry>,
    /// How far each partition had been read at the last cut.
    at_cut: Vec<Position>,
    /// The epoch that is cut next.
    next: Epoch,
    /// The epochs from that one on.
    open: VecDeque<Open>,
    /// Which processes have said that nothing comes from them any more.
    over: Vec<bool>,
    /// Nothing is opened any more.
    closed: bool,
}

/// An epoch that is not cut yet.
struct Open {
    opened: Micros,
    /// What each process has read of it.
    parts: Vec<Option<(Vec<Range>, u64)>>,
}

impl Cutter {
    /// A cutter that goes on after `epoch`, at whose end the source had been read up to `at_cut`.
    pub(super) fn new(parts: Parts, epoch: Epoch, at_cut: Vec<Position>) -> Cutter {
        let Parts { cuts, pace, intake, telemetry, links, ends_by_itself } = parts;
        let meter = |at: &Position| PartitionMeter { name: at.partition.clone(), next: AtomicU64::new(at.next) };
        telemetry.partitions.get_or_init(|| at_cut.iter().map(meter).collect());
        let processes = links.map_or(1, |links| links.member().processes());
        let state = State {
            cuts: Some(cuts),
            pace,
            telemetry,
            at_cut,
            next: epoch + 1,
            open: VecDeque::new(),
            over: vec![false; processes],
            closed: false,
        };
        Cutter { intake, links, ends_by_itself, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an epoch now, unless it is open. Returns when it was opened; `None` where nothing is opened any more, or
    /// the epoch is not the next.
    pub(super) fn open(&self, epoch: Epoch) -> Option<Micros> {
        self.lock().open(epoch, self.links)
    }

    /// When an epoch was opened, if it is open.
    pub(super) fn opened(&self, epoch: Epoch) -> Option<Micros> {
        self.lock().of(epoch).map(|open| open.opened)
    }

    /// Takes down what process `from` has read of an epoch, and cuts it if that was the last. Then the next epoch is
    /// opened for a process whose partitions go on.
    pub(super) fn report(&self, from: usize, report: Report) {
        let mut state = self.lock();
        if from > 0 {
            self.intake.events.fetch_add(report.read.0, Ordering::Relaxed);
            self.intake.bytes.fetch_add(report.read.1, Ordering::Relaxed);
        }
        if let Some(over) = state.over.get_mut(from) {
            *over |= report.over;
        }
        let Some(open) = state.of(report.epoch) else { return };
        if let Some(part) = open.parts.get_mut(from) {
            *part = Some((report.ranges, report.missing));
        }
        state.settle(self.ends_by_itself);
        if from > 0 && self.ends_by_itself && !report.over {
            state.open(report.epoch + 1, self.links);
        }
    }

    /// Notes that nothing comes any more from the partitions of a process.
    pub(super) fn over(&self, process: usize) {
        let mut state = self.lock();
        if let Some(over) = state.over.get_mut(process) {
            *over = true;
        }
        state.settle(self.ends_by_itself);
    }

    /// Whether nothing comes any more from all other processes.
    pub(super) fn others_are_over(&self) -> bool {
        self.links.is_none() || self.lock().over.iter().skip(1).all(|over| *over)
    }

    /// Whether an epoch waits for another process.
    pub(super) fn awaits_others(&self, epoch: Epoch) -> bool {
        if self.links.is_none() {
            return false;
        }
        let state = self.lock();
        let index = epoch.checked_sub(state.next).and_then(|index| usize::try_from(index).ok());
        let Some(open) = index.and_then(|index| state.open.get(index)) else { return false };
        open.parts.iter().zip(&state.over).skip(1).any(|(part, over)| part.is_none() && !over)
    }

    /// Asks all other processes what they have read of an epoch.
    pub(super) fn close(&self, epoch: Epoch) {
        if let Some(links) = self.links {
            links.broadcast(&Message::Close(epoch));
        }
    }

    /// From now on no epoch is opened.
    pub(super) fn open_no_more(&self) {
        self.lock().closed = true;
    }

    /// Forgets the epochs that are not cut.
    pub(super) fn discard(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.open.clear();
    }

    /// Whether every epoch that was opened has been cut.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().open.is_empty()
    }

    /// Asks for a checkpoint as of the last cut, if one is due.
    pub(super) fn checkpoint(&self) {
        self.lock().checkpoint(false);
    }

    /// Cuts nothing any more: asks for a last checkpoint, and lets go of the writer of cuts. Returns the last epoch.
    pub(super) fn finish(&self) -> Epoch {
        self.discard();
        let mut state = self.lock();
        state.checkpoint(true);
        state.cuts = None;
        state.pace = None;
        state.next - 1
    }
}

impl State {
    fn of(&mut self, epoch: Epoch) -> Option<&mut Open> {
        let index = usize::try_from(epoch.checked_sub(self.next)?).ok()?;
        self.open.get_mut(index)
    }

    fn open(&mut self, epoch: Epoch, links: Option<&Links>) -> Option<Micros> {
        if let Some(open) = self.of(epoch) {
            return Some(open.opened);
        }
        if self.closed || epoch != self.next + self.open.len() as u64 {
            return None;
        }
        let opened = clock::now();
        self.telemetry.stages.reached(Stage::Opened, epoch);
        self.open.push_back(Open { opened, parts: self.over.iter().map(|_| None).collect() });
        if let Some(links) = links {
            links.broadcast(&Message::Open(epoch, opened));
        }
        Some(opened)
    }

    /// Cuts the epochs that nothing more is to be known of, in order.
    fn settle(&mut self, ends_by_itself: bool) {
        loop {
            let whole = |open: &&Open| {
                let mut parts = open.parts.iter().zip(&self.over);
                parts.all(|(part, over)| part.is_some() || (ends_by_itself && *over))
            };
            if self.open.front().filter(whole).is_none() {
                return;
            }
            let Some(open) = self.open.pop_front() else { return };
            if !self.cut(open) {
                // Nothing came in it, so nothing comes after it.
                return;
            }
        }
    }

    /// Cuts the next epoch, unless it is empty.
    fn cut(&mut self, open: Open) -> bool {
        let (mut ranges, mut missing) = (Vec::new(), 0);
        for (part, holes) in open.parts.into_iter().flatten() {
            ranges.extend(part);
            missing += holes;
        }
        if ranges.is_empty() {
            return false;
        }
        // Each process has its own in order.
        ranges.sort_by_key(|range: &Range| range.index);
        go_to_end(&mut self.at_cut, &ranges);
        let meters = self.telemetry.partitions.get().into_iter().flatten();
        self.at_cut.iter().zip(meters).for_each(|(at, meter)| meter.next.store(at.next, Ordering::Relaxed));
        // Where processes do not wait for each other, the next epoch is open already: this one has ended where that one
        // begins, so that epochs do not overlap. The clock may be set back at any time; an epoch that closes before it
        // opened would confuse every reader.
        let closed = self.open.front().map_or_else(clock::now, |next| next.opened).max(open.opened);
        let cut = Cut { epoch: self.next, opened_us: open.opened.0, closed_us: closed.0, ranges };
        if let Some(cuts) = &self.cuts {
            cuts.write(Announced::Cut(cut, missing));
        }
        self.next += 1;
        self.checkpoint(false);
        true
    }

    fn checkpoint(&mut self, last: bool) {
        let epoch = self.next - 1;
        let (Some(pace), Some(cuts)) = (self.pace.as_mut().filter(|pace| pace.is_due(epoch, last)), &self.cuts) else {
            return;
        };
        pace.ask(epoch, self.at_cut.clone());
        self.telemetry.ask_for_checkpoint(epoch, clock::now());
        cuts.write(Announced::Checkpoint(epoch));
        reach("checkpoint-asked");
    }
}
