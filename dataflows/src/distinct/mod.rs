//! Each event id once, within the watermark horizon.
//!
//! The operator collects the events of an epoch, waits until the epoch is closed on all workers, and then decides all
//! of them at once ([`judge`]), against a [`TimeBoundedArrangement`] that
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
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::{Capability, InputCapability};

use self::judge::Judge;
use crate::arrangement::{Remembered, SharedArrangement, TimeBoundedArrangement};
use crate::checkpoints::{Requests, Turn};
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

/// Ids that one worker admitted, for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Admitted {
    /// They were admitted up to and with this epoch, and after that of the worker's message before.
    pub epoch: Epoch,
    /// What was admitted. Of several entries for one id in here the last counts; of entries in different messages that
    /// with the latest bucket. See [`take_log`](crate::arrangement::TimeBoundedArrangement::take_log).
    pub ids: Vec<(EventId, Remembered)>,
}

/// What comes out of [`distinct_within_watermark`], each at the time of its epoch.
pub struct Distinct<'s> {
    /// The events that count.
    pub accepted: Stream<'s, Epoch, Vec<Event>>,
    /// The late and the conflicting ones, on the worker that owns their id.
    pub refused: Stream<'s, Epoch, Vec<Refusal>>,
    /// One tally for each epoch and worker.
    pub tallies: Stream<'s, Epoch, Vec<DistinctTally>>,
    /// The admitted ids, each once, in pieces; none without a log of admissions.
    pub admitted: Stream<'s, Epoch, Vec<Admitted>>,
}

/// Capabilities for the four outputs.
type Held = [Capability<Epoch>; 4];

/// What has arrived of an epoch that is still open.
struct Open {
    held: Held,
    batches: Vec<Vec<Event>>,
}

/// What has arrived of the epoch of a message.
fn open_of<'a>(open: &'a mut BTreeMap<Epoch, Open>, cap: &InputCapability<Epoch>) -> Option<&'a mut Open> {
    let epoch = *cap.least()?;
    let held = [cap.retain_least(0)?, cap.retain_least(1)?, cap.retain_least(2)?, cap.retain_least(3)?];
    Some(open.entry(epoch).or_insert_with(|| Open { held, batches: Vec::new() }))
}

/// Begins the log of admissions, if one is kept; returns the requests that are looked at.
fn begin_log<'s>(
    index: &SharedArrangement,
    checkpoints: Stream<'s, Epoch, Vec<()>>,
    kept: bool,
) -> Stream<'s, Epoch, Vec<()>> {
    if !kept {
        return empty(checkpoints.scope());
    }
    index.borrow_mut().log_admissions();
    checkpoints
}

