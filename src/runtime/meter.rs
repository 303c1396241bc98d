//! What the workers and the start of a run tell those who watch.

use std::sync::Arc;

use tidemark_dataflows::arrangement::SharedArrangement;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::pipeline::Stages as Probes;
use tidemark_dataflows::reason::Reason;
use timely::dataflow::operators::probe::Handle;

use super::start::Recovered;
use super::worker::Plan;
use crate::telemetry::{Decided, IndexMeter, Stage, Telemetry};

/// Notes where a run begins, before anything is computed.
pub(super) fn begin(telemetry: &Telemetry, recovered: &Recovered, workers: usize) {
    let counters = &recovered.counters;
    let mut rejected = [0; Reason::COUNT];
    for (sum, reason) in rejected.iter_mut().zip(Reason::ALL) {
        *sum = counters.rejected.get(reason.as_str()).copied().unwrap_or_default();
    }
    let newest = counters.newest_event_time_us.map(Micros);
    let before = Decided {
        received: counters.received,
        accepted: counters.accepted,
        duplicates: counters.duplicates,
        rejected,
        epochs: counters.epochs,
        remembered_ids: counters.retained_ids,
        epoch: recovered.after,
        newest,
        closed: counters.last_closed_us.map(Micros),
        ..Decided::default()
    };
    telemetry.before.get_or_init(|| before);
    for position in &recovered.positions {
        telemetry.partitions.add(&position.partition, position.next);
    }
    telemetry.shown.set(recovered.loaded.figures());
    index(telemetry, workers);
    for stage in Stage::ALL {
        telemetry.stages.reached(stage, recovered.after);
    }
    // What is replayed was cut before.
    let last_cut = recovered.replay.last().map_or(recovered.after, |cut| cut.epoch);
    telemetry.stages.reached(Stage::Opened, last_cut);
    telemetry.stages.reached(Stage::Cut, last_cut);
}

/// Makes room for what each worker of this process tells of its index.
pub(super) fn index(telemetry: &Telemetry, workers: usize) {
    telemetry.index.get_or_init(|| (0..workers).map(|_| IndexMeter::default()).collect());
}

/// What a worker can be asked, before it is known which one it is.
pub(super) struct Unplaced {
    /// How far the computation has come.
    pub(super) stages: Probes,
    /// The index of this worker.
    pub(super) remembered: SharedArrangement,
}

impl Unplaced {
    /// The meter of the worker with this number.
    pub(super) fn of(self, worker: usize, plan: &Plan) -> Meter {
        let telemetry = Arc::clone(&plan.telemetry);
        let workers = telemetry.index.get().map_or(1, Vec::len).max(1);
        let Unplaced { stages, remembered } = self;
        Meter { stages, remembered, telemetry, place: worker % workers, first: worker == 0, noted: 0 }
    }
}

/// Tells, between the steps of a worker, how far it has come. It costs a comparison unless an epoch has ended.
pub(super) struct Meter {
    stages: Probes,
    remembered: SharedArrangement,
    telemetry: Arc<Telemetry>,
    place: usize,
    /// Frontiers are those of all workers, so one tells of them.
    first: bool,
    /// The newest epoch of which the index has been noted.
    noted: Epoch,
}

impl Meter {
    pub(super) fn note(&mut self) {
        if self.first {
            self.reached(Stage::Decoded, &self.stages.decoded);
            self.reached(Stage::Aggregated, &self.stages.aggregated);
        }
        let Some(distinct) = self.passed(&self.stages.distinct).filter(|epoch| *epoch > self.noted) else { return };
        self.noted = distinct;
        if self.first {
            self.telemetry.stages.reached(Stage::Distinct, distinct);
        }
        if let Some(meter) = self.telemetry.index.get().and_then(|meters| meters.get(self.place)) {
            let index = self.remembered.borrow();
            meter.set(index.heap_bytes(), index.len(), index.next_forgotten_at());
        }
    }

    fn reached(&self, stage: Stage, probe: &Handle<Epoch>) {
        if let Some(epoch) = self.passed(probe) {
            self.telemetry.stages.reached(stage, epoch);
        }
    }

    /// The newest epoch that is done there. Once nothing comes any more, that is the last one that was cut.
    fn passed(&self, probe: &Handle<Epoch>) -> Option<Epoch> {
        let next = probe.with_frontier(|frontier| frontier.first().copied());
        match next {
            Some(next) => next.checked_sub(1),
            None => Some(self.telemetry.stages.of(Stage::Cut)),
        }
    }
}
