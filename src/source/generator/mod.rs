//! Events made up on the spot: a source that needs no file and no broker, and the same events written out.
//!
//! What stands at an offset is a pure function of the options, the partition and the offset: nothing is remembered, so
//! a replay can start anywhere and gets the same bytes. Real time decides only when an event is handed out.

mod draws;
mod event;
mod faults;
mod options;
mod plan;
mod send;
#[cfg(test)]
mod tests;
mod write;

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};

use super::{
    ContentDigest, Head, MAX_BLOCK_EVENTS, PartitionInfo, Pull, Share, Source, SourceError, SourceIdentity, Standing,
};

pub use self::options::GeneratorOptions;
pub use self::plan::{Kind, Plan};
pub use self::send::{EventSender, Sent};
pub use self::write::{EventWriter, Written};

/// Bytes after which a block is full.
const BLOCK_BYTES: usize = 512 << 10;

/// Greatest length of a body, in bytes, with room to spare.
const MAX_EVENT_BYTES: usize = 1 << 10;

/// Whether events wait until they are due.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// Each event is handed out once it is due by the rate. A source that starts in the past catches up first.
    Live,
    /// As fast as it is asked. Event times still follow the rate, so that they soon lie in the future where the start
    /// does not lie far enough in the past: rule R140 then rejects them.
    AtOnce,
}

/// The function from partition and offset to an event.
#[derive(Clone, Debug)]
pub struct EventGenerator {
    options: GeneratorOptions,
}

impl EventGenerator {
    /// A generator with these options.
    ///
    /// # Errors
    ///
    /// An option is out of its range.
    pub fn new(options: GeneratorOptions) -> Result<Self, SourceError> {
        options.check()?;
        Ok(Self { options })
    }

    /// The options it was made with.
    pub fn options(&self) -> &GeneratorOptions {
        &self.options
    }

    /// Appends the body of the event at `offset` to `out`, without a line terminator.
    pub fn write_body(&self, partition: PartitionId, offset: Offset, out: &mut Vec<u8>) {
        let plan = self.plan(partition, offset);
        let original = plan.redelivery_of.unwrap_or(offset);
        self.write_original(partition, original, plan.kind, out);
    }

    /// How many events of all partitions are due at `now`.
    pub fn due(&self, now: Micros) -> u64 {
        let Ok(elapsed) = u64::try_from(now.0.saturating_sub(self.options.start.0)) else { return 0 };
        // The greatest n with (n - 1) * 10^6 / rate, rounded down, at most `elapsed`.
        let microseconds = (u128::from(elapsed) + 1) * u128::from(self.options.rate) - 1;
        u64::try_from(microseconds / 1_000_000 + 1).unwrap_or(u64::MAX)
    }

    /// Of the first `events` of the stream, how many are in `partition`: events are dealt to partitions in turn.
    pub fn in_partition(&self, events: u64, partition: PartitionId) -> u64 {
        let partitions = u64::from(self.options.partitions);
        let behind = u64::from(partition.0);
        if behind >= partitions { 0 } else { events / partitions + u64::from(events % partitions > behind) }
    }

    /// The place in the whole stream, from 0.
    fn index_in_stream(&self, partition: PartitionId, offset: Offset) -> u64 {
        offset.0.saturating_mul(u64::from(self.options.partitions)).saturating_add(u64::from(partition.0))
    }
}

/// The generator as a source.
#[derive(Debug)]
pub struct GeneratorSource {
    generator: EventGenerator,
    pacing: Pacing,
    partitions: Vec<PartitionInfo>,
    share: Share,
}

impl GeneratorSource {
    /// A source of `generator`'s events. Its partitions are named by their numbers.
    pub fn new(generator: EventGenerator, pacing: Pacing) -> Self {
        let info = |partition: u32| PartitionInfo { name: partition.to_string(), path: None, bytes: None };
        let partitions = (0..generator.options.partitions).map(info).collect();
        Self { generator, pacing, partitions, share: Share::WHOLE }
    }

    /// The same where other processes generate the events of some partitions.
    #[must_use]
    pub fn of_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// How many events a partition has; most streams have no end.
    fn events_in(&self, partition: PartitionId) -> u64 {
        self.generator.in_partition(self.generator.options.events.unwrap_or(u64::MAX), partition)
    }

    fn block(&self, partition: PartitionId, offsets: Range<u64>, now: Micros) -> Block {
        let expected = usize::try_from(offsets.end - offsets.start).unwrap_or(usize::MAX).min(MAX_BLOCK_EVENTS);
        let mut bodies = Vec::with_capacity(expected);
        let mut bytes = Vec::with_capacity((expected * MAX_EVENT_BYTES).min(BLOCK_BYTES + MAX_EVENT_BYTES));
        for offset in offsets.clone().take(MAX_BLOCK_EVENTS) {
            let start = bytes.len();
            self.generator.write_body(partition, Offset(offset), &mut bytes);
            bodies.push(start as u32..bytes.len() as u32);
            bytes.push(b'\n');
            if bytes.len() >= BLOCK_BYTES {
                break;
            }
        }
        Block {
            partition,
            first_offset: Offset(offsets.start),
            arrival: Arrival::Opening(now),
            bytes: Bytes::from(bytes),
            bodies,
            oversized: Vec::new(),
            sections: Vec::new(),
        }
    }
}

impl Source for GeneratorSource {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    fn reads(&self, partition: PartitionId) -> bool {
        self.share.reads(partition.0 as usize, false)
    }

    fn is_bounded(&self) -> bool {
        self.generator.options.events.is_some()
    }

    fn identity(&self) -> SourceIdentity {
        SourceIdentity::of_generator(&self.generator.options, self.pacing)
    }

    /// One that produces in real time has nothing that is not due. One that does not is behind up to its end.
    fn standing(
        &mut self,
        partition: PartitionId,
        next: Offset,
        _opened: Micros,
    ) -> Result<Option<Standing>, SourceError> {
        let caught_up = self.pacing == Pacing::Live || next.0 >= self.events_in(partition);
        Ok(Some(if caught_up { Standing::CaughtUp } else { Standing::Behind(Head::NONE) }))
    }

    /// There is nothing to pass over and nothing to compare: any offset can be made at any time, from the options.
    fn resume(&mut self, at: Position, _before: Option<ContentDigest>) -> Result<(), SourceError> {
        if self.partitions.get(at.partition.0 as usize).is_some() {
            return Ok(());
        }
        let problem = format!("there is no partition {}", at.partition.0);
        Err(SourceError::usage("generator", problem, "generate as many partitions as before"))
    }

    fn digest(&self, _partition: PartitionId) -> Option<ContentDigest> {
        None
    }

    /// Never waits, and can go back.
    fn pull(
        &mut self,
        partition: PartitionId,
        from: Offset,
        max_events: usize,
        now: Micros,
    ) -> Result<Pull, SourceError> {
        let all = self.events_in(partition);
        if from.0 > all {
            let name = format!("generator partition {}", partition.0);
            let problem = format!("it ends after {all} events, but has been read up to event {}", from.0);
            return Err(SourceError::changed(name, problem, "generate more events, or start with another output"));
        }
        if from.0 == all {
            return Ok(Pull::End);
        }
        let due = match self.pacing {
            Pacing::AtOnce => all,
            Pacing::Live => all.min(self.generator.in_partition(self.generator.due(now), partition)),
        };
        let end = due.min(from.0.saturating_add(max_events.max(1) as u64));
        Ok(if from.0 < end { Pull::Block(self.block(partition, from.0..end, now)) } else { Pull::Pending })
    }
}
