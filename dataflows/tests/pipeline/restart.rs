//! Stopped after any epoch and restarted from the newest checkpoint, the composition publishes what it would have
//! published undisturbed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::discriminant;
use std::ops::RangeInclusive;

use proptest::prelude::*;
use tidemark_dataflows::arrangement::{Hashes, Remembered, TimeBoundedArrangement};
use tidemark_dataflows::event::{Epoch, EventId, Micros};
use tidemark_dataflows::metrics::AllTotals;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{Restored, Settings};
use tidemark_dataflows::watermark::Progress;

use crate::harness::{Export, Recorded, Results, Session, Stream, expected, run, settings};
use crate::{rules, streams};

/// What is stored: all exports up to the newest checkpoint, put together.
#[derive(Clone, Debug, Default)]
struct Stored {
    /// Epoch of the newest checkpoint; 0 where there is none.
    epoch: Epoch,
    progress: Progress,
    /// Logs without order among each other: each id once in each log.
    logs: Vec<BTreeMap<EventId, Remembered>>,
    totals: AllTotals,
}

impl Stored {
    /// Takes up what a session exported for the checkpoints up to and with `epoch`; the rest is lost.
    fn take_up(&mut self, recorded: &Recorded, epoch: Epoch) {
        for (_, export) in recorded.exports.iter().filter(|(_, export)| export.epoch() <= epoch) {
            match export {
                Export::Admitted(admitted) => self.logs.push(admitted.ids.iter().copied().collect()),
                Export::Progress(_, progress) => self.progress = progress.clone(),
                Export::Totals(_, _, rows) => self.totals.extend(rows.clone()),
            }
        }
        self.epoch = epoch;
    }

    fn index(
        &self,
        settings: &Settings,
        watermark: Option<Micros>,
        mine: impl Fn(EventId) -> bool,
    ) -> TimeBoundedArrangement {
        let mut index = Restored::up_to(Progress { watermark, ..Progress::default() }, settings).index;
        // The newest log first: any order must do.
        for (id, remembered) in self.logs.iter().rev().flatten().filter(|(id, _)| mine(**id)) {
            index.restore(*id, *remembered);
        }
        index
    }

    /// The share of one of `peers` workers. Totals are dealt out without regard to who will own them.
    fn share(&self, settings: &Settings, worker: usize, peers: usize) -> (Restored, AllTotals) {
        let hashes = Hashes::new(settings.index.key);
        let mine = |id| hashes.route(id) % peers as u64 == worker as u64;
        let totals = self.totals.clone().into_iter().skip(worker).step_by(peers).collect();
        let index = self.index(settings, self.progress.watermark, mine);
        (Restored { index, ..Restored::up_to(self.progress.clone(), settings) }, totals)
    }
}

/// The exports of a session that are about some epochs, put together.
#[derive(Debug, Default)]
struct Gathered {
    admitted: BTreeSet<EventId>,
    totals: AllTotals,
    progress: Vec<(usize, Epoch, Progress)>,
    /// Messages about each metric, and the rows in them.
    answers: BTreeMap<&'static str, (usize, usize)>,
}

fn gather(recorded: &Recorded, span: &RangeInclusive<Epoch>) -> Gathered {
    let mut all = Gathered::default();
    for (worker, export) in recorded.exports.iter().filter(|(_, export)| span.contains(&export.epoch())) {
        match export {
            Export::Admitted(part) => all.admitted.extend(part.ids.iter().map(|(id, _)| *id)),
            Export::Progress(epoch, progress) => all.progress.push((*worker, *epoch, progress.clone())),
            Export::Totals(_, name, rows) => {
                let (answers, answered) = all.answers.entry(*name).or_default();
                (*answers, *answered) = (*answers + 1, *answered + rows.len());
                all.totals.extend(rows.clone());
            }
        }
    }
    all
}

/// The exports of a session hold exactly what changed from checkpoint to checkpoint, and come in order; no worker keeps
/// `limit` admitted ids to itself.
fn check_exports(
    recorded: &Recorded,
    session: &Session,
    (expected, progress): (&Results, &[Progress]),
    limit: usize,
) -> Result<(), TestCaseError> {
    let accepted = |span: &RangeInclusive<Epoch>| -> BTreeSet<EventId> {
        let accepted = expected.accepted.iter().filter(|((epoch, _), _)| span.contains(epoch));
        accepted.map(|(_, id)| *id).collect()
    };
    let mut newest = HashMap::new();
    for (worker, export) in &recorded.exports {
        let name = if let Export::Totals(_, name, _) = export { *name } else { "" };
        let before = newest.insert((*worker, discriminant(export), name), export.epoch());
        prop_assert!(before < Some(export.epoch()), "after {before:?}: {export:?}");
    }
    let mut before = session.first - 1;
    for request in &session.requests {
        let span = before + 1..=*request;
        let all = gather(recorded, &span);
        prop_assert_eq!(all.progress, [(0, *request, progress[usize::try_from(request - 1).unwrap()].clone())]);
        for (name, answers) in &all.answers {
            let rows = all.totals.keys().filter(|(of, _)| of == name).count();
            prop_assert_eq!(*answers, (session.workers, rows), "{}", name);
        }
        prop_assert_eq!(&all.admitted, &accepted(&span));
        let within = expected.clone().of_epochs(before + 1, *request);
        prop_assert_eq!(&all.totals, &within.totals_at(*request));
        before = *request;
    }
    let rest = before + 1..=session.last;
    let (handed_on, all) = (gather(recorded, &rest), accepted(&rest));
    prop_assert!(handed_on.totals.is_empty() && handed_on.admitted.is_subset(&all));
    prop_assert!(all.len() - handed_on.admitted.len() < limit.saturating_mul(session.workers));
    Ok(())
}

