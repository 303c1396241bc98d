//! Process 0 and the readers: the real protocol of epochs is told what readers report, and its actions are carried out, as
//! `tidemark::runtime::leader` does.

use tidemark::cluster::messages::Message;
use tidemark::runtime::epochs::{Action, Event};

use crate::compute::Feed;
use crate::instance::{Announced, Run};
use crate::orders::Order;
use crate::reader::{Said, View};
use crate::scenario::{MS, SourceKind};
use crate::world::{Due, World};

/// Longest time that a message takes.
const MESSAGE_US: u64 = 15 * MS;

impl World {
    /// The run of an instance that has started.
    pub(crate) fn run_of(&mut self, at: usize) -> Option<&mut Run> {
        self.instances[at].run.as_deref_mut()
    }

    /// A message comes to process 0.
    pub(crate) fn lead(&mut self, at: usize, from: usize, message: Message) {
        if self.instances[at].lost.contains(&from) {
            return;
        }
        let event = match message {
            Message::Wanted(epoch) => Event::Wanted(epoch),
            Message::Standings(standings) => Event::Standings(from, standings),
            Message::Full(epoch) => Event::Full(epoch),
            Message::Report(report) => Event::Report(from, report),
            Message::Over => Event::Over(from),
            Message::InHand(oldest) => Event::InHand(from, oldest),
            Message::Discovered(partition, first) => Event::Discovered(partition, first),
            _ => return,
        };
        self.protocol(at, event);
    }

    /// The protocol may have something to do though nothing was reported.
    pub(crate) fn tick(&mut self, at: usize) {
        let now = self.now;
        let due = self.run_of(at).is_some_and(|run| run.tick_at.is_some_and(|tick| tick <= now));
        if due {
            if let Some(run) = self.run_of(at) {
                run.tick_at = None;
            }
            self.protocol(at, Event::Tick);
        }
    }

    /// Something is reported to the protocol; what follows is carried out.
    pub(crate) fn protocol(&mut self, at: usize, event: Event) {
        let (now, wall) = (self.instant(), self.wall());
        let Some(run) = self.run_of(at) else { return };
        let said = in_short(&event);
        let actions = run.epochs.on(event, now, wall);
        if !actions.is_empty() || said.is_some() {
            self.note(Some(at), Some(0), || format!("{} {}", said.unwrap_or_default(), acts(&actions)));
        }
        self.carry_out(at, actions);
    }

