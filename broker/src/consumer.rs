//! Links of receivers: what they get, and when.

use crate::event::encode_newest;
use crate::hub::{Hub, Partition, now as wall_clock};
use crate::log::Log;
use crate::outflow::{Outflow, Window};
use crate::wire::{Outbox, Transfer};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Deliveries of one link before another one of the connection gets its turn.
const TURN: u32 = 256;

/// A receiver of a partition.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// Number of the link that no other link of the broker has.
    pub(crate) id: u64,
    pub(crate) partition: usize,
    pub(crate) address: String,
    pub(crate) out: Outflow,
    /// When the hub was created whose log is delivered.
    created: i64,
    /// The next sequence number that it gets.
    next: u64,
    /// Ranges that are to be sent again once the receiver is past them, with the next number of each.
    again: VecDeque<(u64, u64)>,
    /// A switch makes deliveries wait until then.
    waits: Option<Instant>,
    /// Whether each delivery names the newest event of the partition.
    names_newest: bool,
    /// What names it, encoded; empty where nobody asked.
    newest: Vec<u8>,
}

/// Where a delivery goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) channel: u16,
    pub(crate) handle: u32,
}

/// What a link sends with.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) window: &'a mut Window,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) route: Route,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is more to send at once.
    More,
    /// Nothing to send, or nobody to take it.
    Idle,
    /// More may be sent then.
    At(Instant),
}

impl Consumer {
    pub(crate) fn new(id: u64, partition: usize, address: String, created: i64) -> Self {
        Self {
            id,
            partition,
            address,
            out: Outflow::default(),
            created,
            next: 0,
            again: VecDeque::new(),
            waits: None,
            names_newest: false,
            newest: Vec::new(),
        }
    }

    /// Names the newest event of the partition with each delivery.
    pub(crate) fn name_newest(&mut self) {
        self.names_newest = true;
    }

    /// The first sequence number that it gets.
    pub(crate) fn begin_at(&mut self, sequence: u64) {
        self.next = sequence;
    }

    /// Sends events again once the receiver has had them.
    pub(crate) fn redeliver(&mut self, from: u64, to: u64) {
        self.again.push_back((from, to));
    }

    /// Writes what may be written now.
    pub(crate) fn deliver(&mut self, hub: &Hub, link: &mut Sending<'_>, now: Instant) -> Turn {
        let Some(partition) = hub.partitions().get(self.partition) else { return Turn::Idle };
        let room = self.out.credit.min(link.window.frames).min(TURN);
        if room == 0 || link.outbox.is_full() || partition.silent.load(Ordering::Acquire) || !self.has_more(partition) {
            return Turn::Idle;
        }
        self.waits = match (hub.switches.delay(), self.waits) {
            (None, _) => None,
            (Some(delay), None) => Some(now + delay),
            (Some(_), waits) => waits.filter(|until| *until > now),
        };
        if let Some(until) = self.waits {
            return Turn::At(until);
        }
        let (granted, retry) = hub.switches.grant(room, now);
        let sent = self.write(hub, partition, link, granted);
        if sent < granted {
            hub.switches.give_back(granted - sent);
        }
        hub.events_out.fetch_add(u64::from(sent), Ordering::Relaxed);
        match retry {
            Some(retry) => Turn::At(retry),
            None if sent == 0 => Turn::Idle,
            None => Turn::More,
        }
    }

    fn has_more(&self, partition: &Partition) -> bool {
        self.next < partition.log.read().bounds().next || self.again.front().is_some_and(|(_, to)| *to < self.next)
    }

    /// Writes up to `most` deliveries. Answers how many.
    fn write(&mut self, hub: &Hub, partition: &Partition, link: &mut Sending<'_>, most: u32) -> u32 {
        let (log, dropped) = (partition.log.read(), partition.dropped.read());
        // A hub is recreated in the order of time and log: an old time under the lock means the old log.
        if hub.created() != self.created {
            return 0;
        }
        if self.names_newest {
            self.newest.clear();
            encode_newest(&log.bounds(), wall_clock(), &mut self.newest);
        }
        let mut sent = 0;
        // Old events go first, so that they come in the middle of the new ones.
        while let Some((next, to)) = self.again.front().copied().filter(|(_, to)| *to < self.next) {
            let (count, reached) = self.write_range(&log, &dropped, link, (next, to + 1), most - sent);
            sent += count;
            if reached <= to {
                if let Some((next, _)) = self.again.front_mut() {
                    *next = reached;
                }
                return sent;
            }
            self.again.pop_front();
        }
        let (count, reached) = self.write_range(&log, &dropped, link, (self.next, log.bounds().next), most - sent);
        self.next = self.next.max(reached);
        sent + count
    }

    /// Writes events of a range, straight from the log. Answers how many, and where the next turn goes on.
    fn write_range(
        &mut self,
        log: &Log,
        dropped: &[(u64, u64)],
        link: &mut Sending<'_>,
        (from, end): (u64, u64),
        most: u32,
    ) -> (u32, u64) {
        let mut sent = 0;
        for stored in log.from(from).take_while(|stored| stored.sequence < end) {
            if sent == most || link.window.frames == 0 || link.outbox.is_full() {
                return (sent, stored.sequence);
            }
            if !dropped.is_empty() && Partition::is_dropped(dropped, stored.sequence) {
                continue;
            }
            let tag = self.out.spend();
            let Route { channel, handle } = link.route;
            let transfer = Transfer { channel, handle, delivery_id: link.window.number(), tag };
            let encode = |message: &mut Vec<u8>| {
                message.extend_from_slice(&self.newest);
                stored.encode(message);
            };
            link.window.sent(link.outbox.transfer(transfer, encode));
            sent += 1;
        }
        (sent, end)
    }
}
