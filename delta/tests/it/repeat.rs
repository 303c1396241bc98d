//! Calls that failed or were cut off at any request, and are made again.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use tempfile::TempDir;
use tidemark_delta::{Cause, Error, Lake, Outcome, Policy, TableSpec, TableWriter, history};

use crate::store::{Gate, Judged, Kind, Verdict, full, injected, refused};
use crate::support::*;

/// What epochs 1, 2 and 3 bring to a table.
fn rows(spec: &TableSpec, epoch: i64) -> RecordBatch {
    match spec.name.starts_with("metrics") {
        true => users(&[("a", i128::from(epoch), epoch), (["b", "c", "d"][usize::try_from(epoch).unwrap() - 1], 1, 1)]),
        false => rejected([(epoch, 0), (epoch, 1)]),
    }
}

async fn publish(writer: &mut TableWriter, epoch: u64) -> Result<Outcome, Error> {
    let batch = rows(writer.spec(), i64::try_from(epoch).unwrap());
    writer.publish(epoch, None, Some(&batch)).await.map(|published| published.outcome)
}

/// The table holds epochs 1 to 3, each published in one commit.
async fn assert_right(dir: &TempDir, spec: &TableSpec, context: &str) {
    if spec.name == keyed().name {
        let expected = [("a", 3, 3), ("b", 1, 1), ("c", 1, 1), ("d", 1, 1)];
        assert_eq!(read_users(dir, None).await, expected.map(|(id, pence, n)| (id.to_owned(), pence, n)), "{context}");
    } else {
        let expected: Vec<_> = (1..4).flat_map(|epoch| [(epoch, 0), (epoch, 1)]).collect();
        assert_eq!(read_rejected(dir, None).await, expected, "{context}");
    }
    let commits = history(&location(dir), &spec.name).await.unwrap();
    let published = commits.iter().filter(|commit| commit.kind == Some(tidemark_delta::Kind::Publish));
    assert_eq!(published.map(|commit| commit.epoch_txn.unwrap()).collect::<Vec<_>>(), [1, 2, 3], "{context}");
}

/// How a call is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    NeverDelivered,
    NeverAnswered,
    DeliveredDuringRepetition,
    DeliveredAfterRepetition,
}

const CUTS: [Cut; 4] =
    [Cut::NeverDelivered, Cut::NeverAnswered, Cut::DeliveredDuringRepetition, Cut::DeliveredAfterRepetition];

/// A call that is cut off at one of its requests.
struct CutOff {
    cut: Cut,
    store: Judged,
    reached: Gate,
    done: Gate,
    deliver: Gate,
}

impl CutOff {
    fn at(number: usize, cut: Cut, store: &Judged) -> Self {
        let (done, deliver) = (Gate::closed(), Gate::closed());
        let verdict = match cut {
            Cut::NeverDelivered => Verdict::Stall,
            Cut::NeverAnswered => Verdict::Mute(done.clone()),
            _ => Verdict::Late(deliver.clone()),
        };
        let reached = store.judge_only(number, verdict);
        CutOff { cut, store: store.clone(), reached, done, deliver }
    }

    /// Runs the call until it is cut off; `None` means that it was, and its future is dropped.
    async fn run<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.reached.passed().await;
            if self.cut == Cut::NeverAnswered {
                self.done.passed().await;
            }
        };
        let outcome = tokio::select! { outcome = call => Some(outcome), () = stopped => None };
        self.store.pass();
        if self.cut == Cut::DeliveredDuringRepetition {
            self.deliver.open();
        }
        outcome
    }

    /// Once the repetition is over, whatever was late has come.
    async fn settle(&self) {
        self.deliver.open();
        if matches!(self.cut, Cut::DeliveredDuringRepetition | Cut::DeliveredAfterRepetition) {
            self.store.late.subscribe().wait_for(|late| *late > 0).await.unwrap();
        }
    }
}

async fn open_judged(dir: &TempDir, spec: &TableSpec) -> (TableWriter, Judged) {
    let store = Judged::new();
    let writer = TableWriter::open_or_create(&judged_lake(dir, 1, &store), spec.clone()).await.unwrap();
    (writer, store)
}

