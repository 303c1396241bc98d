//! The operators at the end of the dataflow: they hold back the frontier until what they were given is durable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemark_checkpoint::records::{Counters, Run};
use tidemark_dataflows::event::Epoch;
use tidemark_dataflows::tally::EpochSummary;
use tidemark_dataflows::watermark::Progress;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;

use super::writer::{CheckpointWriter, Content, List, Ticket};

/// A run that is durable. It holds nothing of an epoch after the one at whose time it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The list that the run belongs to.
    pub list: List,
    /// The run.
    #[serde(with = "as_text")]
    pub run: Run,
}

/// Between processes, receipts travel in a form without names of fields, and a run leaves some out: so it goes as text.
mod as_text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tidemark_checkpoint::records::Run;

    pub(super) fn serialize<S: Serializer>(run: &Run, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(run).map_err(S::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Run, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Hands what comes to the writer, and emits a receipt for each run once it is durable: until then the frontier waits.
///
/// Everything in `parts` belongs to epochs up to and with its time.
pub fn write_runs<'s, D: Clone + 'static>(
    parts: StreamVec<'s, Epoch, D>,
    name: &str,
    writer: &CheckpointWriter,
    content: impl Fn(D) -> Content + 'static,
) -> StreamVec<'s, Epoch, (Epoch, Receipt)>
where
    Vec<D>: timely::Container + timely::container::DrainContainer<Item<'static> = D>,
{
    let writer = writer.clone();
    let worker = parts.scope().worker().clone();
    parts.unary_frontier::<CapacityContainerBuilder<Vec<(Epoch, Receipt)>>, _, _, _>(Pipeline, name, move |_, info| {
        let address = info.address.to_vec();
        writer.wake_on_failure(worker.sync_activator_for(address.clone()));
        let mut waiting: Vec<(Capability<Epoch>, List, Ticket)> = Vec::new();
        move |(input, _), output| {
            input.for_each(|cap, batch| {
                for content in batch.drain(..).map(&content).filter(|content| !content.is_empty()) {
                    let list = content.list();
                    let wake = worker.sync_activator_for(address.clone());
                    waiting.extend(cap.retain_least(0).map(|cap| (cap, list, writer.write(content, wake))));
                }
            });
            // Where another process writes the manifest, only the end of this one keeps it from doing so.
            if writer.has_failed() && writer.completes() {
                waiting.clear();
            }
            waiting.retain(|(cap, list, ticket)| {
                let Some(run) = ticket.get() else { return true };
                output.session(cap).give((*cap.time(), Receipt { list: list.clone(), run: run.clone() }));
                false
            });
        }
    })
}

/// Tells the writer of a checkpoint as of the end of an epoch once its runs are durable and every table holds the epoch,
/// on all workers. `counters` are those of the epochs before the first one here. Once `published` says no, `visible` has
/// lost its meaning, and nothing is completed any more.
pub fn complete<'s>(
    requests: StreamVec<'s, Epoch, ()>,
    receipts: StreamVec<'s, Epoch, (Epoch, Receipt)>,
    (summaries, progress): (StreamVec<'s, Epoch, EpochSummary>, StreamVec<'s, Epoch, Progress>),
    visible: StreamVec<'s, Epoch, Epoch>,
    writer: &CheckpointWriter,
    published: impl Fn() -> bool + 'static,
    mut counters: Counters,
) {
    let writer = writer.clone();
    let scope = requests.scope();
    let first_worker = scope.index() == 0;
    let mut builder = OperatorBuilder::new("Complete checkpoints".to_owned(), scope);
    let mut requests = builder.new_input(requests, Pipeline);
    let mut receipts = builder.new_input(receipts, Exchange::new(|_: &(Epoch, Receipt)| 0));
    let mut summaries = builder.new_input(summaries, Pipeline);
    let mut progress = builder.new_input(progress, Pipeline);
    let mut visible = builder.new_input(visible, Exchange::new(|_: &Epoch| 0));
    let (out, _ended) = builder.new_output::<Vec<()>>();
    let mut out = OutputBuilder::<_, CapacityContainerBuilder<Vec<()>>>::from(out);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut asked: BTreeMap<Epoch, Capability<Epoch>> = BTreeMap::new();
        let mut runs: BTreeMap<Epoch, Vec<(List, Run)>> = BTreeMap::new();
        let mut closed: BTreeMap<Epoch, EpochSummary> = BTreeMap::new();
        let mut reached: BTreeMap<Epoch, Progress> = BTreeMap::new();
        move |frontiers| {
            let _out = out.activate();
            requests.for_each(|cap, _| {
                if let Some(cap) = cap.retain_least(0).filter(|_| first_worker) {
                    asked.insert(*cap.time(), cap);
                }
            });
            receipts.for_each(|_, batch| {
                batch.drain(..).for_each(|(at, Receipt { list, run })| runs.entry(at).or_default().push((list, run)));
            });
            summaries.for_each(|_, batch| {
                closed.extend(batch.drain(..).map(|summary| (summary.mark.epoch, summary)));
            });
            progress.for_each(|cap, batch| {
                reached.extend(cap.least().copied().into_iter().zip(batch.drain(..)));
            });
            visible.for_each(|_, _| {});
            let passed = |epoch: &Epoch| !frontiers[1..].iter().any(|frontier| frontier.less_equal(epoch));
            while let Some(first) = asked.first_entry().filter(|first| passed(first.key())) {
                let (epoch, _held) = first.remove_entry();
                if writer.has_failed() || !published() {
                    continue;
                }
                let later = closed.split_off(&(epoch + 1));
                std::mem::replace(&mut closed, later).values().for_each(|summary| counters.add(summary));
                let later = runs.split_off(&(epoch + 1));
                let mut runs: Vec<_> = std::mem::replace(&mut runs, later).into_values().flatten().collect();
                // Workers answer in any order; the manifest should not depend on it more than it must.
                runs.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
                let later = reached.split_off(&(epoch + 1));
                let times = std::mem::replace(&mut reached, later).remove(&epoch).unwrap_or_default();
                writer.complete(epoch, counters.clone(), (&times).into(), runs);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tidemark_checkpoint::envelope::Digest;
    use timely::Bincode;
    use timely::bytes::arc::BytesMut;
    use timely::communication::Bytesable;

    use super::*;

    #[test]
    fn a_receipt_comes_to_another_process_as_it_was() {
        for newest_bucket in [None, Some(7)] {
            let digest = Digest([7; 32]);
            let run = Run { name: "runs/1/0001-2-ids".to_owned(), rows: 3, bytes: 4, digest, newest_bucket };
            let (list, mut bytes) = (List::Totals("users".to_owned()), Vec::new());
            Bincode::from(Receipt { list: list.clone(), run: run.clone() }).into_bytes(&mut bytes);
            let Receipt { list: of, run: came } = Bincode::from_bytes(BytesMut::from(bytes).freeze()).payload;
            assert_eq!((of, came), (list, run));
        }
    }
}
