//! The metrics: what each is, and the one way in which all of them are kept up to date.
//!
//! A metric is a [`Metric`] in a file of its own, and a line in [`each`]. [`running_totals`] does the rest: it combines
//! each epoch's events per key, arranges them with [`Totals`] as difference, and emits the absolute totals of the keys
//! that an epoch changed, which become the rows of its table. [`changed_totals`] gathers what a checkpoint keeps.
//! [`accumulated_totals`] does the work of both for metrics with very many keys, and gives the same.
//!
//! Totals of earlier runs enter at time 0, before all epochs: nothing else is needed to go on after them.

mod accumulate;
mod by_channel;
mod by_user;
mod changed;
mod metric;
mod net_flow;
mod table;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::operators::CountTotal;
use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::{Scope, StreamVec};

pub use accumulate::{Accumulated, accumulated_totals};
pub use by_channel::{ByChannel, ChannelKey};
pub use by_user::ByUser;
pub use changed::{Changed, changed_totals};
pub use metric::{Column, Key, Metric, TableText, Value, Visit};
pub use net_flow::net_flow;
pub use totals::Totals;

use crate::combine::combine;
use crate::event::{Epoch, Event};

/// Where restored totals stand in time: epochs count from 1.
const BEFORE_ALL_EPOCHS: Epoch = 0;

/// Accepted events in shared containers: several metrics read them, none copies them.
pub type Accepted<'s> = timely::dataflow::Stream<'s, Epoch, Rc<Vec<Event>>>;

/// Totals of any metrics: by the name of one and the bytes of its key.
pub type AllTotals = BTreeMap<(&'static str, Vec<u8>), Totals>;

/// The totals of one metric among those of all.
pub fn totals_of<M: Metric>(all: &AllTotals) -> impl Iterator<Item = (M::Key, Totals)> {
    let rows = all.iter().filter(|((name, _), _)| *name == M::NAME);
    rows.filter_map(|((_, key), totals)| Some((M::Key::from_bytes(key)?, *totals)))
}

/// All metrics, in the order of their tables. The sum of everything, M1, is derived from the first that has few keys.
pub fn each(visit: &mut impl Visit) {
    visit.metric::<ByUser>();
    visit.metric::<ByChannel>();
}

/// The names of all metrics.
pub fn names() -> Vec<&'static str> {
    struct Names(Vec<&'static str>);
    impl Visit for Names {
        fn metric<M: Metric>(&mut self) {
            self.0.push(M::NAME);
        }
    }
    let mut names = Names(Vec::new());
    each(&mut names);
    names.0
}

/// The absolute totals of one key, as of the end of an epoch that changed them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row<K> {
    /// The group.
    pub key: K,
    /// The epoch that last changed it.
    pub epoch: Epoch,
    /// Everything accepted up to and including that epoch.
    pub totals: Totals,
}

/// Keeps the totals of each group, and emits one row for each group that an epoch changed. They start from the
/// `restored` totals, of which any worker gives any share, and which are no news.
///
/// ```
/// use std::rc::Rc;
/// use tidemark_dataflows::event::{Channel, Event, EventType, Micros, Pence, UserId};
/// use tidemark_dataflows::metrics::{running_totals, ByUser, Totals};
/// use timely::container::CapacityContainerBuilder;
/// use timely::dataflow::InputHandle;
/// use timely::dataflow::operators::{Capture, rc::SharedStream, capture::Extract};
///
/// let event = |user: &str, pence| Event {
///     id: Default::default(), user: UserId(user.into()), time: Micros(7), amount: Pence(pence), at: Default::default(),
///     origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
/// };
/// let restored = vec![(UserId("ann".into()), Totals::of(&event("ann", 1_000))), (UserId("cat".into()), Totals::NONE)];
/// let events = vec![event("ann", 500), event("bob", 1), event("ann", 250)];
/// let rows = timely::execute_directly(move |worker| {
///     let mut accepted = InputHandle::<u64, CapacityContainerBuilder<Vec<Event>>>::new();
///     let rows = worker.dataflow(|scope| {
///         running_totals::<ByUser>(accepted.to_stream(scope).shared(), restored).capture()
///     });
///     accepted.advance_to(1);
///     events.into_iter().for_each(|event| accepted.send(event));
///     rows
/// });
/// let mut rows: Vec<_> = rows.extract().into_iter().flat_map(|(_, rows)| rows).collect();
/// rows.sort();
/// assert_eq!(rows.len(), 2);
/// assert_eq!((rows[0].key.0.as_str(), rows[0].totals.deposits), ("ann", 1_750));
/// ```
pub fn running_totals<'s, M: Metric>(
    accepted: Accepted<'s>,
    restored: Vec<(M::Key, Totals)>,
) -> StreamVec<'s, Epoch, Row<M::Key>> {
    news(all_totals::<M>(accepted, restored))
}

/// The rows of [`running_totals`] and, at epoch 0, those that were restored.
pub(crate) fn all_totals<'s, M: Metric>(
    accepted: Accepted<'s>,
    restored: Vec<(M::Key, Totals)>,
) -> StreamVec<'s, Epoch, Row<M::Key>> {
    let past = past(accepted.scope(), &format!("Restored: {}", M::NAME), restored);
    combine::<M>(accepted)
        .concat(past)
        .arrange_by_self_named(M::NAME)
        .count_total()
        .inner
        .flat_map(|((key, totals), epoch, diff)| (diff > 0).then_some(Row { key, epoch, totals }))
}

/// Leaves out what was restored.
pub(crate) fn news<K: 'static>(rows: StreamVec<'_, Epoch, Row<K>>) -> StreamVec<'_, Epoch, Row<K>> {
    rows.filter(|row| row.epoch > BEFORE_ALL_EPOCHS)
}

/// Updates at time 0. Every worker needs the operator, also for an empty share: all of them build the same dataflow.
fn past<'s, K: ExchangeData>(
    scope: Scope<'s, Epoch>,
    name: &str,
    restored: Vec<(K, Totals)>,
) -> VecCollection<'s, Epoch, K, Totals> {
    source::<_, CapacityContainerBuilder<Vec<_>>, _, _>(scope, name, |cap, _| {
        let mut once = Some((cap, restored));
        move |output| {
            // With the totals goes the capability: held on, it would keep every epoch from closing.
            if let Some((cap, restored)) = once.take() {
                let updates = restored.into_iter().map(|(key, totals)| (key, BEFORE_ALL_EPOCHS, totals));
                output.session(&cap).give_iterator(updates);
            }
        }
    })
    .as_collection()
}
