//! Runs the composition over part of a stream, on any number of workers, and the oracle over all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidemark_dataflows::arrangement::{Remembered, Settings as IndexSettings, SweepRate};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::distinct::Admitted;
use tidemark_dataflows::event::{Epoch, EpochMark, EventId, Micros, Offset, PartitionId, Position};
use tidemark_dataflows::metrics::{AllTotals, Key, Metric, Totals, totals_of};
use tidemark_dataflows::oracle::Oracle;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{self, Inputs, Metrics, Outputs, Restored, Settings, tidemark};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::EpochSummary;
use tidemark_dataflows::watermark::{Behind, EpochTimes, Horizon, Progress};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};
use timely::worker::Worker;

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_767_261_600_000_000;

/// All that comes in.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Bodies by epoch and partition.
    pub(crate) epochs: Vec<Vec<Vec<String>>>,
    /// For each epoch the partitions that were behind at its end; none where the watermark does not wait.
    pub(crate) cuts: Vec<Option<Vec<Behind>>>,
}

impl Stream {
    /// No partition is ever behind.
    pub(crate) fn caught_up(epochs: Vec<Vec<Vec<String>>>) -> Self {
        Stream { cuts: vec![Some(Vec::new()); epochs.len()], epochs }
    }

    /// Says which partitions were behind, once for each epoch.
    fn say_behind(&self, epoch: Epoch, to: &mut Input<Behind>) {
        if *to.time() <= epoch {
            to.advance_to(epoch);
            self.cuts[usize::try_from(epoch - 1).unwrap()].iter().flatten().for_each(|behind| to.send(*behind));
            to.advance_to(epoch + 1);
        }
    }

    fn mark(&self, epoch: Epoch) -> EpochMark {
        let waits = self.cuts[usize::try_from(epoch).unwrap() - 1].is_some();
        EpochMark { epoch, opened: opened(epoch), closed: opened(epoch + 1), missing: 0, waits }
    }
}

pub(crate) fn settings(delay_hours: i64, retention_hours: i64) -> Settings {
    let horizon = Horizon { watermark_delay_us: delay_hours * HOUR_US, dedup_retention_us: retention_hours * HOUR_US };
    Settings {
        contract: Contract { max_future_skew_us: 200 * HOUR_US, id_key: [3, 4], curated: false },
        index: IndexSettings { horizon, key: [5, 6], expected_ids: 16, sweep: SweepRate::default() },
        log_admissions: None,
        payload_cap: PayloadCap(None),
        witnesses: 1,
        uncounted: None,
    }
}

fn opened(epoch: Epoch) -> Micros {
    Micros(START_US + 1_000_000 * i64::try_from(epoch).unwrap())
}

/// Cuts the bodies of one epoch and partition into blocks of at most `size` events.
fn blocks(partition: usize, first: u64, bodies: &[String], epoch: Epoch, size: usize) -> Vec<Block> {
    let block = |(i, chunk): (usize, &[String])| {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for body in chunk {
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(body.as_bytes());
            ranges.push(start..u32::try_from(bytes.len()).unwrap());
        }
        Block {
            partition: PartitionId(u32::try_from(partition).unwrap()),
            first_offset: Offset(first + (i * size) as u64),
            arrival: Arrival::Opening(opened(epoch)),
            bytes: Bytes::from(bytes),
            bodies: ranges,
            oversized: Vec::new(),
            sections: Vec::new(),
        }
    };
    bodies.chunks(size).enumerate().map(block).collect()
}

/// Every block with its epoch, in the order in which a reader would deliver them.
fn all_blocks(stream: &Stream, size: usize) -> Vec<(Epoch, Vec<Block>)> {
    let mut next = vec![0u64; stream.epochs.first().map_or(0, Vec::len)];
    let mut out = Vec::new();
    for (i, partitions) in stream.epochs.iter().enumerate() {
        let epoch = i as u64 + 1;
        let mut all = Vec::new();
        for (p, bodies) in partitions.iter().enumerate() {
            all.extend(blocks(p, next[p], bodies, epoch, size));
            next[p] += bodies.len() as u64;
        }
        out.push((epoch, all));
    }
    out
}

