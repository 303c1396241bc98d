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
use crate::newest::EventTimes;
use crate::reason::Reason;
use crate::watermark::{Behind, EpochTimes, Progress, Watermarks};

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
    /// Event time as the epoch sees it.
    pub times: EpochTimes,
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

/// What goes into [`distinct_within_watermark`], each at the time of its epoch.
pub struct Inputs<'s> {
    /// The events, each on any worker.
    pub events: Stream<'s, Epoch, Vec<Event>>,
    /// Their times, each for the worker whose index stands before it; all workers are told the same.
    pub times: Stream<'s, Epoch, Vec<(u64, EventTimes)>>,
    /// On every worker one mark for each epoch.
    pub marks: Stream<'s, Epoch, Vec<EpochMark>>,
    /// On every worker the partitions that were behind when the epoch was closed.
    pub behind: Stream<'s, Epoch, Vec<Behind>>,
    /// On every worker the requests for checkpoints.
    pub checkpoints: Stream<'s, Epoch, Vec<()>>,
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
    /// On worker 0 an answer to each request for a checkpoint: how far event time has come; none without a log of
    /// admissions.
    pub progress: Stream<'s, Epoch, Vec<Progress>>,
}

/// Capabilities for the outputs that do not wait for a request, and for the admitted ids.
type Held = [Capability<Epoch>; 4];

/// Outputs that requests for checkpoints are answered at.
const ANSWERS: [usize; 2] = [3, 4];

/// What has arrived of an epoch that is still open.
struct Open {
    held: Held,
    batches: Vec<Vec<Event>>,
    waits: bool,
    behind: Vec<Behind>,
}

