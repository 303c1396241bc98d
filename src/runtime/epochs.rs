//! The protocol of epochs, as a state machine: what the leader does when something is reported to it, or time has passed.
//!
//! It opens epochs, aligns files and live partitions, closes epochs, cuts them in order and asks for checkpoints. It knows no
//! thread, no clock and no store: events come in with the time, and actions go out. Whoever drives it, a leader with its
//! links or a simulator, carries them out in order.
//!
//! ```text
//! files: Look -> Standings from all -> Open with quotas -> Report from all -> Cut -> Open or Look ..
//! live:  Wanted -> Open -> trigger, size or end -> Close -> Report from all -> Cut
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::records::{Behind, Cut, Joined, Position, Range};
use tidemark_dataflows::event::{Epoch, Micros};

use super::checkpoint_schedule::CheckpointSchedule;
use crate::cluster::messages::{Quota, Report, Standing};

/// What ends an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutRule {
    /// That many events of all files together, in the order of event time: the same epochs whenever the same files are read.
    Files {
        /// Events of an epoch, but at least one of each active file.
        events: u64,
        /// How far head times of files that are read together lie apart, in microseconds.
        alignment_us: i64,
    },
    /// That much time since it was opened, or sooner once a reader says that it holds enough.
    Live {
        /// From opening to closing.
        trigger: Duration,
    },
}

/// Why no more epochs are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source has no more events.
    Exhausted,
    /// It was asked to stop.
    Stopped,
}

/// What is reported to the leader. Readers are numbered as their processes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A reader has an event for an epoch that is not open.
    Wanted(Epoch),
    /// A reader says how its partitions stand, as it was asked.
    Standings(usize, Vec<Standing>),
    /// A reader holds as much of an epoch as it may.
    Full(Epoch),
    /// A reader has read its part of an epoch.
    Report(usize, Report),
    /// No event comes any more from the partitions of a reader.
    Over(usize),
    /// The least enqueued time of what a reader holds and has not reported.
    InHand(usize, Option<Micros>),
    /// A partition was found while the pipeline runs; reading it begins at that offset.
    Discovered(String, u64),
    /// A checkpoint as of that epoch is durable.
    Checkpointed(Epoch),
    /// The run should end.
    Stop,
}

/// What the leader has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask all readers how their partitions stand, for an epoch that is opened then.
    Look(Epoch, Micros),
    /// Tell all readers that an epoch is open, since when, and what to read into it.
    Open(Epoch, Micros, Quota),
    /// Tell all readers to read no more into an epoch, and to report.
    Close(Epoch),
    /// Make an epoch durable, and let it have its effects then. So many of its events were missing.
    Cut(Cut, u64),
    /// Ask for a checkpoint as of the end of the last epoch that was cut.
    Checkpoint(Epoch, Vec<Position>),
    /// Tell all readers of a partition that joins.
    Join(Joined),
    /// Tell a reader how far others have come.
    Align(usize, Option<Micros>),
    /// Tell the first reader that nothing comes any more from the others.
    OthersOver,
    /// Nothing is cut any more; the last epoch was this one. Readers need not read on.
    Finish(Ended, Epoch),
}

/// What the protocol goes on from.
#[derive(Clone, Debug)]
pub struct StartingPoint {
    /// The last epoch that was cut.
    pub epoch: Epoch,
    /// How far each partition had been read by then.
    pub positions: Vec<Position>,
    /// Partitions among them that no cut knows.
    pub joined: Vec<Joined>,
    /// When that epoch was closed: no time stamp lies before it.
    pub closed: Micros,
}

/// An epoch that is not cut.
#[derive(Debug)]
struct Open {
    opened: Micros,
    since: Instant,
    closed: Option<Micros>,
    /// What each reader has read of it.
    parts: Vec<Option<Report>>,
    /// All files had ended: it takes what the inbox still holds.
    rest: bool,
}

/// The state of the protocol.
#[derive(Debug)]
pub struct Epochs {
    rule: CutRule,
    checkpoints: Option<CheckpointSchedule>,
    /// The epoch that is cut next.
    next: Epoch,
    /// The epochs from that one on.
    open: VecDeque<Open>,
    /// How far each partition had been read at the last cut.
    positions: Vec<Position>,
    /// Partitions that the next cut names first.
    joined: Vec<Joined>,
    /// The newest time stamp.
    stamped: Micros,
    /// Files: what is known of each partition.
    standings: BTreeMap<u32, Standing>,
    /// Files: when the next epoch is opened, and which readers have not said how their partitions stand.
    looking: Option<(Micros, Vec<bool>)>,
    over: Vec<bool>,
    in_hand: Vec<Option<Micros>>,
    stopping: bool,
    finished: bool,
}

