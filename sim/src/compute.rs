//! The real dataflow: `tidemark_dataflows::pipeline::tidemark` on a timely worker that is stepped by hand. One worker serves
//! all processes of an instance: timely's workers of one process wait for each other while they are built, so several cannot
//! be stepped in turn by one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tidemark::checkpoint::restore::Loaded;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::block::Block;
use tidemark_dataflows::distinct::Admitted;
use tidemark_dataflows::event::{Epoch, EpochMark};
use tidemark_dataflows::metrics::{AllTotals, Key, Metric, Totals};
use tidemark_dataflows::pipeline::{Exports, Inputs, Metrics, Outputs, Results, Settings, tidemark};
use tidemark_dataflows::watermark::{Behind, Progress};
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::thread::Thread;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Concatenate, Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::tables::Change;

type Input<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// What a worker is told, in order.
pub(crate) enum Feed {
    /// Decode this block, of the reader of that process, as part of an epoch.
    Block(usize, Epoch, Block),
    /// The epoch is cut.
    Mark(Cut),
    /// A checkpoint is wanted as of the end of this epoch.
    Checkpoint(Epoch),
}

/// What was handed on for checkpoints, in the order in which it was.
#[derive(Clone, Debug)]
pub(crate) enum Export {
    /// Admitted ids.
    Ids(Admitted),
    /// Totals that changed of one metric.
    Totals(Epoch, AllTotals),
}

impl Export {
    /// The epoch up to which it holds everything.
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Export::Ids(admitted) => admitted.epoch,
            Export::Totals(epoch, _) => *epoch,
        }
    }
}

/// All that came out and was not taken.
#[derive(Default)]
struct Out {
    rows: BTreeMap<Epoch, Change>,
    exports: Vec<Export>,
    progress: BTreeMap<Epoch, Progress>,
}

/// A worker with its dataflow.
pub(crate) struct Compute {
    worker: Worker,
    /// One for each process: some have more to read into an epoch while others are at the next.
    blocks: Vec<Input<Block>>,
    marks: Input<EpochMark>,
    behind: Input<Behind>,
    checkpoints: Input<()>,
    out: Rc<RefCell<Out>>,
    rows: ProbeHandle<Epoch>,
    exports: ProbeHandle<Epoch>,
    marked: Epoch,
    closed: Epoch,
    asked: Vec<Epoch>,
}

impl Compute {
    /// A worker that goes on from what was loaded, which is as of the end of `after`.
    pub(crate) fn new(settings: &Settings, processes: usize, loaded: &Loaded, after: Epoch) -> Compute {
        let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Thread::default()), None);
        let mut blocks: Vec<Input<Block>> = (0..processes).map(|_| Input::new()).collect();
        let (mut marks, mut behind, mut checkpoints) =
            (Input::<EpochMark>::new(), Input::<Behind>::new(), Input::<()>::new());
        let (rows, exports) = (ProbeHandle::new(), ProbeHandle::new());
        let out = Rc::new(RefCell::new(Out::default()));
        let restored = loaded.share(settings, 0, 1);
        worker.dataflow(|scope| {
            let each: Vec<_> = blocks.iter_mut().map(|blocks| blocks.to_stream(scope)).collect();
            let inputs = Inputs {
                blocks: scope.concatenate(each),
                marks: marks.to_stream(scope),
                behind: behind.to_stream(scope),
                checkpoints: checkpoints.to_stream(scope),
            };
            let mut metrics = TakeDown { loaded, out: &out, rows: &rows, exports: &exports };
            let outputs = tidemark(inputs, settings, restored, &mut metrics);
            take_down(outputs, &out, &rows, &exports);
        });
        let first = after + 1;
        blocks.iter_mut().for_each(|blocks| blocks.advance_to(first));
        marks.advance_to(first);
        behind.advance_to(first);
        checkpoints.advance_to(first);
        let asked = Vec::new();
        Compute { worker, blocks, marks, behind, checkpoints, out, rows, exports, marked: after, closed: after, asked }
    }

    /// Takes what the worker is told next.
    pub(crate) fn feed(&mut self, feed: Feed) {
        match feed {
            Feed::Block(process, epoch, block) => {
                let Some(blocks) = self.blocks.get_mut(process) else { return };
                advance(blocks, epoch);
                blocks.send(block);
                blocks.flush();
            }
            Feed::Mark(cut) => {
                let mark = cut.mark(0);
                advance(&mut self.marks, mark.epoch);
                advance(&mut self.behind, mark.epoch);
                cut.behind.iter().flatten().map(Behind::from).for_each(|behind| self.behind.send(behind));
                self.marks.send(mark);
                advance(&mut self.behind, mark.epoch + 1);
                advance(&mut self.marks, mark.epoch + 1);
                self.blocks.iter_mut().for_each(|blocks| advance(blocks, mark.epoch + 1));
                advance(&mut self.checkpoints, mark.epoch);
                self.marked = mark.epoch;
            }
            Feed::Checkpoint(epoch) => {
                advance(&mut self.checkpoints, epoch);
                self.checkpoints.send(());
                advance(&mut self.checkpoints, epoch + 1);
                self.asked.push(epoch);
            }
        }
    }

    /// Steps the worker until everything that was marked and asked for has come out, or a little, if that takes longer.
    /// Returns whether it has.
    pub(crate) fn run(&mut self) -> bool {
        for _ in 0..50 {
            self.worker.step();
            let asked = self.asked.last().is_none_or(|last| !self.exports.less_equal(last));
            if asked && !self.rows.less_equal(&self.marked) {
                return true;
            }
        }
        false
    }

    /// Takes the rows of the epochs that are closed, in order.
    pub(crate) fn take_closed(&mut self) -> Vec<(Epoch, Change)> {
        let mut closed = Vec::new();
        while self.closed < self.marked && !self.rows.less_equal(&(self.closed + 1)) {
            self.closed += 1;
            closed.push((self.closed, self.out.borrow_mut().rows.remove(&self.closed).unwrap_or_default()));
        }
        closed
    }

    /// Takes what belongs to the checkpoint that was asked for first, once all of it is there.
    pub(crate) fn take_checkpoint(&mut self) -> Option<(Epoch, Vec<Export>, Progress)> {
        let epoch = *self.asked.first().filter(|epoch| !self.exports.less_equal(epoch))?;
        self.asked.remove(0);
        let mut out = self.out.borrow_mut();
        let (taken, left) = out.exports.drain(..).partition(|export| export.epoch() <= epoch);
        out.exports = left;
        let progress = out.progress.remove(&epoch).unwrap_or_default();
        Some((epoch, taken, progress))
    }
}