/// All that is published, epoch by epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// The rows of each epoch.
    pub(crate) totals: BTreeMap<Epoch, AllTotals>,
    pub(crate) net_flow: BTreeMap<Epoch, Totals>,
    pub(crate) accepted: BTreeMap<(Epoch, Position), EventId>,
    pub(crate) rejected: BTreeSet<(Epoch, Position, Reason)>,
    pub(crate) payloads: BTreeMap<(Epoch, Position), Option<Vec<u8>>>,
    pub(crate) summaries: BTreeMap<Epoch, EpochSummary>,
}

impl Results {
    /// What belongs to the epochs from `first` to `last`.
    pub(crate) fn of_epochs(mut self, first: Epoch, last: Epoch) -> Results {
        let within = |epoch: &Epoch| (first..=last).contains(epoch);
        self.totals.retain(|epoch, _| within(epoch));
        self.net_flow.retain(|epoch, _| within(epoch));
        self.accepted.retain(|(epoch, _), _| within(epoch));
        self.rejected.retain(|(epoch, ..)| within(epoch));
        self.payloads.retain(|(epoch, _), _| within(epoch));
        self.summaries.retain(|epoch, _| within(epoch));
        self
    }

    /// The totals of every key as of the end of an epoch.
    pub(crate) fn totals_at(&self, epoch: Epoch) -> AllTotals {
        self.totals.range(..=epoch).flat_map(|(_, rows)| rows.clone()).collect()
    }
}

/// What a worker handed on for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Export {
    Admitted(Admitted),
    Progress(Epoch, Progress),
    /// Of one metric.
    Totals(Epoch, &'static str, AllTotals),
}

impl Export {
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Export::Admitted(admitted) => admitted.epoch,
            Export::Progress(epoch, _) => *epoch,
            Export::Totals(epoch, ..) => *epoch,
        }
    }
}

/// All that came out of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) results: Results,
    /// With the worker, in the order in which each of them handed on.
    pub(crate) exports: Vec<(usize, Export)>,
    /// The ids that all workers remember at the end.
    pub(crate) remembered: BTreeMap<EventId, Remembered>,
}

/// How one process lives: from the first epoch that it is fed to the last.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) first: Epoch,
    pub(crate) last: Epoch,
    pub(crate) workers: usize,
    /// Bodies in a block.
    pub(crate) size: usize,
    /// Who is dealt which block, and how often workers step.
    pub(crate) deal: u64,
    /// The epochs that a checkpoint is asked for.
    pub(crate) requests: BTreeSet<Epoch>,
    /// How many epochs late requests come.
    pub(crate) lag: u64,
}

type Input<C> = InputHandle<Epoch, CapacityContainerBuilder<Vec<C>>>;

