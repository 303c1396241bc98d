//! What a checkpoint keeps of a metric: the totals that changed since the last one.

use std::collections::BTreeMap;

use differential_dataflow::ExchangeData;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::hash::Hash;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{Row, Totals};
use crate::checkpoints::{Requests, Turn};
use crate::event::Epoch;

/// One worker's part of what changed between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Changed<K> {
    /// The epoch that the checkpoint was asked for.
    pub epoch: Epoch,
    /// Each key that changed since the request before, once and in no order, with its absolute totals as of the end of
    /// `epoch`. Every worker answers every request, if need be with no rows.
    pub rows: Vec<(K, Totals)>,
}

/// Answers each request for a checkpoint with the keys that changed since the last one; see [`crate::checkpoints`].
///
/// Holds one entry for each key that changed since the last request, and the rows of closed epochs for which an earlier
/// request may still come.
///
/// ```
/// use tidemark_dataflows::event::UserId;
/// use tidemark_dataflows::metrics::{changed_totals, Row, Totals};
/// use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
///
/// let row = |user: &str, pence| Row {
///     key: UserId(user.into()), epoch: 0, totals: Totals { deposits: pence, deposit_count: 1, ..Totals::NONE },
/// };
/// let rows = vec![row("ann", 750), row("bob", 1)];
/// let changed = timely::example(|scope| {
///     let requests = Some(()).to_stream(scope).container::<Vec<_>>();
///     changed_totals(rows.to_stream(scope).container::<Vec<_>>(), requests).capture()
/// });
/// assert_eq!(changed.extract()[0].1[0].rows.len(), 2);
/// ```
pub fn changed_totals<'s, K: ExchangeData + Hash>(
    rows: StreamVec<'s, Epoch, Row<K>>,
    checkpoints: StreamVec<'s, Epoch, ()>,
) -> StreamVec<'s, Epoch, Changed<K>> {
    rows.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        checkpoints,
        Pipeline,
        Pipeline,
        "ChangedTotals",
        |_, _| {
            let mut requests = Requests::new();
            let mut open: BTreeMap<Epoch, Vec<Row<K>>> = BTreeMap::new();
            let mut changed: HashMap<K, Totals> = HashMap::new();
            move |(rows, rows_frontier), (checkpoints, checkpoints_frontier), output| {
                rows.for_each(|_, batch| {
                    // One message may carry rows of several epochs.
                    for row in batch.drain(..) {
                        open.entry(row.epoch).or_default().push(row);
                    }
                });
                checkpoints.for_each_stamp(|request, _| requests.ask(&request, [0]));
                let closed = |epoch: &Epoch| !rows_frontier.less_equal(epoch);
                while let Some(turn) = requests.turn(checkpoints_frontier, open.keys().next().copied(), closed) {
                    match turn {
                        Turn::Close(epoch) => {
                            let rows = open.remove(&epoch).unwrap_or_default();
                            changed.extend(rows.into_iter().map(|row| (row.key, row.totals)));
                        }
                        Turn::Answer(epoch, [cap]) => {
                            output.session(&cap).give(Changed { epoch, rows: changed.drain().collect() });
                        }
                    }
                }
            }
        },
    )
}
