//! What must come out, computed in the plainest way: one event after the other, in ordinary collections.
//!
//! It shares with the dataflows the types and the strict decoder, and nothing of how they compute. Tests compare the
//! two; it is slow on purpose and forgets nothing.

use std::collections::{BTreeMap, HashMap};

use differential_dataflow::difference::Semigroup;

use crate::block::Body;
use crate::contract::Contract;
use crate::event::{Epoch, Event, Micros, Position, UserId};
use crate::metrics::{ChannelKey, Totals};
use crate::reason::Reason;
use crate::tally::Tally;

/// The state after the epochs seen so far.
#[derive(Debug)]
pub struct Oracle {
    contract: Contract,
    watermark_delay_us: i64,
    dedup_retention_us: i64,
    newest: Option<Micros>,
    seen: HashMap<u128, Event>,
    /// M2, and the epoch that last changed each row.
    pub users: BTreeMap<UserId, (Totals, Epoch)>,
    /// M3, and the epoch that last changed each row.
    pub channels: BTreeMap<ChannelKey, (Totals, Epoch)>,
    /// The tally of each epoch; epoch 1 comes first.
    pub epochs: Vec<Tally>,
    /// Position of each accepted event, with its epoch.
    pub accepted: Vec<(Epoch, Position)>,
    /// Position of each rejected event, with its epoch and the rule.
    pub rejected: Vec<(Epoch, Position, Reason)>,
}

impl Oracle {
    /// An oracle that has seen nothing. Durations are in microseconds.
    pub fn new(contract: Contract, watermark_delay_us: i64, dedup_retention_us: i64) -> Self {
        Oracle {
            contract,
            watermark_delay_us,
            dedup_retention_us,
            newest: None,
            seen: HashMap::new(),
            users: BTreeMap::new(),
            channels: BTreeMap::new(),
            epochs: Vec::new(),
            accepted: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Takes one epoch: its bodies in the order of partition and offset.
    pub fn epoch<'a>(&mut self, bodies: impl IntoIterator<Item = Body<'a>>) {
        let epoch = self.epochs.len() as Epoch + 1;
        let watermark = self.newest.map(|newest| Micros(newest.0 - self.watermark_delay_us));
        let mut tally = Tally { watermark, ..Tally::default() };
        for body in bodies {
            tally.received += 1;
            let verdict = match self.contract.check_strict(&body, 0) {
                Ok(event) => {
                    tally.newest = tally.newest.max(Some(event.time));
                    self.judge(event, epoch, watermark)
                }
                Err(violation) => Verdict::Rejected(violation.reason),
            };
            match verdict {
                Verdict::Accepted => {
                    tally.accepted += 1;
                    self.accepted.push((epoch, body.at));
                }
                Verdict::Duplicate => tally.duplicates += 1,
                Verdict::Rejected(reason) => {
                    tally.reject(reason, 1);
                    self.rejected.push((epoch, body.at, reason));
                }
            }
        }
        self.newest = self.newest.max(tally.newest);
        tally.retained_ids = self.seen.values().filter(|event| self.remembers(event, watermark)).count() as u64;
        self.epochs.push(tally);
    }

    /// Totals of everything accepted.
    pub fn net_flow(&self) -> Totals {
        let mut all = Totals::NONE;
        self.channels.values().for_each(|(totals, _)| all.plus_equals(totals));
        all
    }

    fn remembers(&self, event: &Event, watermark: Option<Micros>) -> bool {
        let bucket_us = (self.dedup_retention_us / 24).max(1_000_000);
        let forgotten_at = (event.time.0 / bucket_us + 1) * bucket_us + self.dedup_retention_us;
        watermark.is_none_or(|w| w.0 < forgotten_at)
    }

    fn judge(&mut self, event: Event, epoch: Epoch, watermark: Option<Micros>) -> Verdict {
        let facts = |e: &Event| (e.user.clone(), e.time, e.event_type, e.amount, e.channel);
        match self.seen.get(&event.id.0) {
            Some(first) if self.remembers(first, watermark) => {
                if facts(first) == facts(&event) {
                    Verdict::Duplicate
                } else {
                    Verdict::Rejected(Reason::ConflictingDuplicate)
                }
            }
            _ if watermark.is_some_and(|w| event.time <= w) => Verdict::Rejected(Reason::LateEvent),
            _ => {
                let totals = Totals::of(&event);
                let count = |row: &mut (Totals, Epoch)| {
                    row.0.plus_equals(&totals);
                    row.1 = epoch;
                };
                count(self.users.entry(event.user.clone()).or_insert((Totals::NONE, epoch)));
                count(self.channels.entry((event.channel, event.event_type)).or_insert((Totals::NONE, epoch)));
                self.seen.insert(event.id.0, event);
                Verdict::Accepted
            }
        }
    }
}

enum Verdict {
    Accepted,
    Duplicate,
    Rejected(Reason),
}
