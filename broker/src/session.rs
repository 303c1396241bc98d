//! Sessions and their links.

use crate::connection::Core;
use crate::consumer::{Consumer, Route, Sending, Turn};
use crate::filter::Position;
use crate::hub::Cause;
use crate::inflow::Inflow;
use crate::outflow::{Outflow, Window};
use crate::producer::Producer;
use crate::requests::{Node, Replies, Reply, Requests};
use crate::tokens::path;
use crate::wire::{Attached, Malformed, Outcome, Transfer as Head};
use fe2o3_amqp_types::definitions::{Handle, Role};
use fe2o3_amqp_types::messaging::TargetArchetype;
use fe2o3_amqp_types::performatives::{Attach, Begin, Detach, Flow, Transfer};
use fe2o3_amqp_types::primitives::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// Frames that a peer may send before it hears of the session again; flows for links come far earlier.
const INCOMING_WINDOW: u32 = 1 << 30;
/// The greatest handle of a link.
pub(crate) const HANDLE_MAX: u32 = 255;

/// What receivers ask for who want to be told the newest event of their partition with each delivery.
const RUNTIME_METRIC: &str = "com.microsoft:enable-receiver-runtime-metric";

/// A link, which has the same handle on both sides.
#[derive(Debug)]
enum Link {
    Producer(Producer),
    Requests(Requests),
    Replies(Replies, Outflow),
    Consumer(Consumer),
    /// We have detached it, and the peer has not answered yet.
    Detached,
}

/// What a link is for, and the address that says so.
#[derive(Debug)]
struct Wanted {
    address: String,
    /// The other end's address, to which answers are sent.
    other: String,
    epoch: Option<i64>,
}

