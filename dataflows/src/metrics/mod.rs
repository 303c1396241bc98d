//! The metrics: what they group by, and the one way in which all of them are kept up to date.
//!
//! A metric is a [`GroupBy`] in a file of its own. [`running_totals`] does the rest: it combines each epoch's events
//! per key, arranges them with [`Totals`] as difference, and emits the absolute totals of the keys that an epoch
//! changed. What a table makes of such a row is the sink's business.

mod by_channel;
mod by_user;
mod net_flow;
mod totals;

use std::hash::Hash;
use std::rc::Rc;

use differential_dataflow::ExchangeData;
use differential_dataflow::operators::CountTotal;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

pub use by_channel::{ByChannel, ChannelKey};
pub use by_user::ByUser;
pub use net_flow::net_flow;
pub use totals::Totals;

use crate::combine::combine;
use crate::event::{Epoch, Event};

/// Accepted events in shared containers: several metrics read them, none copies them.
pub type Accepted<'s> = timely::dataflow::Stream<'s, Epoch, Rc<Vec<Event>>>;

/// What distinguishes one metric from another: the key that its events are grouped by.
pub trait GroupBy: 'static {
    /// The key of a row.
    type Key: ExchangeData + Hash;

    /// Name of the metric, as operators and diagrams show it.
    const NAME: &'static str;

    /// The group that an event falls into.
    fn key(event: &Event) -> Self::Key;
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

/// Keeps the totals of each group, and emits one row for each group that an epoch changed.
///
/// ```
/// use std::rc::Rc;
/// use tidemark_dataflows::event::{Channel, Event, EventType, Micros, Pence, UserId};
/// use tidemark_dataflows::metrics::{running_totals, ByUser};
/// use timely::dataflow::operators::{Capture, ToStream, rc::SharedStream, capture::Extract};
///
/// let event = |user: &str, pence| Event {
///     id: Default::default(), user: UserId(user.into()), time: Micros(7), amount: Pence(pence), at: Default::default(),
///     origin: 0, event_type: EventType::Deposit, channel: Channel::Web, curated: None,
/// };
/// let events = vec![event("ann", 500), event("bob", 1), event("ann", 250)];
/// let rows = timely::example(move |scope| {
///     running_totals::<ByUser>(events.to_stream(scope).container::<Vec<_>>().shared()).capture()
/// });
/// let mut rows: Vec<_> = rows.extract().into_iter().flat_map(|(_, rows)| rows).collect();
/// rows.sort();
/// assert_eq!(rows.len(), 2);
/// assert_eq!((rows[0].key.0.as_str(), rows[0].totals.deposits), ("ann", 750));
/// ```
pub fn running_totals<G: GroupBy>(accepted: Accepted<'_>) -> StreamVec<'_, Epoch, Row<G::Key>> {
    combine::<G>(accepted)
        .arrange_by_self_named(G::NAME)
        .count_total()
        .inner
        .flat_map(|((key, totals), epoch, diff)| (diff > 0).then_some(Row { key, epoch, totals }))
}
