//! The control links of this process: messages in both directions, signs of life, and what happens when one breaks.
//!
//! Each link has a thread that writes and one that reads. Whoever sends never waits. A link that is closed, or silent for
//! too long, means that the process behind it is lost: then this one tells the others and [ends](super::ending).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use timely::communication::allocator::zero_copy::stream::Stream;

use super::channel::Channel;
use super::messages::{self, Failed, Message};
use super::{Member, ending};
use crate::config::units::format_duration;
use crate::exit::ExitStatus;

/// How many signs of life a process gives in the time after which it is lost.
const BEATS: u32 = 5;

/// How long to wait for somebody to say why a connection broke: what they said may still have to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long the others may take to read why this process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Time between two looks for what another process has said.
const PAUSE: Duration = Duration::from_millis(5);

/// What a writing thread is given.
enum Outgoing {
    Message(Message),
    /// Everything before it has been written.
    Written(SyncSender<()>),
}

/// The control links of this process, for as long as it lives.
pub struct Links {
    member: Arc<Member>,
    outgoing: Vec<Option<Sender<Outgoing>>>,
    /// Which processes have said that they may go away.
    done: Vec<AtomicBool>,
    told: Mutex<Option<Failed>>,
    heard: Condvar,
}

/// What came, and from which process.
pub type Incoming = Receiver<(usize, Message)>;

