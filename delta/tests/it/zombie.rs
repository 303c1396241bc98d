//! Writers that were paused, or killed with a request on its way, and wake up, or arrive, after a take-over.

use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use tempfile::TempDir;
use tidemark_delta::{Error, Lake, Maintained, Policy, TableSpec, TableWriter, history};
use tokio::task::JoinHandle;

use crate::points::{Point, Recorded, Template};
use crate::store::{Gate, Judged, Verdict};
use crate::support::*;

/// What a writer of this generation publishes in an epoch.
fn rows(spec: &TableSpec, generation: i64, epoch: i64) -> RecordBatch {
    match spec.name == keyed().name {
        true => {
            users(&[("a", i128::from(generation), epoch), (["b", "c"][usize::try_from(generation - 1).unwrap()], 1, 1)])
        }
        false => rejected([(epoch, generation)]),
    }
}

async fn publish(writer: &mut TableWriter, generation: i64, epoch: u64) -> Result<(), Error> {
    let batch = rows(writer.spec(), generation, i64::try_from(epoch).unwrap());
    writer.publish(epoch, None, Some(&batch)).await?;
    // While the library makes a checkpoint it does not come back to whoever waits for a request of it that is held.
    if epoch % 2 == 1 { writer.checkpoint_log(true).await.map(drop) } else { Ok(()) }
}

async fn all_rows(dir: &TempDir, spec: &TableSpec) -> String {
    match spec.name == keyed().name {
        true => format!("{:?}", read_users(dir, None).await),
        false => format!("{:?}", read_rejected(dir, None).await),
    }
}

fn is_fenced<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Fenced { held: 2, ours: 1, .. }))
}

/// How long log files live on, where the new writer cleans up while the old one is paused.
const SHORT: Duration = Duration::from_millis(200);

fn cleaning() -> Policy {
    Policy { clean_every: Duration::ZERO, checkpoint_interval_commits: 2, compact_after_files: 4, ..policy() }
}

/// The same, where log files expire so soon that they do while a writer is paused.
fn forgetting() -> Policy {
    Policy { log_retention: SHORT, allow_short_retention: true, ..cleaning() }
}

/// A writer of generation 1 on a store of its own.
async fn first_writer(dir: &TempDir, spec: &TableSpec) -> (TableWriter, Judged) {
    first_writer_with(dir, spec, cleaning()).await
}

async fn first_writer_with(dir: &TempDir, spec: &TableSpec, policy: Policy) -> (TableWriter, Judged) {
    let store = Judged::new();
    let lake = judged_lake_with(dir, 1, &store, policy);
    (TableWriter::open_or_create(&lake, spec.clone()).await.unwrap(), store)
}

async fn second_writer(dir: &TempDir, spec: &TableSpec) -> TableWriter {
    TableWriter::open_or_create(&lake_with(dir, 2, cleaning()), spec.clone()).await.unwrap()
}

/// Takes the table over; what the writer before left of epoch 2 stays.
async fn take_over(dir: &TempDir, spec: &TableSpec, clean_up: bool) -> (TableWriter, Option<u64>) {
    let mut writer = second_writer(dir, spec).await;
    let adopted = writer.committed_epoch();
    for epoch in 2..5 {
        publish(&mut writer, 2, epoch).await.unwrap();
        if clean_up {
            writer.maintain(SystemTime::now() + 2 * HOUR).await.unwrap();
        }
    }
    (writer, adopted)
}

/// Runs a call until it reaches the gate; `None` when it ends before.
async fn until<T: Send + 'static>(
    reached: &Gate,
    call: impl Future<Output = T> + Send + 'static,
) -> Option<JoinHandle<T>> {
    let mut call = tokio::spawn(call);
    tokio::select! {
        _ = &mut call => None,
        () = reached.passed() => Some(call),
    }
}

/// On a busy machine what a writer knows of its log may have expired before it comes to the point: then it is tried again.
const ATTEMPTS: usize = 10;

/// How many requests a call makes, other than those that write, depends on time: it may end before it is paused.
fn reached_or_read<T>(paused: Option<T>, point: Point) -> Option<T> {
    assert!(paused.is_some() || !point.writes, "{point:?} was not reached");
    paused
}

/// A table that holds epoch 1, and where the publication of epoch 2 can be interrupted.
async fn first_epoch(spec: &TableSpec) -> (Template, Vec<Point>) {
    let dir = TempDir::new().unwrap();
    publish(&mut first_writer(&dir, spec).await.0, 1, 1).await.unwrap();
    let template = Template::of(dir);
    let copy = template.copy();
    let (mut writer, store) = first_writer(&copy, spec).await;
    let recorded = Recorded::on(&store);
    publish(&mut writer, 1, 2).await.unwrap();
    let points = recorded.points();
    assert!(points.iter().filter(|point| point.writes).count() >= 2, "data and commit: {points:?}");
    (template, points)
}

