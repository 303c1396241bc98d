//! How far event time has come, what is late under it, and how long an id is remembered.
//!
//! [`Horizon`] is the arithmetic of the two settings, [`Watermarks`] the watermark of each epoch. The event times that
//! it follows from are gathered by [`crate::decode`], as [`crate::newest`] has it. What is done with a late event is the
//! business of [`crate::distinct`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Epoch, Micros, PartitionId};
use crate::newest::EventTimes;

/// Index of a span of event time, [`Horizon::bucket_us`] long and counted from 1970. All ids of a bucket are forgotten
/// together.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket(pub u64);

/// The two settings that bound the memory of the pipeline, in microseconds and not negative.
///
/// All arithmetic saturates: a retention of `i64::MAX` never forgets.
///
/// ```
/// use tidemark_dataflows::event::Micros;
/// use tidemark_dataflows::watermark::Horizon;
///
/// const HOUR: i64 = 3_600_000_000;
/// let horizon = Horizon { watermark_delay_us: 24 * HOUR, dedup_retention_us: 24 * HOUR };
/// assert_eq!(horizon.bucket_us(), HOUR);
/// assert_eq!(horizon.watermark(Some(Micros(30 * HOUR))), Some(Micros(6 * HOUR)));
/// // An id of half past two is remembered until the watermark reaches three o'clock of the next day.
/// assert_eq!(horizon.forgotten_at(Micros(2 * HOUR + HOUR / 2)), Micros(27 * HOUR));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// How far the watermark lies behind what event time has come to.
    pub watermark_delay_us: i64,
    /// How far the watermark must have passed an event before its id is forgotten.
    pub dedup_retention_us: i64,
}

impl Horizon {
    /// Length of a bucket: a 24th of the retention in whole microseconds, and at least one second.
    pub fn bucket_us(&self) -> i64 {
        (self.dedup_retention_us / 24).max(1_000_000)
    }

    /// The bucket that holds an event time. Before 1970, where the contract admits nothing, all is bucket 0.
    pub fn bucket_of(&self, time: Micros) -> Bucket {
        Bucket(time.0.div_euclid(self.bucket_us()).try_into().unwrap_or(0))
    }

    /// The watermark from which on an event time's id is forgotten.
    pub fn forgotten_at(&self, time: Micros) -> Micros {
        self.bucket_forgotten_at(self.bucket_of(time))
    }

    /// The watermark from which on all ids of a bucket are forgotten.
    pub fn bucket_forgotten_at(&self, bucket: Bucket) -> Micros {
        let end = i64::try_from(bucket.0).unwrap_or(i64::MAX).saturating_add(1).saturating_mul(self.bucket_us());
        Micros(end.saturating_add(self.dedup_retention_us))
    }

    /// The first bucket that is still remembered under a watermark; every later one is, too.
    pub fn oldest_remembered(&self, watermark: Option<Micros>) -> Bucket {
        let Some(Micros(watermark)) = watermark else { return Bucket(0) };
        // (bucket + 1) * b + retention > watermark, solved for the least whole bucket.
        let passed = watermark.saturating_sub(self.dedup_retention_us).div_euclid(self.bucket_us());
        Bucket(passed.try_into().unwrap_or(0))
    }

    /// The watermark that follows from how far event time has come.
    pub fn watermark(&self, reached: Option<Micros>) -> Option<Micros> {
        reached.map(|reached| Micros(reached.0.saturating_sub(self.watermark_delay_us)))
    }
}

/// A partition of which more was there to be read when an epoch was closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Behind {
    /// The partition.
    pub partition: PartitionId,
    /// Its head time after the epoch, as the cut has it: the time of a file of which fewer than n events were read.
    pub head: Option<Micros>,
}

/// The partition that holds the watermark back.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldBack {
    /// The partition.
    pub partition: PartitionId,
    /// How far it has come in event time; none where that is not known, and the watermark stays where it was.
    pub time: Option<Micros>,
}

/// Event time as an epoch sees it, the same on every worker.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochTimes {
    /// The epoch's watermark; none before the first.
    pub watermark: Option<Micros>,
    /// The greatest event time in the epoch itself.
    pub newest_in_epoch: Option<Micros>,
    /// The watermark of the epoch after it.
    pub next_watermark: Option<Micros>,
    /// Which partition kept that watermark from coming further, if one did: of the partitions behind that with the least
    /// time, where this is less than the n-th greatest event time of all, or one whose time is not known.
    pub held_back: Option<HeldBack>,
}

