//! A word when many events are late: they are left out of every metric, and a run says nothing else about it until it ends.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::Tally;

/// The share of late events is taken over so many of the newest events, to the end of an epoch.
const WINDOW: u64 = 1_000_000;

/// Of fewer events, a few late ones are a large share.
const LEAST: u64 = 1_000;

/// Epochs are taken together up to so many events, so that a million of them are a thousand entries.
const TOGETHER: u64 = 1_000;

/// Events, and late ones among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Late {
    /// How many came in.
    events: u64,
    /// How many of these are late.
    late: u64,
}

impl Late {
    fn share(self) -> f64 {
        self.late as f64 / self.events.max(1) as f64
    }
}

/// Watches the share of late events, and says once in a run that it is too large.
#[derive(Debug, Default)]
pub struct LateMeter {
    bound: OnceLock<f64>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    epochs: VecDeque<Late>,
    sum: Late,
    told: bool,
}

impl LateMeter {
    /// Warns from now on when more than this share is late. Nothing is said before.
    pub fn warn_beyond(&self, share: f64) {
        self.bound.get_or_init(|| share);
    }

    /// Notes the events of an epoch.
    pub(super) fn note(&self, tally: &Tally) {
        let more = Late { events: tally.received, late: tally.rejected_for(Reason::LateEvent) };
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.add(more);
        let Some(too_many) = self.bound.get().and_then(|bound| window.exceeds(*bound)) else { return };
        window.told = true;
        drop(window);
        warn(too_many);
    }
}

/// Of which partition they are is not known here; the quarantine says it of each.
fn warn(Late { events, late }: Late) {
    let share = Late { events, late }.share() * 100.0;
    tracing::warn!(
        late,
        of = events,
        "{share:.1} % of the newest events are late and count in no metric (R200_late_event): their event time is at or \
         before the watermark. `tidemark quarantine list --reason R200_late_event` shows them with their partitions and \
         times. A producer that holds events back, one that sends old ones again, or a dedup.watermark_delay that is too \
         short: docs/monitoring/runbook.md#tidemarklateevents. Said once a run; watermark.warn_late_share is the bound"
    );
}

impl Window {
    fn add(&mut self, more: Late) {
        self.sum = Late { events: self.sum.events + more.events, late: self.sum.late + more.late };
        match self.epochs.back_mut().filter(|last| last.events < TOGETHER) {
            Some(last) => *last = Late { events: last.events + more.events, late: last.late + more.late },
            None => self.epochs.push_back(more),
        }
        while let Some(oldest) = self.epochs.front().copied().filter(|oldest| self.sum.events - oldest.events >= WINDOW)
        {
            self.sum = Late { events: self.sum.events - oldest.events, late: self.sum.late - oldest.late };
            self.epochs.pop_front();
        }
    }

    /// The newest events, if too many of them are late and nothing was said yet. A bound of 1 is never exceeded.
    fn exceeds(&self, bound: f64) -> Option<Late> {
        let judged = !self.told && self.sum.events >= LEAST;
        Some(self.sum).filter(|sum| judged && sum.share() > bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::repeat_n;

    fn window(epochs: impl IntoIterator<Item = (u64, u64)>) -> Window {
        let mut window = Window::default();
        epochs.into_iter().for_each(|(events, late)| window.add(Late { events, late }));
        window
    }

    #[test]
    fn a_share_beyond_the_bound_is_told_once_there_are_enough_events() {
        assert_eq!(window([(999, 999)]).exceeds(0.01), None);
        assert_eq!(window([(999, 0), (1, 11)]).exceeds(0.01), Some(Late { events: 1_000, late: 11 }));
        assert_eq!(window([(1_000, 10)]).exceeds(0.01), None, "no more than the bound");
        assert_eq!(window([(1_000, 1_000)]).exceeds(1.0), None);
        assert_eq!(Window { told: true, ..window([(1_000, 1_000)]) }.exceeds(0.01), None);
    }

    #[test]
    fn what_is_older_than_the_last_million_events_counts_no_more() {
        let late_before = window([(100_000, 100_000)].into_iter().chain([(100_000, 0); 10]));
        assert_eq!(late_before.sum, Late { events: WINDOW, late: 0 });
        let small = window(repeat_n((1, 1), 5_000).chain(repeat_n((1, 0), 999_500)));
        assert_eq!((small.sum.events, small.sum.late), (WINDOW + 500, 1_000), "by thousands");
        assert!(small.epochs.len() <= 1_001);
    }
}