fn advance<D: Clone + 'static>(input: &mut Input<D>, epoch: Epoch) {
    if *input.time() < epoch {
        input.advance_to(epoch);
    }
}

/// Writes down what comes of each metric.
struct TakeDown<'a> {
    loaded: &'a Loaded,
    out: &'a Rc<RefCell<Out>>,
    rows: &'a ProbeHandle<Epoch>,
    exports: &'a ProbeHandle<Epoch>,
}

impl<'s> Metrics<'s> for TakeDown<'_> {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        self.loaded.totals::<M>(0, 1)
    }

    fn take<M: Metric>(&mut self, results: Results<'s, M>) {
        let name = |key: &M::Key| (M::NAME, key.to_bytes().into_owned());
        let to = Rc::clone(self.out);
        let rows = results.rows.inspect(move |row| {
            to.borrow_mut().rows.entry(row.epoch).or_default().totals.insert(name(&row.key), row.totals);
        });
        rows.probe_with(self.rows);
        if let Some(changed) = results.changed {
            let to = Rc::clone(self.out);
            let changed = changed.inspect(move |part| {
                let rows = part.rows.iter().map(|(key, totals)| (name(key), *totals)).collect();
                to.borrow_mut().exports.push(Export::Totals(part.epoch, rows));
            });
            changed.probe_with(self.exports);
        }
    }
}

/// Writes down all else that comes out.
fn take_down(outputs: Outputs<'_>, out: &Rc<RefCell<Out>>, rows: &ProbeHandle<Epoch>, exports: &ProbeHandle<Epoch>) {
    let to = Rc::clone(out);
    let of = move |epoch: Epoch, add: &dyn Fn(&mut Change)| add(to.borrow_mut().rows.entry(epoch).or_default());
    let add = of.clone();
    let net_flow = outputs.net_flow.inspect(move |row| add(row.epoch, &|change| change.net_flow = Some(row.totals)));
    net_flow.probe_with(rows);
    let add = of.clone();
    let accepted = outputs.accepted.inspect_core(move |seen| {
        if let Ok((stamp, batch)) = seen {
            let epoch = stamp.least().copied().unwrap_or_default();
            let events = batch.iter().map(|event| (epoch, event.at, event.id));
            let events: Vec<_> = events.collect();
            add(epoch, &|change| change.accepted.extend(events.iter().copied()));
        }
    });
    accepted.probe_with(rows);
    let add = of.clone();
    let rejected = outputs.rejected.inspect(move |row| {
        add(row.epoch, &|change| change.rejected.push((row.epoch, row.at, row.reason)));
    });
    rejected.probe_with(rows);
    let summaries = outputs.summaries.inspect(move |summary| {
        of(summary.mark.epoch, &|change| change.health.push(summary.clone()));
    });
    summaries.probe_with(rows);
    if let Some(Exports { admitted, progress }) = outputs.exports {
        let to = Rc::clone(out);
        admitted.inspect(move |part| to.borrow_mut().exports.push(Export::Ids(part.clone()))).probe_with(exports);
        let to = Rc::clone(out);
        let reached = progress.inspect_core(move |seen| {
            if let Ok((stamp, batch)) = seen {
                let epoch = stamp.least().copied().unwrap_or_default();
                to.borrow_mut().progress.extend(batch.iter().map(|reached| (epoch, reached.clone())));
            }
        });
        reached.probe_with(exports);
    }
}