/// Pauses a publication at its requests. The request is on its way meanwhile, and delivered after the take-over.
async fn pause_publications(spec: TableSpec, clean_up: bool) {
    let (template, points) = first_epoch(&spec).await;
    for point in points {
        let context = format!("{}, clean-up {clean_up}, paused at {point:?}", spec.name);
        let mut attempts = 0;
        let (dir, store, gate, paused) = loop {
            let dir = template.copy();
            let policy = if clean_up { forgetting() } else { cleaning() };
            let (mut old, store) = first_writer_with(&dir, &spec, policy).await;
            let gate = Gate::closed();
            let reached = store.judge_only(point, Verdict::Hold(gate.clone()));
            let paused = until(&reached, async move { (publish(&mut old, 1, 2).await, old) }).await;
            attempts += 1;
            if paused.is_some() || !clean_up || attempts == ATTEMPTS {
                break (dir, store, gate, paused);
            }
        };
        let Some(paused) = reached_or_read(paused, point) else { continue };
        let (mut new, adopted) = take_over(&dir, &spec, clean_up).await;
        let (left, version) = (all_rows(&dir, &spec).await, new.version());
        if clean_up {
            // Only time says that the log may have expired.
            tokio::time::sleep(SHORT).await;
        }
        gate.open();
        let (result, mut old) = paused.await.unwrap();
        // It may hear of a commit that was made before the take-over. Where the log has expired since, its late commit finds
        // its place free again, among versions that nobody reads any more, and it must not believe in it.
        assert!(is_fenced(&result) || (result.is_ok() && adopted == Some(2) && !clean_up), "{context}: {result:?}");
        assert!(is_fenced(&old.publish(8, None, None).await), "{context}");
        assert!(is_fenced(&publish(&mut old, 1, 9).await), "{context}");
        assert!(is_fenced(&old.maintain(SystemTime::now() + 2 * HOUR).await), "{context}");
        let again = TableWriter::open_or_create(&judged_lake(&dir, 1, &store), spec.clone()).await;
        assert!(is_fenced(&again), "{context}");
        assert_same(&dir, &spec, (left, version), &context).await;
        publish(&mut new, 2, 9).await.expect(&context);
        assert_unbroken(&dir, &spec, version + 1, &context).await;
    }
}

async fn assert_same(dir: &TempDir, spec: &TableSpec, (rows, version): (String, u64), context: &str) {
    assert_eq!(all_rows(dir, spec).await, rows, "{context}");
    assert_eq!(load(dir, spec, None).await.version(), Some(version), "{context}");
}