    /// Carries out what the protocol says, in order.
    pub(crate) fn carry_out(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Look(epoch, opened) => self.tell_all(at, &Message::Look(epoch, opened)),
                Action::Open(epoch, opened, quota) => self.tell_all(at, &Message::Open(epoch, opened, quota)),
                Action::Close(epoch) => self.tell_all(at, &Message::Close(epoch)),
                Action::Join(joined) => self.tell_all(at, &Message::Join(joined)),
                Action::Align(reader, others) => self.tell(at, reader, Message::Align(others)),
                Action::OthersOver => self.tell(at, 0, Message::OthersOver),
                Action::Cut(cut, _) => {
                    if self.order == Order::EffectsBeforeCut {
                        self.announce(at, Announced::Cut(cut.clone()));
                    }
                    self.run_of(at).into_iter().for_each(|run| run.waiting.push_back(Announced::Cut(cut.clone())));
                }
                Action::Checkpoint(epoch, positions) => {
                    let Some(run) = self.run_of(at) else { return };
                    run.asked.insert(epoch, positions);
                    run.waiting.push_back(Announced::Checkpoint(epoch));
                }
                Action::Finish(ended, last) => {
                    self.tell_all(at, &Message::Drain);
                    self.run_of(at).into_iter().for_each(|run| run.finishing = Some((ended, last)));
                }
            }
        }
        self.write_cuts(at);
        self.wake_protocol(at);
        self.leave_if_through(at);
    }

    fn wake_protocol(&mut self, at: usize) {
        let Some(deadline) = self.run_of(at).and_then(|run| run.epochs.deadline()) else { return };
        let tick = self.time_of(deadline).max(self.now);
        let Some(run) = self.run_of(at) else { return };
        if run.tick_at.is_none_or(|known| tick < known) {
            run.tick_at = Some(tick);
            self.at(tick, Due::Tick(at));
        }
    }

    fn tell_all(&mut self, at: usize, message: &Message) {
        for process in 0..self.instances[at].processes {
            self.tell(at, process, message.clone());
        }
    }

    fn tell(&mut self, at: usize, process: usize, message: Message) {
        let arrives = self.over_link(at, process, true);
        self.at(arrives, Due::ToReader(at, process, message));
    }

    /// When a message comes that is sent now: in order, and within a process at once.
    fn over_link(&mut self, at: usize, process: usize, down: bool) -> u64 {
        let takes = if process == 0 { self.rng.below(200) } else { self.rng.between(100, MESSAGE_US) };
        let slow = if self.now < self.slow_until && process > 0 { 20 } else { 1 };
        let arrives = self.now + takes * slow;
        let last = self.instances[at].links.entry((process, down)).or_default();
        *last = arrives.max(*last);
        *last
    }

    /// A message comes to a reader.
    pub(crate) fn follow(&mut self, at: usize, process: usize, message: Message) {
        if self.instances[at].lost.contains(&process) {
            return;
        }
        if let Some(reader) = self.run_of(at).and_then(|run| run.readers.get_mut(process)) {
            reader.take(message);
            self.within(5 * MS, Due::Poll(at, process, false));
        }
    }

    /// A reader does what it can.
    pub(crate) fn poll(&mut self, at: usize, process: usize, again: bool) {
        if self.instances[at].lost.contains(&process) {
            return;
        }
        let live = matches!(self.scenario.source, SourceKind::Live { .. });
        let view = View {
            source: &self.source,
            now: self.now,
            began: self.instances[at].began,
            kind: self.scenario.source,
            last_arrival: self.scenario.quiet_from,
        };
        let Some(run) = self.instances[at].run.as_deref_mut().filter(|run| run.finishing.is_none()) else { return };
        let said = run.readers[process].poll(&view, &mut self.rng);
        for said in said {
            self.said(at, process, said);
        }
        if again && live && !self.complete {
            let next = self.now + self.rng.between(10, 60) * MS;
            self.at(next, Due::Poll(at, process, true));
        }
    }

    fn said(&mut self, at: usize, process: usize, said: Said) {
        match said {
            Said::Tell(message) => {
                let arrives = self.over_link(at, process, false);
                self.at(arrives, Due::ToLeader(at, process, message));
            }
            Said::Feed(epoch, block) => {
                let (partition, first, count) = (block.partition.0, block.first_offset.0, block.len() as u64);
                let end = first + count;
                self.note(Some(at), Some(process), || {
                    format!("reads #{partition} [{first}..{end}) into epoch {epoch}")
                });
                self.run_of(at)
                    .into_iter()
                    .for_each(|run| run.compute.feed(Feed::Block(process, epoch, block.clone())));
            }
        }
    }

    /// Tells the dataflow of an epoch, or of a checkpoint.
    pub(crate) fn announce(&mut self, at: usize, announced: Announced) {
        let Some(run) = self.run_of(at) else { return };
        run.compute.feed(match announced {
            Announced::Cut(cut) => Feed::Mark(cut),
            Announced::Checkpoint(epoch) => Feed::Checkpoint(epoch),
        });
        self.within(10 * MS, Due::Compute(at));
    }
}

/// What is reported, if it is worth a line by itself.
fn in_short(event: &Event) -> Option<String> {
    Some(match event {
        Event::Tick | Event::InHand(..) => return None,
        Event::Wanted(epoch) => format!("epoch {epoch} is wanted"),
        Event::Standings(from, standings) => format!("standings of {from}: {} files", standings.len()),
        Event::Full(epoch) => format!("epoch {epoch} is full"),
        Event::Report(from, report) => {
            let events: u64 = report.ranges.iter().map(|range| range.to - range.from).sum();
            format!("report of {from}: epoch {}, {events} events", report.epoch)
        }
        Event::Over(from) => format!("reader {from} is over"),
        Event::Discovered(partition, _) => format!("{partition} is found"),
        Event::Checkpointed(epoch) => format!("checkpoint {epoch} is durable"),
        Event::Stop => "stop".to_owned(),
    })
}

fn acts(actions: &[Action]) -> String {
    let act = |action: &Action| match action {
        Action::Look(epoch, _) => format!("-> look for epoch {epoch}"),
        Action::Open(epoch, ..) => format!("-> open {epoch}"),
        Action::Close(epoch) => format!("-> close {epoch}"),
        Action::Cut(cut, _) => format!("-> cut {}: {} events", cut.epoch, cut.events()),
        Action::Checkpoint(epoch, _) => format!("-> checkpoint {epoch}"),
        Action::Join(joined) => format!("-> {} joins as #{}", joined.partition, joined.index),
        Action::Align(reader, _) => format!("-> align {reader}"),
        Action::OthersOver => "-> others are over".to_owned(),
        Action::Finish(ended, last) => format!("-> {ended:?} after {last}"),
    };
    actions.iter().map(act).collect::<Vec<_>>().join(" ")
}
