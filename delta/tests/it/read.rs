//! Reading for checks: what the log says, tables at versions, what a table holds.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use tempfile::TempDir;
use tidemark_delta::{Error, Kind, Location, Policy, Predicate, Scan, Standing, TableWriter, history, standing};

use crate::store::{Judged, Kind as Request, Verdict, injected};
use crate::support::*;

#[tokio::test]
async fn the_history_tells_who_brought_the_table_to_which_epoch() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    writer.publish(4, Some(70), Some(&users(&[("a", 1, 1), ("b", 1, 1)]))).await.unwrap();
    let mut writer = open(&dir, 2, keyed()).await;
    writer.publish(5, Some(80), None).await.unwrap();
    let added = foreign_file(&dir, &keyed(), &users(&[("c", 1, 1)]), true);
    foreign(&dir, &keyed(), "WRITE", &[added]);
    let commits = history(&location(&dir), &keyed().name).await.unwrap();
    let told: Vec<_> = commits
        .iter()
        .map(|c| (c.version, c.kind, c.generation, c.epoch, c.watermark, c.epoch_txn, c.fence_txn, c.rows_changed))
        .collect();
    let expected = [
        (0, Some(Kind::Create), Some(1), None, None, None, Some(1), 0),
        (1, Some(Kind::Publish), Some(1), Some(4), Some(70), Some(4), Some(1), 2),
        (2, Some(Kind::Fence), Some(2), Some(4), None, Some(4), Some(2), 0),
        (3, Some(Kind::Publish), Some(2), Some(5), Some(80), Some(5), Some(2), 0),
        (4, None, None, None, None, None, None, 1),
    ];
    assert_eq!(told, expected);
    assert!(commits[..4].iter().all(|commit| commit.pipeline.as_deref() == Some(PIPELINE)));
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    assert!(commits[..4].iter().all(|commit| (now - 60_000..=now).contains(&commit.timestamp_ms.unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_unbroken_while_a_writer_goes_on_and_its_log_expires() {
    let dir = TempDir::new().unwrap();
    let policy = Policy { clean_every: Duration::ZERO, checkpoint_interval_commits: 5, ..policy() };
    let mut writer = TableWriter::open_or_create(&lake_with(&dir, 1, policy), appended()).await.unwrap();
    let writing = tokio::spawn(async move {
        for epoch in 1..41 {
            writer.publish(epoch, None, Some(&rejected([(i64::try_from(epoch).unwrap(), 0)]))).await.unwrap();
            writer.checkpoint_log(true).await.unwrap();
            writer.maintain(SystemTime::now() + 2 * HOUR).await.unwrap();
        }
        writer.version()
    });
    let mut oldest = HashSet::new();
    while !writing.is_finished() {
        let commits = history(&location(&dir), &appended().name).await.unwrap();
        assert!(
            commits.windows(2).all(|pair| pair[0].version + 1 == pair[1].version && pair[0].epoch <= pair[1].epoch)
        );
        oldest.extend(commits.first().map(|commit| commit.version));
    }
    let newest = writing.await.unwrap();
    let commits = history(&location(&dir), &appended().name).await.unwrap();
    assert_eq!(commits.last().map(|commit| (commit.version, commit.epoch_txn)), Some((newest, Some(40))));
    assert!(commits[0].version > 0 && oldest.len() > 1, "nothing expired: {oldest:?}");
}

/// A late request can put a file where an expired one was.
#[tokio::test]
async fn the_history_begins_after_the_last_gap() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    for epoch in 1..5 {
        writer.publish(epoch, None, None).await.unwrap();
    }
    std::fs::remove_file(path(&dir, &keyed()).join(format!("_delta_log/{:020}.json", 2))).unwrap();
    let commits = history(&location(&dir), &keyed().name).await.unwrap();
    assert_eq!(commits.iter().map(|commit| commit.version).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn tables_are_read_at_the_versions_of_one_epoch() {
    let dir = TempDir::new().unwrap();
    let (mut keyed_writer, mut append_writer) = (open(&dir, 1, keyed()).await, open(&dir, 1, appended()).await);
    for epoch in 1..4_i64 {
        let batch = users(&[("a", i128::from(epoch), epoch)]);
        keyed_writer.publish(epoch.unsigned_abs(), None, Some(&batch)).await.unwrap();
        append_writer.publish(epoch.unsigned_abs(), None, Some(&rejected([(epoch, 0)]))).await.unwrap();
    }
    let (location, keyed, appended) = (location(&dir), keyed().name, appended().name);
    for epoch in 1..4_i64 {
        let version = Some(epoch.unsigned_abs());
        assert_eq!(sum(&location, &keyed, version, "count").await.unwrap(), (1, epoch));
        assert_eq!(sum(&location, &appended, version, "position").await.unwrap(), (epoch.unsigned_abs(), 0));
    }
    assert_eq!(sum(&location, &keyed, None, "count").await.unwrap(), (1, 3));
    assert!(sum(&location, &keyed, Some(9), "count").await.is_err());
}

/// How many rows a table has, and the sum of a column.
async fn sum(location: &Location, table: &str, version: Option<u64>, column: &str) -> Result<(u64, i64), Error> {
    let scan = Scan { table, version, columns: &[column], predicate: Predicate::default() };
    let add = |(rows, sum): &mut (u64, i64), batch: &RecordBatch| {
        *rows += batch.num_rows() as u64;
        *sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    };
    scan.fold(location, || (0, 0), add).await
}

/// A table of epochs 1 to 5 with a file each, of two rows; and a place to read it from, on a store that the test judges.
async fn five_files(dir: &TempDir, store: &Judged) -> Location {
    let mut writer = open(dir, 1, appended()).await;
    for epoch in 1..6_u32 {
        let detail = |position: i64| (i64::from(epoch), position, Some(format!("{epoch}/{position}")));
        writer.publish(epoch.into(), None, Some(&rejected_with([detail(0), detail(1)]))).await.unwrap();
    }
    location(dir).with_store(Arc::new(store.clone()))
}

fn is_data(path: &str) -> bool {
    path.ends_with(".parquet") && !path.contains("_delta_log")
}

/// The details that a scan hands out, sorted.
async fn details(location: &Location, predicate: Predicate) -> Vec<String> {
    let table = appended().name;
    let scan = Scan { table: &table, version: None, columns: &["detail"], predicate };
    let take = |all: &mut Vec<String>, batch: &RecordBatch| {
        all.extend(batch.column(0).as_string::<i32>().iter().map(|detail| detail.unwrap().to_owned()));
    };
    let mut all = scan.fold(location, Vec::new, take).await.unwrap();
    all.sort();
    all
}

#[tokio::test]
async fn a_predicate_selects_rows_and_passes_over_files() {
    let (dir, store) = (TempDir::new().unwrap(), Judged::new());
    let location = five_files(&dir, &store).await;
    let any = Predicate::default;
    for (predicate, rows, files) in [
        (any(), &["1/0", "1/1", "2/0", "2/1", "3/0", "3/1", "4/0", "4/1", "5/0", "5/1"][..], 5),
        (any().between("epoch", 2..=3), &["2/0", "2/1", "3/0", "3/1"], 2),
        (any().long_in("epoch", [1, 4, 9]).long_in("position", [1]), &["1/1", "4/1"], 2),
        (any().long_in("position", [0]).between("epoch", 5..=i64::MAX), &["5/0"], 1),
        // Of the columns beside the epoch there are no statistics.
        (any().text_in("detail", ["3/1", "5/0", "6/0"]), &["3/1", "5/0"], 5),
        (any().between("epoch", 6..=9), &[], 0),
    ] {
        let opened = Arc::new(Mutex::new(HashSet::new()));
        let of_store = Arc::clone(&opened);
        store.judge(move |kind, path| {
            if kind == Request::Get && is_data(path) {
                of_store.lock().unwrap().insert(path.to_owned());
            }
            Verdict::Pass
        });
        assert_eq!(details(&location, predicate.clone()).await, rows, "{predicate:?}");
        assert_eq!(opened.lock().unwrap().len(), files, "{predicate:?}");
    }
}

#[tokio::test]
async fn columns_come_in_the_order_in_which_they_are_asked_for() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    writer.publish(1, None, Some(&users(&[("a", 5, 2), ("b", 7, 1)]))).await.unwrap();
    let (location, table) = (location(&dir), keyed().name);
    let read = async |columns: &[&str], predicate| {
        let scan = Scan { table: &table, version: None, columns, predicate };
        scan.fold(&location, Vec::new, |all: &mut Vec<RecordBatch>, batch| all.push(batch.clone())).await
    };
    let b = || Predicate::default().text_in("id", ["b"]);
    for columns in [&["count", "id", "total"][..], &["total", "count"], &["updated_at"]] {
        let batches = read(columns, b()).await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        for (column, field) in columns.iter().zip(batches[0].schema().fields()) {
            let specified = keyed().schema.field_with_name(column).unwrap().clone();
            assert_eq!((field.name().as_str(), field.data_type()), (*column, specified.data_type()));
        }
    }
    let batches = read(&["count", "id"], b()).await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(batch.column(1).as_string::<i32>().value(0), "b");
    let none = read(&[], Predicate::default()).await.unwrap();
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let missing = read(&["id", "missing"], Predicate::default()).await.unwrap_err();
    assert!(matches!(missing, Error::StateMismatch { .. }), "{missing}");
}

#[tokio::test]
async fn a_scan_that_is_repeated_counts_nothing_twice() {
    let (dir, store) = (TempDir::new().unwrap(), Judged::new());
    let location = five_files(&dir, &store).await;
    // The request after the first files, and one of those that follow on it.
    for fails in [5, 6] {
        let requests = Mutex::new(0);
        store.judge(move |kind, path| {
            let mut requests = requests.lock().unwrap();
            *requests += usize::from(kind == Request::Get && is_data(path));
            if *requests == fails && is_data(path) { Verdict::Fail(injected) } else { Verdict::Pass }
        });
        let starts = AtomicUsize::new(0);
        let start = || (starts.fetch_add(1, Relaxed), 0);
        let name = appended().name;
        let scan = Scan { table: &name, version: None, columns: &["position"], predicate: Predicate::default() };
        let mut batches = 0;
        let count = |(_, rows): &mut (usize, usize), batch: &RecordBatch| {
            batches += 1;
            *rows += batch.num_rows();
        };
        assert_eq!(scan.fold(&location, start, count).await.unwrap(), (1, 10));
        assert!(batches > 5, "it failed before the first file: {batches}");
    }
}

#[tokio::test]
async fn what_a_table_holds_is_told_without_touching_it() {
    let dir = TempDir::new().unwrap();
    let (location, name) = (location(&dir), keyed().name);
    assert_eq!(standing(&location, PIPELINE, &name).await.unwrap(), None);
    assert!(history(&location, &name).await.is_err() && sum(&location, &name, None, "count").await.is_err());
    assert!(!path(&dir, &keyed()).exists(), "reading made a directory");
    std::fs::create_dir_all(path(&dir, &keyed())).unwrap();
    assert_eq!(standing(&location, PIPELINE, &name).await.unwrap(), None);
    let mut writer = open(&dir, 3, keyed()).await;
    let lineage = Some(LINEAGE);
    assert_eq!(
        standing(&location, PIPELINE, &name).await.unwrap(),
        Some(Standing { lineage, epoch: None, fence: Some(3), version: 0, damage: None, foreign: None })
    );
    writer.publish(8, None, None).await.unwrap();
    assert_eq!(
        standing(&location, PIPELINE, &name).await.unwrap(),
        Some(Standing { lineage, epoch: Some(8), fence: Some(3), version: 1, damage: None, foreign: None })
    );
    assert_eq!(
        standing(&location, "another", &name).await.unwrap(),
        Some(Standing { lineage, epoch: None, fence: None, version: 1, damage: None, foreign: None })
    );
    writer.publish(9, None, None).await.unwrap();
    assert_eq!(writer.version(), 2, "reading made a commit");
}
