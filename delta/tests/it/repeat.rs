//! Calls that failed or were cut off at any request, and are made again.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use tempfile::TempDir;
use tidemark_delta::{Error, Outcome, Policy, TableSpec, TableWriter, history};
use tidemark_store::Cause;

use crate::points::{Point, Recorded, Template};
use crate::store::{Gate, Judged, Kind, Verdict, full, injected, panics, refused};
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

/// A request that only reads does the same, which is nothing, whether and whenever it is delivered.
fn cuts(point: Point) -> &'static [Cut] {
    let all = &[Cut::NeverDelivered, Cut::NeverAnswered, Cut::DeliveredDuringRepetition, Cut::DeliveredAfterRepetition];
    if point.writes { all } else { &all[..1] }
}

/// A call that is cut off at one of its requests.
struct CutOff {
    point: Point,
    cut: Cut,
    store: Judged,
    reached: Gate,
    done: Gate,
    deliver: Gate,
}

impl CutOff {
    fn at(point: Point, cut: Cut, store: &Judged) -> Self {
        let (done, deliver) = (Gate::closed(), Gate::closed());
        let verdict = match cut {
            Cut::NeverDelivered => Verdict::Stall,
            Cut::NeverAnswered => Verdict::Mute(done.clone()),
            _ => Verdict::Late(deliver.clone()),
        };
        let reached = store.judge_only(point, verdict);
        CutOff { point, cut, store: store.clone(), reached, done, deliver }
    }

