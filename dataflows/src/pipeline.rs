//! The composition: the whole computation on one page.
//!
//! To add a metric, write its [`Metric`] in a file of its own below `metrics`, and add a line to [`each`].

use std::cell::RefCell;
use std::rc::Rc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::rc::SharedStream;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Probe};

use crate::arrangement::{Settings as IndexSettings, SharedArrangement, TimeBoundedArrangement};
use crate::block::Block;
use crate::contract::Contract;
use crate::decode::{Rejected, decode};
use crate::distinct::{self, Admitted, distinct_within_watermark};
use crate::event::{Epoch, EpochMark, PartitionId};
use crate::metrics::{
    Accepted, Changed, Metric, Row, Totals, Visit, accumulated_totals, all_totals, changed_totals, each, net_flow, news,
};
use crate::payloads::{PayloadCap, cap_payloads};
use crate::quarantine::quarantine;
use crate::tally::{EpochSummary, Part, summaries};
use crate::watermark::{self, Behind, Progress, Watermarks};

/// What the computation depends on besides its input.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules about single events.
    pub contract: Contract,
    /// What is remembered of the stream, and for how long.
    pub index: IndexSettings,
    /// Whether checkpoints are asked for, and after how many admitted ids a worker hands them on unasked, at the end of
    /// an epoch. `None` means never, and costs nothing.
    pub log_admissions: Option<usize>,
    /// How much is kept of the payloads of rejected events.
    pub payload_cap: PayloadCap,
    /// n, from 1 to 1000: the watermark follows from the n-th greatest event time, so fewer than n wrong ones decide nothing.
    pub witnesses: usize,
    /// The partition whose events came before, and are sent once more: it takes no part in the watermark.
    pub uncounted: Option<PartitionId>,
}

impl Settings {
    /// What the watermark depends on.
    pub fn of_watermark(&self) -> watermark::Settings {
        let Settings { witnesses, uncounted, .. } = *self;
        watermark::Settings { horizon: self.index.horizon, witnesses, uncounted }
    }
}

/// What goes in, on each worker.
pub struct Inputs<'s> {
    /// Raw bodies, each block on any one worker, at the time of its epoch.
    pub blocks: StreamVec<'s, Epoch, Block>,
    /// One mark for each epoch, on every worker.
    pub marks: StreamVec<'s, Epoch, EpochMark>,
    /// On every worker, at the time of an epoch, the partitions that were behind at its closing, as its cut has them. An
    /// epoch is decided only once this has passed it, so it is advanced along with the marks.
    pub behind: StreamVec<'s, Epoch, Behind>,
    /// On every worker, a message at the time of each epoch that a checkpoint is asked for; see
    /// [`crate::checkpoints`]. An epoch is decided only once this has come to it, so it is advanced along with the
    /// epochs. Not looked at where checkpoints are off.
    pub checkpoints: StreamVec<'s, Epoch, ()>,
}

/// What earlier runs leave to this one, on each worker: the state as of the end of some epoch. The inputs are advanced
/// to the epoch after it at once.
#[derive(Debug)]
pub struct Restored {
    /// How far event time has come: the same on every worker.
    pub progress: Progress,
    /// The remembered ids that [`Hashes::route`](crate::arrangement::Hashes::route) gives to this worker.
    pub index: TimeBoundedArrangement,
}

impl Restored {
    /// The state before epoch 1.
    pub fn nothing(settings: &Settings) -> Self {
        Self::up_to(Progress::default(), settings)
    }

    /// No ids and no totals yet, after epochs up to whose end event time has come as far as `progress` says. The index has
    /// been advanced to the watermark that follows, so it takes up only ids that are still remembered.
    pub fn up_to(progress: Progress, settings: &Settings) -> Self {
        let mut index = TimeBoundedArrangement::new(settings.index);
        index.advance(progress.watermark);
        Restored { progress, index }
    }
}

/// What comes out, at the time of the epoch that it belongs to.
pub struct Outputs<'s> {
    /// M1, on worker 0: one row for each epoch that accepted anything.
    pub net_flow: StreamVec<'s, Epoch, Row<()>>,
    /// Every accepted event, for the curated table.
    pub accepted: Accepted<'s>,
    /// Every rejected event, on the worker that decoded it, or, where payloads are capped, one for each partition.
    pub rejected: StreamVec<'s, Epoch, Rejected>,
    /// One for each epoch, on worker 0.
    pub summaries: StreamVec<'s, Epoch, EpochSummary>,
    /// The remembered ids of this worker.
    pub remembered: SharedArrangement,
    /// What checkpoints are made of, unless they are off.
    pub exports: Option<Exports<'s>>,
    /// How far it has come.
    pub stages: Stages,
}

