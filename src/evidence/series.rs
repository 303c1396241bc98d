//! Figures over the epochs, few enough to be drawn.

use tidemark_dataflows::event::Epoch;

use super::health::{Counts, Health, Row};

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
    pub(super) fn of(health: &Health, epoch: Epoch) -> Series {
        let points = epoch.clamp(1, POINTS);
        let group = |of: Epoch| u128::from(of - 1) * u128::from(points) / u128::from(epoch.max(1));
        let epochs: Vec<_> = health.epochs.range(1..).take_while(|(of, _)| **of <= epoch).collect();
        let together = epochs.chunk_by(|(one, _), (next, _)| group(**one) == group(**next));
        Series(together.filter_map(point).collect())
    }
}

fn point(epochs: &[(&Epoch, &Row)]) -> Option<Point> {
    let ((first, _), (last, _)) = (epochs.first()?, epochs.last()?);
    let mut sums = Counts::default();
    epochs.iter().for_each(|(_, row)| sums += row.counts);
    let Counts { received, accepted, duplicates, rejected } = sums;
    let (first, last) = (i128::from(**first), i128::from(**last));
    let retained_ids = epochs.iter().map(|(_, row)| i128::from(row.retained_ids)).max()?;
    Some(Point { first, last, epochs: epochs.len() as i128, received, accepted, rejected, duplicates, retained_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_epochs_are_taken_together_and_none_is_lost() {
        for last in [0, 1, 119, 120, 121, 1_000] {
            let row = |epoch: Epoch| {
                let counts = Counts { received: 2, accepted: 1, ..Counts::default() };
                Row { counts, retained_ids: epoch.cast_signed(), ..Row::default() }
            };
            let mut health = Health::default();
            health.epochs.extend((0..=last + 5).map(|epoch| (epoch, row(epoch))));
            let Series(points) = Series::of(&health, last);
            assert_eq!(points.len() as u64, last.min(POINTS));
            assert_eq!(points.iter().map(|point| point.epochs).sum::<i128>(), i128::from(last));
            assert!(
                points.iter().all(|p| (p.received, p.accepted, p.retained_ids) == (2 * p.epochs, p.epochs, p.last))
            );
            assert!(points.windows(2).all(|pair| pair[0].last + 1 == pair[1].first), "{points:?}");
        }
    }
}
