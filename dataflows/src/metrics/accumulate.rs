//! Running totals of many keys, without an arrangement.
//!
//! [`running_totals`](super::running_totals) sorts each epoch's updates, merges them with those of earlier epochs, and
//! looks each changed key up in what is left: as clear as can be, and as fast as one could wish for a few keys. With
//! a million of them it sorts and merges nearly every update several times, to end with what a hash table would have
//! known at once, since nothing here is ever retracted and nobody asks for the totals as of an earlier epoch. This
//! operator is that hash table. It gives the same rows, and from the same table what a checkpoint keeps.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::empty;

use super::table::{KeyHashes, TotalsTable};
use super::{Accepted, BEFORE_ALL_EPOCHS, Changed, Metric, Row, Totals, past};
use crate::checkpoints::{Requests, Turn};
use crate::combine::combine;
use crate::event::Epoch;

/// What comes out of [`accumulated_totals`].
pub struct Accumulated<'s, K: Clone + 'static> {
    /// One row for each key and each epoch that changed it, on the worker that owns the key.
    pub rows: StreamVec<'s, Epoch, Row<K>>,
    /// The answers to requests for checkpoints; see [`changed_totals`](super::changed_totals).
    pub changed: StreamVec<'s, Epoch, Changed<K>>,
}

/// Updates of an epoch that is still open.
struct Open<K> {
    held: Capability<Epoch>,
    batches: Vec<Vec<(K, Epoch, Totals)>>,
}

/// Keeps the totals of each group as [`running_totals`](super::running_totals) does, for groups of any number.
///
/// `key` is the pipeline's secret and the same on all workers. With `saves`, requests that come by `checkpoints` are
/// answered, and an epoch is taken up only after all requests for the epochs before it have come; without it,
/// `checkpoints` is not looked at.
///
/// ```
/// use std::rc::Rc;
/// use tidemark_dataflows::event::{Channel, Event, EventType, Micros, Pence, UserId};
/// use tidemark_dataflows::metrics::{accumulated_totals, ByUser};
/// use timely::dataflow::operators::{Capture, ToStream, rc::SharedStream, capture::Extract, generic::operator::empty};
///
/// let event = |user: &str, pence| Event {
///     id: Default::default(), user: UserId(user.into()), time: Micros(7), amount: Pence(pence), at: Default::default(),
///     origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
/// };
/// let events = vec![event("ann", 500), event("bob", 1), event("ann", 250)];
/// let rows = timely::execute_directly(move |worker| {
///     let mut accepted = timely::dataflow::InputHandle::<u64, timely::container::CapacityContainerBuilder<Vec<Event>>>::new();
///     let rows = worker.dataflow(|scope| {
///         let accepted = accepted.to_stream(scope).shared();
///         accumulated_totals::<ByUser>(accepted, vec![], empty(scope), [1, 2], false).rows.capture()
///     });
///     accepted.advance_to(1);
///     events.into_iter().for_each(|event| accepted.send(event));
///     rows
/// });
/// let mut rows: Vec<_> = rows.extract().into_iter().flat_map(|(_, rows)| rows).collect();
/// rows.sort();
/// assert_eq!((rows.len(), rows[0].totals.deposits), (2, 750));
/// ```
pub fn accumulated_totals<'s, M: Metric>(
    accepted: Accepted<'s>,
    restored: Vec<(M::Key, Totals)>,
    checkpoints: StreamVec<'s, Epoch, ()>,
    key: [u64; 2],
    saves: bool,
) -> Accumulated<'s, M::Key> {
    let scope = accepted.scope();
    let checkpoints = if saves { checkpoints } else { empty(scope) };
    let past = past(scope, &format!("Restored: {}", M::NAME), restored);
    let updates = combine::<M>(accepted).concat(past).inner;
    let hashes = KeyHashes::new(key);
    let routes = hashes.clone();
    let mut builder = OperatorBuilder::new(format!("Accumulate: {}", M::NAME), scope);
    let by_key = Exchange::new(move |(key, ..): &(M::Key, Epoch, Totals)| routes.route(key));
    let mut updates = builder.new_input(updates, by_key);
    let (rows_out, rows) = builder.new_output();
    // Rows never wait for a request: connected to this input, they could not pass an epoch before it did.
    let mut checkpoints = builder.new_input_connection(checkpoints, Pipeline, []);
    let (changed_out, changed) = builder.new_output();
    let mut rows_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row<M::Key>>>>::from(rows_out);
    let mut changed_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Changed<M::Key>>>>::from(changed_out);
    builder.build(move |capabilities| {
        // They stand at time 0, and would hold back everything downstream.
        drop(capabilities);
        let mut open: BTreeMap<Epoch, Open<M::Key>> = BTreeMap::new();
        let mut requests = Requests::new();
        let mut table = TotalsTable::new(hashes, saves);
        move |frontiers| {
            updates.for_each_stamp(|cap, batches| {
                let (Some(epoch), Some(held)) = (cap.least().copied(), cap.retain_least(0)) else { return };
                let open = open.entry(epoch).or_insert_with(|| Open { held, batches: Vec::new() });
                open.batches.extend(batches.map(std::mem::take));
            });
            checkpoints.for_each_stamp(|request, _| requests.ask(&request, [1]));
            let (mut rows, mut changed) = (rows_out.activate(), changed_out.activate());
            let [of_updates, of_requests] = frontiers else { return };
            let closed = |epoch: &Epoch| !of_updates.less_equal(epoch);
            while let Some(turn) = requests.turn(of_requests, open.keys().next().copied(), closed) {
                match turn {
                    Turn::Answer(epoch, [cap]) => {
                        changed.session(&cap).give(Changed { epoch, rows: table.take_unsaved() });
                    }
                    Turn::Close(epoch) => {
                        let Some(Open { held, batches }) = open.remove(&epoch) else { break };
                        if epoch == BEFORE_ALL_EPOCHS {
                            table.restore(batches.into_iter().flatten().map(|(key, _, totals)| (key, totals)));
                        } else {
                            batches.iter().for_each(|batch| table.add(epoch, batch));
                            rows.session(&held).give_iterator(table.news());
                        }
                    }
                }
            }
        }
    });
    Accumulated { rows, changed }
}
