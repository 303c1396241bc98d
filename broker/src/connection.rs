//! A connection: one task that reads frames, writes frames, and does what it is told in between.

use crate::consumer::Turn;
use crate::hub::{Cause, Hub, Order, Peer, now as wall_clock};
use crate::requests::Reply;
use crate::session::Session;
use crate::tokens::{Grants, is_key};
use crate::wire::{
    AMQP_HEADER, Body, Frame, MIN_MAX_FRAME, Malformed, Outbox, Outcome, SASL_HEADER, SaslBody, frame_size, read_frame,
    read_sasl,
};
use bytes::BytesMut;
use fe2o3_amqp_types::performatives::{Begin, Open};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The greatest number of a session, as Event Hubs announces it.
const CHANNEL_MAX: u16 = 4999;
/// How long a peer may take to open the connection, and to answer that it is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take to answer a close of ours.
const CLOSING: Duration = Duration::from_millis(500);

/// What is due a little later.
#[derive(Debug)]
struct Delayed {
    due: Instant,
    channel: u16,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The outcome of a delivery, and the answer to a request.
    Settle(Option<(u32, Outcome)>, Option<Reply>),
    /// The answer to a detach.
    Detach { handle: u32, closed: bool },
}

/// What the sessions of a connection share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) hub: Arc<Hub>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) outbox: Outbox,
    pub(crate) grants: Grants,
    /// Links that send, the one whose turn it is first.
    pub(crate) turns: VecDeque<(u16, u32)>,
    delayed: VecDeque<Delayed>,
}

impl Core {
    /// Whether a token covers an address.
    pub(crate) fn authorise(&self, address: &str, claim: &str) -> Result<(), Cause> {
        if !self.hub.options.require_tokens || self.grants.cover(address) {
            return Ok(());
        }
        let description = format!(
            "Unauthorized access. '{claim}' claim(s) are required to perform this operation. Resource: '{address}'."
        );
        Err(Cause::new("amqp:unauthorized-access", description))
    }

    fn later(&mut self, channel: u16, what: What) {
        let due = Instant::now() + self.hub.options.settle_delay;
        self.delayed.push_back(Delayed { due, channel, what });
    }

    /// Tells an outcome, and an answer, once the peer has had the time to note what it sent.
    pub(crate) fn settle_later(&mut self, channel: u16, outcome: Option<(u32, Outcome)>, reply: Option<Reply>) {
        if outcome.is_some() || reply.is_some() {
            self.later(channel, What::Settle(outcome, reply));
        }
    }

    /// Answers a detach, unless the session ends first. Versions of the Rust client drop links and session one after
    /// the other, without waiting, and close the connection over answers for links that they have dropped.
    pub(crate) fn detach_later(&mut self, channel: u16, handle: u32, closed: bool) {
        self.later(channel, What::Detach { handle, closed });
    }

    /// Answers a detach at once if that is still to be done: the handle is about to be used again.
    pub(crate) fn detach_now(&mut self, channel: u16, handle: u32) {
        let outbox = &mut self.outbox;
        self.delayed.retain(|delayed| match delayed.what {
            What::Detach { handle: waiting, closed } if (delayed.channel, waiting) == (channel, handle) => {
                outbox.detach(channel, handle, closed, None);
                false
            }
            _ => true,
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has been said yet.
    Greeting,
    /// SASL is spoken.
    Sasl,
    /// SASL is over.
    Secured,
    /// AMQP is spoken, and the peer is to open the connection.
    Opening,
    Open,
    /// We have closed, and wait for the peer to do so.
    Closing,
    /// Nothing more is read; what waits is sent.
    Closed,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer has gone, or both sides have closed.
    Closed,
    /// A switch has cut it.
    Cut,
}

/// A connection with a client.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    core: Core,
    phase: Phase,
    /// When waiting for the peer ends.
    patience: Option<Instant>,
    sessions: BTreeMap<u16, Session>,
    /// How often the peer wants to hear from us, and when it next does.
    heartbeat: Option<(Duration, Instant)>,
    /// When the next token expires.
    expiry: Option<Instant>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sessions.values_mut().for_each(|session| session.forget_all(&self.core));
        self.core.hub.exit(self.id);
    }
}

impl Connection {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        let id = hub.next_id();
        let peer = hub.enter(id);
        let (outbox, grants) = (Outbox::new(), Grants::default());
        let core = Core { hub, peer, outbox, grants, turns: VecDeque::new(), delayed: VecDeque::new() };
        let patience = Some(Instant::now() + PATIENCE);
        Self { id, core, phase: Phase::Greeting, patience, sessions: BTreeMap::new(), heartbeat: None, expiry: None }
    }

