//! What holds the watermark back, and since when.

use std::sync::{Mutex, PoisonError};

use tidemark_dataflows::event::{Micros, PartitionId};
use tidemark_dataflows::tally::EpochSummary;

/// A partition that holds the watermark back, as of the newest epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The partition, by its number.
    pub partition: PartitionId,
    /// How far it has come in event time; none where that is not known, and the watermark stays where it was.
    pub time: Option<Micros>,
    /// How far that lies behind the greatest event time of all, in microseconds.
    pub behind_us: Option<u64>,
    /// When the first epoch was closed from which on the same partition has held the watermark back in each. Epochs of an
    /// earlier run count as far as they are computed again.
    pub since: Micros,
}

/// Keeps what the newest epoch says.
#[derive(Debug, Default)]
pub struct HeldMeter(Mutex<Option<Held>>);

impl HeldMeter {
    /// What holds the watermark back, if anything does.
    pub fn get(&self) -> Option<Held> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an epoch. `newest` is the greatest event time of all up to its end.
    pub(super) fn note(&self, summary: &EpochSummary, newest: Option<Micros>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *held;
        *held = summary.held_back.map(|now| {
            let same = before.filter(|before| before.partition == now.partition);
            let behind = newest.zip(now.time).map(|(newest, time)| newest.0.saturating_sub(time.0));
            Held {
                partition: now.partition,
                time: now.time,
                behind_us: behind.map(|behind| u64::try_from(behind).unwrap_or(0)),
                since: same.map_or(summary.mark.closed, |before| before.since),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_dataflows::event::EpochMark;
    use tidemark_dataflows::tally::Tally;
    use tidemark_dataflows::watermark::HeldBack;

    fn closed(at: i64, held: Option<(u32, Option<i64>)>) -> EpochSummary {
        let mark = EpochMark { epoch: 1, opened: Micros(at), closed: Micros(at), missing: 0, waits: true };
        let held_back = held.map(|(p, time)| HeldBack { partition: PartitionId(p), time: time.map(Micros) });
        EpochSummary { mark, tally: Tally::default(), next_watermark: None, held_back }
    }

    #[test]
    fn the_same_partition_in_a_row_holds_back_since_the_first_of_them() {
        let meter = HeldMeter::default();
        let after = |at, held| {
            meter.note(&closed(at, held), Some(Micros(1_000)));
            meter.get().map(|held| (held.partition.0, held.behind_us, held.since.0))
        };
        assert_eq!(after(1, Some((3, Some(400)))), Some((3, Some(600), 1)));
        assert_eq!(after(2, Some((3, Some(1_200)))), Some((3, Some(0), 1)));
        assert_eq!(after(3, Some((3, None))), Some((3, None, 1)));
        assert_eq!(after(4, Some((2, Some(0)))), Some((2, Some(1_000), 4)));
        assert_eq!(after(5, None), None);
        assert_eq!(after(6, Some((2, None))), Some((2, None, 6)));
    }
}
