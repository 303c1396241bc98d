//! Each event id once, within the watermark horizon.
//!
//! The operator collects the events of an epoch, waits until the epoch is closed on all workers, and then decides all
//! of them at once ([`judge`]), against a [`TimeBoundedArrangement`](crate::arrangement::TimeBoundedArrangement) that
//! holds what earlier epochs accepted. So its answers depend on the events and the cuts alone. What passes is
//! append-only: forgetting an id emits nothing, and nothing downstream ever sees a retraction.
//!
//! Events with a broken contract never get here, and what becomes of a refused event's body is decided where it was
//! decoded.

pub mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, InputCapability};

use self::judge::Judge;
use crate::arrangement::SharedArrangement;
use crate::event::{Epoch, EpochMark, Event, EventId, Micros, Position};
use crate::reason::Reason;
use crate::watermark::{Watermarks, newest_event_times};

/// An event that a rule about the stream refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it stands in its source.
    pub at: Position,
    /// The worker that decoded it.
    pub origin: u16,
    /// [`Reason::LateEvent`] or [`Reason::ConflictingDuplicate`].
    pub reason: Reason,
    /// Its identity.
    pub id: EventId,
    /// When it says that it happened.
    pub time: Micros,
    /// The watermark of the epoch.
    pub watermark: Option<Micros>,
}

/// What one worker decided in one epoch. The counts add up over the workers; the times are the same on all of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DistinctTally {
    /// The epoch.
    pub epoch: Epoch,
    /// Events accepted.
    pub accepted: u64,
    /// Events that repeat a remembered one.
    pub duplicates: u64,
    /// Events refused for R200.
    pub late: u64,
    /// Events refused for R210.
    pub conflicting: u64,
    /// Ids remembered after the epoch, under its watermark.
    pub retained: u64,
    /// The watermark of the epoch.
    pub watermark: Option<Micros>,
    /// The greatest event time in the epoch, of all events on all workers.
    pub newest_in_epoch: Option<Micros>,
    /// The greatest event time up to and with this epoch: what a restart after it begins with.
    pub newest: Option<Micros>,
}

/// What comes out of [`distinct_within_watermark`], each at the time of its epoch.
pub struct Distinct<'s> {
    /// The events that count.
    pub accepted: Stream<'s, Epoch, Vec<Event>>,
    /// The late and the conflicting ones, on the worker that owns their id.
    pub refused: Stream<'s, Epoch, Vec<Refusal>>,
    /// One tally for each epoch and worker.
    pub tallies: Stream<'s, Epoch, Vec<DistinctTally>>,
}

/// Capabilities for the three outputs.
type Held = [Capability<Epoch>; 3];

/// What has arrived of an epoch that is still open.
struct Open {
    held: Held,
    batches: Vec<Vec<Event>>,
}

fn hold(cap: &InputCapability<Epoch>) -> Option<(Epoch, Held)> {
    let epoch = *cap.least()?;
    Some((epoch, [cap.retain_least(0)?, cap.retain_least(1)?, cap.retain_least(2)?]))
}