/// Runs a session; `restored` says what each worker starts from, given its index and the number of workers.
pub(crate) fn run(
    stream: &Stream,
    settings: &Settings,
    session: &Session,
    restored: impl Fn(usize, usize) -> (Restored, AllTotals) + Send + Sync + 'static,
) -> Recorded {
    let recorded = Arc::new(Mutex::new(Recorded::default()));
    let (shared, stream, settings, session) =
        (Arc::clone(&recorded), stream.clone(), settings.clone(), session.clone());
    let fed: Vec<_> = all_blocks(&stream, session.size);
    timely::execute(timely::Config::process(session.workers), move |worker| {
        let (mut blocks, mut marks, mut behind, mut checkpoints) =
            (Input::<Block>::new(), Input::<EpochMark>::new(), Input::<Behind>::new(), Input::<()>::new());
        let probe = ProbeHandle::new();
        let remembered = worker.dataflow(|scope| {
            let inputs = Inputs {
                blocks: blocks.to_stream(scope),
                marks: marks.to_stream(scope),
                behind: behind.to_stream(scope),
                checkpoints: checkpoints.to_stream(scope),
            };
            let (restored, totals) = restored(scope.index(), scope.peers());
            let mut metrics = Record { restored: totals, to: &shared, probe: &probe };
            record(tidemark(inputs, &settings, restored, &mut metrics), &shared, &probe)
        });
        checkpoints.advance_to(session.first);
        behind.advance_to(session.first);
        for (epoch, epoch_blocks) in fed.iter().filter(|(epoch, _)| (session.first..=session.last).contains(epoch)) {
            blocks.advance_to(*epoch);
            marks.advance_to(*epoch);
            for (i, block) in epoch_blocks.iter().enumerate() {
                let to = (i as u64).wrapping_mul(session.deal | 1).wrapping_add(session.deal >> 7);
                if to % worker.peers() as u64 == worker.index() as u64 {
                    blocks.send(block.clone());
                }
            }
            marks.send(stream.mark(*epoch));
            for _ in 0..session.deal % 4 * 10 {
                worker.step();
            }
            // Who is behind may be said when the marks have long passed the epoch: it is waited for.
            stream.say_behind(epoch.saturating_sub(session.deal >> 3 & 1), &mut behind);
            ask_up_to(epoch.saturating_sub(session.lag), &mut checkpoints, &session);
        }
        drop((blocks, marks));
        for _ in 0..session.deal % 4 * 10 {
            worker.step();
        }
        stream.say_behind(session.last, &mut behind);
        drop(behind);
        ask_up_to(session.last.saturating_sub(1), &mut checkpoints, &session);
        publish_all(worker, &probe);
        ask_up_to(session.last, &mut checkpoints, &session);
        drop(checkpoints);
        shared.lock().unwrap().remembered.extend(remembered.borrow().iter());
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|result| result.unwrap());
    Arc::try_unwrap(recorded).map(|m| m.into_inner().unwrap()).unwrap_or_else(|m| m.lock().unwrap().clone())
}

/// Sends the requests for all epochs up to `epoch`, and goes on to it.
fn ask_up_to(epoch: Epoch, checkpoints: &mut Input<()>, session: &Session) {
    while *checkpoints.time() <= epoch {
        if session.requests.contains(checkpoints.time()) {
            checkpoints.send(());
        }
        checkpoints.advance_to(checkpoints.time() + 1);
    }
}

/// All that is published must come out, though a checkpoint of the last epoch may still be asked for.
fn publish_all(worker: &mut Worker, probe: &ProbeHandle<Epoch>) {
    for _ in 0..10_000 {
        if probe.done() {
            return;
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
    panic!("published up to {:?} only", probe.with_frontier(|frontier| frontier.to_vec()));
}

fn each<'s, D: Clone + 'static>(
    stream: StreamVec<'s, Epoch, D>,
    recorded: &Arc<Mutex<Recorded>>,
    mut note: impl FnMut(&mut Recorded, &D) + 'static,
) -> StreamVec<'s, Epoch, D> {
    let recorded = Arc::clone(recorded);
    stream.inspect(move |item| note(&mut recorded.lock().unwrap(), item))
}

/// Writes down what comes of each metric.
struct Record<'a> {
    restored: AllTotals,
    to: &'a Arc<Mutex<Recorded>>,
    probe: &'a ProbeHandle<Epoch>,
}

impl<'s> Metrics<'s> for Record<'_> {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        totals_of::<M>(&self.restored).collect()
    }

    fn take<M: Metric>(&mut self, results: pipeline::Results<'s, M>) {
        let rows = each(results.rows, self.to, |recorded, row| {
            let rows = recorded.results.totals.entry(row.epoch).or_default();
            let twice = rows.insert((M::NAME, row.key.to_bytes().into_owned()), row.totals);
            assert!(twice.is_none(), "emitted twice: {row:?}");
        });
        rows.probe_with(self.probe);
        if let Some(changed) = results.changed {
            let worker = changed.scope().index();
            each(changed, self.to, move |recorded, part| {
                let rows = part.rows.iter().map(|(key, totals)| ((M::NAME, key.to_bytes().into_owned()), *totals));
                recorded.exports.push((worker, Export::Totals(part.epoch, M::NAME, rows.collect())));
            });
        }
    }
}

