//! The greatest event times of an epoch, gathered where its bodies are decoded.
//!
//! The watermark asks for the n-th greatest event time of a partition, with n = [`Settings::witnesses`]. Only the n
//! greatest of each worker, epoch and partition can have a say in that. So each worker keeps no more of an open epoch
//! than these, and sends them to every worker once the epoch is closed.
//!
//! [`Settings::witnesses`]: crate::watermark::Settings::witnesses

use std::collections::BTreeMap;
use std::mem::replace;

use serde::{Deserialize, Serialize};

use crate::event::{Epoch, Micros, PartitionId};

/// Least number of times between two cuts of a [`Newest`]: with so many an event costs at most some 4 ns in any order, and
/// they fit into the first cache beside all else.
const LEAST_SLACK: usize = 512;

/// The n greatest of any number of event times; equal ones count each.
///
/// A time costs a comparison where it is not among the n greatest, and else a place in a buffer. A full buffer is cut
/// back to the n greatest, which takes time in proportion to the times that have come since the last cut, whatever their
/// order. It holds at most 2 n times, or n + 512 where that is more.
///
/// ```
/// use tidemark_dataflows::event::Micros;
/// use tidemark_dataflows::newest::Newest;
///
/// let mut newest = Newest::new(2);
/// [5, 9, 1, 9, 7].into_iter().for_each(|time| newest.observe(Micros(time)));
/// assert_eq!((newest.greatest(), newest.into_sorted()), (Some(Micros(9)), vec![Micros(9), Micros(9)]));
/// ```
#[derive(Clone, Debug)]
pub struct Newest {
    witnesses: usize,
    /// The n-th greatest as of the last cut: what is not greater changes nothing. Less than any time before the first.
    floor: Option<Micros>,
    kept: Vec<Micros>,
}

impl Newest {
    /// None so far; `witnesses` (at least 1) is how many are kept.
    pub fn new(witnesses: usize) -> Self {
        Newest { witnesses: witnesses.max(1), floor: None, kept: Vec::new() }
    }

    /// Notes a time.
    #[inline]
    pub fn observe(&mut self, time: Micros) {
        if Some(time) > self.floor {
            if self.kept.len() >= self.witnesses.saturating_add(self.witnesses.max(LEAST_SLACK)) {
                self.cut();
            }
            self.kept.push(time);
        }
    }

    /// Keeps the n greatest.
    #[cold]
    #[inline(never)]
    fn cut(&mut self) {
        if self.kept.len() > self.witnesses {
            self.kept.select_nth_unstable_by(self.witnesses - 1, |a, b| b.cmp(a));
            self.kept.truncate(self.witnesses);
            self.floor = self.kept.last().copied();
        }
    }

    /// The greatest of all.
    pub fn greatest(&self) -> Option<Micros> {
        self.kept.iter().max().copied()
    }

    /// The n greatest, ascending; all of them where there are fewer.
    pub fn into_sorted(mut self) -> Vec<Micros> {
        self.cut();
        self.kept.sort_unstable();
        self.kept
    }
}

/// The greatest event times of an epoch, as one worker tells all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventTimes {
    /// The epoch.
    pub epoch: Epoch,
    /// The n greatest event times of the worker's events of each partition, ascending, in order of partition. Partitions
    /// without events are left out.
    pub partitions: Vec<(PartitionId, Vec<Micros>)>,
}

impl EventTimes {
    /// The greatest of all.
    pub fn greatest(&self) -> Option<Micros> {
        self.partitions.iter().filter_map(|(_, times)| times.last()).max().copied()
    }

    /// One copy for each of `peers` workers, with the worker's index before it.
    pub fn to_all(self, peers: usize) -> impl Iterator<Item = (u64, EventTimes)> {
        (0..peers as u64).map(move |worker| (worker, self.clone()))
    }
}

