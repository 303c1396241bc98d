//! The model of a reader of partitions, one in each process: what `tidemark::runtime::reader` does, without lanes,
//! back-pressure and threads. It is told what the leader says, and does a little whenever it is polled.

use tidemark::cluster::messages::{Message, Quota, Report, Standing};
use tidemark_checkpoint::records::{Cut, Joined, Position, Range};
use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Epoch, Micros};

use crate::rng::Rng;
use crate::scenario::SourceKind;
use crate::source::Source;

/// What a reader wants done.
pub(crate) enum Said {
    /// A message to the leader.
    Tell(Message),
    /// A block, to be computed as part of an epoch.
    Feed(Epoch, Block),
}

/// What a reader is at.
#[derive(Clone, Debug)]
enum Task {
    Idle,
    Looking(Micros),
    Live,
    Files(Vec<(u32, u64)>),
    Rest,
    Reporting,
}

/// The world as a reader sees it.
pub(crate) struct View<'a> {
    /// The source.
    pub(crate) source: &'a Source,
    /// The time.
    pub(crate) now: u64,
    /// When the run of this reader began: what comes to a file later is read by the next run.
    pub(crate) began: u64,
    /// The kind of the source.
    pub(crate) kind: SourceKind,
    /// When the last event of all comes.
    pub(crate) last_arrival: u64,
}

impl View<'_> {
    /// How many events of a partition can be read.
    fn length(&self, at: &Position) -> u64 {
        let until = match self.kind {
            SourceKind::Files { .. } => self.began,
            SourceKind::Live { .. } => self.now,
        };
        self.source.length_at(Source::place(&at.partition), until)
    }
}

/// A reader of one process.
pub(crate) struct Reader {
    process: usize,
    processes: usize,
    next: Vec<u64>,
    at_cut: Vec<Position>,
    epoch: Epoch,
    opened: Option<Micros>,
    task: Task,
    wanted: bool,
    full: bool,
    over: bool,
    in_epoch: u64,
    others: Option<Micros>,
    in_hand: Option<Micros>,
    found: usize,
    /// What it was told of an epoch that it has not come to.
    early: Vec<Message>,
}

impl Reader {
    /// A reader that goes on after `epoch`, at whose end partitions had been read up to there.
    pub(crate) fn new(process: usize, processes: usize, epoch: Epoch, at_cut: Vec<Position>) -> Reader {
        Reader {
            process,
            processes,
            next: at_cut.iter().map(|at| at.next).collect(),
            found: at_cut.len(),
            early: Vec::new(),
            at_cut,
            epoch: epoch + 1,
            opened: None,
            task: Task::Idle,
            wanted: false,
            full: false,
            over: false,
            in_epoch: 0,
            others: None,
            in_hand: None,
        }
    }

    fn own(&self) -> impl Iterator<Item = usize> + use<> {
        (self.process..self.next.len()).step_by(self.processes.max(1))
    }

    /// Reads an epoch again as it was cut.
    pub(crate) fn replay(&mut self, cut: &Cut, source: &Source) -> Vec<(Epoch, Block)> {
        cut.joined.iter().for_each(|joined| self.join(joined));
        let mut blocks = Vec::new();
        for range in &cut.ranges {
            let index = range.index as usize;
            if self.own().any(|own| own == index) {
                let place = Source::place(&range.partition);
                let block = source.block(place, range.index, range.from, range.to, Micros(cut.opened_us));
                blocks.push((cut.epoch, block));
                self.next[index] = range.to;
                self.at_cut[index].next = range.to;
            }
        }
        self.epoch = cut.epoch + 1;
        blocks
    }

    /// Takes up what the leader says.
    pub(crate) fn take(&mut self, message: Message) {
        match message {
            Message::Look(_, opened) => self.task = Task::Looking(opened),
            // It is still to report the one before: another reader was faster.
            Message::Open(..) if self.opened.is_some() => self.early.push(message),
            Message::Close(epoch) if epoch > self.epoch => self.early.push(message),
            Message::Open(epoch, opened, quota) => {
                // An epoch that nothing came in after all has given its number back.
                (self.epoch, self.opened) = (epoch, Some(opened));
                self.task = match quota {
                    Quota::Whatever => Task::Live,
                    Quota::Rest(_) => Task::Rest,
                    Quota::Files(files) => {
                        Task::Files(files.into_iter().filter(|(index, _)| self.reads(*index)).collect())
                    }
                };
            }
            Message::Close(epoch) if epoch == self.epoch => self.task = Task::Reporting,
            Message::Join(joined) => self.join(&joined),
            Message::Align(others) => self.others = others,
            _ => {}
        }
    }

    fn reads(&self, index: u32) -> bool {
        index as usize % self.processes.max(1) == self.process
    }

    fn join(&mut self, joined: &Joined) {
        if joined.index as usize == self.next.len() {
            let Joined { partition, index, from } = joined.clone();
            self.next.push(from);
            self.at_cut.push(Position { partition, index, next: from, digest: None, ended: false });
            self.found = self.found.max(self.next.len());
        }
    }