impl Epochs {
    /// The protocol for `readers` readers, which goes on after what was recovered.
    pub fn new(rule: CutRule, readers: usize, checkpoints: Option<CheckpointSchedule>, from: StartingPoint) -> Epochs {
        Epochs {
            rule,
            checkpoints,
            next: from.epoch + 1,
            open: VecDeque::new(),
            positions: from.positions,
            joined: from.joined,
            stamped: from.closed,
            standings: BTreeMap::new(),
            looking: None,
            over: vec![false; readers],
            in_hand: vec![None; readers],
            stopping: false,
            finished: false,
        }
    }

    /// Begins: a source of files is looked at, a live one says when it has something. `at` is the time of day.
    pub fn begin(&mut self, at: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if let CutRule::Files { .. } = self.rule {
            self.look(at, &mut actions);
        }
        actions
    }

    /// How far each partition had been read at the last cut.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// When something is to be done though nothing is reported: an [`Event::Tick`] is due then.
    pub fn deadline(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let closing = self.open.back().filter(|open| open.closed.is_none()).and_then(|open| match self.rule {
            CutRule::Live { trigger } => open.since.checked_add(trigger),
            CutRule::Files { .. } => None,
        });
        let checkpoint = self.checkpoints.as_ref().and_then(|schedule| schedule.deadline(self.next - 1));
        closing.into_iter().chain(checkpoint).min()
    }

    /// What follows from an event, at the instant `now` of the clock that waits go by and at the time of day `at`.
    pub fn on(&mut self, event: Event, now: Instant, at: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.finished {
            return actions;
        }
        match event {
            Event::Tick => {}
            Event::Wanted(epoch) => self.open_live(epoch, now, at, &mut actions),
            Event::Standings(from, standings) => self.take_standings(from, standings, now, &mut actions),
            Event::Full(epoch) => {
                if self.unclosed() == Some(epoch) {
                    self.close(at, &mut actions);
                }
            }
            Event::Report(from, report) => self.take_report(from, report, now, at, &mut actions),
            Event::Over(from) => self.take_over(from, &mut actions),
            Event::InHand(from, oldest) => self.align(from, oldest, &mut actions),
            Event::Discovered(partition, from) => self.join(partition, from, &mut actions),
            Event::Checkpointed(epoch) => {
                if let Some(schedule) = &mut self.checkpoints {
                    schedule.done(epoch);
                }
            }
            Event::Stop => self.stopping = true,
        }
        self.advance(now, at, &mut actions);
        actions
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant, at: Micros, actions: &mut Vec<Action>) {
        match self.rule {
            CutRule::Live { trigger } => {
                let due = self.open.back().is_some_and(|open| now.saturating_duration_since(open.since) >= trigger);
                let exhausted = self.over.iter().all(|over| *over);
                if self.unclosed().is_some() && (due || exhausted || self.stopping) {
                    self.close(at, actions);
                }
                if self.open.is_empty() && (exhausted || self.stopping) {
                    let ended = if exhausted { Ended::Exhausted } else { Ended::Stopped };
                    return self.finish(ended, now, actions);
                }
            }
            // An epoch that was begun is discarded: cut short, it would be another cut of the same files.
            CutRule::Files { .. } if self.stopping => return self.finish(Ended::Stopped, now, actions),
            CutRule::Files { .. } => {}
        }
        self.checkpoint(false, now, actions);
    }

    fn finish(&mut self, ended: Ended, now: Instant, actions: &mut Vec<Action>) {
        self.open.clear();
        self.looking = None;
        self.finished = true;
        self.checkpoint(true, now, actions);
        actions.push(Action::Finish(ended, self.next - 1));
    }

    fn checkpoint(&mut self, last: bool, now: Instant, actions: &mut Vec<Action>) {
        let epoch = self.next - 1;
        if let Some(schedule) = self.checkpoints.as_mut().filter(|schedule| schedule.is_due(epoch, now, last)) {
            schedule.ask(epoch, now);
            // Partitions that the next cut names first stand at the end: as of this epoch they are not known.
            let known = self.positions.len().saturating_sub(self.joined.len());
            actions.push(Action::Checkpoint(epoch, self.positions[..known].to_vec()));
        }
    }

    /// A time stamp: never before one that was given.
    fn stamp(&mut self, at: Micros) -> Micros {
        self.stamped = self.stamped.max(at);
        self.stamped
    }

