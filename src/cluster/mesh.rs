//! Makes the connections of this process to all others, in whatever order they start.
//!
//! A thread accepts, and another one for each connection finds out who is there, so that a stranger who says nothing holds
//! up nobody. A thread for each process with a smaller number connects to it, again and again until it answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::handshake::{self, Introduction, PATIENCE, Peer, Purpose, Refusal};
use super::{Error, Member};
use crate::config::units::format_duration;

/// Time between two looks for a connection, and between two tries to make one.
const PAUSE: Duration = Duration::from_millis(20);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// Handshakes under way at once. Where one more comes, the oldest is ended: so those who only hold them keep nobody out.
const HANDSHAKES_MAX: usize = 64;

const MINUTE: Duration = Duration::from_secs(60);

/// Lines a minute about connections that were refused.
const REFUSALS_TOLD: u32 = 10;

/// Time after which whoever waits is told what for.
const UNEASY: Duration = Duration::from_secs(2);

/// The connections of this process, one of each kind to every other: by number, with none to itself.
pub struct Mesh {
    /// For the dataflow.
    pub data: Vec<Option<Channel>>,
    /// For messages.
    pub control: Vec<Option<Channel>>,
}

/// What the threads tell of.
enum Event {
    Joined(Peer, Channel),
    /// Whoever connected from there has proved that it knows the secret, but its settings do not fit.
    Unfit(String),
    /// This process does not fit, or cannot listen.
    Impossible(Error),
}

/// Handshakes under way, the oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<(SocketAddr, TcpStream)>);

impl Handshakes {
    /// One more is under way; the oldest is ended if there are too many then. Its thread finds it closed, and says so.
    fn begin(&mut self, from: SocketAddr, stream: TcpStream) {
        self.0.push_back((from, stream));
        if self.0.len() > HANDSHAKES_MAX
            && let Some((from, oldest)) = self.0.pop_front()
        {
            tracing::debug!(%from, "ended a handshake: too many at once");
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }

    /// One is over.
    fn end(&mut self, from: SocketAddr) {
        self.0.retain(|(other, _)| *other != from);
    }
}

/// Connections that were refused within a minute.
struct Refusals {
    since: Instant,
    told: u32,
    untold: u64,
}

/// What the threads share.
struct Shared {
    member: Arc<Member>,
    incarnation: u64,
    over: AtomicBool,
    handshakes: Mutex<Handshakes>,
    refusals: Mutex<Refusals>,
    events: Sender<Event>,
}

impl Shared {
    fn me(&self) -> Introduction<'_> {
        Introduction {
            process: self.member.process,
            processes: self.member.processes(),
            incarnation: self.incarnation,
            key: &self.member.key,
            fingerprint: &self.member.fingerprint,
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a connection that was refused, unless there was much of that kind within a minute.
    fn refused(&self, from: SocketAddr, why: &dyn Display) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.since.elapsed() >= MINUTE {
            if refusals.untold > 0 {
                tracing::warn!(refused = refusals.untold, "refused more connections in the minute before");
            }
            *refusals = Refusals { since: Instant::now(), told: 0, untold: 0 };
        }
        if refusals.told >= REFUSALS_TOLD {
            refusals.untold += 1;
            return;
        }
        refusals.told += 1;
        let more = if refusals.told == REFUSALS_TOLD { "; more of this minute are counted only" } else { "" };
        tracing::warn!(%from, "refused a connection: {why}{more}");
    }

