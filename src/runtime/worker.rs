//! What one timely worker does: builds the dataflow, feeds it, and steps it until everything is published.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Epoch, EpochMark, Event};
use tidemark_dataflows::metrics::{Accepted, Metric, Totals};
use tidemark_dataflows::pipeline::{Exports, Inputs, Metrics, Outputs, Results, Settings, tidemark};
use tidemark_dataflows::watermark::Behind;
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Concatenate, Exchange, Inspect};
use timely::dataflow::{InputHandle, StreamVec};
use timely::worker::Worker;

use super::lanes::{Feed, Lane};
use super::meter::Unplaced;
use crate::checkpoint::operators::{Receipt, complete, write_runs};
use crate::checkpoint::restore::Loaded;
use crate::checkpoint::writer::{CheckpointWriter, Content};
use crate::sink::deliver::deliver;
use crate::sink::publisher::Publisher;
use crate::sink::tables::{
    ManifestText, MetricTable, NetFlow, PartitionNames, RejectedEvents, RunManifest, SoFar, StreamHealth,
    TransactionEvents,
};
use crate::telemetry::Telemetry;

/// Longest time a worker sleeps although nothing woke it.
const LONGEST_PARK: Duration = Duration::from_millis(500);

/// Place of the first metric's table in [`crate::sink::tables::specs`]: behind the one of everything.
const FIRST_METRIC: usize = 1;

/// What every worker needs to build its part of the dataflow.
#[derive(Clone)]
pub(super) struct Plan {
    /// The computation's settings.
    pub(super) settings: Settings,
    /// Whether accepted events are written too.
    pub(super) curated: bool,
    /// Names of the partitions.
    pub(super) partitions: PartitionNames,
    /// What the run manifest says.
    pub(super) manifest: ManifestText,
    /// Where results go; none where another process writes the tables.
    pub(super) publisher: Option<Publisher>,
    /// Number of workers of each process; none where there is only one process.
    pub(super) gathered: Option<usize>,
    /// Where checkpoints go, if any are kept.
    pub(super) checkpoints: Option<CheckpointWriter>,
    /// What was restored.
    pub(super) loaded: Loaded,
    /// The epoch that it is of; 0 before the first.
    pub(super) after: Epoch,
    /// Sums over the epochs up to that one.
    pub(super) counters: Counters,
    /// What is measured.
    pub(super) telemetry: Arc<Telemetry>,
}

type Input<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// A worker's ends of the inputs.
struct Ends {
    blocks: Input<Block>,
    marks: Input<EpochMark>,
    behind: Input<Behind>,
    checkpoints: Input<()>,
}

impl Ends {
    fn take(&mut self, feed: Feed) {
        match feed {
            Feed::Block(epoch, block) => {
                // The marks stay behind: the cuts of earlier epochs may still be on their way to the store.
                advance(&mut self.blocks, epoch);
                self.blocks.send(block);
                self.blocks.flush();
            }
            Feed::Mark(mark, behind) => {
                advance(&mut self.marks, mark.epoch);
                advance(&mut self.behind, mark.epoch);
                behind.iter().for_each(|behind| self.behind.send(*behind));
                self.marks.send(mark);
                advance(&mut self.behind, mark.epoch + 1);
                advance(&mut self.marks, mark.epoch + 1);
                advance(&mut self.blocks, mark.epoch + 1);
                // Every checkpoint of an earlier epoch has been asked for by now.
                advance(&mut self.checkpoints, mark.epoch);
            }
            Feed::Checkpoint(epoch) => {
                advance(&mut self.checkpoints, epoch);
                self.checkpoints.send(());
                advance(&mut self.checkpoints, epoch + 1);
            }
        }
    }
}

fn advance<D: Clone + 'static>(input: &mut Input<D>, epoch: Epoch) {
    if *input.time() < epoch {
        input.advance_to(epoch);
    }
}