impl Wanted {
    fn of(attach: &Attach) -> Self {
        let source = attach.source.as_ref().and_then(|source| source.address.clone()).unwrap_or_default();
        let target = match attach.target.as_deref() {
            Some(TargetArchetype::Target(target)) => target.address.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let (address, other) = if attach.role == Role::Receiver { (source, target) } else { (target, source) };
        let properties = attach.properties.as_ref();
        let epoch = properties.and_then(|properties| {
            properties
                .iter()
                .find(|(name, _)| name.as_str() == "com.microsoft:epoch")
                .and_then(|(_, value)| integer(value))
        });
        Self { address, other, epoch }
    }
}

/// Whether a receiver wants each delivery to name the newest event of its partition.
fn asks_for_newest(attach: &Attach) -> bool {
    let wanted = attach.desired_capabilities.as_ref();
    wanted.is_some_and(|wanted| wanted.0.iter().any(|name| name.as_str() == RUNTIME_METRIC))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Long(number) => Some(*number),
        Value::Int(number) => Some(i64::from(*number)),
        Value::Short(number) => Some(i64::from(*number)),
        Value::Byte(number) => Some(i64::from(*number)),
        Value::Ulong(number) => i64::try_from(*number).ok(),
        Value::Uint(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn not_found(what: &str) -> Cause {
    Cause::new("amqp:not-found", format!("The messaging entity '{what}' could not be found."))
}

/// Some clients answer our detach in one place and go on sending in another, so this is no reason to end a session.
fn unknown(handle: u32, what: &str) {
    tracing::debug!(handle, what, "no link has this handle any more");
}

/// A session, which has the same channel on both sides.
#[derive(Debug)]
pub(crate) struct Session {
    channel: u16,
    next_incoming_id: u32,
    window: Window,
    links: BTreeMap<u32, Link>,
}

impl Session {
    /// Answers a begin.
    pub(crate) fn new(core: &mut Core, channel: u16, begin: &Begin) -> Self {
        core.outbox.begin(channel, INCOMING_WINDOW, HANDLE_MAX);
        Self {
            channel,
            next_incoming_id: begin.next_outgoing_id,
            window: Window::new(begin.incoming_window),
            links: BTreeMap::new(),
        }
    }

    fn flow(&self, core: &mut Core, handle: u32, [delivery_count, credit]: [u32; 2]) {
        let session = [self.next_incoming_id, INCOMING_WINDOW, self.window.next_outgoing_id, u32::MAX / 2];
        core.outbox.flow(self.channel, session, Some([handle, delivery_count, credit]));
    }

    fn detach(&mut self, core: &mut Core, handle: u32, cause: &Cause) {
        tracing::debug!(handle, condition = cause.condition, description = cause.description, "detaching a link");
        core.outbox.detach(self.channel, handle, true, Some((&cause.condition, &cause.description)));
        self.forget(core, handle);
        self.links.insert(handle, Link::Detached);
    }

    fn forget(&mut self, core: &Core, handle: u32) {
        if let Some(Link::Consumer(consumer)) = self.links.remove(&handle)
            && let Some(partition) = core.hub.partitions().get(consumer.partition)
        {
            partition.leave(consumer.id);
        }
    }

    /// The session ends.
    pub(crate) fn forget_all(&mut self, core: &Core) {
        let handles: Vec<u32> = self.links.keys().copied().collect();
        handles.into_iter().for_each(|handle| self.forget(core, handle));
    }

    pub(crate) fn on_attach(&mut self, core: &mut Core, attach: &Attach) -> Result<(), Malformed> {
        let Handle(handle) = attach.handle;
        if handle > HANDLE_MAX || self.links.contains_key(&handle) {
            return Err(Malformed::new(format!("the handle {handle} is in use or greater than {HANDLE_MAX}")));
        }
        core.detach_now(self.channel, handle);
        let max_message_size = u64::try_from(crate::hub::MAX_MESSAGE).unwrap_or(u64::MAX);
        core.outbox.attach(self.channel, attach, Attached { max_message_size });
        let wanted = Wanted::of(attach);
        tracing::debug!(handle, address = wanted.address, epoch = wanted.epoch, "attaching a link");
        let link = match attach.role {
            Role::Sender => Self::receiving(core, attach, &wanted),
            Role::Receiver => Self::sending(core, attach, &wanted),
        };
        match link {
            Ok(link) => {
                let sends = matches!(link, Link::Consumer(_) | Link::Replies(..));
                self.links.insert(handle, link);
                if sends {
                    // An earlier link of this handle may have left its place.
                    if !core.turns.contains(&(self.channel, handle)) {
                        core.turns.push_back((self.channel, handle));
                    }
                } else {
                    self.refill(core, handle);
                }
            }
            Err(cause) => self.detach(core, handle, &cause),
        }
        Ok(())
    }

    fn receiving(core: &Core, attach: &Attach, wanted: &Wanted) -> Result<Link, Cause> {
        let count = attach.initial_delivery_count.unwrap_or(0);
        if let Some(node) = Node::of(&wanted.address) {
            return Ok(Link::Requests(Requests::new(node, count)));
        }
        let parts = path(&wanted.address);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let partition = match parts[..] {
            [hub] if core.hub.is_hub(hub) => None,
            [hub, partitions, id] if core.hub.is_hub(hub) && partitions.eq_ignore_ascii_case("Partitions") => {
                Some(core.hub.partition_id(id).ok_or_else(|| not_found(&wanted.address))?)
            }
            _ => return Err(not_found(&wanted.address)),
        };
        core.authorise(&wanted.address, "Send")?;
        Ok(Link::Producer(Producer::new(wanted.address.clone(), partition, count)))
    }

    fn sending(core: &Core, attach: &Attach, wanted: &Wanted) -> Result<Link, Cause> {
        if let Some(node) = Node::of(&wanted.address) {
            return Ok(Link::Replies(Replies::new(node, wanted.other.clone()), Outflow::default()));
        }
        let parts = path(&wanted.address);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let hub = &core.hub;
        let (group, id) = match parts[..] {
            [name, groups, group, partitions, id]
                if hub.is_hub(name)
                    && groups.eq_ignore_ascii_case("ConsumerGroups")
                    && partitions.eq_ignore_ascii_case("Partitions") =>
            {
                (group, id)
            }
            _ => return Err(not_found(&wanted.address)),
        };
        core.authorise(&wanted.address, "Listen")?;
        if !hub.has_group(group) {
            return Err(not_found(&wanted.address));
        }
        let index = hub.partition_id(id).ok_or_else(|| not_found(&wanted.address))?;
        let partition = hub.partitions().get(index).ok_or_else(|| not_found(&wanted.address))?;
        if hub.switches.receivers_busy() {
            return Err(Cause::busy());
        }
        let position =
            Position::of(attach.source.as_deref()).map_err(|error| Cause::new("amqp:invalid-field", error))?;
        let mut consumer = Consumer::new(hub.next_id(), index, wanted.address.clone(), hub.created());
        if asks_for_newest(attach) {
            consumer.name_newest();
        }
        hub.bounds(index);
        // Before the place is looked up: what is appended between the two wakes this connection.
        partition.join(consumer.id, &group.to_lowercase(), wanted.epoch, &core.peer)?;
        consumer.begin_at(position.first(&partition.log.read()));
        Ok(Link::Consumer(consumer))
    }

    fn refill(&mut self, core: &mut Core, handle: u32) {
        let inflow = match self.links.get_mut(&handle) {
            Some(Link::Producer(producer)) => &mut producer.inflow,
            Some(Link::Requests(requests)) => &mut requests.inflow,
            _ => return,
        };
        if let Some(state) = inflow.refill() {
            self.flow(core, handle, state);
        }
    }

    pub(crate) fn on_flow(&mut self, core: &mut Core, flow: &Flow) {
        self.window.update(flow);
        let Some(Handle(handle)) = flow.handle else {
            if flow.echo {
                let session = [self.next_incoming_id, INCOMING_WINDOW, self.window.next_outgoing_id, u32::MAX / 2];
                core.outbox.flow(self.channel, session, None);
            }
            return;
        };
        match self.links.get_mut(&handle) {
            Some(Link::Consumer(consumer)) => consumer.out.update(flow),
            Some(Link::Replies(_, out)) => out.update(flow),
            Some(_) => {}
            None => unknown(handle, "a flow"),
        }
    }

    pub(crate) fn on_transfer(
        &mut self,
        core: &mut Core,
        transfer: &Transfer,
        payload: &[u8],
    ) -> Result<(), Malformed> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        let Handle(handle) = transfer.handle;
        let take = |inflow: &mut Inflow| inflow.take(transfer, payload).map_err(Malformed::new);
        let (id, settled, outcome, reply) = match self.links.get_mut(&handle) {
            Some(Link::Producer(producer)) => {
                let Some(delivery) = take(&mut producer.inflow)? else { return Ok(()) };
                (delivery.id, delivery.settled, producer.keep(&core.hub, &delivery), None)
            }
            Some(Link::Requests(requests)) => {
                let Some(delivery) = take(&mut requests.inflow)? else { return Ok(()) };
                let reply = requests.answer(&core.hub, &mut core.grants, &delivery)?;
                (delivery.id, delivery.settled, Outcome::Accepted, Some(reply))
            }
            // What was on its way when we detached the link.
            Some(Link::Detached) => return Ok(()),
            Some(_) => return Err(Malformed::new("a transfer on a link that only sends")),
            None => {
                unknown(handle, "a transfer");
                return Ok(());
            }
        };
        core.settle_later(self.channel, (!settled).then_some((id, outcome)), reply);
        self.refill(core, handle);
        Ok(())
    }

    pub(crate) fn on_detach(&mut self, core: &mut Core, detach: &Detach) {
        let Handle(handle) = detach.handle;
        match self.links.get(&handle) {
            None => unknown(handle, "a detach"),
            Some(Link::Detached) => {}
            // In kind: whoever only detaches does not expect a close, and would attach again to answer it.
            Some(_) => core.detach_later(self.channel, handle, detach.closed),
        }
        self.forget(core, handle);
    }

    /// Takes a reply for a link of this session. Gives it back if there is none.
    pub(crate) fn push_reply(&mut self, reply: Reply, exact: bool) -> Option<Reply> {
        for link in self.links.values_mut() {
            if let Link::Replies(replies, _) = link
                && replies.node == reply.node
                && (!exact || replies.address == reply.to)
            {
                replies.push(reply.message);
                return None;
            }
        }
        Some(reply)
    }

    /// Lets a link send. None if there is no such link any more.
    pub(crate) fn turn(&mut self, core: &mut Core, handle: u32, now: Instant) -> Option<Turn> {
        let route = Route { channel: self.channel, handle };
        let (turn, report) = match self.links.get_mut(&handle) {
            Some(Link::Consumer(consumer)) => {
                let mut link = Sending { window: &mut self.window, outbox: &mut core.outbox, route };
                let turn = consumer.deliver(&core.hub, &mut link, now);
                let idle = turn == Turn::Idle && !core.outbox.is_full();
                (turn, consumer.out.report(idle))
            }
            Some(Link::Replies(replies, out)) => {
                while out.credit > 0 && self.window.frames > 0 {
                    let Some(message) = replies.pop() else { break };
                    let tag = out.spend();
                    let head = Head { channel: self.channel, handle, delivery_id: self.window.number(), tag };
                    self.window.sent(core.outbox.transfer(head, |bytes| bytes.extend_from_slice(&message)));
                }
                (Turn::Idle, out.report(true))
            }
            _ => return None,
        };
        if let Some(state) = report {
            self.flow(core, handle, state);
        }
        Some(turn)
    }

    /// Detaches the receiver links for which `chosen` is true of their number and partition.
    pub(crate) fn detach_consumers(&mut self, core: &mut Core, cause: &Cause, chosen: impl Fn(u64, usize) -> bool) {
        self.detach_where(core, cause, |link| matches!(link, Link::Consumer(link) if chosen(link.id, link.partition)));
    }

    /// Detaches the links that no token covers any more.
    pub(crate) fn detach_expired(&mut self, core: &mut Core) {
        let grants = std::mem::take(&mut core.grants);
        let cause = Cause::new("amqp:unauthorized-access", "ExpiredToken: The token is expired.");
        self.detach_where(core, &cause, |link| match link {
            Link::Consumer(consumer) => !grants.cover(&consumer.address),
            Link::Producer(producer) => !grants.cover(&producer.address),
            _ => false,
        });
        core.grants = grants;
    }

    fn detach_where(&mut self, core: &mut Core, cause: &Cause, chosen: impl Fn(&Link) -> bool) {
        let chosen: Vec<u32> = self.links.iter().filter(|(_, link)| chosen(link)).map(|(handle, _)| *handle).collect();
        chosen.into_iter().for_each(|handle| self.detach(core, handle, cause));
    }

    /// Sends events of a partition again on the receiver links that it has here.
    pub(crate) fn redeliver(&mut self, partition: usize, from: u64, to: u64) {
        for link in self.links.values_mut() {
            if let Link::Consumer(consumer) = link
                && consumer.partition == partition
            {
                consumer.redeliver(from, to);
            }
        }
    }
}