    /// The epoch that is open and not closed; only the newest one can be.
    fn unclosed(&self) -> Option<Epoch> {
        let last = self.open.back().filter(|open| open.closed.is_none())?;
        debug_assert!(self.open.iter().rev().skip(1).all(|open| open.closed.is_some()), "{last:?}");
        Some(self.next + self.open.len() as u64 - 1)
    }

    fn open(&mut self, opened: Micros, now: Instant, quota: Quota, actions: &mut Vec<Action>) {
        let epoch = self.next + self.open.len() as u64;
        let parts = self.over.iter().map(|_| None).collect();
        let rest = matches!(quota, Quota::Rest(_));
        self.open.push_back(Open { opened, since: now, closed: None, parts, rest });
        actions.push(Action::Open(epoch, opened, quota));
    }

    fn open_live(&mut self, epoch: Epoch, now: Instant, at: Micros, actions: &mut Vec<Action>) {
        let is_next = epoch == self.next + self.open.len() as u64 && self.unclosed().is_none();
        if is_next && !self.stopping && matches!(self.rule, CutRule::Live { .. }) {
            let opened = self.stamp(at);
            self.open(opened, now, Quota::Whatever, actions);
        }
    }

    fn close(&mut self, at: Micros, actions: &mut Vec<Action>) {
        let closed = self.stamp(at);
        if let (Some(epoch), Some(open)) = (self.unclosed(), self.open.back_mut()) {
            open.closed = Some(closed);
            actions.push(Action::Close(epoch));
        }
    }

    /// Asks how all files stand, before the next epoch is opened.
    fn look(&mut self, at: Micros, actions: &mut Vec<Action>) {
        let opened = self.stamp(at);
        self.looking = Some((opened, vec![true; self.over.len()]));
        actions.push(Action::Look(self.next, opened));
    }

    fn take_standings(&mut self, from: usize, standings: Vec<Standing>, now: Instant, actions: &mut Vec<Action>) {
        let Some((opened, waiting)) = &mut self.looking else { return };
        if let Some(waiting) = waiting.get_mut(from) {
            *waiting = false;
        }
        let (opened, complete) = (*opened, !waiting.contains(&true));
        self.standings.extend(standings.into_iter().map(|standing| (standing.index, standing)));
        if complete && !self.stopping {
            self.looking = None;
            self.open_files(opened, now, actions);
        }
    }

    /// Opens the next epoch of a source of files, all of which are known as of `opened`.
    fn open_files(&mut self, opened: Micros, now: Instant, actions: &mut Vec<Action>) {
        let CutRule::Files { events, alignment_us } = self.rule else { return };
        let behind: Vec<&Standing> = self.standings.values().filter(|standing| standing.behind).collect();
        let quota = match quotas(&behind, events, alignment_us) {
            quotas if quotas.is_empty() => Quota::Rest(events),
            quotas => Quota::Files(quotas),
        };
        self.open(opened, now, quota, actions);
    }

    fn take_report(&mut self, from: usize, report: Report, now: Instant, at: Micros, actions: &mut Vec<Action>) {
        let index = report.epoch.checked_sub(self.next).and_then(|index| usize::try_from(index).ok());
        let part = index.and_then(|index| self.open.get_mut(index)).and_then(|open| open.parts.get_mut(from));
        if let Some(part) = part {
            *part = Some(report);
        }
        while self.open.front().is_some_and(|open| open.parts.iter().all(Option::is_some)) {
            let Some(open) = self.open.pop_front() else { return };
            let rest = open.rest;
            let is_cut = self.cut(open, at, actions);
            match self.rule {
                CutRule::Files { .. } if rest && !is_cut => return self.finish(Ended::Exhausted, now, actions),
                CutRule::Files { .. } if !self.stopping => self.go_on_with_files(now, at, actions),
                CutRule::Files { .. } => return,
                // Nothing came in it after all: who wants an epoch hands a block on before it reports. Its number comes again.
                CutRule::Live { .. } if !is_cut => {
                    debug_assert!(self.open.is_empty(), "an epoch was wanted behind an empty one");
                    return self.open.clear();
                }
                CutRule::Live { .. } => {}
            }
        }
    }

    fn go_on_with_files(&mut self, now: Instant, at: Micros, actions: &mut Vec<Action>) {
        let opened = self.stamp(at);
        if self.standings.values().all(|standing| !standing.behind || standing.until > opened) {
            self.open_files(opened, now, actions);
        } else {
            self.look(opened, actions);
        }
    }

