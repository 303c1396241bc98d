//! Deduplication as differential dataflow alone would have it, for comparison.
//!
//! Nothing in the product uses these. They show what the operators of the library give for this problem, beside
//! [`crate::distinct`], in the bench `dedup`; and as independent programs with equal answers they check it.
//! They answer equally on inputs without late events and without conflicts, in which every id that comes
//! again does so with the same event time and while it is still remembered. [`temporal`] keeps no position: of events
//! that agree in everything else it cannot say which came first.
//!
//! | baseline | remembers | forgets |
//! |---|---|---|
//! | [`threshold`] | first arrival, as a difference | never |
//! | [`reduce`] | all arrivals, as values | never |
//! | [`temporal`] | contents, as a key | a number of epochs after the first arrival |
//! | [`ring`] | ids, a trace for each bucket of event time | whole buckets, by watermark |
//!
//! [`Plain`] is no dataflow at all: what the whole computation is measured against.

mod plain;
mod reduce;
mod ring;
mod temporal;
#[cfg(test)]
mod tests;
mod threshold;
mod times;

use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

pub use self::plain::Plain;
pub use self::reduce::reduce;
pub use self::ring::ring;
pub use self::temporal::temporal;
pub use self::threshold::threshold;
pub use self::times::event_times;

use crate::event::{Epoch, Event};

/// One or more differential updates for each event, at the event's epoch or later.
fn updates<'s, D, R, L>(events: Stream<'s, Epoch, Vec<Event>>, mut update: L) -> VecCollection<'s, Epoch, D, R>
where
    D: Clone + 'static,
    R: Clone + 'static,
    L: FnMut(Event, Epoch, &mut Vec<(D, Epoch, R)>) + 'static,
{
    type Updates<D, R> = CapacityContainerBuilder<Vec<(D, Epoch, R)>>;
    events
        .unary::<Updates<D, R>, _, _, _>(Pipeline, "Updates", move |_, _| {
            let mut updates = Vec::new();
            move |input, output| {
                input.for_each_stamp(|cap, batches| {
                    let Some(epoch) = cap.least().copied() else { return };
                    let mut session = output.session(&cap);
                    for batch in batches {
                        batch.drain(..).for_each(|event| update(event, epoch, &mut updates));
                        session.give_container(&mut updates);
                        updates.clear();
                    }
                });
            }
        })
        .as_collection()
}