/// Accepts the first event of each id that is neither remembered nor late, by the rules about the stream.
///
/// `index` is this worker's part of what is remembered: empty, or restored with the ids that [`Hashes::route`] gives to
/// this worker, and shared by nobody who writes. `newest` is the greatest event time of the epochs before the first one
/// here. Every worker gives one mark at the time of each epoch, and every mark is answered with a tally.
///
/// [`Hashes::route`]: crate::arrangement::Hashes::route
///
/// ```
/// use timely::dataflow::operators::{Inspect, ToStream};
/// use tidemark_dataflows::arrangement::{Settings, SweepRate, TimeBoundedArrangement};
/// use tidemark_dataflows::distinct::distinct_within_watermark;
/// use tidemark_dataflows::event::*;
/// use tidemark_dataflows::watermark::Horizon;
///
/// timely::example(|scope| {
///     let event = |offset, id| Event {
///         id: EventId(id), user: UserId::default(), time: Micros(1_000_000), amount: Pence(100),
///         at: Position { partition: PartitionId(0), offset: Offset(offset) },
///         origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
///     };
///     let events = vec![event(0, 7), event(1, 8), event(2, 7)].to_stream(scope).container::<Vec<_>>();
///     let mark = EpochMark { epoch: 0, opened: Micros(0), closed: Micros(0) };
///     let marks = vec![mark].to_stream(scope).container::<Vec<_>>();
///
///     let horizon = Horizon { watermark_delay_us: 3_600_000_000, dedup_retention_us: 3_600_000_000 };
///     let settings = Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() };
///     let distinct = distinct_within_watermark(events, marks, TimeBoundedArrangement::shared(settings), None);
///     distinct.accepted.inspect(|event| assert!(event.at.offset.0 < 2));
///     distinct.tallies.inspect(|tally| assert_eq!((tally.accepted, tally.duplicates, tally.retained), (2, 1, 2)));
/// });
/// ```
pub fn distinct_within_watermark<'s>(
    events: Stream<'s, Epoch, Vec<Event>>,
    marks: Stream<'s, Epoch, Vec<EpochMark>>,
    index: SharedArrangement,
    newest: Option<Micros>,
) -> Distinct<'s> {
    let (horizon, hashes) = (index.borrow().settings().horizon, index.borrow().hashes());
    let mut builder = OperatorBuilder::new("DistinctWithinWatermark".to_owned(), events.scope());
    let (events, newest_times) = newest_event_times(events);
    let mut events = builder.new_input(events, Exchange::new(move |event: &Event| hashes.route(event.id)));
    let mut newest_times = builder.new_input(newest_times, Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    let (accepted_out, accepted) = builder.new_output();
    let (refused_out, refused) = builder.new_output();
    let (tallies_out, tallies) = builder.new_output();
    let mut accepted_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(accepted_out);
    let mut refused_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Refusal>>>::from(refused_out);
    let mut tallies_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<DistinctTally>>>::from(tallies_out);

    builder.build(move |capabilities| {
        // They stand at time 0, and would hold back everything downstream.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, Open> = BTreeMap::new();
        let mut watermarks = Watermarks::new(horizon, newest);
        let mut judge = Judge::default();
        move |frontiers| {
            events.for_each_stamp(|cap, batches| {
                let Some((epoch, held)) = hold(&cap) else { return };
                let open = open.entry(epoch).or_insert_with(|| Open { held, batches: Vec::new() });
                open.batches.extend(batches.map(std::mem::take));
            });
            marks.for_each_stamp(|cap, _| {
                let Some((epoch, held)) = hold(&cap) else { return };
                open.entry(epoch).or_insert_with(|| Open { held, batches: Vec::new() });
            });
            newest_times.for_each_stamp(|_, batches| {
                for newest in batches.flat_map(|batch| batch.drain(..)) {
                    watermarks.observe(newest.epoch, newest.time);
                }
            });

            let (mut accepted, mut refused, mut tallies) =
                (accepted_out.activate(), refused_out.activate(), tallies_out.activate());
            // The empty frontier lets every time pass, so the epochs that are open bound the loop.
            let closed = |epoch: &Epoch| !frontiers.iter().any(|frontier| frontier.less_equal(epoch));
            while let Some(first) = open.first_entry().filter(|first| closed(first.key())) {
                let (epoch, Open { held: [to_accepted, to_refused, to_tallies], mut batches }) = first.remove_entry();
                let times = watermarks.close(epoch);
                let mut verdicts = judge.close(&mut index.borrow_mut(), epoch, times, &mut batches);
                accepted.session(&to_accepted).give_containers(batches.iter_mut().filter(|batch| !batch.is_empty()));
                refused.session(&to_refused).give_iterator(verdicts.refused.drain(..));
                tallies.session(&to_tallies).give(verdicts.tally);
            }
        }
    });
    Distinct { accepted, refused, tallies }
}