/// How far event time has come up to the end of an epoch: what the watermark goes on from after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Progress {
    /// The watermark of the next epoch.
    pub watermark: Option<Micros>,
    /// The greatest event time of all.
    pub newest: Option<Micros>,
    /// The n greatest event times that have been counted, ascending; fewer where there were fewer.
    pub overall: Vec<Micros>,
    /// The same of each partition that has any, in order of partition.
    pub partitions: Vec<(PartitionId, Vec<Micros>)>,
}

impl Progress {
    /// After epochs that waited for no partition and whose greatest event time was `newest`.
    pub fn without_waiting(horizon: Horizon, newest: Option<Micros>) -> Progress {
        Progress { watermark: horizon.watermark(newest), newest, ..Progress::default() }
    }

    /// The same without the times that have been counted: where the number of witnesses is another from here on, counting
    /// begins anew, and the watermark goes on from where it stood.
    #[must_use]
    pub fn counted_anew(self) -> Progress {
        Progress { watermark: self.watermark, newest: self.newest, ..Progress::default() }
    }
}

/// What the watermark depends on besides event times and cuts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How far the watermark lies behind.
    pub horizon: Horizon,
    /// n: so many events must be dated at or after an instant before event time is taken to have come to it.
    pub witnesses: usize,
    /// A partition that takes no part: what is in it came before, and is sent once more.
    pub uncounted: Option<PartitionId>,
}

/// Derives each epoch's watermark from the event times and the cuts of the epochs before it.
///
/// Event time has come as far as the n-th greatest event time of all partitions together, but no further than any
/// partition that is behind: than the n-th greatest of its own, or its head time while it has fewer. While the time of
/// one of these is not known, the watermark stays where it is. It lies [`Horizon::watermark_delay_us`] behind, and never
/// moves back.
///
/// An epoch that does not wait (see [`EpochMark::waits`](crate::event::EpochMark::waits)) goes by the rule before this
/// one: its event times are not counted, and the watermark lies behind the greatest event time so far.
///
/// ```
/// use tidemark_dataflows::event::{Micros, PartitionId};
/// use tidemark_dataflows::newest::EventTimes;
/// use tidemark_dataflows::watermark::{Behind, Horizon, Progress, Settings, Watermarks};
///
/// let horizon = Horizon { watermark_delay_us: 10, dedup_retention_us: 10 };
/// let mut watermarks = Watermarks::new(Settings { horizon, witnesses: 2, uncounted: None }, Progress::default());
/// let [hasty, slow] = [PartitionId(0), PartitionId(1)];
/// let times = |times: &[i64]| times.iter().map(|time| Micros(*time)).collect();
/// watermarks.observe(EventTimes { epoch: 1, partitions: vec![(hasty, times(&[70, 80, 90])), (slow, times(&[30]))] });
/// let behind = [Behind { partition: slow, head: Some(Micros(40)) }];
/// let first = watermarks.close(1, true, &behind);
/// assert_eq!((first.watermark, first.next_watermark), (None, Some(Micros(30))));
/// assert_eq!(first.held_back.map(|held| held.partition), Some(slow));
/// // All has been read: the second of all times decides.
/// assert_eq!(watermarks.close(2, true, &[]).next_watermark, Some(Micros(70)));
/// ```
#[derive(Clone, Debug)]
pub struct Watermarks {
    settings: Settings,
    watermark: Option<Micros>,
    newest: Option<Micros>,
    overall: Vec<Micros>,
    partitions: BTreeMap<PartitionId, Vec<Micros>>,
    pending: BTreeMap<Epoch, Vec<EventTimes>>,
}

impl Watermarks {
    /// Goes on from `progress`, which was made with as many witnesses (see [`Progress::counted_anew`]).
    pub fn new(settings: Settings, progress: Progress) -> Self {
        let settings = Settings { witnesses: settings.witnesses.max(1), ..settings };
        let Progress { watermark, newest, overall, partitions } = progress;
        let (partitions, pending) = (partitions.into_iter().collect(), BTreeMap::new());
        Watermarks { settings, watermark, newest, overall, partitions, pending }
    }

    /// Notes event times of an epoch that has not been closed yet.
    pub fn observe(&mut self, times: EventTimes) {
        self.pending.entry(times.epoch).or_default().push(times);
    }