impl Links {
    /// Starts to listen to every process, and to give signs of life. `channels` has a connection for each process but this
    /// one.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(member: Arc<Member>, channels: Vec<Option<Channel>>) -> io::Result<(&'static Links, Incoming)> {
        let (mut outgoing, mut connections) = (Vec::new(), Vec::new());
        for (peer, connection) in channels.into_iter().enumerate() {
            let Some(connection) = connection else {
                outgoing.push(None);
                continue;
            };
            let (sender, messages) = channel();
            outgoing.push(Some(sender));
            connections.push((peer, connection, messages));
        }
        let done = outgoing.iter().map(|_| AtomicBool::new(false)).collect();
        let links = Links { member, outgoing, done, told: Mutex::default(), heard: Condvar::new() };
        // Its threads end with the process.
        let links: &'static Links = Box::leak(Box::new(links));
        ending::watch_over(links);
        let (incoming, received) = channel();
        for (peer, connection, messages) in connections {
            let (reads, incoming) = (connection.try_clone()?, incoming.clone());
            let write = move || links.write(peer, connection, &messages);
            Builder::new().name(format!("link-to-{peer}")).spawn(write)?;
            Builder::new().name(format!("link-from-{peer}")).spawn(move || links.read(peer, reads, &incoming))?;
        }
        Ok((links, received))
    }

    /// Keeps the connections of the dataflow alive: one that is held up on the way is lost as a process is.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn keep_alive(&self, data: &[Option<Channel>]) -> io::Result<()> {
        // As for messages, the first sign of life comes once the other one has found all.
        let then = self.member.lost_after;
        let first = then + self.member.join_timeout;
        data.iter().flatten().try_for_each(|channel| channel.keep_alive(then / BEATS, first, then))
    }

    /// This process among the others.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Sends to one process.
    pub fn send(&self, to: usize, message: Message) {
        if let Some(Some(outgoing)) = self.outgoing.get(to) {
            // A thread that has gone had its reason, and has told of it.
            let _ = outgoing.send(Outgoing::Message(message));
        }
    }

    /// Sends to all others.
    pub fn broadcast(&self, message: &Message) {
        (0..self.outgoing.len()).for_each(|peer| self.send(peer, message.clone()));
    }

    /// Tells all others that this process cannot go on. If one of them said so first, this process ends because of that.
    pub fn fail(&self, status: ExitStatus, why: &str) {
        if !ending::begin() {
            ending::stand_still();
        }
        let why = format!("{}: {}", self.member.name(self.member.process), why.replace('\n', "; "));
        self.broadcast(&Message::Failed(Failed { status: status as u8, why }));
        self.flush_but(self.member.process);
    }

    /// Tells all others that this process may go away.
    pub fn say_done(&self) {
        self.broadcast(&Message::Done);
        self.flush_but(self.member.process);
    }

    /// Whether a process has said that it may go away.
    pub fn is_done(&self, process: usize) -> bool {
        self.done.get(process).is_some_and(|done| done.load(Ordering::Acquire))
    }

    /// Waits until all others have said so. One that never does is lost at some time.
    pub fn await_done(&self) {
        let others = (0..self.done.len()).filter(|process| *process != self.member.process);
        for process in others {
            while !self.is_done(process) {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// A process is gone, unless it has said that it would go. Does not return then: this one ends, after it has told the
    /// others.
    pub fn lost(&self, peer: usize, what: &str) {
        if self.done.get(peer).is_none_or(|done| done.load(Ordering::Acquire)) {
            return;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(told, LAST_WORDS, |told| told.is_none());
        let told = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
        let failed = told.unwrap_or_else(|| {
            let who = self.member.name(peer);
            let why = format!(
                "{who} is lost: {what}; all processes end, and go on from the last checkpoint once they are started again"
            );
            Failed { status: ExitStatus::Unavailable as u8, why }
        });
        // Were it to wake up, it should not read that it is lost itself.
        let others = (0..self.outgoing.len()).filter(|other| *other != peer);
        others.for_each(|other| self.send(other, Message::Failed(failed.clone())));
        self.flush_but(peer);
        ending::end(failed.status(), &failed.why)
    }

    /// Waits until all others but one, whose thread may be the one that calls, have been written what was sent; but not
    /// for long.
    fn flush_but(&self, peer: usize) {
        let (written, all) = sync_channel(self.outgoing.len());
        let others = self.outgoing.iter().enumerate().filter(|(other, _)| *other != peer);
        let asked = others.filter_map(|(_, to)| to.as_ref()?.send(Outgoing::Written(written.clone())).ok()).count();
        drop(written);
        let deadline = Instant::now() + FAREWELL;
        for _ in 0..asked {
            if all.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }

    fn write(&self, peer: usize, mut channel: Channel, messages: &Receiver<Outgoing>) {
        let beat = self.member.lost_after / BEATS;
        // What cannot be written for so long is not read any more.
        let _ = channel.set_write_timeout(Some(self.member.lost_after));
        loop {
            let message = match messages.recv_timeout(beat) {
                Ok(Outgoing::Written(tell)) => {
                    let _ = tell.send(());
                    continue;
                }
                Ok(Outgoing::Message(message)) => message,
                Err(RecvTimeoutError::Timeout) => Message::Beat,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = messages::write(&mut channel, &message) {
                return self.lost(peer, &self.in_words(&error));
            }
        }
    }

    fn read(&self, peer: usize, mut channel: Channel, incoming: &Sender<(usize, Message)>) {
        // Its first sign of life comes once it has found all the others.
        let mut patience = self.member.join_timeout + self.member.lost_after;
        loop {
            let _ = channel.set_read_timeout(Some(patience));
            match messages::read(&mut channel) {
                Ok(Message::Beat) => {}
                Ok(Message::Failed(failed)) => self.hear(failed),
                Ok(message) => {
                    if message == Message::Done {
                        self.done[peer].store(true, Ordering::Release);
                    }
                    // Who does not listen any more is about to end.
                    let _ = incoming.send((peer, message));
                }
                Err(error) => return self.lost(peer, &self.in_words(&error)),
            }
            patience = self.member.lost_after;
        }
    }

    /// Another process cannot go on, so this one cannot either.
    fn hear(&self, failed: Failed) -> ! {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed.clone());
        self.heard.notify_all();
        ending::end(failed.status(), &failed.why)
    }

    fn in_words(&self, error: &io::Error) -> String {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match error.kind() {
            WouldBlock | TimedOut => {
                format!("no sign of life for {} (cluster.lost_after)", format_duration(self.member.lost_after))
            }
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => "it closed its connection".to_owned(),
            _ => format!("its control link broke ({error})"),
        }
    }
}
