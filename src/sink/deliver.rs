//! The last operator of every output: rows of closed epochs go to the publisher, and the frontier waits for it.

use std::collections::BTreeMap;

use tidemark_dataflows::event::{Epoch, EpochMark};
use timely::Container;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::{Stream, StreamVec};

use super::publisher::{Delivery, Publisher};
use super::tables::Table;

/// Delivers a stream of rows to the table at `index` of the publisher, epoch by epoch. Without a publisher, which another
/// process has, no rows come here.
///
/// `gather` moves the rows out of a container. The capability of an epoch is held until the publisher has written it
/// to every table, so the frontier of the returned stream is the frontier of what readers can see.
pub fn deliver<'s, T: Table, C: Container + Clone + Default + 'static>(
    rows: Stream<'s, Epoch, C>,
    marks: StreamVec<'s, Epoch, EpochMark>,
    mut table: T,
    index: usize,
    publisher: Option<&Publisher>,
    gather: impl Fn(&mut C, &mut Vec<T::Row>) + 'static,
) -> StreamVec<'s, Epoch, Epoch> {
    let publisher = publisher.cloned();
    let worker = rows.scope().worker().clone();
    let name = format!("Deliver: {}", T::spec().name);
    rows.binary_frontier::<_, CapacityContainerBuilder<Vec<Epoch>>, _, _, _, _>(
        marks,
        Pipeline,
        Pipeline,
        &name,
        move |_, info| {
            if let Some(publisher) = &publisher {
                publisher.wake_on_publication(worker.sync_activator_for(info.address.to_vec()));
            }
            let mut open: BTreeMap<Epoch, Vec<T::Row>> = BTreeMap::new();
            let mut marked: BTreeMap<Epoch, (Capability<Epoch>, EpochMark)> = BTreeMap::new();
            let mut delivered: BTreeMap<Epoch, Capability<Epoch>> = BTreeMap::new();
            let mut gathered = Vec::new();
            move |(rows, rows_frontier), (marks, marks_frontier), output| {
                let Some(publisher) = &publisher else {
                    rows.for_each_stamp(|_, containers| {
                        containers.for_each(|container| gather(container, &mut gathered))
                    });
                    marks.for_each(|_, batch| batch.clear());
                    return gathered.clear();
                };
                rows.for_each_stamp(|cap, containers| {
                    let message = cap.least().copied().unwrap_or_default();
                    containers.for_each(|container| gather(container, &mut gathered));
                    for row in gathered.drain(..) {
                        open.entry(T::epoch_of(&row, message)).or_default().push(row);
                    }
                });
                marks.for_each(|cap, batch| {
                    for mark in batch.drain(..) {
                        marked.insert(mark.epoch, (cap.delayed(&mark.epoch, 0), mark));
                    }
                });
                let closed = |epoch: &Epoch| !rows_frontier.less_equal(epoch) && !marks_frontier.less_equal(epoch);
                while let Some(entry) = marked.first_entry().filter(|e| closed(e.key())) {
                    let (epoch, (cap, mark)) = entry.remove_entry();
                    let initial = if epoch == 1 { table.initial(mark.opened) } else { Ok(None) };
                    let changed = table.batch(open.remove(&epoch).unwrap_or_default(), &mark);
                    match initial.and_then(|initial| Ok(changed?.or(initial))) {
                        Ok(batch) => publisher.deliver(Delivery { table: index, epoch, batch }),
                        Err(error) => publisher.fail(error.into()),
                    }
                    delivered.insert(epoch, cap);
                }
                let visible = publisher.visible();
                while let Some(entry) = delivered.first_entry().filter(|e| *e.key() <= visible) {
                    let (epoch, cap) = entry.remove_entry();
                    output.session(&cap).give(epoch);
                }
            }
        },
    )
}
