//! Event times of a stream of events, for what has no decoder before it.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::event::{Epoch, Event};
use crate::newest::{EventTimes, Gathering};

/// Passes events through, and gathers their times as [`decode`](crate::decode::decode) does.
///
/// The events are handed on because a stream with two readers is copied for one of them.
///
/// ```
/// use timely::dataflow::operators::{Inspect, ToStream};
/// use tidemark_dataflows::baselines::event_times;
/// use tidemark_dataflows::event::*;
///
/// timely::example(|scope| {
///     let event = |time| Event {
///         id: EventId(7), user: UserId::default(), time: Micros(time), amount: Pence(100), at: Position::default(),
///         origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
///     };
///     let events = vec![event(3), event(9), event(4)].to_stream(scope).container::<Vec<_>>();
///     let (_events, times) = event_times(events, 2);
///     times.inspect(|(_, times)| assert_eq!(times.partitions, [(PartitionId(0), vec![Micros(4), Micros(9)])]));
/// });
/// ```
#[allow(clippy::type_complexity, reason = "two streams")]
pub fn event_times<'s>(
    events: Stream<'s, Epoch, Vec<Event>>,
    witnesses: usize,
) -> (Stream<'s, Epoch, Vec<Event>>, Stream<'s, Epoch, Vec<(u64, EventTimes)>>) {
    let peers = events.scope().peers();
    let mut builder = OperatorBuilder::new("EventTimes".to_owned(), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (passed, events) = builder.new_output();
    let (times_out, times) = builder.new_output();
    let mut passed = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(passed);
    let mut times_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<(u64, EventTimes)>>>::from(times_out);
    builder.build(move |capabilities| {
        // Held on, they would keep every epoch from closing.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Gathering)> = BTreeMap::new();
        move |frontiers| {
            let mut passed = passed.activate();
            input.for_each_stamp(|cap, batches| {
                let Some(held) = cap.retain_least(1) else { return };
                let (_, gathering) = open.entry(*held.time()).or_insert_with(|| (held, Gathering::new(witnesses)));
                let mut session = passed.session(&cap);
                for batch in batches {
                    for event in batch.iter() {
                        gathering.observe(event.at.partition, event.time);
                    }
                    session.give_container(batch);
                }
            });
            let mut times_out = times_out.activate();
            while let Some(first) = open.first_entry().filter(|first| !frontiers[0].less_equal(first.key())) {
                let (epoch, (cap, gathering)) = first.remove_entry();
                let times = gathering.close(epoch);
                times_out.session(&cap).give_iterator(times.into_iter().flat_map(|times| times.to_all(peers)));
            }
        }
    });
    (events, times)
}