    /// Cuts the next epoch, unless it is empty.
    fn cut(&mut self, open: Open, at: Micros, actions: &mut Vec<Action>) -> bool {
        let closed = match open.closed {
            Some(closed) => closed,
            None => self.stamp(at),
        };
        let (mut ranges, mut missing, mut standings) = (Vec::new(), 0, Vec::new());
        for report in open.parts.into_iter().flatten() {
            ranges.extend(report.ranges);
            standings.extend(report.standings);
            missing += report.missing;
        }
        standings.sort_by_key(|standing| standing.index);
        let files = matches!(self.rule, CutRule::Files { .. });
        if files {
            self.standings.extend(standings.iter().map(|standing| (standing.index, *standing)));
        }
        if ranges.is_empty() {
            return false;
        }
        // Each reader has its own in order.
        ranges.sort_by_key(|range: &Range| range.index);
        let behind = standings.iter().filter(|standing| standing.behind);
        let behind = behind.map(|standing| Behind { index: standing.index, head_us: standing.head.map(|head| head.0) });
        let cut = Cut {
            epoch: self.next,
            opened_us: open.opened.0,
            closed_us: closed.0,
            ranges,
            behind: Some(behind.collect()),
            joined: std::mem::take(&mut self.joined),
        };
        self.next += 1;
        go_past(&mut self.positions, &cut, files);
        actions.push(Action::Cut(cut, missing));
        true
    }

    fn take_over(&mut self, from: usize, actions: &mut Vec<Action>) {
        let Some(over) = self.over.get_mut(from) else { return };
        let news = !std::mem::replace(over, true);
        if news && from > 0 && self.over.iter().skip(1).all(|over| *over) {
            actions.push(Action::OthersOver);
        }
    }

    /// Tells each reader the least enqueued time that others hold, where that has changed.
    fn align(&mut self, from: usize, oldest: Option<Micros>, actions: &mut Vec<Action>) {
        let least = |in_hand: &[Option<Micros>], but: usize| {
            let others = in_hand.iter().enumerate().filter(|(reader, _)| *reader != but);
            others.filter_map(|(_, oldest)| *oldest).min()
        };
        let before: Vec<_> = (0..self.in_hand.len()).map(|reader| least(&self.in_hand, reader)).collect();
        if let Some(in_hand) = self.in_hand.get_mut(from) {
            *in_hand = oldest;
        }
        for (reader, before) in before.into_iter().enumerate() {
            let now = least(&self.in_hand, reader);
            if now != before {
                actions.push(Action::Align(reader, now));
            }
        }
    }

    fn join(&mut self, partition: String, from: u64, actions: &mut Vec<Action>) {
        if self.positions.iter().any(|position| position.partition == partition) {
            return;
        }
        let index = u32::try_from(self.positions.len()).unwrap_or(u32::MAX);
        let joined = Joined { partition: partition.clone(), index, from };
        self.positions.push(Position { partition, index, next: from, digest: None, ended: false });
        self.joined.push(joined.clone());
        actions.push(Action::Join(joined));
    }
}

/// How many events each active file gives. Active are the files without a head time, where there are any: what has nothing
/// valid in sight is read away first. Else those whose head time is at most `alignment_us` after the least one.
fn quotas(behind: &[&Standing], events: u64, alignment_us: i64) -> Vec<(u32, u64)> {
    let headless: Vec<u32> =
        behind.iter().filter(|standing| standing.head.is_none()).map(|standing| standing.index).collect();
    let active = if headless.is_empty() {
        let least = behind.iter().filter_map(|standing| standing.head).min().unwrap_or_default();
        let limit = Some(Micros(least.0.saturating_add(alignment_us)));
        behind.iter().filter(|standing| standing.head <= limit).map(|standing| standing.index).collect()
    } else {
        headless
    };
    let each = (events / (active.len() as u64).max(1)).max(1);
    active.into_iter().map(|index| (index, each)).collect()
}

/// Moves positions to the end of an epoch. Of `files`, those that were not behind have ended; what is live never does.
pub fn go_past(positions: &mut [Position], cut: &Cut, files: bool) {
    go_to_end(positions, &cut.ranges);
    let Some(behind) = cut.behind.as_ref().filter(|_| files) else { return };
    for at in positions.iter_mut().filter(|at| at.partition != inbox::PARTITION) {
        at.ended = behind.binary_search_by_key(&at.index, |behind| behind.index).is_err();
    }
}

/// Moves positions to the end of what was cut.
pub(super) fn go_to_end(positions: &mut [Position], ranges: &[Range]) {
    for range in ranges {
        if let Some(at) = positions.get_mut(range.index as usize) {
            (at.next, at.digest) = (range.to, range.digest.clone());
        }
    }
}