    /// Closes an epoch. Every epoch is closed, in order, once all that belongs to it has been observed. `waits` and
    /// `behind` are what its mark and its cut say.
    pub fn close(&mut self, epoch: Epoch, waits: bool, behind: &[Behind]) -> EpochTimes {
        let observed = self.pending.remove(&epoch).unwrap_or_default();
        let newest_in_epoch = observed.iter().filter_map(EventTimes::greatest).max();
        self.newest = self.newest.max(newest_in_epoch);
        let (reached, held_back) = if waits {
            observed.iter().for_each(|times| self.count(times));
            self.reached(behind)
        } else {
            (self.newest, None)
        };
        let watermark = self.watermark;
        // `None` is less than any watermark: what is not known moves nothing.
        self.watermark = watermark.max(self.settings.horizon.watermark(reached));
        EpochTimes { watermark, newest_in_epoch, next_watermark: self.watermark, held_back }
    }

    /// How far event time has come up to the end of the epoch that was closed last.
    pub fn progress(&self) -> Progress {
        let partitions = self.partitions.iter().map(|(partition, times)| (*partition, times.clone())).collect();
        Progress { watermark: self.watermark, newest: self.newest, overall: self.overall.clone(), partitions }
    }

    fn count(&mut self, times: &EventTimes) {
        let Settings { witnesses, uncounted, .. } = self.settings;
        for (partition, times) in times.partitions.iter().filter(|(partition, _)| Some(*partition) != uncounted) {
            keep_greatest(&mut self.overall, times, witnesses);
            keep_greatest(self.partitions.entry(*partition).or_default(), times, witnesses);
        }
    }

    /// T(e): how far event time has come, and the partition that it waits for.
    fn reached(&self, behind: &[Behind]) -> (Option<Micros>, Option<HeldBack>) {
        let Settings { witnesses, uncounted, .. } = self.settings;
        let time_of = |Behind { partition, head }: &Behind| {
            let read = self.partitions.get(partition).and_then(|times| least_of_all(times, witnesses));
            HeldBack { partition: *partition, time: read.or(*head) }
        };
        let waited_for = behind.iter().filter(|behind| Some(behind.partition) != uncounted).map(time_of);
        let overall = least_of_all(&self.overall, witnesses);
        // A time that is not known is the least.
        match waited_for.min_by_key(|held| (held.time, held.partition)) {
            Some(held) if held.time.is_none() || held.time < overall => (held.time, Some(held)),
            _ => (overall, None),
        }
    }
}

/// The n-th greatest of the n greatest, which are ascending; none while there are fewer.
fn least_of_all(times: &[Micros], witnesses: usize) -> Option<Micros> {
    times.len().checked_sub(witnesses).map(|first| times[first])
}

