//! How a reader reaches the leader: in the same process, or over a control link. Messages are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;

use tidemark_dataflows::event::Epoch;

use super::RunError;
use super::backpressure::Reached;
use crate::checkpoint::writer::Faults;
use crate::cluster::links::Links;
use crate::cluster::messages::Message;
use crate::sink::publisher::Publisher;
use crate::source::SourceError;

/// The process that cuts epochs and writes tables.
pub(super) const LEADER: usize = 0;

/// What the leader is told, and by which process.
pub(super) type Told = (usize, Message);

/// Why reading cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing more is to be read.
    Drained,
    /// Something failed.
    Failed(RunError),
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Stop {
        Stop::Failed(error)
    }
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Stop {
        Stop::Failed(error.into())
    }
}

/// Puts messages where a reader finds them, and wakes it.
#[derive(Clone)]
pub(super) struct Mailbox {
    messages: Sender<Message>,
    reader: Thread,
}

impl Mailbox {
    /// A mailbox for the calling thread, and where it finds what is put there.
    pub(super) fn new() -> (Mailbox, Receiver<Message>) {
        let (messages, received) = channel();
        (Mailbox { messages, reader: std::thread::current() }, received)
    }

    /// Puts a message there.
    pub(super) fn put(&self, message: Message) {
        // A reader that has ended wants nothing more.
        let _ = self.messages.send(message);
        self.reader.unpark();
    }

    /// Wakes the reader: something that it waits for has changed.
    pub(super) fn wake(&self) {
        self.reader.unpark();
    }
}

/// The leader, as a reader sees it.
pub(super) enum LeaderLink {
    /// In this process, with the publisher of the tables.
    Local {
        /// To the leader.
        leader: Sender<Told>,
        /// What is published.
        publisher: Publisher,
        /// Faults of the threads that make things durable.
        faults: Arc<Faults>,
    },
    /// In another process.
    Remote {
        /// Links to all processes.
        links: &'static Links,
        /// The newest epoch that is in every table.
        visible: Arc<AtomicU64>,
        /// Faults of the thread that writes the runs of this process.
        faults: Arc<Faults>,
        /// Whether this process was asked to stop, and has passed that on.
        stop: (Arc<AtomicBool>, AtomicBool),
    },
}

impl LeaderLink {
    /// Tells the leader.
    pub(super) fn send(&self, message: Message) {
        match self {
            // A leader that has ended wants nothing more.
            LeaderLink::Local { leader, .. } => drop(leader.send((LEADER, message))),
            LeaderLink::Remote { links, .. } => links.send(LEADER, message),
        }
    }

    /// Whether reading may go on.
    pub(super) fn check(&self) -> Result<(), RunError> {
        let (LeaderLink::Local { faults, .. } | LeaderLink::Remote { faults, .. }) = self;
        if let Some(error) = faults.take() {
            return Err(error.into());
        }
        match self {
            LeaderLink::Local { publisher, .. } if publisher.has_failed() => Err(RunError::PublishingFailed),
            LeaderLink::Local { .. } => Ok(()),
            // A signal to one process ends the whole run.
            LeaderLink::Remote { links, stop: (stop, passed_on), .. } => {
                if stop.load(Ordering::Acquire) && !passed_on.swap(true, Ordering::AcqRel) {
                    links.send(LEADER, Message::Stop);
                }
                Ok(())
            }
        }
    }

    /// How far epochs have come.
    pub(super) fn reached(&self) -> Reached {
        match self {
            LeaderLink::Local { publisher, .. } => {
                let (delivered, rows) = publisher.held();
                Reached { delivered: Some(delivered), visible: publisher.visible(), rows }
            }
            LeaderLink::Remote { visible, .. } => {
                Reached { visible: visible.load(Ordering::Acquire) as Epoch, ..Reached::default() }
            }
        }
    }

    /// Says that reading waits for a publication.
    pub(super) fn hurry(&self) {
        match self {
            LeaderLink::Local { publisher, .. } => publisher.hurry(),
            LeaderLink::Remote { links, .. } => links.send(LEADER, Message::Hurry),
        }
    }
}
