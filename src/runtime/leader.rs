//! The leader, in process 0: drives the [protocol of epochs](super::epochs) with what readers report, and carries out what
//! follows. The one writer of epochs; everything after it follows from what it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::Epoch;
use tidemark_store::failpoint;

use super::RunError;
use super::clock;
use super::epochs::{Action, Ended, Epochs, Event};
use super::leader_link::{LEADER, Mailbox, Told};
use super::reader::ReadCounters;
use crate::checkpoint::cuts::{Announced, CutWriter};
use crate::checkpoint::writer::CheckpointWriter;
use crate::cluster::links::Links;
use crate::cluster::messages::Message;
use crate::health::Health;
use crate::sink::publisher::{Publisher, SinkError};
use crate::sink::tables::PartitionNames;
use crate::telemetry::{Stage, Telemetry};

/// Longest time between two looks for a signal and for a finished checkpoint, which cannot wake the leader.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// What a leader works with.
pub(super) struct Parts {
    /// Where cuts go.
    pub(super) cuts: CutWriter,
    /// Where checkpoints are asked for; none where nothing is kept.
    pub(super) checkpoints: Option<CheckpointWriter>,
    /// For those who watch.
    pub(super) counters: Arc<ReadCounters>,
    /// The same of epochs and partitions.
    pub(super) telemetry: Arc<Telemetry>,
    /// What partitions are called.
    pub(super) names: PartitionNames,
    /// To the reader of this process.
    pub(super) mailbox: Mailbox,
    /// The other processes, if there are any.
    pub(super) links: Option<&'static Links>,
    /// The tables, which readers of other processes wait for.
    pub(super) publisher: Publisher,
    /// Set when the run should end.
    pub(super) stop: Arc<AtomicBool>,
    /// What an end waits for.
    pub(super) health: Arc<Health>,
}

/// How a leader has ended: why, and after which epoch.
pub(super) type Led = Result<(Ended, Epoch), RunError>;

/// Leads until everything is cut, in a thread of its own.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn start(epochs: Epochs, parts: Parts, told: Receiver<Told>) -> Result<JoinHandle<Led>, SinkError> {
    let thread = std::thread::Builder::new().name("leader".to_owned());
    let lead = move || {
        let mailbox = parts.mailbox.clone();
        let led = Leader { epochs, parts, checkpointed: 0 }.lead(&told);
        if led.is_err() {
            // The reader of this process has nothing to wait for any more.
            mailbox.put(Message::Drain);
        }
        led
    };
    thread.spawn(lead).map_err(SinkError::Start)
}

struct Leader {
    epochs: Epochs,
    parts: Parts,
    checkpointed: Epoch,
}

impl Leader {
    fn lead(mut self, told: &Receiver<Told>) -> Led {
        let mut actions = self.epochs.begin(clock::now());
        let mut stopping = false;
        loop {
            for action in actions {
                if let Some(end) = self.carry_out(action) {
                    return Ok(end);
                }
            }
            let wait = self.epochs.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let event = match told.recv_timeout(wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)) {
                Ok((from, message)) => self.event_of(from, message),
                Err(RecvTimeoutError::Timeout) => None,
                // The reader of this process has failed, and says why.
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::PublishingFailed),
            };
            actions = self.epochs.on(event.unwrap_or(Event::Tick), Instant::now(), clock::now());
            if let Some(epoch) = self.newly_checkpointed() {
                actions.extend(self.epochs.on(Event::Checkpointed(epoch), Instant::now(), clock::now()));
            }
            if self.parts.stop.load(Ordering::Acquire) && !std::mem::replace(&mut stopping, true) {
                self.say_stopping();
                actions.extend(self.epochs.on(Event::Stop, Instant::now(), clock::now()));
            }
        }
    }

    /// An end that waits for storage looks like one that never comes.
    fn say_stopping(&self) {
        for (place, why) in self.parts.health.failing() {
            tracing::warn!(
                place,
                why,
                "stopping once this works again; a second signal ends at once, and loses nothing"
            );
        }
    }

    /// What a message means to the protocol, if anything.
    fn event_of(&self, from: usize, message: Message) -> Option<Event> {
        tracing::trace!(from, ?message, "reported");
        Some(match message {
            Message::Wanted(epoch) => Event::Wanted(epoch),
            Message::Standings(standings) => Event::Standings(from, standings),
            Message::Full(epoch) => Event::Full(epoch),
            Message::Report(report) => {
                if from != LEADER {
                    self.parts.counters.events.fetch_add(report.read.0, Ordering::Relaxed);
                    self.parts.counters.bytes.fetch_add(report.read.1, Ordering::Relaxed);
                }
                Event::Report(from, report)
            }
            Message::Over => Event::Over(from),
            Message::InHand(oldest) => Event::InHand(from, oldest),
            Message::Discovered(partition, first) => Event::Discovered(partition, first),
            Message::Stop => {
                self.parts.stop.store(true, Ordering::Release);
                return None;
            }
            Message::Hurry => {
                self.parts.publisher.hurry();
                return None;
            }
            // Links themselves look at the rest, or it is for readers.
            _ => return None,
        })
    }

    fn newly_checkpointed(&mut self) -> Option<Epoch> {
        let epoch = self.parts.checkpoints.as_ref()?.progress().epoch.load(Ordering::Acquire);
        (epoch > std::mem::replace(&mut self.checkpointed, epoch)).then_some(epoch)
    }

    /// Does what follows. Returns how it ended, once it has.
    fn carry_out(&mut self, action: Action) -> Option<(Ended, Epoch)> {
        tracing::trace!(?action, "follows");
        match action {
            Action::Look(epoch, opened) => self.tell_all(Message::Look(epoch, opened)),
            Action::Open(epoch, opened, quota) => {
                self.parts.telemetry.stages.reached(Stage::Opened, epoch);
                self.tell_all(Message::Open(epoch, opened, quota));
            }
            Action::Close(epoch) => self.tell_all(Message::Close(epoch)),
            Action::Cut(cut, missing) => self.cut(cut, missing),
            Action::Checkpoint(epoch, positions) => {
                if let Some(writer) = &self.parts.checkpoints {
                    writer.begin(epoch, positions);
                    self.parts.telemetry.ask_for_checkpoint(epoch, clock::now());
                    self.parts.cuts.write(Announced::Checkpoint(epoch));
                    failpoint("checkpoint-asked");
                }
            }
            Action::Join(joined) => {
                tracing::info!(partition = joined.partition, from = joined.from, "a partition joins");
                self.parts.names.add(joined.partition.clone());
                self.parts.telemetry.partitions.add(&joined.partition, joined.from);
                self.tell_all(Message::Join(joined));
            }
            Action::Align(LEADER, others) => self.parts.mailbox.put(Message::Align(others)),
            Action::Align(reader, others) => {
                if let Some(links) = self.parts.links {
                    links.send(reader, Message::Align(others));
                }
            }
            Action::OthersOver => self.parts.mailbox.put(Message::OthersOver),
            Action::Finish(ended, last) => {
                failpoint("source-ended");
                self.tell_all(Message::Drain);
                return Some((ended, last));
            }
        }
        None
    }

    fn cut(&self, cut: Cut, missing: u64) {
        for range in &cut.ranges {
            self.parts.telemetry.partitions.reached(range.index, range.to);
        }
        self.parts.cuts.write(Announced::Cut(cut, missing));
    }

    fn tell_all(&self, message: Message) {
        if let Some(links) = self.parts.links {
            links.broadcast(&message);
        }
        self.parts.mailbox.put(message);
    }
}