/// Adds times to those that are kept, and keeps the n greatest of both, ascending.
fn keep_greatest(kept: &mut Vec<Micros>, more: &[Micros], witnesses: usize) {
    let floor = least_of_all(kept, witnesses);
    kept.extend(more.iter().filter(|time| Some(**time) > floor));
    kept.sort_unstable();
    kept.drain(..kept.len().saturating_sub(witnesses));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::END_OF_TIME;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    fn horizons() -> impl Strategy<Value = Horizon> {
        let span = || prop_oneof![0..100 * SECOND, 0..END_OF_TIME.0, Just(i64::MAX)];
        (span(), span())
            .prop_map(|(watermark_delay_us, dedup_retention_us)| Horizon { watermark_delay_us, dedup_retention_us })
    }

    proptest! {
        #[test]
        fn a_bucket_is_remembered_exactly_until_the_watermark_reaches_its_end_plus_the_retention(
            horizon in horizons(), time in 0..END_OF_TIME.0, nudge in -2i64..3,
        ) {
            let end = horizon.forgotten_at(Micros(time));
            prop_assert!(end.0 > time.saturating_add(horizon.dedup_retention_us) || end.0 == i64::MAX);
            let watermark = Micros(end.0.saturating_add(nudge));
            let remembered = horizon.bucket_of(Micros(time)) >= horizon.oldest_remembered(Some(watermark));
            // A saturated end is never reached by the watermark of a contract's event.
            prop_assume!(end.0 < i64::MAX - 2);
            prop_assert_eq!(remembered, watermark < end);
        }
    }

    #[test]
    fn one_day_means_full_utc_hours_and_a_short_retention_full_seconds() {
        let day = Horizon { watermark_delay_us: 0, dedup_retention_us: 86_400 * SECOND };
        assert_eq!(day.bucket_us(), 3600 * SECOND);
        let short = Horizon { watermark_delay_us: 0, dedup_retention_us: 0 };
        assert_eq!(short.forgotten_at(Micros(0)), Micros(SECOND));
        assert_eq!(short.forgotten_at(Micros(SECOND)), Micros(2 * SECOND));
        let odd = Horizon { watermark_delay_us: 0, dedup_retention_us: 25 * SECOND };
        assert_eq!(odd.bucket_us(), 1_041_666);
    }

    fn watermarks(progress: Progress) -> Watermarks {
        let horizon = Horizon { watermark_delay_us: 10, dedup_retention_us: 0 };
        Watermarks::new(Settings { horizon, witnesses: 2, uncounted: Some(PartitionId(9)) }, progress)
    }

    fn times(epoch: Epoch, partition: u32, times: &[i64]) -> EventTimes {
        let times = times.iter().map(|time| Micros(*time)).collect();
        EventTimes { epoch, partitions: vec![(PartitionId(partition), times)] }
    }

    fn behind(partition: u32, head: Option<i64>) -> Behind {
        Behind { partition: PartitionId(partition), head: head.map(Micros) }
    }

    #[test]
    fn without_waiting_a_watermark_knows_the_epochs_before_its_own_and_nothing_is_counted() {
        let mut watermarks = watermarks(Progress::default());
        watermarks.observe(times(3, 0, &[50]));
        watermarks.observe(times(1, 9, &[90, 100]));
        watermarks.observe(times(1, 0, &[70, 90]));
        assert_eq!(watermarks.close(1, false, &[behind(0, None)]).watermark, None);
        let second = EpochTimes { watermark: Some(Micros(90)), next_watermark: Some(Micros(90)), ..Default::default() };
        assert_eq!(watermarks.close(2, false, &[]), second);
        let third = EpochTimes { newest_in_epoch: Some(Micros(50)), ..second };
        assert_eq!(watermarks.close(3, false, &[]), third);
        let horizon = watermarks.settings.horizon;
        assert_eq!(watermarks.progress(), Progress::without_waiting(horizon, Some(Micros(100))));
    }

    #[test]
    fn a_partition_that_is_behind_and_unknown_keeps_the_watermark_where_it_is() {
        let mut watermarks = watermarks(Progress { watermark: Some(Micros(5)), ..Progress::default() });
        watermarks.observe(times(1, 0, &[50, 60]));
        watermarks.observe(times(1, 1, &[20]));
        let first = watermarks.close(1, true, &[behind(0, None), behind(1, None), behind(2, None)]);
        assert_eq!(first.next_watermark, Some(Micros(5)));
        assert_eq!(first.held_back, Some(HeldBack { partition: PartitionId(1), time: None }));
        let second = watermarks.close(2, true, &[behind(0, Some(1)), behind(1, Some(20))]);
        assert_eq!(second.next_watermark, Some(Micros(10)));
        assert_eq!(second.held_back, Some(HeldBack { partition: PartitionId(1), time: Some(Micros(20)) }));
        // Its own second greatest is the second greatest of all: nobody waits for it.
        let third = watermarks.close(3, true, &[behind(0, None)]);
        assert_eq!((third.next_watermark, third.held_back), (Some(Micros(40)), None));
    }

    #[test]
    fn the_uncounted_partition_is_neither_waited_for_nor_a_witness() {
        let mut watermarks = watermarks(Progress::default());
        watermarks.observe(times(1, 9, &[100, 200]));
        watermarks.observe(times(1, 0, &[30]));
        let first = watermarks.close(1, true, &[behind(9, None)]);
        let nothing = EpochTimes { newest_in_epoch: Some(Micros(200)), ..EpochTimes::default() };
        assert_eq!(first, nothing);
        watermarks.observe(times(2, 0, &[30]));
        assert_eq!(watermarks.close(2, true, &[]).next_watermark, Some(Micros(20)));
    }

    #[test]
    fn counted_anew_the_watermark_goes_on_from_where_it_stood() {
        let mut first = watermarks(Progress::default());
        first.observe(times(1, 0, &[70, 80]));
        first.close(1, true, &[]);
        let progress = first.progress().counted_anew();
        assert_eq!((progress.watermark, progress.newest), (Some(Micros(60)), Some(Micros(80))));
        let mut second = watermarks(progress);
        second.observe(times(2, 0, &[75]));
        let after = second.close(2, true, &[behind(0, None)]);
        assert_eq!((after.watermark, after.next_watermark), (Some(Micros(60)), Some(Micros(60))));
    }
}
