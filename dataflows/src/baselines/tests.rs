//! All baselines and the operator in use, side by side on inputs on which they must agree.

#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)]

use std::sync::mpsc::{Receiver, channel};

use proptest::prelude::*;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::generic::operator::empty;

use super::*;
use crate::arrangement::{Settings, SweepRate, TimeBoundedArrangement};
use crate::distinct::{Inputs, distinct_within_watermark};
use crate::event::{Channel, EpochMark, EventId, EventType, Micros, Offset, PartitionId, Pence, Position, UserId};
use crate::watermark::{self, Horizon, Progress, Watermarks};

const MINUTE: i64 = 60_000_000;

/// Contents follow from the id, event time advances by an hour in all: nothing is late, in conflict or forgotten.
fn event(id: u8, offset: usize) -> Event {
    Event {
        id: EventId(u128::from(id) << 80),
        user: UserId(format!("user {}", id % 7).into()),
        time: Micros(i64::from(id) * MINUTE),
        amount: Pence(i64::from(id) + 1),
        at: Position { partition: PartitionId(offset as u32 % 2), offset: Offset(offset as u64) },
        origin: 0,
        event_type: EventType::ALL[usize::from(id % 2)],
        channel: Channel::ALL[usize::from(id % 3)],
        curated: None,
    }
}

fn send<'s>(stream: Stream<'s, Epoch, Vec<Event>>) -> Receiver<(Epoch, Event)> {
    let (sender, receiver) = channel();
    stream.inspect_core(move |happened| {
        if let Ok((stamp, batch)) = happened {
            batch.iter().for_each(|event| sender.send((*stamp.least().unwrap(), event.clone())).unwrap());
        }
    });
    receiver
}

/// Accepted events by epoch and position, of the operator in use and then of each baseline.
fn run(epochs: Vec<Vec<Event>>) -> [Vec<(Epoch, Event)>; 5] {
    let receivers = timely::execute_directly(move |worker| {
        let mut events = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let mut marks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<EpochMark>>>::new();
        let receivers = worker.dataflow(|scope| {
            let (events, marks) = (events.to_stream(scope), marks.to_stream(scope));
            let horizon = Horizon { watermark_delay_us: 300 * MINUTE, dedup_retention_us: 300 * MINUTE };
            let settings = Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() };
            let index = TimeBoundedArrangement::shared(settings);
            let (passed, times) = event_times(events.clone(), 1);
            let (behind, checkpoints) = (empty(scope), empty(scope));
            let inputs = Inputs { events: passed, times, marks, behind, checkpoints };
            let rule = watermark::Settings { horizon, witnesses: 1, uncounted: None };
            let watermarks = Watermarks::new(rule, Progress::default());
            [
                send(distinct_within_watermark(inputs, index, watermarks, None).accepted),
                send(threshold(events.clone())),
                send(reduce(events.clone())),
                send(ring(events.clone(), horizon)),
                send(temporal(events, 1000)),
            ]
        });
        for (epoch, batch) in (1..).zip(epochs) {
            events.advance_to(epoch);
            marks.advance_to(epoch);
            marks.send(EpochMark { epoch, opened: Micros(0), closed: Micros(0), missing: 0, waits: true });
            batch.into_iter().for_each(|event| events.send(event));
            worker.step();
        }
        receivers
    });
    receivers.map(|receiver| {
        let mut accepted: Vec<_> = receiver.into_iter().collect();
        accepted.sort();
        accepted
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn all_answer_equally(ids in prop::collection::vec(prop::collection::vec(0u8..60, 0..30), 0..12)) {
        let mut offset = 0;
        let mut place = |id| { offset += 1; event(id, offset) };
        let epochs: Vec<Vec<Event>> =
            ids.into_iter().map(|epoch| epoch.into_iter().map(&mut place).rev().collect()).collect();
        let [ours, threshold, reduce, ring, temporal] = run(epochs);
        prop_assert_eq!(&threshold, &ours);
        prop_assert_eq!(&reduce, &ours);
        prop_assert_eq!(&ring, &ours);
        let mut unplaced: Vec<_> = ours;
        unplaced.iter_mut().for_each(|(_, event)| event.at = Position::default());
        unplaced.sort();
        prop_assert_eq!(&temporal, &unplaced);
    }
}