/// Accepts the first event of each id that is neither remembered nor late, by the rules about the stream.
///
/// `index` is this worker's part of what is remembered: empty, or restored with the ids that [`Hashes::route`] gives to
/// this worker, and shared by nobody who writes. `newest` is the greatest event time of the epochs before the first one
/// here. Every worker gives one mark at the time of each epoch, and every mark is answered with a tally.
///
/// With `log_admissions` the admitted ids are handed on for checkpoints: when one is asked for (see
/// [`crate::checkpoints`]), and at the end of an epoch that leaves at least this many ids in the log. There is no message
/// where nothing was admitted. An epoch is then decided only after all requests for the epochs before it have come;
/// without it, `checkpoints` is not looked at.
///
/// [`Hashes::route`]: crate::arrangement::Hashes::route
///
/// ```
/// use timely::dataflow::operators::{Inspect, ToStream, generic::operator::empty};
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
///     let mark = EpochMark { epoch: 0, opened: Micros(0), closed: Micros(0), missing: 0 };
///     let marks = vec![mark].to_stream(scope).container::<Vec<_>>();
///
///     let horizon = Horizon { watermark_delay_us: 3_600_000_000, dedup_retention_us: 3_600_000_000 };
///     let settings = Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() };
///     let distinct = distinct_within_watermark(
///         events, marks, empty(scope), TimeBoundedArrangement::shared(settings), None, None,
///     );
///     distinct.accepted.inspect(|event| assert!(event.at.offset.0 < 2));
///     distinct.tallies.inspect(|tally| assert_eq!((tally.accepted, tally.duplicates, tally.retained), (2, 1, 2)));
/// });
/// ```
pub fn distinct_within_watermark<'s>(
    events: Stream<'s, Epoch, Vec<Event>>,
    marks: Stream<'s, Epoch, Vec<EpochMark>>,
    checkpoints: Stream<'s, Epoch, Vec<()>>,
    index: SharedArrangement,
    newest: Option<Micros>,
    log_admissions: Option<usize>,
) -> Distinct<'s> {
    let checkpoints = begin_log(&index, checkpoints, log_admissions.is_some());
    let (horizon, hashes) = (index.borrow().settings().horizon, index.borrow().hashes());
    let mut builder = OperatorBuilder::new("DistinctWithinWatermark".to_owned(), events.scope());
    let (events, newest_times) = newest_event_times(events);
    let mut events = builder.new_input(events, Exchange::new(move |event: &Event| hashes.route(event.id)));
    let mut newest_times = builder.new_input(newest_times, Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    let (accepted_out, accepted) = builder.new_output();
    let (refused_out, refused) = builder.new_output();
    let (tallies_out, tallies) = builder.new_output();
    // The outputs so far never wait for a request: connected to this input, they could not pass an epoch before it did.
    let mut checkpoints = builder.new_input_connection(checkpoints, Pipeline, []);
    let (admitted_out, admitted) = builder.new_output();
    let mut accepted_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(accepted_out);
    let mut refused_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Refusal>>>::from(refused_out);
    let mut tallies_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<DistinctTally>>>::from(tallies_out);
    let mut admitted_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Admitted>>>::from(admitted_out);

    builder.build(move |capabilities| {
        // They stand at time 0, and would hold back everything downstream.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, Open> = BTreeMap::new();
        let mut watermarks = Watermarks::new(horizon, newest);
        let mut judge = Judge::default();
        let mut requests = Requests::default();
        move |frontiers| {
            events.for_each_stamp(|cap, batches| {
                if let Some(open) = open_of(&mut open, &cap) {
                    open.batches.extend(batches.map(std::mem::take));
                }
            });
            marks.for_each_stamp(|cap, _| {
                open_of(&mut open, &cap);
            });
            newest_times.for_each_stamp(|_, batches| {
                for newest in batches.flat_map(|batch| batch.drain(..)) {
                    watermarks.observe(newest.epoch, newest.time);
                }
            });
            checkpoints.for_each_stamp(|request, _| requests.ask(&request, 3));

            let (mut accepted, mut refused, mut tallies, mut admitted) =
                (accepted_out.activate(), refused_out.activate(), tallies_out.activate(), admitted_out.activate());
            let mut hand_on = |index: &mut TimeBoundedArrangement, epoch, to: &Capability<Epoch>| {
                let ids = index.take_log();
                if !ids.is_empty() {
                    admitted.session(to).give(Admitted { epoch, ids });
                }
            };
            let index = &mut *index.borrow_mut();
            let [of_epochs @ .., of_requests] = frontiers else { return };
            let closed = |epoch: &Epoch| !of_epochs.iter().any(|frontier| frontier.less_equal(epoch));
            while let Some(turn) = requests.turn(of_requests, open.keys().next().copied(), closed) {
                match turn {
                    Turn::Answer(epoch, cap) => hand_on(index, epoch, &cap),
                    Turn::Close(epoch) => {
                        let Some(Open { held, mut batches }) = open.remove(&epoch) else { break };
                        let times = watermarks.close(epoch);
                        let mut verdicts = judge.close(index, epoch, times, &mut batches);
                        let filled = batches.iter_mut().filter(|batch| !batch.is_empty());
                        accepted.session(&held[0]).give_containers(filled);
                        refused.session(&held[1]).give_iterator(verdicts.refused.drain(..));
                        tallies.session(&held[2]).give(verdicts.tally);
                        if log_admissions.is_some_and(|limit| index.logged() >= limit) {
                            hand_on(index, epoch, &held[3]);
                        }
                    }
                }
            }
        }
    });
    Distinct { accepted, refused, tallies, admitted }
}
