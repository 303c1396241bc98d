//! The model of a source: partitions whose events come in time, and what can be known of them. It outlives every process.

use std::sync::Arc;

use bytes::Bytes;
use tidemark::cluster::messages::Standing;
use tidemark_dataflows::block::{Arrival as BlockArrival, Block, Body};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_dataflows::reason::Reason;

use crate::events::START_US;
use crate::scenario::{Scenario, SourceKind};

/// An event as the source keeps it.
#[derive(Clone, Debug)]
struct Stored {
    at: u64,
    body: Bytes,
}

/// One partition: since when it is there, and its events in order.
#[derive(Clone, Debug)]
struct Partition {
    since: u64,
    events: Vec<Stored>,
}

/// All partitions, by the place that they have in the world. Pipelines number them as they meet them, and know them by name.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    kind: SourceKind,
    contract: Contract,
    witnesses: usize,
    partitions: Vec<Partition>,
}

impl Source {
    /// The source of a scenario.
    pub(crate) fn of(scenario: &Scenario, contract: Contract) -> Source {
        let empty = |since: &u64| Partition { since: *since, events: Vec::new() };
        let mut partitions: Vec<Partition> = scenario.partitions.iter().map(empty).collect();
        for arrival in &scenario.arrivals {
            let stored = Stored { at: arrival.at, body: Bytes::from(arrival.body.clone()) };
            partitions[arrival.partition].events.push(stored);
        }
        Source { kind: scenario.source, contract, witnesses: scenario.witnesses, partitions }
    }

    /// Whether it consists of files.
    pub(crate) fn is_files(&self) -> bool {
        matches!(self.kind, SourceKind::Files { .. })
    }

    /// What a partition is called.
    pub(crate) fn name(place: usize) -> String {
        format!("p{place}")
    }

    /// The place of the partition with that name.
    pub(crate) fn place(name: &str) -> usize {
        name.strip_prefix('p').and_then(|place| place.parse().ok()).unwrap_or(usize::MAX)
    }

    /// The names of those that are there at a time, in order.
    pub(crate) fn names_at(&self, now: u64) -> Vec<String> {
        let there = self.partitions.iter().enumerate().filter(|(_, partition)| partition.since <= now);
        there.map(|(place, _)| Source::name(place)).collect()
    }

    /// Number of events in a partition at a time.
    pub(crate) fn length_at(&self, place: usize, now: u64) -> u64 {
        let Some(partition) = self.partitions.get(place) else { return 0 };
        partition.events.partition_point(|event| event.at <= now) as u64
    }

    /// Number of events that ever come.
    pub(crate) fn events(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.events.len() as u64).sum()
    }

    /// When an event of a live partition was enqueued.
    pub(crate) fn enqueued(&self, place: usize, offset: u64) -> Option<Micros> {
        let event = self.partitions.get(place)?.events.get(usize::try_from(offset).ok()?)?;
        Some(Micros(START_US + event.at.cast_signed()))
    }

    /// Events `from` to before `to` of a partition as a block under that number. Those of files arrive as their epoch opens.
    pub(crate) fn block(&self, place: usize, number: u32, from: u64, to: u64, opened: Micros) -> Block {
        let whole = self.partitions.get(place).map_or(&[][..], |partition| &partition.events[..]);
        let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        let events = whole.get(range).unwrap_or_default();
        let (mut bytes, mut bodies) = (Vec::new(), Vec::new());
        for event in events {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(&event.body);
            bodies.push(start..bytes.len() as u32);
        }
        let arrival = match self.kind {
            SourceKind::Files { .. } => BlockArrival::Opening(opened),
            SourceKind::Live { .. } => {
                let each: Vec<Micros> = events.iter().map(|e| Micros(START_US + e.at.cast_signed())).collect();
                BlockArrival::Each(Arc::from(each))
            }
        };
        Block {
            partition: PartitionId(number),
            first_offset: Offset(from),
            arrival,
            bytes: Bytes::from(bytes),
            bodies,
            oversized: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// How a file stands of which everything before `next` has been read and that ends before `length`, for an epoch that is
    /// opened then.
    pub(crate) fn file_standing(&self, place: usize, number: u32, next: u64, length: u64, opened: Micros) -> Standing {
        let mut standing = Standing { index: number, behind: next < length, head: None, until: Micros(i64::MAX) };
        let (mut least, mut valid) = (None, 0);
        for offset in next..length.min(next + 10 * self.witnesses as u64) {
            let Some(event) = self.partitions.get(place).and_then(|p| p.events.get(offset as usize)) else { break };
            let at = Position { partition: PartitionId(number), offset: Offset(offset) };
            let whole_len = event.body.len() as u64;
            let body = Body { bytes: &event.body, whole_len, at, arrival: opened, section: None };
            match self.contract.check_strict(&body, 0) {
                Ok(payment) => {
                    least = Some(least.map_or(payment.time, |least: Micros| least.min(payment.time)));
                    valid += 1;
                }
                Err(violation) if violation.reason == Reason::EventTimeInFuture => {
                    standing.until = standing.until.min(self.valid_from(&body));
                }
                Err(_) => {}
            }
            if valid == self.witnesses {
                break;
            }
        }
        Standing { head: least, ..standing }
    }

    /// From which opening time on an event that lies in the future is none of the future any more.
    fn valid_from(&self, body: &Body<'_>) -> Micros {
        let late = Body { arrival: Micros(i64::MAX / 2), ..*body };
        let time = self.contract.check_strict(&late, 0).map_or(Micros(i64::MAX), |payment| payment.time);
        Micros(time.0.saturating_sub(self.contract.max_future_skew_us))
    }
}
