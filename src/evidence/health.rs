//! stream_health: what it says of each epoch, and whether that adds up.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use arrow::array::RecordBatch;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Error;

use super::cut::HEALTH;
use super::read::Tables;
use crate::report::reader::{longs, texts};
use crate::sink::tables::{StreamHealth, Table as _};

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: i128,
    pub(super) accepted: i128,
    pub(super) duplicates: i128,
    pub(super) rejected: i128,
}

impl Counts {
    /// The counts of each row, which are in the columns of those names: received, accepted, duplicates, rejected.
    pub(super) fn of(batch: &RecordBatch, columns: [&str; 4]) -> impl Fn(usize) -> Counts {
        let columns = columns.map(|column| longs(batch, column));
        move |row| {
            let [received, accepted, duplicates, rejected] = columns.each_ref().map(|counts| counts.at(row).into());
            Counts { received, accepted, duplicates, rejected }
        }
    }

    fn add_up(&self) -> bool {
        self.received == self.accepted + self.duplicates + self.rejected
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.received += other.received;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
    }
}

/// What stream_health says of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) watermark: Option<Micros>,
    pub(super) counts: Counts,
    pub(super) retained_ids: i64,
    /// Events that passed R000 to R140 and were rejected.
    pub(super) dated: u64,
}

/// The reasons whose events take part in event time: those after R140.
pub(super) const DATED: [Reason; 2] = [Reason::LateEvent, Reason::ConflictingDuplicate];

/// Epochs of which something does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) epochs: u64,
    first: Option<Epoch>,
}

impl Differing {
    fn note(&mut self, epoch: Epoch) {
        self.epochs += 1;
        self.first = Some(self.first.map_or(epoch, |first| first.min(epoch)));
    }

    /// The first, if there is one.
    pub(super) fn first(&self) -> Option<Epoch> {
        self.first
    }
}

/// The table at a cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    pub(super) rows: u64,
    /// Rows with a null where there may be none.
    pub(super) nulls: u64,
    /// Rows whose counts do not add up.
    pub(super) unbalanced: Differing,
    /// Rejected events by reason.
    pub(super) reasons: [u64; Reason::COUNT],
    /// Rows whose reasons cannot be read, or do not add up to their rejected and late events.
    pub(super) unreasoned: Differing,
    /// What is no number of an epoch is 0 here.
    pub(super) epochs: BTreeMap<Epoch, Row>,
    /// Rows that were kept long enough, and are gone.
    pub(super) expired: Expired,
}

/// The first epochs, whose rows are gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expired {
    /// The last of them.
    pub(super) epoch: Epoch,
    pub(super) rows: u64,
    pub(super) counts: Counts,
}

impl Expired {
    /// What the table says of them.
    fn of(told: &tidemark_delta::Expired) -> Expired {
        let sum = |name: &str| told.sums.get(name).copied().unwrap_or_default().into();
        let [received, accepted, duplicates, rejected] = StreamHealth::COUNTS.map(sum);
        let counts = Counts { received, accepted, duplicates, rejected };
        Expired { epoch: Epoch::try_from(told.epoch).unwrap_or_default(), rows: told.rows, counts }
    }
}

impl Health {
    pub(super) fn read(tables: Tables<'_>) -> Result<Health, Error> {
        let (mut health, nulls) = tables.every(&StreamHealth::spec(), Health::default, Health::take)?;
        health.nulls = nulls;
        if let Some(version) = tables.versions.get(HEALTH) {
            health.expired = tables.reader.expired(HEALTH, *version)?.as_ref().map(Expired::of).unwrap_or_default();
        }
        Ok(health)
    }

    fn take(&mut self, batch: &RecordBatch) {
        let long = |name| longs(batch, name);
        let (epoch, watermark, retained_ids) = (long("batch_id"), long("watermark"), long("retained_ids"));
        let counts = Counts::of(batch, StreamHealth::COUNTS);
        let (late_events, by_reason) = (long("late_events"), texts(batch, "rejected_by_reason"));
        for row in 0..batch.num_rows() {
            let (epoch, counts) = (epoch.whole(row), counts(row));
            self.rows += 1;
            if !counts.add_up() {
                self.unbalanced.note(epoch);
            }
            let reasons = by_reason_of(by_reason.at(row));
            let known = reasons.unwrap_or_default();
            let all: i128 = known.iter().map(|count| i128::from(*count)).sum();
            let known_late = i128::from(known[Reason::LateEvent as usize]);
            if reasons.is_none() || all != counts.rejected || known_late != i128::from(late_events.at(row)) {
                self.unreasoned.note(epoch);
            }
            self.reasons.iter_mut().zip(known).for_each(|(sum, count)| *sum = sum.saturating_add(count));
            let [late, conflicting] = DATED.map(|reason| known[reason as usize]);
            let (watermark, retained_ids) = (watermark.get(row).map(Micros), retained_ids.at(row));
            self.note(epoch, Row { watermark, counts, retained_ids, dated: late.saturating_add(conflicting) });
        }
    }

    /// Two rows of an epoch, which another check finds, are taken together.
    fn note(&mut self, epoch: Epoch, row: Row) {
        let Some(before) = self.epochs.get_mut(&epoch) else {
            self.epochs.insert(epoch, row);
            return;
        };
        before.watermark = before.watermark.min(row.watermark);
        before.counts += row.counts;
        before.retained_ids = before.retained_ids.max(row.retained_ids);
        before.dated = before.dated.saturating_add(row.dated);
    }