/// Where the computation can be asked how far it has come, over all workers: an epoch that a handle's frontier has passed
/// is done there.
pub struct Stages {
    /// Bodies are judged by the rules about single events.
    pub decoded: Handle<Epoch>,
    /// Duplicates and late events are told from accepted ones.
    pub distinct: Handle<Epoch>,
    /// The totals that an epoch changed are known.
    pub aggregated: Handle<Epoch>,
}

/// What changed from checkpoint to checkpoint, at the time of a request or before. Each worker has its part.
pub struct Exports<'s> {
    /// The ids that were admitted.
    pub admitted: StreamVec<'s, Epoch, Admitted>,
    /// On worker 0 one for each request, at its time: how far event time has come up to the end of that epoch.
    pub progress: StreamVec<'s, Epoch, Progress>,
}

/// What each metric begins with, and where its results go.
pub trait Metrics<'s> {
    /// The totals that a metric goes on from: any share of its keys, each on one worker.
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)>;

    /// Takes the results of a metric, once for each of them, in the order of [`each`].
    fn take<M: Metric>(&mut self, results: Results<'s, M>);
}

/// Metrics that begin with nothing, and that nobody reads.
pub struct Unread;

impl<'s> Metrics<'s> for Unread {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        Vec::new()
    }

    fn take<M: Metric>(&mut self, _: Results<'s, M>) {}
}

/// What comes of a metric, on each worker.
pub struct Results<'s, M: Metric> {
    /// One row for each key and each epoch that changed it, each key on one worker.
    pub rows: StreamVec<'s, Epoch, Row<M::Key>>,
    /// The totals that changed from checkpoint to checkpoint, at the time of a request, unless checkpoints are off.
    pub changed: Option<StreamVec<'s, Epoch, Changed<M::Key>>>,
}

/// Builds each metric from accepted events.
struct Build<'a, 's, E> {
    accepted: Accepted<'s>,
    checkpoints: StreamVec<'s, Epoch, ()>,
    settings: &'a Settings,
    ends: &'a mut E,
    aggregated: Handle<Epoch>,
    net_flow: Option<StreamVec<'s, Epoch, Row<()>>>,
}

impl<'s, E: Metrics<'s>> Visit for Build<'_, 's, E> {
    fn metric<M: Metric>(&mut self) {
        let (accepted, checkpoints) = (self.accepted.clone(), self.checkpoints.clone());
        let saves = self.settings.log_admissions.is_some();
        let restored = self.ends.restored::<M>();
        let (rows, changed) = if M::MANY_KEYS {
            let key = self.settings.index.key;
            let totals = accumulated_totals::<M>(accepted, restored, checkpoints, key, saves);
            (totals.rows, saves.then_some(totals.changed))
        } else {
            let all = all_totals::<M>(accepted, restored);
            self.net_flow.get_or_insert_with(|| net_flow(all.clone()));
            let rows = news(all);
            (rows.clone(), saves.then(|| changed_totals(rows, checkpoints)))
        };
        let rows = rows.probe_with(&self.aggregated);
        self.ends.take(Results::<M> { rows, changed });
    }
}

/// Builds the computation, to go on after what was restored.
pub fn tidemark<'s>(
    inputs: Inputs<'s>,
    settings: &Settings,
    restored: Restored,
    ends: &mut impl Metrics<'s>,
) -> Outputs<'s> {
    let Inputs { blocks, marks, behind, checkpoints } = inputs;
    let blocks = blocks.shared();
    let decoded = decode(blocks.clone(), settings.contract.clone(), settings.payload_cap, settings.witnesses);
    let remembered = Rc::new(RefCell::new(restored.index));
    let events = distinct::Inputs {
        events: decoded.events,
        times: decoded.times,
        marks: marks.clone(),
        behind,
        checkpoints: checkpoints.clone(),
    };
    let watermarks = Watermarks::new(settings.of_watermark(), restored.progress);
    let distinct = distinct_within_watermark(events, remembered.clone(), watermarks, settings.log_admissions);
    let accepted = distinct.accepted.shared();

    let mut build =
        Build { accepted: accepted.clone(), checkpoints, settings, ends, aggregated: Handle::new(), net_flow: None };
    each(&mut build);
    let Build { aggregated, net_flow, .. } = build;
    let net_flow = net_flow.unwrap_or_else(|| empty(accepted.scope()));
    let exports = settings.log_admissions.map(|_| Exports { admitted: distinct.admitted, progress: distinct.progress });

    let refused = quarantine(blocks, distinct.refused, settings.contract.clone(), settings.payload_cap);
    let (decoded_probe, decoded_tallies) = decoded.tallies.probe();
    let (distinct_probe, distinct_tallies) = distinct.tallies.probe();
    let tallies = decoded_tallies.concat(distinct_tallies.map(Part::from));

    Outputs {
        net_flow,
        accepted,
        rejected: cap_payloads(decoded.rejected.concat(refused), settings.payload_cap),
        summaries: summaries(tallies, marks),
        remembered,
        exports,
        stages: Stages { decoded: decoded_probe, distinct: distinct_probe, aggregated },
    }
}
