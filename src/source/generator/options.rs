//! What can be chosen about generated events.

use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::{END_OF_TIME, Micros};

use crate::source::SourceError;

/// All that decides what a generator makes. The same options give the same bytes, on every machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorOptions {
    /// Picks one of many possible streams.
    pub seed: u64,
    /// When the first event is due. Event times lie a little before the instant that their event is due.
    pub start: Micros,
    /// Number of partitions, at least 1. Events are dealt to them in turn.
    pub partitions: u32,
    /// Number of users, at least 1.
    pub users: u32,
    /// Events per second, of all partitions together, 1 to 10^9.
    pub rate: u64,
    /// Share of events that deliver an earlier event of their partition once more, byte for byte; at most 0.9.
    pub duplicates: f64,
    /// Share of originals that break a rule: R000 to R130 and R210, each equally often, in several shapes.
    pub invalid: f64,
    /// Share of originals whose event time lies over an hour further back than `watermark_delay`. Not among the first
    /// thousand events, which have no watermark to be behind.
    pub late: f64,
    /// Share of originals whose event time lies up to five minutes behind that of their neighbours.
    pub disordered: f64,
    /// The watermark delay that late events are behind; microseconds.
    pub watermark_delay: Micros,
    /// Number of events of all partitions together; without it the stream never ends.
    pub events: Option<u64>,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self {
            seed: 42,
            // 2026-01-01T10:00:00Z
            start: Micros(1_767_261_600_000_000),
            partitions: 4,
            users: 500,
            rate: 100,
            duplicates: 0.01,
            invalid: 0.01,
            late: 0.001,
            disordered: 0.05,
            watermark_delay: Micros(86_400_000_000),
            events: None,
        }
    }
}

impl GeneratorOptions {
    /// Most that `duplicates` can be: a redelivery needs an original.
    const MAX_DUPLICATES: f64 = 0.9;

    /// Beyond it, times would need more than 64 bits on the way.
    const MAX_RATE: u64 = 1_000_000_000;

    /// Refuses what is out of range.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let faults = self.invalid + self.late + self.disordered;
        let checks = [
            ("partitions", self.partitions >= 1, "at least 1"),
            ("users", self.users >= 1, "at least 1"),
            ("rate", (1..=Self::MAX_RATE).contains(&self.rate), "1 to 10^9 events per second"),
            ("start", (0..END_OF_TIME.0).contains(&self.start.0), "a time from 1970 to 9999"),
            ("watermark_delay", self.watermark_delay.0 >= 0, "zero or more"),
            ("duplicates", (0.0..=Self::MAX_DUPLICATES).contains(&self.duplicates), "0 to 0.9"),
            ("invalid", (0.0..=1.0).contains(&self.invalid), "0 to 1"),
            ("late", (0.0..=1.0).contains(&self.late), "0 to 1"),
            ("disordered", (0.0..=1.0).contains(&self.disordered), "0 to 1"),
            ("invalid + late + disordered", (0.0..=1.0).contains(&faults), "0 to 1"),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((option, _, allowed)) => Err(SourceError::usage(
                "generator",
                format!("{option} is out of range"),
                format!("it must be {allowed}"),
            )),
            None => Ok(()),
        }
    }
}