/// One life of a process: how many epochs it is fed, on how many workers, and which of them get a checkpoint.
#[derive(Clone, Debug)]
struct Life {
    epochs: u64,
    workers: usize,
    requests: u8,
    lag: u64,
    deal: u64,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let requests = prop_oneof![Just(0u8), Just(u8::MAX), any::<u8>()];
    let life = (1..6u64, 1..=3usize, requests, 0..4u64, any::<u64>());
    let life = life.prop_map(|(epochs, workers, requests, lag, deal)| Life { epochs, workers, requests, lag, deal });
    prop::collection::vec(life, 1..=4)
}

/// Runs the lives one after the other, the last one to the end of the stream, and checks each against the undisturbed
/// run.
fn survive(stream: &Stream, settings: &Settings, lives: &[Life]) -> Result<(), TestCaseError> {
    let (expected, progress) = expected(stream, settings);
    let mut stored = Stored::default();
    for (i, life) in lives.iter().enumerate() {
        let (first, end) = (stored.epoch + 1, stream.epochs.len() as u64);
        let last = if i + 1 == lives.len() { end } else { end.min(stored.epoch + life.epochs) };
        let requests: BTreeSet<Epoch> = (first..=last).filter(|epoch| life.requests >> (epoch % 8) & 1 == 1).collect();
        let &Life { workers, lag, deal, .. } = life;
        let session = Session { first, last, workers, size: 3, deal, requests, lag };
        let (from, with) = (stored.clone(), settings.clone());
        let recorded = run(stream, settings, &session, move |worker, peers| from.share(&with, worker, peers));
        prop_assert_eq!(&recorded.results, &expected.clone().of_epochs(first, last));
        check_exports(&recorded, &session, (&expected, &progress), settings.log_admissions.unwrap_or_default())?;
        if let Some(checkpoint) = session.requests.last() {
            stored.take_up(&recorded, *checkpoint);
            prop_assert_eq!(&stored.totals, &expected.totals_at(*checkpoint));
            let undisturbed = Session { first: 1, last: *checkpoint, workers: 1, requests: BTreeSet::new(), ..session };
            let with = settings.clone();
            let undisturbed =
                run(stream, settings, &undisturbed, move |_, _| (Restored::nothing(&with), AllTotals::new()));
            // Remembered is what the watermark of the checkpoint's own epoch says, not that of the next.
            let index = stored.index(settings, expected.summaries[checkpoint].tally.watermark, |_| true);
            prop_assert_eq!(index.iter().collect::<BTreeMap<_, _>>(), undisturbed.remembered);
            if expected.summaries.range(..=*checkpoint).all(|(_, summary)| !summary.mark.waits) {
                let without = Progress::without_waiting(settings.index.horizon, stored.progress.newest);
                prop_assert_eq!(&stored.progress, &without);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_restart_after_any_epoch_changes_nothing(
        stream in streams(), lives in lives(), limit in prop_oneof![1..6usize, Just(usize::MAX)],
        delay in 1..30i64, retention in 1..40i64, (witnesses, uncounted) in rules(), cap in prop_oneof![Just(None), (0..1_500u64).prop_map(Some)],
    ) {
        let payload_cap = PayloadCap(cap);
        let settings = settings(delay, retention);
        let settings = Settings { log_admissions: Some(limit), payload_cap, witnesses, uncounted, ..settings };
        survive(&stream, &settings, &lives)?;
    }
}

fn deposit(id: usize, day: usize) -> String {
    format!(
        r#"{{"event_id":"e{id}","user_id":"u","event_time":"2026-01-{day:02}T00:30:00Z","ingest_time":"2026-01-01T00:00:00Z","event_type":"deposit_completed","amount":1,"currency":"GBP","channel":"api"}}"#
    )
}

#[test]
fn ids_are_forgotten_after_a_restart_as_event_time_runs_on() {
    let settings = Settings { log_admissions: Some(usize::MAX), ..settings(24, 24) };
    let epochs = vec![(0..10).map(|id| deposit(id, 1)).collect(), vec![deposit(10, 4)], vec![deposit(11, 4)]];
    let stream = Stream::caught_up(epochs.into_iter().map(|bodies| vec![bodies]).collect());
    let life = |epochs, workers| Life { epochs, workers, requests: u8::MAX, lag: 1, deal: 5 };
    survive(&stream, &settings, &[life(1, 2), life(2, 1)]).unwrap();
    let retained = |results: &Results| results.summaries.values().map(|s| s.tally.retained_ids).collect::<Vec<_>>();
    assert_eq!(retained(&expected(&stream, &settings).0), [10, 11, 2]);

    let session = Session { first: 1, last: 2, workers: 1, size: 3, deal: 0, requests: [1, 2].into(), lag: 0 };
    let with = settings.clone();
    let recorded = run(&stream, &settings, &session, move |_, _| (Restored::nothing(&with), AllTotals::new()));
    let mut stored = Stored::default();
    stored.take_up(&recorded, 2);
    // Eleven were stored, and ten of them had expired by the time of the restart.
    assert_eq!(stored.logs.iter().map(BTreeMap::len).sum::<usize>(), 11);
    assert_eq!(stored.share(&settings, 0, 1).0.index.len(), 1);
}