    /// The sums of all epochs up to one; those that are gone are in them, whichever it is.
    pub(super) fn up_to(&self, epoch: Epoch) -> Counts {
        let mut sums = self.expired.counts;
        self.epochs.range(..=epoch).for_each(|(_, row)| sums += row.counts);
        sums
    }

    /// The watermark of an epoch; none where there is no row of it.
    pub(super) fn watermark(&self, epoch: Epoch) -> Option<Option<Micros>> {
        self.epochs.get(&epoch).map(|row| row.watermark)
    }

    /// Epochs whose watermark is before that of the one before, or gone.
    pub(super) fn falls(&self) -> Differing {
        let (mut falls, mut before) = (Differing::default(), None);
        for (epoch, row) in &self.epochs {
            if row.watermark < before {
                falls.note(*epoch);
            }
            before = row.watermark;
        }
        falls
    }

    /// Epochs of which another table has not as many rows as are counted here.
    pub(super) fn differing(&self, rows: &BTreeMap<Epoch, u64>, counted: fn(&Counts) -> i128) -> Differing {
        let mut differing = Differing::default();
        for (epoch, row) in &self.epochs {
            if counted(&row.counts) != i128::from(rows.get(epoch).copied().unwrap_or(0)) {
                differing.note(*epoch);
            }
        }
        let gone = self.expired;
        let of_gone: i128 = rows.range(..=gone.epoch).map(|(_, rows)| i128::from(*rows)).sum();
        if of_gone != counted(&gone.counts) {
            differing.note(gone.epoch);
        }
        let without = rows.keys().filter(|epoch| **epoch > gone.epoch && !self.epochs.contains_key(epoch));
        without.for_each(|epoch| differing.note(*epoch));
        differing
    }
}

/// The counts in the JSON text; none where it is none, or names a reason that is not known.
fn by_reason_of(text: &str) -> Option<[u64; Reason::COUNT]> {
    let found: BTreeMap<&str, u64> = serde_json::from_str(text).ok()?;
    let mut counts = [0; Reason::COUNT];
    for (name, count) in found {
        let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == name)?;
        counts[reason as usize] = count;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(rows: &[(Epoch, Row)]) -> Health {
        let mut health = Health::default();
        rows.iter().for_each(|(epoch, row)| health.note(*epoch, *row));
        health
    }

    #[test]
    fn reasons_that_cannot_be_told_are_none() {
        assert_eq!(by_reason_of("{}"), Some([0; Reason::COUNT]));
        let some = by_reason_of(r#"{"R000_malformed_event":3,"R200_late_event":2}"#).unwrap();
        assert_eq!((some[0], some[Reason::LateEvent as usize], some.iter().sum::<u64>()), (3, 2, 5));
        for text in ["", "[]", r#"{"R000_malformed_event":-1}"#, r#"{"R999_other":1}"#, r#"{"R000_malformed_event":1"#]
        {
            assert_eq!(by_reason_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_watermark_that_goes_back_or_away_falls() {
        let at = |watermark: Option<i64>| Row { watermark: watermark.map(Micros), ..Row::default() };
        assert_eq!(health(&[(1, at(None)), (2, at(Some(5))), (3, at(Some(5)))]).falls(), Differing::default());
        let fallen = health(&[(4, at(Some(6))), (3, at(None)), (2, at(Some(5))), (5, at(Some(4)))]).falls();
        assert_eq!(fallen, Differing { epochs: 2, first: Some(3) });
    }

    #[test]
    fn rows_of_every_epoch_are_compared_whichever_table_has_it() {
        let of = |rejected| Row { counts: Counts { rejected, ..Counts::default() }, ..Row::default() };
        let health = health(&[(1, of(0)), (2, of(3)), (3, of(1)), (4, of(2))]);
        let differing = |rows: &[(Epoch, u64)]| {
            let differing = health.differing(&rows.iter().copied().collect(), |counts| counts.rejected);
            (differing.epochs, differing.first())
        };
        assert_eq!(differing(&[(2, 3), (3, 1), (4, 2)]), (0, None));
        assert_eq!(differing(&[(2, 3), (3, 2), (4, 1), (5, 1)]), (3, Some(3)));
        assert_eq!(differing(&[(1, 1), (2, 3), (3, 1), (4, 2)]), (1, Some(1)));
    }

    #[test]
    fn rows_that_are_gone_are_compared_by_their_sums() {
        let of = |rejected| Counts { rejected, ..Counts::default() };
        let mut health = health(&[(3, Row { counts: of(1), ..Row::default() })]);
        health.expired = Expired { epoch: 2, rows: 2, counts: of(5) };
        let differing =
            |rows: &[(Epoch, u64)]| health.differing(&rows.iter().copied().collect(), |c| c.rejected).first();
        assert_eq!(health.up_to(Epoch::MAX).rejected, 6);
        assert_eq!(differing(&[(1, 1), (2, 4), (3, 1)]), None);
        assert_eq!(differing(&[(1, 1), (2, 3), (3, 1)]), Some(2));
        assert_eq!(differing(&[(1, 1), (2, 4), (3, 2)]), Some(3));
        assert_eq!(differing(&[(1, 1), (2, 4), (3, 1), (4, 1)]), Some(4));
    }
}