/// Writes down all that comes out; the probe watches what is published.
fn record(
    outputs: Outputs<'_>,
    to: &Arc<Mutex<Recorded>>,
    probe: &ProbeHandle<Epoch>,
) -> tidemark_dataflows::arrangement::SharedArrangement {
    let net_flow = each(outputs.net_flow, to, |recorded, row| {
        assert!(recorded.results.net_flow.insert(row.epoch, row.totals).is_none(), "emitted twice: {row:?}");
    });
    net_flow.probe_with(probe);
    let accepted = Arc::clone(to);
    outputs.accepted.inspect_core(move |seen| {
        if let Ok((stamp, batch)) = seen {
            let epoch = *stamp.least().unwrap();
            let events = batch.iter().map(|event| ((epoch, event.at), event.id));
            accepted.lock().unwrap().results.accepted.extend(events);
        }
    });
    each(outputs.rejected, to, |recorded, row| {
        let results = &mut recorded.results;
        assert!(results.rejected.insert((row.epoch, row.at, row.reason)), "rejected twice: {row:?}");
        results.payloads.insert((row.epoch, row.at), row.payload.clone());
    })
    .probe_with(probe);
    each(outputs.summaries, to, |recorded, row| {
        let twice = recorded.results.summaries.insert(row.mark.epoch, row.clone());
        assert!(twice.is_none(), "summarised twice: {row:?}");
    })
    .probe_with(probe);
    if let Some(exports) = outputs.exports {
        let worker = exports.admitted.scope().index();
        each(exports.admitted, to, move |r, e| r.exports.push((worker, Export::Admitted(e.clone()))));
        let progress = Arc::clone(to);
        exports.progress.inspect_core(move |seen| {
            if let Ok((stamp, batch)) = seen {
                let epoch = *stamp.least().unwrap();
                let answers = batch.iter().map(|answer| (worker, Export::Progress(epoch, answer.clone())));
                progress.lock().unwrap().exports.extend(answers);
            }
        });
    }
    outputs.remembered
}

/// What must be published, and how far event time must have come up to the end of each epoch.
pub(crate) fn expected(stream: &Stream, settings: &Settings) -> (Results, Vec<Progress>) {
    let mut oracle = Oracle::new(settings.clone());
    let (mut results, mut ids, mut payloads) = (Results::default(), BTreeMap::new(), BTreeMap::new());
    for ((epoch, blocks), cut) in all_blocks(stream, usize::MAX).into_iter().zip(&stream.cuts) {
        oracle.epoch(blocks.iter().flat_map(Block::iter), cut.as_deref());
        for body in blocks.iter().flat_map(Block::iter) {
            payloads.insert((epoch, body.at), body.bytes.to_vec());
            ids.extend(settings.contract.check_strict(&body, 0).map(|event| ((epoch, body.at), event.id)));
        }
        for (name, rows) in &oracle.totals {
            let changed = rows.iter().filter(|(_, (_, changed))| *changed == epoch);
            let rows = changed.map(|(key, (totals, _))| ((*name, key.clone()), *totals));
            results.totals.entry(epoch).or_default().extend(rows);
        }
        results.totals.retain(|_, rows| !rows.is_empty());
        if oracle.accepted.iter().any(|(accepted, _)| *accepted == epoch) {
            results.net_flow.insert(epoch, oracle.net_flow());
        }
    }
    results.accepted = oracle.accepted.iter().map(|key| (*key, ids[key])).collect();
    results.rejected = oracle.rejected.iter().copied().collect();
    let mut taken: BTreeMap<(Epoch, PartitionId), u64> = BTreeMap::new();
    for (epoch, at, _) in &oracle.rejected {
        let (key, payload) = ((*epoch, *at), &payloads[&(*epoch, *at)]);
        let taken = taken.entry((*epoch, at.partition)).or_default();
        *taken += payload.len() as u64;
        let fits = settings.payload_cap.0.is_none_or(|cap| *taken <= cap);
        results.payloads.insert(key, fits.then(|| payload.clone()));
    }
    for ((epoch, tally), times) in (1..).zip(oracle.epochs).zip(oracle.times) {
        let EpochTimes { next_watermark, held_back, .. } = times;
        let summary = EpochSummary { mark: stream.mark(epoch), tally, next_watermark, held_back };
        results.summaries.insert(epoch, summary);
    }
    (results, oracle.progress)
}
