//! Figures over the epochs, few enough to be drawn.

use tidemark_delta::Error;

use super::cut::HEALTH;
use super::read::{Reader, Versions};

/// Most points of a plot.
const POINTS: u64 = 120;

/// Consecutive epochs, taken together where there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// First epoch.
    pub first: i128,
    /// Last epoch.
    pub last: i128,
    /// How many they are.
    pub epochs: i128,
    /// Events that came in.
    pub received: i128,
    /// Events that count.
    pub accepted: i128,
    /// Rejected events.
    pub rejected: i128,
    /// Identical repetitions.
    pub duplicates: i128,
    /// The most ids that were remembered after one of them.
    pub retained_ids: i128,
}

/// The figures of stream_health, in the order of epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series(pub Vec<Point>);

impl Series {
    pub(super) fn read(reader: &Reader, versions: &Versions, epoch: u64) -> Result<Series, Error> {
        let points = epoch.clamp(1, POINTS);
        let sql = format!(
            "select min(batch_id), max(batch_id), count(*), sum(events_received), sum(events_valid), sum(events_rejected), \
             sum(duplicate_events), max(retained_ids) from stream_health where batch_id between 1 and {epoch} \
             group by (batch_id - 1) * {points} / {} order by 1",
            epoch.max(1)
        );
        let rows = reader.rows(versions, &[HEALTH], &sql)?;
        let point = |row: Vec<i128>| {
            let [first, last, epochs, received, accepted, rejected, duplicates, retained_ids] = row.try_into().ok()?;
            Some(Point { first, last, epochs, received, accepted, rejected, duplicates, retained_ids })
        };
        Ok(Series(rows.into_iter().filter_map(point).collect()))
    }
}