/// Adds to what has arrived of the epoch of a message.
fn arrive(open: &mut BTreeMap<Epoch, Open>, cap: &InputCapability<Epoch>, add: impl FnOnce(&mut Open)) {
    let Some(epoch) = cap.least() else { return };
    let held = || [0, 1, 2, 3].map(|output| cap.delayed(epoch, output));
    let begin = || Open { held: held(), batches: Vec::new(), waits: false, behind: Vec::new() };
    add(open.entry(*epoch).or_insert_with(begin));
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

/// The admitted ids that have not been handed on, if there are any.
fn admitted_up_to(epoch: Epoch, index: &mut TimeBoundedArrangement) -> Option<Admitted> {
    let ids = index.take_log();
    (!ids.is_empty()).then_some(Admitted { epoch, ids })
}

/// Accepts the first event of each id that is neither remembered nor late, by the rules about the stream.
///
/// `index` is this worker's part of what is remembered: empty, or restored with the ids that [`Hashes::route`] gives to
/// this worker, and shared by nobody who writes. `watermarks` go on from the end of the epoch before the first one here,
/// on every worker alike. Every mark is answered with a tally.
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
/// use tidemark_dataflows::distinct::{Inputs, distinct_within_watermark};
/// use tidemark_dataflows::event::*;
/// use tidemark_dataflows::watermark::{self, Horizon, Progress, Watermarks};
///
/// timely::example(|scope| {
///     let event = |offset, id| Event {
///         id: EventId(id), user: UserId::default(), time: Micros(1_000_000), amount: Pence(100),
///         at: Position { partition: PartitionId(0), offset: Offset(offset) },
///         origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
///     };
///     let events = vec![event(0, 7), event(1, 8), event(2, 7)].to_stream(scope).container::<Vec<_>>();
///     let mark = EpochMark { epoch: 0, opened: Micros(0), closed: Micros(0), missing: 0, waits: true };
///     let marks = vec![mark].to_stream(scope).container::<Vec<_>>();
///     let (times, behind, checkpoints) = (empty(scope), empty(scope), empty(scope));
///
///     let horizon = Horizon { watermark_delay_us: 3_600_000_000, dedup_retention_us: 3_600_000_000 };
///     let settings = Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() };
///     let rule = watermark::Settings { horizon, witnesses: 10, uncounted: None };
///     let distinct = distinct_within_watermark(
///         Inputs { events, times, marks, behind, checkpoints },
///         TimeBoundedArrangement::shared(settings),
///         Watermarks::new(rule, Progress::default()),
///         None,
///     );
///     distinct.accepted.inspect(|event| assert!(event.at.offset.0 < 2));
///     distinct.tallies.inspect(|tally| assert_eq!((tally.accepted, tally.duplicates, tally.retained), (2, 1, 2)));
/// });
/// ```
pub fn distinct_within_watermark<'s>(
    inputs: Inputs<'s>,
    index: SharedArrangement,
    mut watermarks: Watermarks,
    log_admissions: Option<usize>,
) -> Distinct<'s> {
    let Inputs { events, times, marks, behind, checkpoints } = inputs;
    let checkpoints = begin_log(&index, checkpoints, log_admissions.is_some());
    let hashes = index.borrow().hashes();
    let first_worker = events.scope().index() == 0;
    let mut builder = OperatorBuilder::new("DistinctWithinWatermark".to_owned(), events.scope());
    let mut events = builder.new_input(events, Exchange::new(move |event: &Event| hashes.route(event.id)));
    let mut times = builder.new_input(times, Exchange::new(|(worker, _): &(u64, EventTimes)| *worker));
    let mut marks = builder.new_input(marks, Pipeline);
    let mut behind = builder.new_input(behind, Pipeline);
    let (accepted_out, accepted) = builder.new_output();
    let (refused_out, refused) = builder.new_output();
    let (tallies_out, tallies) = builder.new_output();
    // The outputs so far never wait for a request: connected to this input, they could not pass an epoch before it did.
    let mut checkpoints = builder.new_input_connection(checkpoints, Pipeline, []);
    let (admitted_out, admitted) = builder.new_output();
    let (progress_out, progress) = builder.new_output();
    let mut accepted_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(accepted_out);
    let mut refused_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Refusal>>>::from(refused_out);
    let mut tallies_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<DistinctTally>>>::from(tallies_out);
    let mut admitted_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Admitted>>>::from(admitted_out);
    let mut progress_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Progress>>>::from(progress_out);

    builder.build(move |capabilities| {
        // They stand at time 0, and would hold back everything downstream.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, Open> = BTreeMap::new();
        let (mut judge, mut requests) = (Judge::default(), Requests::new());
        move |frontiers| {
            events.for_each_stamp(|cap, batches| {
                arrive(&mut open, &cap, |open| open.batches.extend(batches.map(std::mem::take)));
            });
            times.for_each(|_, batch| batch.drain(..).for_each(|(_, times)| watermarks.observe(times)));
            marks.for_each_stamp(|cap, batches| {
                let waits = batches.flat_map(|batch| batch.drain(..)).any(|mark| mark.waits);
                arrive(&mut open, &cap, |open| open.waits |= waits);
            });
            behind.for_each_stamp(|cap, batches| {
                arrive(&mut open, &cap, |open| open.behind.extend(batches.flat_map(|batch| batch.drain(..))));
            });
            checkpoints.for_each_stamp(|request, _| requests.ask(&request, ANSWERS));

            let (mut accepted, mut refused, mut tallies) =
                (accepted_out.activate(), refused_out.activate(), tallies_out.activate());
            let (mut admitted, mut progress) = (admitted_out.activate(), progress_out.activate());
            let index = &mut *index.borrow_mut();
            let [of_epochs @ .., of_requests] = frontiers else { return };
            let closed = |epoch: &Epoch| !of_epochs.iter().any(|frontier| frontier.less_equal(epoch));
            while let Some(turn) = requests.turn(of_requests, open.keys().next().copied(), closed) {
                match turn {
                    Turn::Answer(epoch, [for_admitted, for_progress]) => {
                        admitted.session(&for_admitted).give_iterator(admitted_up_to(epoch, index).into_iter());
                        let answer = first_worker.then(|| watermarks.progress());
                        progress.session(&for_progress).give_iterator(answer.into_iter());
                    }
                    Turn::Close(epoch) => {
                        let Some(Open { held, mut batches, waits, behind }) = open.remove(&epoch) else { break };
                        let times = watermarks.close(epoch, waits, &behind);
                        let mut verdicts = judge.close(index, epoch, times, &mut batches);
                        let filled = batches.iter_mut().filter(|batch| !batch.is_empty());
                        accepted.session(&held[0]).give_containers(filled);
                        refused.session(&held[1]).give_iterator(verdicts.refused.drain(..));
                        tallies.session(&held[2]).give(verdicts.tally);
                        if log_admissions.is_some_and(|limit| index.logged() >= limit) {
                            admitted.session(&held[3]).give_iterator(admitted_up_to(epoch, index).into_iter());
                        }
                    }
                }
            }
        }
    });
    Distinct { accepted, refused, tallies, admitted, progress }
}
