//! What one timely worker does: builds the dataflow, feeds it, and steps it until everything is published.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Epoch, EpochMark};
use tidemark_dataflows::pipeline::{Inputs, Outputs, Settings, tidemark};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Inspect;
use timely::worker::Worker;

use super::feed::{Feed, Lane};
use crate::sink::deliver::deliver;
use crate::sink::publisher::Publisher;
use crate::sink::tables::{
    ChannelDistribution, ManifestText, NetFlow, PartitionNames, RejectedEvents, RunManifest, StreamHealth,
    TransactionEvents, UserMetrics,
};

/// Longest time a worker sleeps although nothing woke it.
const LONGEST_PARK: Duration = Duration::from_millis(500);

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
    /// Where results go.
    pub(super) publisher: Publisher,
}

type Input<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// Runs one worker to the end of its lane and of everything that follows from it.
pub(super) fn work(worker: &mut Worker, lane: &Lane, plan: &Plan) {
    lane.attach();
    let mut blocks: Input<Block> = InputHandle::new();
    let mut marks: Input<EpochMark> = InputHandle::new();
    worker.dataflow_named("Tidemark", |scope| {
        let inputs = Inputs { blocks: blocks.to_stream(scope), marks: marks.to_stream(scope) };
        let sink_marks = inputs.marks.clone();
        let outputs = tidemark(inputs, &plan.settings);
        connect(outputs, sink_marks, plan);
    });
    loop {
        match lane.next() {
            Ok(Feed::Block(epoch, block)) => {
                if *blocks.time() < epoch {
                    blocks.advance_to(epoch);
                    marks.advance_to(epoch);
                }
                blocks.send(block);
                blocks.flush();
                worker.step();
            }
            Ok(Feed::Mark(mark)) => {
                if *marks.time() < mark.epoch {
                    marks.advance_to(mark.epoch);
                }
                marks.send(mark);
                blocks.advance_to(mark.epoch + 1);
                marks.advance_to(mark.epoch + 1);
                worker.step();
            }
            Err(TryRecvError::Empty) => {
                worker.step_or_park(Some(LONGEST_PARK));
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    drop((blocks, marks));
    while worker.has_dataflows() {
        worker.step_or_park(Some(LONGEST_PARK));
    }
}

/// Connects every output to its table. The order is that of [`crate::sink::tables::specs`].
fn connect(outputs: Outputs<'_>, marks: timely::dataflow::StreamVec<'_, Epoch, EpochMark>, plan: &Plan) {
    let first_worker = marks.scope().index() == 0;
    let publisher = &plan.publisher;
    let summaries = {
        let publisher = publisher.clone();
        outputs.summaries.inspect(move |summary| publisher.summarise(summary.clone()))
    };
    let mut index = 0..;
    let mut next = || index.next().unwrap_or_default();
    deliver(outputs.net_flow, marks.clone(), NetFlow { first_worker }, next(), publisher, |from, to| to.append(from));
    deliver(outputs.users, marks.clone(), UserMetrics, next(), publisher, |from, to| to.append(from));
    deliver(outputs.channels, marks.clone(), ChannelDistribution, next(), publisher, |from, to| to.append(from));
    if plan.curated {
        let table = TransactionEvents { partitions: plan.partitions.clone() };
        deliver(outputs.accepted, marks.clone(), table, next(), publisher, |from, to| to.push(std::mem::take(from)));
    }
    let table = RejectedEvents { partitions: plan.partitions.clone() };
    deliver(outputs.rejected, marks.clone(), table, next(), publisher, |from, to| to.append(from));
    let table = StreamHealth { now: super::clock::now };
    deliver(summaries.clone(), marks.clone(), table, next(), publisher, |from, to| to.append(from));
    let table = RunManifest::new(plan.manifest.clone(), first_worker);
    deliver(summaries, marks, table, next(), publisher, |from, to| to.append(from));
}