    fn tell(&self, event: Event) {
        // Nobody waits any more once all are there.
        let _ = self.events.send(event);
    }
}

/// Waits until this process is connected to all others, or the time is up, or `stop` is set.
///
/// # Errors
///
/// When one of them does not come, this one does not fit the others, or its address cannot be listened on.
pub fn join(member: &Arc<Member>, stop: &AtomicBool) -> Result<Mesh, Error> {
    let (events, told) = channel();
    let shared = Arc::new(Shared {
        member: Arc::clone(member),
        incarnation: getrandom::u64().map_err(|error| Error::Unavailable(format!("no random numbers: {error}")))?,
        over: AtomicBool::new(false),
        handshakes: Mutex::default(),
        refusals: Mutex::new(Refusals { since: Instant::now(), told: 0, untold: 0 }),
        events,
    });
    let unstarted = |error| Error::Unavailable(format!("no thread can be started: {error}"));
    if member.process + 1 < member.processes() {
        let listener = listen(member)?;
        tracing::info!(address = member.listen, "listening for other processes");
        let accepts = Arc::clone(&shared);
        Builder::new().name("accept".to_owned()).spawn(move || accept_all(&accepts, &listener)).map_err(unstarted)?;
    }
    for peer in 0..member.process {
        let connects = Arc::clone(&shared);
        let connect = move || connect_to(&connects, peer);
        Builder::new().name(format!("connect-{peer}")).spawn(connect).map_err(unstarted)?;
    }
    let mut arrivals = Arrivals::default();
    let (begun, mut uneasy, mut unfit) = (Instant::now(), false, None);
    let joined = loop {
        if arrivals.are_complete(member) {
            break Ok(());
        }
        if stop.load(Ordering::Acquire) {
            break Err(Error::Stopped);
        }
        if begun.elapsed() >= member.join_timeout {
            break Err(unfit.unwrap_or_else(|| absent(member, &arrivals)));
        }
        if begun.elapsed() >= UNEASY && !uneasy {
            uneasy = true;
            tracing::info!("waiting for {}", arrivals.missing(member).join(", "));
        }
        match told.recv_timeout(PAUSE) {
            Ok(Event::Joined(peer, channel)) => arrivals.add(peer, channel),
            Ok(Event::Unfit(why)) => unfit = Some(Error::Setting(why)),
            Ok(Event::Impossible(error)) => break Err(error),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    };
    // The listener closes with its thread.
    shared.over.store(true, Ordering::Release);
    joined.map(|()| arrivals.into_mesh(member))
}

fn absent(member: &Member, arrivals: &Arrivals) -> Error {
    let missing = arrivals.missing(member).join(", ");
    let waited = format_duration(member.join_timeout);
    Error::Unavailable(format!(
        "not all processes came within {waited} (cluster.join_timeout): {missing} did not; start them all, and check that \
         each can reach those with smaller numbers"
    ))
}

/// The connections to one process. Those of an earlier start of it are of no use.
#[derive(Default)]
struct Arrival {
    incarnation: u64,
    data: Option<Channel>,
    control: Option<Channel>,
}

#[derive(Default)]
struct Arrivals(BTreeMap<usize, Arrival>);

impl Arrivals {
    fn add(&mut self, peer: Peer, channel: Channel) {
        let arrival = self.0.entry(peer.process).or_default();
        if arrival.incarnation != peer.incarnation {
            *arrival = Arrival { incarnation: peer.incarnation, ..Arrival::default() };
        }
        match peer.purpose {
            Purpose::Data => arrival.data = Some(channel),
            Purpose::Control => arrival.control = Some(channel),
        }
    }

    fn is_here(&self, process: usize) -> bool {
        self.0.get(&process).is_some_and(|arrival| arrival.data.is_some() && arrival.control.is_some())
    }

    fn missing(&self, member: &Member) -> Vec<String> {
        let others = (0..member.processes()).filter(|process| *process != member.process);
        others.filter(|process| !self.is_here(*process)).map(|process| member.name(process)).collect()
    }

    fn are_complete(&self, member: &Member) -> bool {
        self.missing(member).is_empty()
    }

    fn into_mesh(mut self, member: &Member) -> Mesh {
        let all = (0..member.processes()).map(|process| self.0.remove(&process).unwrap_or_default());
        let (data, control) = all.map(|arrival| (arrival.data, arrival.control)).unzip();
        Mesh { data, control }
    }
}

fn listen(member: &Member) -> Result<TcpListener, Error> {
    let begun = Instant::now();
    let listener = loop {
        match TcpListener::bind(&member.listen) {
            // Whoever has it may be about to end, as the process does that had this place before.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < UNEASY => sleep(BETWEEN_TRIES),
            listener => break listener,
        }
    };
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| {
        let what = format!("{} cannot listen on {}: {error}", member.name(member.process), member.listen);
        match error.kind() {
            io::ErrorKind::AddrNotAvailable => Error::Setting(format!(
                "{what}; set cluster.listen to an address of this machine, or cluster.process to the entry in cluster.hosts \
                 that is this machine"
            )),
            io::ErrorKind::AddrInUse => {
                Error::Unavailable(format!("{what}; end the process that uses it, or choose other ports in cluster.hosts"))
            }
            _ => Error::Unavailable(what),
        }
    })
}

fn accept_all(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.is_over() {
        match listener.accept() {
            Ok((stream, from)) => admit(shared, stream, from),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(BETWEEN_TRIES);
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let Ok(held) = stream.try_clone() else { return };
    shared.handshakes().begin(from, held);
    let host = Arc::clone(shared);
    let started = Builder::new().name("handshake".to_owned()).spawn(move || {
        meet(&host, stream, from);
        host.handshakes().end(from);
    });
    if started.is_err() {
        shared.handshakes().end(from);
    }
}

fn meet(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    match handshake::accept(stream, &shared.me()) {
        Ok((peer, channel)) if peer.process < shared.member.processes() => shared.tell(Event::Joined(peer, channel)),
        Ok((peer, _)) => {
            shared.refused(from, &format_args!("there is no process {}", peer.process));
        }
        // Its connections end with ours: it will not come again.
        Err(Refusal::Broken(_)) if shared.is_over() => {}
        Err(refusal) => {
            shared.refused(from, &refusal);
            if matches!(refusal, Refusal::Settings(_)) {
                let me = shared.member.name(shared.member.process);
                shared.tell(Event::Unfit(format!("{me} refused a process at {from}: {refusal}; set them alike")));
            }
        }
    }
}

/// Makes both connections to a process, or none.
fn connect_to(shared: &Shared, peer: usize) {
    let name = shared.member.name(peer);
    let mut told = false;
    while !shared.is_over() {
        let refusal = match both(shared, peer) {
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        let me = shared.member.name(shared.member.process);
        match &refusal {
            Refusal::Settings(_) => {
                let why = format!("{me} does not fit {name}: {refusal}; set them alike");
                return shared.tell(Event::Impossible(Error::Setting(why)));
            }
            Refusal::Secret | Refusal::Misdirected(_) => {
                let why = format!(
                    "{me} was refused by {name}: {refusal}; give all processes the same cluster.secret and \
                                   cluster.hosts, and each its own cluster.process"
                );
                return shared.tell(Event::Impossible(Error::Setting(why)));
            }
            Refusal::Stranger if !told => {
                told = true;
                tracing::warn!("{name}: {refusal}; trying again");
            }
            Refusal::Stranger | Refusal::Broken(_) => tracing::debug!("{name}: {refusal}"),
        }
        sleep(BETWEEN_TRIES);
    }
}

fn both(shared: &Shared, peer: usize) -> Result<(), Refusal> {
    let connect = |purpose| {
        let stream = reach(shared.member.addresses.get(peer).map_or("", String::as_str))?;
        handshake::connect(stream, &shared.me(), peer, purpose)
    };
    let (control, data) = (connect(Purpose::Control)?, connect(Purpose::Data)?);
    if control.0.incarnation != data.0.incarnation {
        return Err(Refusal::Broken(io::Error::other("it was started again in between")));
    }
    [control, data].into_iter().for_each(|(peer, channel)| shared.tell(Event::Joined(peer, channel)));
    Ok(())
}

/// Connects to the first of a host's addresses that answers.
fn reach(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;
