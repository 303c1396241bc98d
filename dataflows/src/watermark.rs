//! How far event time has come, what is late under it, and how long an id is remembered.
//!
//! [`Horizon`] is the arithmetic of the two settings, [`Watermarks`] the watermark of each epoch, and
//! [`newest_event_times`] the operator that feeds it. What is done with a late event is the business of
//! [`crate::distinct`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;

use crate::event::{Epoch, Event, Micros};

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
    /// How far the watermark lies behind the greatest event time.
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

    /// The watermark that follows from the greatest event time of all earlier epochs.
    pub fn watermark(&self, newest: Option<Micros>) -> Option<Micros> {
        newest.map(|newest| Micros(newest.0.saturating_sub(self.watermark_delay_us)))
    }
}

/// Event time as an epoch sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EpochTimes {
    /// The epoch's watermark; `None` before the first event.
    pub watermark: Option<Micros>,
    /// The greatest event time in the epoch itself.
    pub newest_in_epoch: Option<Micros>,
    /// The greatest event time up to and with this epoch: what the next epoch's watermark follows from.
    pub newest: Option<Micros>,
}

/// Derives each epoch's watermark from the event times of the epochs before it.
#[derive(Clone, Debug)]
pub struct Watermarks {
    horizon: Horizon,
    newest: Option<Micros>,
    pending: BTreeMap<Epoch, Micros>,
}

impl Watermarks {
    /// Starts after epochs whose greatest event time was `newest`.
    pub fn new(horizon: Horizon, newest: Option<Micros>) -> Self {
        Watermarks { horizon, newest, pending: BTreeMap::new() }
    }

    /// Notes an event time of an epoch that has not been closed yet.
    pub fn observe(&mut self, epoch: Epoch, time: Micros) {
        let newest = self.pending.entry(epoch).or_insert(time);
        *newest = time.max(*newest);
    }

    /// Closes an epoch. Epochs are closed in order, once all that belongs to them has been observed.
    pub fn close(&mut self, epoch: Epoch) -> EpochTimes {
        let mut newest_in_epoch = None;
        let mut before = self.newest;
        while let Some(first) = self.pending.first_entry().filter(|first| *first.key() <= epoch) {
            let closing = *first.key();
            let time = Some(first.remove());
            if closing == epoch {
                newest_in_epoch = time;
            } else {
                before = before.max(time);
            }
        }
        self.newest = before.max(newest_in_epoch);
        EpochTimes { watermark: self.horizon.watermark(before), newest_in_epoch, newest: self.newest }
    }
}

/// The greatest event time among one worker's events of one epoch, as told to every worker.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NewestEventTime {
    /// The epoch.
    pub epoch: Epoch,
    /// Its greatest event time on that worker.
    pub time: Micros,
}

/// Passes events through and tells every worker, once an epoch is closed, the greatest event time that each worker saw
/// in it. A worker without events in the epoch tells nothing.
///
/// The events are handed on because a stream with two readers is copied for one of them.
///
/// ```
/// use timely::dataflow::operators::{Inspect, ToStream};
/// use tidemark_dataflows::event::*;
/// use tidemark_dataflows::watermark::newest_event_times;
///
/// timely::example(|scope| {
///     let event = |time| Event {
///         id: EventId(7), user: UserId::default(), time: Micros(time), amount: Pence(100), at: Position::default(),
///         origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
///     };
///     let events = vec![event(3), event(9), event(4)].to_stream(scope).container::<Vec<_>>();
///     let (_events, newest) = newest_event_times(events);
///     newest.inspect(|newest| assert_eq!(newest.time, Micros(9)));
/// });
/// ```
pub fn newest_event_times<'s>(
    events: Stream<'s, Epoch, Vec<Event>>,
) -> (Stream<'s, Epoch, Vec<Event>>, Stream<'s, Epoch, Vec<NewestEventTime>>) {
    let mut builder = OperatorBuilder::new("NewestEventTimes".to_owned(), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (passed, events) = builder.new_output();
    let (newest, newest_times) = builder.new_output();
    let mut passed = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(passed);
    let mut newest = OutputBuilder::<_, CapacityContainerBuilder<Vec<NewestEventTime>>>::from(newest);
    builder.build(move |capabilities| {
        // Held on, they would keep every epoch from closing.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Micros)> = BTreeMap::new();
        move |frontiers| {
            let mut passed = passed.activate();
            input.for_each_stamp(|cap, batches| {
                let Some(epoch) = cap.least().copied() else { return };
                let mut session = passed.session(&cap);
                for batch in batches {
                    let Some(time) = batch.iter().map(|event| event.time).max() else { continue };
                    session.give_container(batch);
                    if let Some((_, known)) = open.get_mut(&epoch) {
                        *known = time.max(*known);
                    } else if let Some(held) = cap.retain_least(1) {
                        open.insert(epoch, (held, time));
                    }
                }
            });
            let mut newest = newest.activate();
            while let Some(first) = open.first_entry().filter(|first| !frontiers[0].less_equal(first.key())) {
                let (epoch, (cap, time)) = first.remove_entry();
                newest.session(&cap).give(NewestEventTime { epoch, time });
            }
        }
    });
    (events, newest_times.broadcast())
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

    #[test]
    fn a_watermark_knows_the_epochs_before_its_own_and_never_moves_back() {
        let mut watermarks = Watermarks::new(Horizon { watermark_delay_us: 10, dedup_retention_us: 0 }, None);
        watermarks.observe(3, Micros(50));
        watermarks.observe(1, Micros(100));
        watermarks.observe(1, Micros(90));
        assert_eq!(watermarks.close(1).watermark, None);
        let second = EpochTimes { watermark: Some(Micros(90)), newest_in_epoch: None, newest: Some(Micros(100)) };
        assert_eq!(watermarks.close(2), second);
        let third =
            EpochTimes { watermark: Some(Micros(90)), newest_in_epoch: Some(Micros(50)), newest: Some(Micros(100)) };
        assert_eq!(watermarks.close(3), third);
    }

    #[test]
    fn a_restart_goes_on_from_the_restored_event_time() {
        let mut watermarks =
            Watermarks::new(Horizon { watermark_delay_us: 10, dedup_retention_us: 0 }, Some(Micros(70)));
        assert_eq!(watermarks.close(9).watermark, Some(Micros(60)));
    }
}