async fn cut_publications_off(spec: TableSpec) {
    for cut in CUTS {
        let mut number = 0;
        loop {
            let context = format!("{} {cut:?} at request {number}", spec.name);
            let dir = TempDir::new().unwrap();
            let (mut writer, store) = open_judged(&dir, &spec).await;
            publish(&mut writer, 1).await.unwrap();
            let cut_off = CutOff::at(number, cut, &store);
            if cut_off.run(publish(&mut writer, 2)).await.is_some() {
                break;
            }
            if number % 2 == 1 {
                writer.maintain(SystemTime::now()).await.expect(&context);
            }
            publish(&mut writer, 2).await.expect(&context);
            cut_off.settle().await;
            publish(&mut writer, 3).await.expect(&context);
            assert_right(&dir, &spec, &context).await;
            number += 1;
        }
        assert!(number >= 4, "{cut:?}: only {number} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_was_cut_off_anywhere_is_repeated() {
    cut_publications_off(keyed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_cut_off_anywhere_is_repeated() {
    cut_publications_off(appended()).await;
}

/// Also at each of these places the error says what is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_failed_anywhere_is_repeated() {
    for (spec, verdict, cause) in [
        (keyed(), Verdict::Fail(full), Cause::Full),
        (keyed(), Verdict::Lose(refused), Cause::Refused),
        (appended(), Verdict::Fail(refused), Cause::Refused),
        (appended(), Verdict::Lose(full), Cause::Full),
        (appended(), Verdict::Fail(injected), Cause::Passing),
    ] {
        let (mut number, mut failures) = (0, 0);
        loop {
            let context = format!("{} {verdict:?} at request {number}", spec.name);
            let dir = TempDir::new().unwrap();
            let (mut writer, store) = open_judged(&dir, &spec).await;
            publish(&mut writer, 1).await.unwrap();
            let reached = store.judge_only(number, verdict.clone());
            if let Err(error) = publish(&mut writer, 2).await {
                assert_eq!((error.cause(), error.is_retryable()), (cause, true), "{context}: {error}");
                failures += 1;
            }
            let done = !reached.is_open();
            store.pass();
            publish(&mut writer, 2).await.expect(&context);
            publish(&mut writer, 3).await.expect(&context);
            assert_right(&dir, &spec, &context).await;
            if done {
                break;
            }
            number += 1;
        }
        assert!(number >= 4, "{verdict:?}: only {number} requests");
        assert_eq!(failures > 0, cause != Cause::Passing, "{verdict:?}: what passes is tried again inside");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_outlasted() {
    for failing in (1..30).step_by(4) {
        let dir = TempDir::new().unwrap();
        let (mut writer, store) = open_judged(&dir, &keyed()).await;
        publish(&mut writer, 1).await.unwrap();
        let left = AtomicUsize::new(failing);
        store.judge(move |_, _| match left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Verdict::Fail(injected),
            Err(_) => Verdict::Pass,
        });
        let mut calls = 0;
        while let Err(error) = publish(&mut writer, 2).await {
            assert_eq!(error.cause(), Cause::Passing, "{error}");
            calls += 1;
            assert!(calls <= failing, "no progress");
        }
        publish(&mut writer, 3).await.unwrap();
        assert_right(&dir, &keyed(), &format!("{failing} failures")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_out() {
    let writes = |kind| matches!(kind, Kind::Put | Kind::Begin | Kind::Part | Kind::Complete);
    for (spec, verdict) in [
        (keyed(), Verdict::Fail(full)),
        (keyed(), Verdict::Half),
        (appended(), Verdict::Fail(full)),
        (appended(), Verdict::Half),
    ] {
        let dir = TempDir::new().unwrap();
        let (mut writer, store) = open_judged(&dir, &spec).await;
        publish(&mut writer, 1).await.unwrap();
        // Full before the data, before the commit, and before the checkpoint.
        for part in ["", "_delta_log", "checkpoint"] {
            let verdict = verdict.clone();
            store.judge(move |kind, path| match writes(kind) && path.contains(part) {
                true => verdict.clone(),
                false => Verdict::Pass,
            });
            for _ in 0..2 {
                match publish(&mut writer, 2).await {
                    Err(error) => {
                        assert_eq!(error.cause(), Cause::Full, "{error}");
                        assert!(matches!(error, Error::Unavailable { attempts: 1, .. }), "reported at once: {error}");
                    }
                    // A commit counts, though its checkpoint does not fit.
                    Ok(_) => assert_eq!(part, "checkpoint"),
                }
            }
        }
        store.pass();
        for epoch in [2, 3] {
            publish(&mut writer, epoch).await.unwrap();
        }
        assert_right(&dir, &spec, &format!("{} {verdict:?}", spec.name)).await;
        writer.maintain(SystemTime::now()).await.unwrap();
    }
}

/// Opens with `generation` after a first call was cut off, and finds one table with one fence.
async fn cut_opening_off(generation: i64, cut: Cut) -> usize {
    let mut number = 0;
    loop {
        let context = format!("generation {generation}, {cut:?} at request {number}");
        let dir = TempDir::new().unwrap();
        if generation > 1 {
            publish(&mut open(&dir, 1, appended()).await, 1).await.unwrap();
        }
        let store = Judged::new();
        let lake: Lake = judged_lake_with(&dir, generation, &store, Policy { clean_every: HOUR, ..policy() });
        let cut_off = CutOff::at(number, cut, &store);
        if cut_off.run(TableWriter::open_or_create(&lake, appended())).await.is_some() {
            return number;
        }
        let mut writer = TableWriter::open_or_create(&lake, appended()).await.expect(&context);
        cut_off.settle().await;
        for epoch in 1..4 {
            publish(&mut writer, epoch).await.expect(&context);
        }
        assert_right(&dir, &appended(), &context).await;
        let commits = history(&location(&dir), &appended().name).await.unwrap();
        let fenced = commits.iter().filter(|commit| commit.fence_txn == Some(generation) && commit.rows_changed == 0);
        assert_eq!(fenced.count(), 1, "{context}");
        number += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_was_cut_off_anywhere_is_repeated() {
    for cut in CUTS {
        assert!(cut_opening_off(1, cut).await >= 2);
        assert!(cut_opening_off(2, cut).await >= 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_failed_anywhere_is_repeated() {
    for (generation, verdict, cause) in [
        (1, Verdict::Fail(full), Cause::Full),
        (1, Verdict::Lose(refused), Cause::Refused),
        (2, Verdict::Lose(full), Cause::Full),
        (2, Verdict::Fail(refused), Cause::Refused),
    ] {
        let mut number = 0;
        loop {
            let context = format!("generation {generation}, {verdict:?} at request {number}");
            let dir = TempDir::new().unwrap();
            if generation > 1 {
                publish(&mut open(&dir, 1, keyed()).await, 1).await.unwrap();
            }
            let store = Judged::new();
            let reached = store.judge_only(number, verdict.clone());
            let lake = judged_lake(&dir, generation, &store);
            if let Err(error) = TableWriter::open_or_create(&lake, keyed()).await {
                assert_eq!(error.cause(), cause, "{context}: {error}");
            }
            if !reached.is_open() {
                break;
            }
            store.pass();
            let mut writer = TableWriter::open_or_create(&lake, keyed()).await.expect(&context);
            for epoch in 1..4 {
                publish(&mut writer, epoch).await.expect(&context);
            }
            assert_right(&dir, &keyed(), &context).await;
            number += 1;
        }
        assert!(number >= 2, "{verdict:?}: only {number} requests");
    }
}

/// After a crash in the middle of a group some tables hold its epoch, one holds an earlier one, one is new.
#[tokio::test(flavor = "multi_thread")]
async fn tables_at_different_epochs_are_brought_to_one() {
    let dir = TempDir::new().unwrap();
    let other = TableSpec { name: "metrics/others".to_owned(), ..keyed() };
    for (spec, last) in [(keyed(), 3), (other.clone(), 1), (appended(), 1)] {
        let mut writer = open(&dir, 1, spec).await;
        for epoch in 1..=last {
            publish(&mut writer, epoch).await.unwrap();
        }
    }
    let late = TableSpec { name: "monitoring/late".to_owned(), ..appended() };
    let merged = users(&[("a", 3, 3), ("b", 1, 1), ("c", 1, 1), ("d", 1, 1)]);
    let appends = rejected((1..4).flat_map(|epoch| [(epoch, 0), (epoch, 1)]));
    let group = [(keyed(), &merged), (other.clone(), &merged), (appended(), &appends), (late.clone(), &appends)];
    let mut outcomes = Vec::new();
    for (spec, batch) in group {
        let mut writer = open(&dir, 2, spec).await;
        outcomes.push(writer.publish(3, None, Some(batch)).await.unwrap().outcome);
        assert_eq!(writer.committed_epoch(), Some(3));
    }
    assert_eq!(outcomes, [Outcome::Skipped, Outcome::Committed, Outcome::Committed, Outcome::Committed]);
    let sql = "select cast(count(*) as bigint), sum(count) from t";
    let totals = |spec: TableSpec| {
        let dir = &dir;
        async move { numbers(dir, &spec, sql).await }
    };
    assert_eq!(totals(keyed()).await, [4, 6]);
    assert_eq!(totals(other).await, [4, 6]);
    let sql = "select cast(count(*) as bigint), sum(epoch) from t";
    for spec in [appended(), late] {
        assert_eq!(numbers(&dir, &spec, sql).await, [6, 12]);
    }
}
