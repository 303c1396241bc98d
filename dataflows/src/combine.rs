//! Combining before the exchange: one update for each key, epoch and worker instead of one for each event.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::{AsCollection, VecCollection};
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::event::{Epoch, Event};
use crate::metrics::{Accepted, Metric, Totals};

/// An epoch in which fewer than this many events share a key on average is not worth combining.
const WORTHWHILE_EVENTS_PER_KEY: usize = 2;

/// How many epochs pass uncombined before another is combined, to see whether the keys have changed.
const EPOCHS_BETWEEN_TRIALS: u64 = 64;

/// Updates of one epoch, gathered until it is closed.
struct Open<K> {
    cap: Capability<Epoch>,
    events: usize,
    totals: HashMap<K, Totals>,
}

/// Whether combining pays, learnt from the epochs that were combined.
struct Judgement {
    worthwhile: bool,
    next_trial: Epoch,
}

impl Judgement {
    fn combines(&self, epoch: Epoch) -> bool {
        self.worthwhile || epoch >= self.next_trial
    }

    fn learn(&mut self, epoch: Epoch, events: usize, keys: usize) {
        self.worthwhile = keys.saturating_mul(WORTHWHILE_EVENTS_PER_KEY) <= events;
        self.next_trial = epoch + EPOCHS_BETWEEN_TRIALS;
    }
}

/// Turns accepted events into updates with [`Totals`] as difference, combined per key, epoch and worker.
///
/// With 500 users an epoch of 100,000 events leaves as 500 updates. With a million users hardly two events of an epoch
/// share a key; then the hash table costs more than it saves, and events pass straight through until the next trial.
/// Either way the collection is the same: the difference type adds up what was not combined here.
///
/// ```
/// use tidemark_dataflows::combine::combine;
/// use tidemark_dataflows::event::{Channel, Event, EventType, Micros, Pence};
/// use tidemark_dataflows::metrics::ByChannel;
/// use timely::dataflow::operators::{Capture, ToStream, rc::SharedStream, capture::Extract};
///
/// let event = Event {
///     id: Default::default(), user: Default::default(), time: Micros(7), amount: Pence(5), at: Default::default(),
///     origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
/// };
/// let updates = timely::example(move |scope| {
///     combine::<ByChannel>(vec![event; 10].to_stream(scope).container::<Vec<_>>().shared()).inner.capture()
/// });
/// let (_, updates) = updates.extract().remove(0);
/// assert_eq!((updates.len(), updates[0].2.deposits), (1, 50));
/// ```
pub fn combine<M: Metric>(accepted: Accepted<'_>) -> VecCollection<'_, Epoch, M::Key, Totals> {
    let name = format!("Combine: {}", M::NAME);
    accepted
        .unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, &name, |_, _| {
            let mut open: BTreeMap<Epoch, Open<M::Key>> = BTreeMap::new();
            let mut judgement = Judgement { worthwhile: true, next_trial: 0 };
            move |(input, frontier), output| {
                input.for_each_stamp(|cap, batches| {
                    let Some(epoch) = cap.least().copied() else { return };
                    if open.contains_key(&epoch) || judgement.combines(epoch) {
                        let slot = open.entry(epoch).or_insert_with(|| Open {
                            cap: cap.delayed(&epoch, 0),
                            events: 0,
                            totals: HashMap::new(),
                        });
                        batches.for_each(|batch| absorb::<M>(slot, batch));
                    } else {
                        let mut session = output.session(&cap);
                        for event in batches.flat_map(|batch| batch.iter()) {
                            session.give((M::key(event), epoch, Totals::of(event)));
                        }
                    }
                });
                while let Some(entry) = open.first_entry().filter(|e| !frontier.less_equal(e.key())) {
                    let (epoch, combined) = entry.remove_entry();
                    judgement.learn(epoch, combined.events, combined.totals.len());
                    let updates = combined.totals.into_iter().map(|(key, totals)| (key, epoch, totals));
                    output.session(&combined.cap).give_iterator(updates);
                }
            }
        })
        .as_collection()
}

fn absorb<M: Metric>(slot: &mut Open<M::Key>, batch: &Rc<Vec<Event>>) {
    slot.events += batch.len();
    for event in batch.iter() {
        slot.totals.entry(M::key(event)).or_insert(Totals::NONE).plus_equals(&Totals::of(event));
    }
}