    pub(crate) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.core.peer)
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.core.outbox
    }

    /// Nothing more is to be read.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn close(&mut self, error: Option<(&str, &str)>) {
        if matches!(self.phase, Phase::Opening | Phase::Open) {
            if self.phase == Phase::Opening {
                self.open_ours();
            }
            self.core.outbox.close(error);
            self.phase = Phase::Closing;
            self.patience = Some(Instant::now() + CLOSING);
        } else if self.phase != Phase::Closing {
            self.phase = Phase::Closed;
        }
    }

    fn open_ours(&mut self) {
        self.core.outbox.open(&format!("tidemark-broker-{}", self.id), CHANNEL_MAX);
    }

    /// Takes what was read. What cannot be understood closes the connection.
    pub(crate) fn take(&mut self, input: &mut BytesMut) {
        if let Err(error) = self.take_all(input) {
            tracing::warn!(connection = self.id, %error, "closing a connection");
            self.close(Some(("amqp:decode-error", &error.0)));
            input.clear();
        }
    }

    fn take_all(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        loop {
            match self.phase {
                Phase::Closed => {
                    input.clear();
                    return Ok(());
                }
                Phase::Greeting | Phase::Secured => {
                    let Some(header) = input.first_chunk::<8>().copied() else { return Ok(()) };
                    let _ = input.split_to(8);
                    self.on_header(header)?;
                }
                Phase::Sasl => {
                    let Some(frame) = next_frame(input)? else { return Ok(()) };
                    let SaslBody::Init(init) = read_sasl(&frame)?;
                    self.on_sasl(init.mechanism.as_str(), init.initial_response.as_deref().map(Vec::as_slice));
                }
                Phase::Opening | Phase::Open | Phase::Closing => {
                    let Some(frame) = next_frame(input)? else { return Ok(()) };
                    self.on_frame(read_frame(&frame)?)?;
                }
            }
        }
    }

    fn on_header(&mut self, header: [u8; 8]) -> Result<(), Malformed> {
        match (self.phase, header) {
            (Phase::Greeting, SASL_HEADER) => {
                self.core.outbox.raw(&SASL_HEADER);
                self.core.outbox.sasl_mechanisms();
                self.phase = Phase::Sasl;
            }
            (_, AMQP_HEADER) => {
                self.core.outbox.raw(&AMQP_HEADER);
                self.phase = Phase::Opening;
            }
            _ => {
                // Whoever speaks something else is told what is spoken here.
                self.core.outbox.raw(&SASL_HEADER);
                self.phase = Phase::Closed;
                let tls = header.starts_with(&[0x16, 0x03]);
                return Err(Malformed::new(if tls { "TLS on a port without it" } else { "no AMQP 1.0" }));
            }
        }
        Ok(())
    }

    fn on_sasl(&mut self, mechanism: &str, response: Option<&[u8]>) {
        let accepted = match mechanism {
            "ANONYMOUS" => true,
            "PLAIN" => {
                let mut parts = response.unwrap_or_default().split(|byte| *byte == 0).skip(1);
                let mut part = || parts.next().and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default();
                let (name, key) = (part(), part());
                let known = is_key(&self.core.hub.options, name, key);
                if known {
                    self.core.grants.add_all();
                }
                known || !self.core.hub.options.require_tokens
            }
            _ => false,
        };
        self.core.outbox.sasl_outcome(u8::from(!accepted));
        self.phase = if accepted { Phase::Secured } else { Phase::Closed };
    }

    fn on_open(&mut self, open: &Open) -> Result<(), Malformed> {
        if open.max_frame_size.0 < MIN_MAX_FRAME {
            return Err(Malformed::new(format!("a max-frame-size of {}", open.max_frame_size.0)));
        }
        self.open_ours();
        self.core.outbox.set_max_frame(open.max_frame_size.0);
        // Twice as often as the peer wants, as the specification recommends.
        let idle = open.idle_time_out.filter(|idle| *idle > 0);
        self.heartbeat = idle.map(|idle| {
            let every = Duration::from_millis(u64::from(idle / 2).max(1));
            (every, Instant::now() + every)
        });
        self.phase = Phase::Open;
        self.patience = None;
        Ok(())
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Malformed> {
        if channel > CHANNEL_MAX || self.sessions.contains_key(&channel) {
            return Err(Malformed::new(format!("the channel {channel} is in use or greater than {CHANNEL_MAX}")));
        }
        let session = Session::new(&mut self.core, channel, begin);
        self.sessions.insert(channel, session);
        Ok(())
    }

    fn on_frame(&mut self, frame: Frame<'_>) -> Result<(), Malformed> {
        let Frame { channel, body } = frame;
        match (self.phase, &body) {
            (_, Body::Empty) => return Ok(()),
            (_, Body::Close(close)) => {
                tracing::debug!(connection = self.id, error = ?close.error, "closed by the client");
                if self.phase == Phase::Opening {
                    self.open_ours();
                }
                if self.phase != Phase::Closing {
                    self.core.outbox.close(None);
                }
                self.phase = Phase::Closed;
                return Ok(());
            }
            (Phase::Closing, _) => return Ok(()),
            (Phase::Opening, Body::Open(open)) => return self.on_open(open),
            (Phase::Open, Body::Begin(begin)) => return self.on_begin(channel, begin),
            (Phase::Open, Body::Open(_)) | (Phase::Opening, _) => {
                return Err(Malformed::new("a frame out of its order"));
            }
            _ => {}
        }
        let core = &mut self.core;
        let session = self.sessions.get_mut(&channel);
        let session = session.ok_or_else(|| Malformed::new(format!("no session on channel {channel}")))?;
        match body {
            Body::Attach(attach) => return session.on_attach(core, &attach),
            Body::Transfer(transfer, payload) => return session.on_transfer(core, &transfer, payload),
            Body::Flow(flow) => session.on_flow(core, &flow),
            Body::Detach(detach) => session.on_detach(core, &detach),
            Body::End => {
                session.forget_all(core);
                self.sessions.remove(&channel);
                self.core.delayed.retain(|delayed| delayed.channel != channel);
                self.core.outbox.end(channel, None);
            }
            Body::Disposition | Body::Empty | Body::Open(_) | Body::Begin(_) | Body::Close(_) => {}
        }
        Ok(())
    }

    /// Does what is due: orders, outcomes, deliveries. Answers when something is due again, or that all is over.
    pub(crate) fn step(&mut self, now: Instant) -> Result<Option<Instant>, Ended> {
        while let Some(order) = self.core.peer.take_order() {
            if self.follow(order) == Some(Ended::Cut) {
                return Err(Ended::Cut);
            }
        }
        if self.patience.is_some_and(|patience| patience <= now) {
            return Err(Ended::Closed);
        }
        if let Some((every, next)) = &mut self.heartbeat
            && *next <= now
        {
            *next = now + *every;
            self.core.outbox.heartbeat();
        }
        self.settle(now);
        self.expire(now);
        let next_turn = if self.phase == Phase::Open { self.take_turns(now) } else { None };
        let due = self.core.delayed.front().map(|delayed| delayed.due);
        let beat = self.heartbeat.map(|(_, next)| next);
        Ok([self.patience, due, beat, self.expiry, next_turn].into_iter().flatten().min())
    }

    fn follow(&mut self, order: Order) -> Option<Ended> {
        let core = &mut self.core;
        let mut detach = |cause: &Cause, chosen: &dyn Fn(u64, usize) -> bool| {
            self.sessions.values_mut().for_each(|session| session.detach_consumers(core, cause, chosen));
        };
        match order {
            Order::Cut => return Some(Ended::Cut),
            Order::Close => self.close(Some(("amqp:connection:forced", "The broker is stopping."))),
            Order::Detach(None, cause) => detach(&cause, &|_, _| true),
            Order::Detach(Some(partition), cause) => detach(&cause, &|_, of| of == partition),
            Order::DetachLink(link, cause) => detach(&cause, &|id, _| id == link),
            Order::Redeliver { partition, from, to } => {
                self.sessions.values_mut().for_each(|session| session.redeliver(partition, from, to));
            }
        }
        None
    }

    fn settle(&mut self, now: Instant) {
        while self.core.delayed.front().is_some_and(|delayed| delayed.due <= now) {
            let Some(delayed) = self.core.delayed.pop_front() else { return };
            match delayed.what {
                What::Detach { handle, closed } => self.core.outbox.detach(delayed.channel, handle, closed, None),
                What::Settle(outcome, reply) => {
                    if let Some((id, outcome)) = outcome {
                        self.core.outbox.disposition(delayed.channel, id, &outcome);
                    }
                    self.send_reply(reply);
                }
            }
        }
    }

    fn send_reply(&mut self, mut reply: Option<Reply>) {
        // By its address, else the only link of the node: not every client names the address that it attached.
        for exact in [true, false] {
            for session in self.sessions.values_mut() {
                reply = reply.and_then(|reply| session.push_reply(reply, exact));
            }
        }
        if let Some(reply) = reply {
            tracing::warn!(connection = self.id, to = reply.to, "nowhere to send the answer of a request");
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.expiry.is_some_and(|expiry| expiry <= now) && self.core.hub.options.require_tokens {
            self.sessions.values_mut().for_each(|session| session.detach_expired(&mut self.core));
        }
        // Wall clock against the clock of waiting: a little later than exact does no harm.
        self.expiry = self.core.grants.next_expiry().map(|expiry| {
            let left = u64::try_from(expiry.saturating_sub(wall_clock())).unwrap_or(0).min(86_400_000);
            now + Duration::from_millis(left + 1)
        });
    }

    /// Lets links send, one after the other, until all are idle or enough waits to be sent.
    fn take_turns(&mut self, now: Instant) -> Option<Instant> {
        let (mut idle, mut next) = (0, None::<Instant>);
        while idle < self.core.turns.len() && !self.core.outbox.is_full() {
            let Some((channel, handle)) = self.core.turns.pop_front() else { break };
            let session = self.sessions.get_mut(&channel);
            let Some(turn) = session.and_then(|session| session.turn(&mut self.core, handle, now)) else { continue };
            self.core.turns.push_back((channel, handle));
            match turn {
                Turn::More => idle = 0,
                Turn::Idle => idle += 1,
                Turn::At(at) => {
                    idle += 1;
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
        }
        next
    }
}

/// Takes the first frame out of the input if it is whole.
fn next_frame(input: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    Ok(frame_size(input)?.filter(|size| *size <= input.len()).map(|size| input.split_to(size)))
}