/// The readable history ends at `version` and holds nothing of generation 1 after anything of generation 2.
async fn assert_unbroken(dir: &TempDir, spec: &TableSpec, version: u64, context: &str) {
    let commits = history(&location(dir), &spec.name).await.unwrap();
    assert_eq!(commits.last().map(|commit| commit.version), Some(version), "{context}");
    assert!(commits.is_sorted_by_key(|commit| (commit.fence_txn, commit.epoch_txn)), "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_was_paused_anywhere_is_fenced() {
    pause_publications(keyed(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_paused_anywhere_is_fenced() {
    pause_publications(appended(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_paused_until_its_log_expired_changes_nothing() {
    pause_publications(keyed(), true).await;
}

/// The writer is gone; its request comes all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_writers_request_changes_nothing() {
    for (spec, clean_up) in [(keyed(), false), (appended(), false), (appended(), true)] {
        let (template, points) = first_epoch(&spec).await;
        for point in points.into_iter().filter(|point| point.writes) {
            let context = format!("{}, clean-up {clean_up}, killed at {point:?}", spec.name);
            let dir = template.copy();
            let (mut old, store) = first_writer(&dir, &spec).await;
            let gate = Gate::closed();
            let reached = store.judge_only(point, Verdict::Late(gate.clone()));
            let killed = until(&reached, async move { publish(&mut old, 1, 2).await }).await.expect(&context);
            killed.abort();
            let (mut new, _) = take_over(&dir, &spec, clean_up).await;
            let (left, version) = (all_rows(&dir, &spec).await, new.version());
            gate.open();
            store.late.subscribe().wait_for(|late| *late > 0).await.unwrap();
            assert_same(&dir, &spec, (left, version), &context).await;
            publish(&mut new, 2, 9).await.expect(&context);
            assert_unbroken(&dir, &spec, version + 1, &context).await;
        }
    }
}

/// Makes everything in a table's directory three hours older.
fn age(dir: &TempDir, spec: &TableSpec) {
    let then = SystemTime::now() - 3 * HOUR;
    let table = path(dir, spec);
    for directory in [table.join("_delta_log"), table] {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(then).unwrap();
            }
        }
    }
}

/// Where maintenance has everything to do: it compacts, deletes, and expires its log. Returns when that is.
async fn due(spec: &TableSpec, clean_up: bool) -> (Template, SystemTime, Vec<Point>) {
    let dir = TempDir::new().unwrap();
    let (mut writer, _) = first_writer(&dir, spec).await;
    for epoch in 1..5 {
        publish(&mut writer, 1, epoch).await.unwrap();
    }
    std::fs::write(path(&dir, spec).join("part-orphan.parquet"), "expired").unwrap();
    let now = SystemTime::now() + if clean_up { Duration::ZERO } else { 2 * HOUR };
    let template = Template::of(dir);
    let copy = template.copy();
    if clean_up {
        age(&copy, spec);
    }
    let (mut writer, store) = first_writer(&copy, spec).await;
    let recorded = Recorded::on(&store);
    writer.maintain(now).await.unwrap();
    (template, now, recorded.points())
}

/// Pauses maintenance at its requests. Either the paused writer's clock says that everything has expired, also what the
/// new one writes; or it is right, and the new one, hours later, has cleaned up in between.
async fn pause_maintenance(spec: TableSpec, clean_up: bool) {
    let (template, now, points) = due(&spec, clean_up).await;
    let (pauses, mut finished) = (points.len(), 0);
    for point in points {
        let context = format!("{}, clean-up {clean_up}, paused at {point:?}", spec.name);
        let mut attempts = 0;
        let (dir, gate, paused) = loop {
            let dir = template.copy();
            if clean_up {
                age(&dir, &spec);
            }
            let policy = if clean_up { forgetting() } else { cleaning() };
            let (mut old, store) = first_writer_with(&dir, &spec, policy).await;
            let gate = Gate::closed();
            let reached = store.judge_only(point, Verdict::Hold(gate.clone()));
            let paused = until(&reached, async move { (old.maintain(now).await, old) }).await;
            attempts += 1;
            if paused.is_some() || !clean_up || attempts == ATTEMPTS {
                break (dir, gate, paused);
            }
        };
        let Some(paused) = reached_or_read(paused, point) else { continue };
        let mut new = second_writer(&dir, &spec).await;
        for epoch in 5..7 {
            publish(&mut new, 2, epoch).await.expect(&context);
            if clean_up {
                new.maintain(SystemTime::now() + 2 * HOUR).await.expect(&context);
            }
        }
        let left = all_rows(&dir, &spec).await;
        if clean_up {
            tokio::time::sleep(SHORT).await;
        }
        gate.open();
        let (result, mut old): (Result<Maintained, Error>, _) = paused.await.unwrap();
        // It may find log files gone that it has just listed, and has yet to find out why.
        let harmless = |error: &Error| clean_up && error.is_retryable();
        let ended = is_fenced(&result) || result.as_ref().map_or_else(harmless, |_| true);
        assert!(ended, "{context}: {result:?}");
        finished += usize::from(result.is_ok());
        assert_eq!(all_rows(&dir, &spec).await, left, "{context}");
        assert!(is_fenced(&publish(&mut old, 1, 7).await), "{context}");
        new.maintain(SystemTime::now()).await.expect(&context);
        let mut reopened = second_writer(&dir, &spec).await;
        publish(&mut reopened, 2, 9).await.expect(&context);
        assert_unbroken(&dir, &spec, reopened.version(), &context).await;
    }
    assert!(pauses >= 8 && finished < pauses, "{finished} of {pauses} pauses went unnoticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_that_was_paused_anywhere_harms_nothing() {
    pause_maintenance(appended(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_that_was_paused_anywhere_harms_nothing() {
    pause_maintenance(keyed(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_that_was_paused_while_another_cleaned_up_harms_nothing() {
    pause_maintenance(appended(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_through_a_whole_generation_is_refused() {
    for spec in [keyed(), appended()] {
        let dir = TempDir::new().unwrap();
        let lake: Lake = lake_with(&dir, 1, cleaning());
        let mut old = TableWriter::open_or_create(&lake, spec.clone()).await.unwrap();
        publish(&mut old, 1, 1).await.unwrap();
        drop(take_over(&dir, &spec, true).await);
        let left = all_rows(&dir, &spec).await;
        assert!(is_fenced(&old.maintain(SystemTime::now() + 2 * HOUR).await));
        assert!(is_fenced(&publish(&mut old, 1, 2).await));
        assert!(is_fenced(&old.publish(5, None, None).await));
        assert!(is_fenced(&TableWriter::open_or_create(&lake, spec.clone()).await));
        assert_eq!(all_rows(&dir, &spec).await, left);
    }
}