/// The greatest event times of each partition in an epoch that is still open, of the events of one worker.
#[derive(Clone, Debug)]
pub struct Gathering {
    witnesses: usize,
    /// The partition of the event that came last. A block is of one partition, so it seldom changes.
    current: PartitionId,
    newest: Newest,
    others: BTreeMap<PartitionId, Newest>,
}

impl Gathering {
    /// None so far; `witnesses` is how many are kept of each partition.
    pub fn new(witnesses: usize) -> Self {
        let (current, newest) = (PartitionId::default(), Newest::new(witnesses));
        Gathering { witnesses, current, newest, others: BTreeMap::new() }
    }

    /// Notes the time of an event.
    #[inline]
    pub fn observe(&mut self, partition: PartitionId, time: Micros) {
        if partition != self.current {
            self.turn_to(partition);
        }
        self.newest.observe(time);
    }

    #[cold]
    #[inline(never)]
    fn turn_to(&mut self, partition: PartitionId) {
        let next = self.others.remove(&partition).unwrap_or_else(|| Newest::new(self.witnesses));
        let (before, newest) = (replace(&mut self.current, partition), replace(&mut self.newest, next));
        self.others.insert(before, newest);
    }

    /// What all workers have to know, once the epoch is closed; none where no event came.
    pub fn close(mut self, epoch: Epoch) -> Option<EventTimes> {
        self.others.insert(self.current, self.newest);
        let partitions = self.others.into_iter().map(|(partition, newest)| (partition, newest.into_sorted()));
        let partitions: Vec<_> = partitions.filter(|(_, times)| !times.is_empty()).collect();
        (!partitions.is_empty()).then_some(EventTimes { epoch, partitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ordered, in reverse, and in no order, with many equal ones.
    fn times() -> impl Strategy<Value = Vec<i64>> {
        (prop::collection::vec(prop_oneof![0i64..20, 0i64..10_000], 0..3_000), 0u8..3).prop_map(|(mut times, order)| {
            match order {
                0 => times.sort_unstable(),
                1 => times.sort_unstable_by(|a, b| b.cmp(a)),
                _ => {}
            }
            times
        })
    }

    proptest! {
        #[test]
        fn the_greatest_are_kept_in_whatever_order_they_come(times in times(), witnesses in 1usize..100) {
            let mut newest = Newest::new(witnesses);
            times.iter().for_each(|time| newest.observe(Micros(*time)));
            prop_assert!(newest.kept.len() <= witnesses + witnesses.max(LEAST_SLACK));
            prop_assert_eq!(newest.greatest(), times.iter().max().map(|time| Micros(*time)));
            let mut sorted = times;
            sorted.sort_unstable();
            let greatest = sorted.split_off(sorted.len().saturating_sub(witnesses));
            prop_assert_eq!(newest.into_sorted(), greatest.into_iter().map(Micros).collect::<Vec<_>>());
        }

        #[test]
        fn partitions_are_kept_apart_however_their_events_take_turns(
            events in prop::collection::vec((0u32..4, 0i64..50), 0..60), witnesses in 1usize..5,
        ) {
            let mut gathering = Gathering::new(witnesses);
            events.iter().for_each(|(partition, time)| gathering.observe(PartitionId(*partition), Micros(*time)));
            let times = gathering.close(3);
            let mut expected: BTreeMap<PartitionId, Newest> = BTreeMap::new();
            for (partition, time) in &events {
                let newest = expected.entry(PartitionId(*partition)).or_insert_with(|| Newest::new(witnesses));
                newest.observe(Micros(*time));
            }
            prop_assert_eq!(times.as_ref().and_then(EventTimes::greatest), events.iter().map(|e| Micros(e.1)).max());
            let partitions: Vec<_> = expected.into_iter().map(|(at, newest)| (at, newest.into_sorted())).collect();
            prop_assert_eq!(times, (!partitions.is_empty()).then_some(EventTimes { epoch: 3, partitions }));
        }
    }
}