    /// Does what can be done now.
    pub(crate) fn poll(&mut self, view: &View<'_>, rng: &mut Rng) -> Vec<Said> {
        let mut said = Vec::new();
        match (view.kind, self.task.clone()) {
            (SourceKind::Live { .. }, Task::Idle) => {
                let some = self.own().any(|index| self.readable(index, view) > self.next[index]);
                if some && !std::mem::replace(&mut self.wanted, true) {
                    said.push(Said::Tell(Message::Wanted(self.epoch)));
                }
            }
            (_, Task::Idle) => {}
            (_, Task::Looking(opened)) => {
                said.push(Said::Tell(Message::Standings(self.standings(view, opened, rng))));
                self.task = Task::Idle;
            }
            (_, Task::Live) => self.read_live(view, rng, &mut said),
            (_, Task::Files(quotas)) => {
                for (index, events) in quotas {
                    let end = self.next[index as usize].saturating_add(events);
                    self.read(index as usize, end.min(view.length(&self.at_cut[index as usize])), view, &mut said);
                }
                self.report(view, rng, &mut said);
            }
            (_, Task::Rest | Task::Reporting) => {
                // The event that the epoch was opened for goes into it, however soon it is closed.
                if self.wanted && self.in_epoch == 0 {
                    self.read_live(view, rng, &mut said);
                }
                self.report(view, rng, &mut said);
            }
        }
        if let SourceKind::Live { ends, .. } = view.kind {
            self.look_around(view, ends, &mut said);
        }
        said
    }

    /// Up to where a live partition may be read: not beyond the alignment.
    fn readable(&self, index: usize, view: &View<'_>) -> u64 {
        let (at, length) = (&self.at_cut[index], view.length(&self.at_cut[index]));
        let SourceKind::Live { alignment_us, .. } = view.kind else { return length };
        let Some(least) = self.others.into_iter().chain(self.in_hand).min() else { return length };
        let within = |offset: &u64| {
            let enqueued = view.source.enqueued(Source::place(&at.partition), *offset);
            enqueued.is_some_and(|enqueued| enqueued.0 <= least.0.saturating_add(alignment_us))
        };
        self.next[index] + (self.next[index]..length).take_while(within).count() as u64
    }

    fn read_live(&mut self, view: &View<'_>, rng: &mut Rng, said: &mut Vec<Said>) {
        let SourceKind::Live { full_at, .. } = view.kind else { return };
        for index in self.own() {
            let readable = self.readable(index, view);
            if self.in_epoch < full_at && self.next[index] < readable {
                // What a block holds decides nothing.
                let end = if rng.chance(50) { readable } else { rng.between(self.next[index] + 1, readable) };
                self.read(index, end.min(self.next[index] + full_at - self.in_epoch), view, said);
            }
        }
        if self.in_epoch >= full_at && !std::mem::replace(&mut self.full, true) {
            said.push(Said::Tell(Message::Full(self.epoch)));
        }
    }

    fn read(&mut self, index: usize, end: u64, view: &View<'_>, said: &mut Vec<Said>) {
        let (from, Some(opened)) = (self.next[index], self.opened) else { return };
        if from < end {
            let place = Source::place(&self.at_cut[index].partition);
            said.push(Said::Feed(self.epoch, view.source.block(place, index as u32, from, end, opened)));
            self.next[index] = end;
            self.in_epoch += end - from;
        }
    }

    /// How the partitions of this process stand.
    fn standings(&self, view: &View<'_>, opened: Micros, rng: &mut Rng) -> Vec<Standing> {
        let standing = |index: usize| {
            let (at, next) = (&self.at_cut[index], self.next[index]);
            let length = view.length(at);
            match view.kind {
                SourceKind::Files { .. } => {
                    view.source.file_standing(Source::place(&at.partition), index as u32, next, length, opened)
                }
                // What the service named last may be a little old.
                SourceKind::Live { .. } => {
                    let named = view.now.saturating_sub(rng.below(500_000));
                    let behind = next < view.source.length_at(Source::place(&at.partition), named);
                    Standing { index: index as u32, behind, head: None, until: Micros(i64::MAX) }
                }
            }
        };
        self.own().map(standing).collect()
    }

    fn report(&mut self, view: &View<'_>, rng: &mut Rng, said: &mut Vec<Said>) {
        let Some(opened) = self.opened.take() else {
            self.task = Task::Idle;
            return;
        };
        let standings = self.standings(view, opened, rng);
        let mut ranges = Vec::new();
        for (at, next) in self.at_cut.iter_mut().zip(&self.next) {
            if *next > at.next {
                let (partition, index) = (at.partition.clone(), at.index);
                ranges.push(Range { partition, index, from: at.next, to: *next, digest: None });
                at.next = *next;
            }
        }
        let read = (self.in_epoch, 0);
        let report = Report { epoch: self.epoch, ranges, missing: 0, standings, read };
        said.push(Said::Tell(Message::Report(report)));
        self.epoch += 1;
        (self.wanted, self.full, self.in_epoch, self.task) = (false, false, 0, Task::Idle);
        std::mem::take(&mut self.early).into_iter().for_each(|message| self.take(message));
    }

    /// Says what is in hand, what was found, and that nothing comes any more.
    fn look_around(&mut self, view: &View<'_>, ends: bool, said: &mut Vec<Said>) {
        let first = |index: usize| {
            let at = &self.at_cut[index];
            let in_hand = at.next < view.length(at);
            in_hand.then(|| view.source.enqueued(Source::place(&at.partition), at.next)).flatten()
        };
        let oldest = self.own().filter_map(first).min();
        if oldest != self.in_hand {
            self.in_hand = oldest;
            said.push(Said::Tell(Message::InHand(oldest)));
        }
        let names = view.source.names_at(view.now);
        if self.process == 0 && names.len() > self.found {
            let known = |name: &&String| self.at_cut.iter().any(|at| at.partition == **name);
            said.extend(names.iter().filter(|name| !known(name)).map(|name| {
                let found = Message::Discovered(name.clone(), 0);
                Said::Tell(found)
            }));
            self.found = names.len();
        }
        let read = self.own().all(|index| self.next[index] >= view.length(&self.at_cut[index]));
        if ends && view.now > view.last_arrival && read && names.len() == self.next.len() && !self.over {
            self.over = true;
            said.push(Said::Tell(Message::Over));
        }
    }
}