/// Runs one worker to the end of its lane and of everything that follows from it.
pub(super) fn work(worker: &mut Worker, lane: &Lane, plan: Plan) {
    lane.attach();
    let restored = plan.loaded.share(&plan.settings, worker.index(), worker.peers());
    let mut ends = Ends {
        blocks: InputHandle::new(),
        marks: InputHandle::new(),
        behind: InputHandle::new(),
        checkpoints: InputHandle::new(),
    };
    let meter = worker.dataflow_named("Tidemark", |scope| {
        let marks = ends.marks.to_stream(scope);
        let checkpoints = ends.checkpoints.to_stream(scope);
        let inputs = Inputs {
            blocks: ends.blocks.to_stream(scope),
            marks: marks.clone(),
            behind: ends.behind.to_stream(scope),
            checkpoints: checkpoints.clone(),
        };
        let mut metrics = MetricEnds::new(&marks, &plan);
        let outputs = tidemark(inputs, &plan.settings, restored, &mut metrics);
        connect(outputs, metrics, marks, checkpoints, &plan)
    });
    let mut meter = meter.of(worker.index(), &plan);
    let first = plan.after + 1;
    // The runs have been taken up: they need not stay in memory.
    drop(plan);
    advance(&mut ends.blocks, first);
    advance(&mut ends.marks, first);
    advance(&mut ends.behind, first);
    advance(&mut ends.checkpoints, first);
    loop {
        match lane.next() {
            Ok(feed) => {
                ends.take(feed);
                worker.step();
                meter.note();
            }
            Err(TryRecvError::Empty) => {
                worker.step_or_park(Some(LONGEST_PARK));
                meter.note();
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    drop(ends);
    while worker.has_dataflows() {
        worker.step_or_park(Some(LONGEST_PARK));
        meter.note();
    }
}

/// Where each metric begins, and where its results go: to its table, and to the checkpoints.
struct MetricEnds<'a, 's> {
    marks: StreamVec<'s, Epoch, EpochMark>,
    plan: &'a Plan,
    /// What readers see of each table so far.
    visible: Vec<StreamVec<'s, Epoch, Epoch>>,
    receipts: Vec<StreamVec<'s, Epoch, (Epoch, Receipt)>>,
}

impl<'a, 's> MetricEnds<'a, 's> {
    fn new(marks: &StreamVec<'s, Epoch, EpochMark>, plan: &'a Plan) -> Self {
        MetricEnds { marks: marks.clone(), plan, visible: Vec::new(), receipts: Vec::new() }
    }
}

impl<'s> Metrics<'s> for MetricEnds<'_, 's> {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        let scope = self.marks.scope();
        self.plan.loaded.totals::<M>(scope.index(), scope.peers())
    }

    fn take<M: Metric>(&mut self, results: Results<'s, M>) {
        let Plan { publisher, gathered, checkpoints, .. } = self.plan;
        let index = FIRST_METRIC + self.visible.len();
        let (rows, table) = (gather(results.rows, *gathered), MetricTable::<M>::default());
        let take = |from: &mut Vec<_>, to: &mut Vec<_>| to.append(from);
        self.visible.push(deliver(rows, self.marks.clone(), table, index, publisher.as_ref(), take));
        if let (Some(writer), Some(changed)) = (checkpoints, results.changed) {
            let name = format!("Write runs: {}", M::NAME);
            self.receipts.push(write_runs(changed, &name, writer, |part| Content::totals::<M>(part.rows)));
        }
    }
}

/// Connects every output to its table, in the order of [`crate::sink::tables::specs`], and to the checkpoints.
fn connect<'s>(
    outputs: Outputs<'s>,
    metrics: MetricEnds<'_, 's>,
    marks: StreamVec<'s, Epoch, EpochMark>,
    checkpoints: StreamVec<'s, Epoch, ()>,
    plan: &Plan,
) -> Unplaced {
    let unplaced = Unplaced { stages: outputs.stages, remembered: outputs.remembered };
    let first_worker = marks.scope().index() == 0;
    let publisher = plan.publisher.as_ref();
    let summaries = {
        let (publisher, telemetry) = (plan.publisher.clone(), Arc::clone(&plan.telemetry));
        outputs.summaries.inspect(move |summary| {
            telemetry.decided(summary);
            if let Some(publisher) = &publisher {
                publisher.summarise(summary.clone());
            }
        })
    };
    let gathered = plan.gathered;
    let MetricEnds { mut visible, mut receipts, .. } = metrics;
    let net_flow = NetFlow { first_worker };
    visible.insert(0, deliver(outputs.net_flow, marks.clone(), net_flow, 0, publisher, |from, to| to.append(from)));
    let mut index = visible.len()..;
    let mut next = || index.next().unwrap_or_default();
    if plan.curated {
        let table = TransactionEvents { partitions: plan.partitions.clone() };
        visible.push(match gathered {
            None => {
                let take = |from: &mut _, to: &mut Vec<_>| to.push(std::mem::take(from));
                deliver(outputs.accepted, marks.clone(), table, next(), publisher, take)
            }
            Some(_) => {
                let take = |from: &mut Vec<_>, to: &mut Vec<_>| to.push(Rc::new(std::mem::take(from)));
                deliver(gather(copied(outputs.accepted), gathered), marks.clone(), table, next(), publisher, take)
            }
        });
    }
    let table = RejectedEvents { partitions: plan.partitions.clone() };
    let rejected = gather(outputs.rejected, gathered);
    visible.push(deliver(rejected, marks.clone(), table, next(), publisher, |from, to| to.append(from)));
    let table = StreamHealth { now: super::clock::now };
    visible.push(deliver(summaries.clone(), marks.clone(), table, next(), publisher, |from, to| to.append(from)));
    let table = RunManifest::new(plan.manifest.clone(), first_worker, SoFar::of(&plan.counters));
    visible.push(deliver(summaries.clone(), marks, table, next(), publisher, |from, to| to.append(from)));

    if let (Some(writer), Some(exports)) = (&plan.checkpoints, outputs.exports) {
        let Exports { admitted, progress } = exports;
        let scope = checkpoints.scope();
        receipts.push(write_runs(admitted, "Write runs: ids", writer, |part| Content::Ids(part.ids)));
        let receipts = scope.concatenate(receipts);
        let visible = scope.concatenate(visible);
        let publisher = plan.publisher.clone();
        let published = move || publisher.as_ref().is_none_or(|publisher| !publisher.has_failed());
        let summaries = (summaries, progress);
        complete(checkpoints, receipts, summaries, visible, writer, published, plan.counters.clone());
    }
    unplaced
}

/// Brings rows to the process that writes the tables: each worker's to the worker there that has its place.
fn gather<D: ExchangeData>(rows: StreamVec<'_, Epoch, D>, workers: Option<usize>) -> StreamVec<'_, Epoch, D> {
    let Some(workers) = workers else { return rows };
    let to = (rows.scope().index() % workers.max(1)) as u64;
    rows.exchange(move |_| to)
}

/// Accepted events as they leave the process: what is shared with the metrics stays here.
fn copied(accepted: Accepted<'_>) -> StreamVec<'_, Epoch, Event> {
    accepted.unary::<CapacityContainerBuilder<Vec<Event>>, _, _, _>(Pipeline, "Copy accepted", |_, _| {
        |input, output| {
            input.for_each_stamp(|cap, batches| {
                let mut session = output.session(&cap);
                batches.for_each(|events| session.give_iterator(events.iter().cloned()));
            });
        }
    })
}
