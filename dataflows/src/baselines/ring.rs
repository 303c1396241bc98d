//! A ring of traces: the ids of each bucket of event time in a trace of their own, which is dropped as a whole.
//!
//! The closest that the library's own structures come to [`crate::arrangement`]: sorted batches without hashing,
//! compact, merged in the background, and forgetting is free. As fast as the operator in use.
//!
//! Not used because an id is looked for in its own bucket only: two events with one id and event times in different
//! buckets both pass, which the promises rule out. Looking into all of the ring costs a search for each of 49 traces.
//! There is no room for a fingerprint either, hence no R210.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::difference::Present;
use differential_dataflow::trace::implementations::{KeyBuilder, KeySpine};
use differential_dataflow::trace::{Builder, Description, Span, Trace, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{Operator, OperatorInfo};
use timely::progress::Antichain;

use crate::arrangement::Hashes;
use crate::event::{Epoch, Event, EventId};
use crate::newest::EventTimes;
use crate::watermark::{Bucket, Horizon, Progress, Settings, Watermarks};

use super::event_times;

type Ids = KeySpine<EventId, Epoch, Present>;

/// The ids of one bucket.
struct BucketTrace {
    ids: Ids,
    upper: Antichain<Epoch>,
}

impl BucketTrace {
    fn new(info: OperatorInfo) -> Self {
        BucketTrace { ids: Ids::new(info, None, None), upper: Antichain::from_elem(0) }
    }

    /// Keeps the first event of each id that the trace does not hold, and adds these ids to it. The events are ordered
    /// by id and position.
    fn admit(&mut self, epoch: Epoch, events: &mut Vec<Event>) {
        // Every batch there is lies before `upper`, so there is always such a set of batches.
        let batches = self.ids.batches_through(self.upper.borrow()).unwrap_or_default();
        let mut rest: Vec<&[EventId]> = batches.iter().map(|batch| batch.storage.keys.as_slice()).collect();
        let mut previous = None;
        events.retain(|event| {
            let repeated = previous.replace(event.id) == Some(event.id);
            !repeated && !rest.iter_mut().any(|keys| advance(keys, event.id))
        });
        drop(batches);
        let next = Antichain::from_elem(epoch + 1);
        let mut updates: Vec<_> = events.iter().map(|event| ((event.id, ()), epoch, Present)).collect();
        let mut builder = KeyBuilder::with_capacity(updates.len(), 0, 1);
        builder.push(&mut updates);
        let description = Description::new(self.upper.clone(), next.clone(), Antichain::from_elem(0));
        self.ids.insert(Span::new(description, builder.done().map(Rc::new)));
        self.ids.set_logical_compaction(next.borrow());
        self.ids.set_physical_compaction(next.borrow());
        self.upper = next;
    }
}

/// Moves on to the first key that is not less than `id`, in steps that double; says whether it is `id`.
fn advance(keys: &mut &[EventId], id: EventId) -> bool {
    let mut step = 1;
    while keys.get(step).is_some_and(|key| *key < id) {
        *keys = &keys[step..];
        step <<= 1;
    }
    let within = &keys[..keys.len().min(step + 1)];
    *keys = &keys[within.partition_point(|key| *key < id)..];
    keys.first() == Some(&id)
}

/// The first event of each id and bucket among those that are not late.
pub fn ring<'s>(events: Stream<'s, Epoch, Vec<Event>>, horizon: Horizon) -> Stream<'s, Epoch, Vec<Event>> {
    let hashes = Hashes::new([0, 0]);
    let (events, times) = event_times(events, 1);
    let by_id = Exchange::new(move |event: &Event| hashes.route(event.id));
    let to_worker = Exchange::new(|(worker, _): &(u64, EventTimes)| *worker);
    type Events = CapacityContainerBuilder<Vec<Event>>;
    events.binary_frontier::<_, Events, _, _, _, _>(times, by_id, to_worker, "Ring", |_, info| {
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<Event>)> = BTreeMap::new();
        let settings = Settings { horizon, witnesses: 1, uncounted: None };
        let mut watermarks = Watermarks::new(settings, Progress::default());
        let mut ring: BTreeMap<Bucket, BucketTrace> = BTreeMap::new();
        move |(events, events_frontier), (times, times_frontier), output| {
            events.for_each_stamp(|cap, batches| {
                let Some(held) = cap.retain_least(0) else { return };
                let (_, all) = open.entry(*held.time()).or_insert_with(|| (held, Vec::new()));
                batches.for_each(|batch| all.append(batch));
            });
            times.for_each_stamp(|cap, batches| {
                // Every worker closes every epoch, whether or not it owns an id in it.
                let Some(held) = cap.retain_least(0) else { return };
                open.entry(*held.time()).or_insert_with(|| (held, Vec::new()));
                batches.flat_map(|batch| batch.drain(..)).for_each(|(_, times)| watermarks.observe(times));
            });
            let closed = |epoch: &Epoch| !events_frontier.less_equal(epoch) && !times_frontier.less_equal(epoch);
            while let Some(first) = open.first_entry().filter(|first| closed(first.key())) {
                let (epoch, (cap, mut all)) = first.remove_entry();
                let watermark = watermarks.close(epoch, true, &[]).watermark;
                ring = ring.split_off(&horizon.oldest_remembered(watermark));
                all.retain(|event| Some(event.time) > watermark);
                all.sort_unstable_by_key(|event| (horizon.bucket_of(event.time), event.id, event.at));
                for group in all.chunk_by(|a, b| horizon.bucket_of(a.time) == horizon.bucket_of(b.time)) {
                    let bucket = horizon.bucket_of(group[0].time);
                    let trace = ring.entry(bucket).or_insert_with(|| BucketTrace::new(info.clone()));
                    let mut group = group.to_vec();
                    trace.admit(epoch, &mut group);
                    output.session(&cap).give_container(&mut group);
                }
            }
        }
    })
}
