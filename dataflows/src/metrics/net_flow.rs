//! Metric M1: totals of everything, derived from the few rows of another metric and not from the events again.

use std::collections::BTreeMap;

use differential_dataflow::difference::Semigroup;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::{BEFORE_ALL_EPOCHS, Key, Row, Totals};
use crate::event::Epoch;

/// Sums the newest rows of a metric at the end of each epoch that changed any of them. The rows come out on worker 0. Rows of
/// epoch 0 were restored: they are what the sums start from, and give no row of their own.
///
/// ```
/// use tidemark_dataflows::event::{Channel, EventType};
/// use tidemark_dataflows::metrics::{net_flow, Row, Totals};
/// use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
///
/// let row = |channel, pence| Row {
///     key: (channel, EventType::Deposit), epoch: 1, totals: Totals { deposits: pence, deposit_count: 1, ..Totals::NONE },
/// };
/// let rows = vec![row(Channel::Web, 300), row(Channel::Api, 20), Row { epoch: 0, ..row(Channel::Mobile, 5) }];
/// let out = timely::example(|scope| net_flow(rows.to_stream(scope).container::<Vec<_>>()).capture());
/// let (_, rows) = out.extract().remove(0);
/// assert_eq!((rows[0].totals.deposits, rows[0].totals.deposit_count), (325, 3));
/// ```
pub fn net_flow<K: Key>(rows: StreamVec<'_, Epoch, Row<K>>) -> StreamVec<'_, Epoch, Row<()>> {
    rows.unary_frontier(Exchange::new(|_: &Row<K>| 0), "NetFlow", |_, _| {
        let mut open = BTreeMap::new();
        let mut newest: BTreeMap<K, Totals> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|cap, rows| {
                for row in rows.drain(..) {
                    // One message may carry rows of several epochs: each is kept at its own time.
                    let slot = open.entry(row.epoch).or_insert_with(|| (cap.delayed(&row.epoch, 0), Vec::new()));
                    slot.1.push((row.key, row.totals));
                }
            });
            while let Some(entry) = open.first_entry().filter(|e| !frontier.less_equal(e.key())) {
                let (epoch, (cap, rows)) = entry.remove_entry();
                newest.extend(rows);
                let mut totals = Totals::NONE;
                newest.values().for_each(|part| totals.plus_equals(part));
                if epoch == BEFORE_ALL_EPOCHS {
                    continue;
                }
                output.session(&cap).give(Row { key: (), epoch, totals });
            }
        }
    })
}