    /// Runs the call until it is cut off, and its future is dropped. It may also end before: how many requests are made,
    /// other than those that write, depends on time.
    async fn run<T>(&self, call: impl Future<Output = T>) {
        let stopped = async {
            self.reached.passed().await;
            if self.cut == Cut::NeverAnswered {
                self.done.passed().await;
            }
        };
        tokio::select! {
            _ = call => assert!(!self.point.writes, "{:?} was not reached", self.point),
            () = stopped => {}
        }
        self.store.pass();
        if self.cut == Cut::DeliveredDuringRepetition {
            self.deliver.open();
        }
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

/// A table that holds epoch 1, and where the publication of epoch 2 can be interrupted.
async fn first_epoch(spec: &TableSpec) -> (Template, Vec<Point>) {
    let dir = TempDir::new().unwrap();
    publish(&mut open(&dir, 1, spec.clone()).await, 1).await.unwrap();
    let template = Template::of(dir);
    let copy = template.copy();
    let (mut writer, store) = open_judged(&copy, spec).await;
    let recorded = Recorded::on(&store);
    publish(&mut writer, 2).await.unwrap();
    let points = recorded.points();
    assert!(points.iter().filter(|point| point.writes).count() >= 2, "data and commit: {points:?}");
    (template, points)
}

async fn cut_publications_off(spec: TableSpec) {
    let (template, points) = first_epoch(&spec).await;
    for point in points {
        for cut in cuts(point) {
            let context = format!("{} {cut:?} at {point:?}", spec.name);
            let dir = template.copy();
            let (mut writer, store) = open_judged(&dir, &spec).await;
            let cut_off = CutOff::at(point, *cut, &store);
            cut_off.run(publish(&mut writer, 2)).await;
            if point.number % 2 == 1 {
                writer.maintain(SystemTime::now()).await.expect(&context);
            }
            publish(&mut writer, 2).await.expect(&context);
            cut_off.settle().await;
            publish(&mut writer, 3).await.expect(&context);
            assert_right(&dir, &spec, &context).await;
        }
    }
    assert_eq!(panics(), [""; 0]);
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
async fn fail_publications(spec: TableSpec, verdicts: &[(Verdict, Cause)]) {
    let (template, points) = first_epoch(&spec).await;
    for (verdict, cause) in verdicts {
        let mut failures = 0;
        for point in &points {
            let context = format!("{} {verdict:?} at {point:?}", spec.name);
            let dir = template.copy();
            let (mut writer, store) = open_judged(&dir, &spec).await;
            let reached = store.judge_only(*point, verdict.clone());
            if let Err(error) = publish(&mut writer, 2).await {
                assert_eq!((error.cause(), error.is_retryable()), (*cause, true), "{context}: {error}");
                failures += 1;
            }
            assert!(reached.is_open() || !point.writes, "{context}: not reached");
            store.pass();
            publish(&mut writer, 2).await.expect(&context);
            publish(&mut writer, 3).await.expect(&context);
            assert_right(&dir, &spec, &context).await;
        }
        assert!(failures > 0, "{verdict:?}: nothing failed");
    }
    assert_eq!(panics(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_failed_anywhere_is_repeated() {
    fail_publications(keyed(), &[(Verdict::Fail(full), Cause::Full), (Verdict::Lose(refused), Cause::Refused)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_failed_anywhere_is_repeated() {
    let verdicts = [
        (Verdict::Fail(refused), Cause::Refused),
        (Verdict::Lose(full), Cause::Full),
        (Verdict::Fail(injected), Cause::Passing),
    ];
    fail_publications(appended(), &verdicts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_outlasted() {
    let (template, _) = first_epoch(&keyed()).await;
    for failing in [1, 8, 23] {
        let dir = template.copy();
        let (mut writer, store) = open_judged(&dir, &keyed()).await;
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
            store.judge(move |kind, path| match kind.writes() && path.contains(part) {
                true => verdict.clone(),
                false => Verdict::Pass,
            });
            for _ in 0..2 {
                match publish(&mut writer, 2).await {
                    Err(error) => {
                        assert_eq!(error.cause(), Cause::Full, "{error}");
                    }
                    // A commit counts, though a checkpoint of the log does not fit.
                    Ok(_) => {
                        assert_eq!(part, "checkpoint");
                        let error = writer.checkpoint_log(true).await.unwrap_err();
                        assert!(error.is_retryable() && error.cause() == Cause::Full, "{error}");
                    }
                }
            }
        }
        store.pass();
        for epoch in [2, 3] {
            publish(&mut writer, epoch).await.unwrap();
        }
        assert!(writer.checkpoint_log(true).await.unwrap());
        assert_right(&dir, &spec, &format!("{} {verdict:?}", spec.name)).await;
        writer.maintain(SystemTime::now()).await.unwrap();
    }
    assert_eq!(panics(), [""; 0]);
}

/// What an opening with `generation` finds, and where it can be interrupted.
async fn unopened(generation: i64, spec: &TableSpec) -> (Template, Vec<Point>) {
    let dir = TempDir::new().unwrap();
    if generation > 1 {
        publish(&mut open(&dir, 1, spec.clone()).await, 1).await.unwrap();
    }
    let template = Template::of(dir);
    let (copy, store) = (template.copy(), Judged::new());
    let recorded = Recorded::on(&store);
    TableWriter::open_or_create(&judged_lake(&copy, generation, &store), spec.clone()).await.unwrap();
    (template, recorded.points())
}

/// Publishes what is missing, and finds one table with one fence.
async fn assert_opened(dir: &TempDir, mut writer: TableWriter, context: &str) {
    let spec = writer.spec().clone();
    let generation = transactions(&path(dir, &spec), writer.version())["p/fence"];
    for epoch in 1..4 {
        publish(&mut writer, epoch).await.expect(context);
    }
    assert_right(dir, &spec, context).await;
    let commits = history(&location(dir), &spec.name).await.unwrap();
    let fenced = commits.iter().filter(|commit| commit.fence_txn == Some(generation) && commit.rows_changed == 0);
    assert_eq!(fenced.count(), 1, "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_was_cut_off_anywhere_is_repeated() {
    for generation in [1, 2] {
        let (template, points) = unopened(generation, &appended()).await;
        assert!(points.len() >= 2, "{points:?}");
        for point in points {
            for cut in cuts(point) {
                let context = format!("generation {generation}, {cut:?} at {point:?}");
                let (dir, store) = (template.copy(), Judged::new());
                let lake = judged_lake_with(&dir, generation, &store, policy());
                let cut_off = CutOff::at(point, *cut, &store);
                cut_off.run(TableWriter::open_or_create(&lake, appended())).await;
                let writer = TableWriter::open_or_create(&lake, appended()).await.expect(&context);
                cut_off.settle().await;
                assert_opened(&dir, writer, &context).await;
            }
        }
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
        let (template, points) = unopened(generation, &appended()).await;
        for point in points {
            let context = format!("generation {generation}, {verdict:?} at {point:?}");
            let (dir, store) = (template.copy(), Judged::new());
            let reached = store.judge_only(point, verdict.clone());
            let lake = judged_lake(&dir, generation, &store);
            if let Err(error) = TableWriter::open_or_create(&lake, appended()).await {
                assert_eq!(error.cause(), cause, "{context}: {error}");
            }
            assert!(reached.is_open() || !point.writes, "{context}: not reached");
            store.pass();
            let writer = TableWriter::open_or_create(&lake, appended()).await.expect(&context);
            assert_opened(&dir, writer, &context).await;
        }
    }
    assert_eq!(panics(), [""; 0]);
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
    for spec in [keyed(), other] {
        assert_eq!(rows_and_sum(&dir, &spec, "count").await, [4, 6]);
    }
    for spec in [appended(), late] {
        assert_eq!(rows_and_sum(&dir, &spec, "epoch").await, [6, 12]);
    }
}

/// Eight rows of a megabyte each.
fn large(epoch: i64) -> RecordBatch {
    let mut random = 1_u64;
    let details = (0..8_i64).map(|position| {
        let letters = (0..1_000_000).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + u8::try_from(random >> 58).unwrap())
        });
        (epoch, position, Some(letters.collect::<String>()))
    });
    rejected_with(details)
}

/// Whatever there is to write, and also once the writer has made a checkpoint, or met a commit of somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_one_request_for_data_and_one_for_the_log() {
    for (spec, batch) in [(keyed(), users(&[("a", 1, 1)])), (appended(), rejected([])), (appended(), large(1))] {
        let dir = TempDir::new().unwrap();
        let store = Judged::new();
        let policy = Policy { compact_after_files: 2, checkpoint_interval_commits: 2, ..policy() };
        let lake = judged_lake_with(&dir, 1, &store, policy);
        let mut writer = TableWriter::open_or_create(&lake, spec.clone()).await.unwrap();
        for epoch in 1..7_u64 {
            let recorded = Recorded::on(&store);
            writer.publish(2 * epoch, None, Some(&batch)).await.unwrap();
            let with_data = batch.num_rows() > 0 && (epoch == 1 || spec.name == keyed().name);
            let expected = if with_data { vec![Kind::Put, Kind::Put] } else { vec![Kind::Put] };
            assert_eq!(recorded.kinds(), expected, "{}, epoch {epoch}", spec.name);
            match epoch {
                2 | 3 => drop(writer.checkpoint_log(true).await.unwrap()),
                4 => foreign_optimize(&dir, &spec).await,
                _ => drop(writer.maintain(SystemTime::now()).await.unwrap()),
            }
            // After a commit of somebody else the log is read once.
            if epoch == 4 {
                writer.publish(9, None, Some(&batch)).await.unwrap();
            }
        }
    }
}
