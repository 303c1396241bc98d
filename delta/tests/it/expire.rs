//! What a table does not keep for ever: what goes, when, what stays, and what of it is left on the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use tempfile::TempDir;
use tidemark_delta::{
    Expired, Expires, Expiry, Lake, Policy, Shape, TableSpec, TableWriter, damaged_files, expired, history,
};

use crate::points::{Recorded, Template};
use crate::store::{Judged, Verdict, injected};
use crate::support::*;

const DAY: Duration = Duration::from_secs(86_400);

fn values() -> Expires {
    Expires::Values {
        columns: vec!["payload".to_owned(), "detail".to_owned()],
        marked: "encoding".to_owned(),
        word: "omitted".to_owned(),
    }
}

fn rows() -> Expires {
    Expires::Rows { summed: vec!["count".to_owned()] }
}

/// Kept for ten days, or for ever.
fn kept(what: Option<Expires>) -> TableSpec {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    TableSpec {
        schema: Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false),
            Field::new("at", time, false),
            Field::new("payload", DataType::Utf8, false),
            Field::new("encoding", DataType::Utf8, false),
            Field::new("detail", DataType::Utf8, true),
            Field::new("count", DataType::Int64, false),
        ])),
        bounded: vec!["at".to_owned(), "encoding".to_owned()],
        expiry: what.map(|what| Expiry { column: "at".to_owned(), after: 10 * DAY, what }),
        ..appended()
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn micros(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// What no file may hold once it has expired. Without compression it would stand there as it is.
fn secret(epoch: i64) -> String {
    format!("secret-{epoch:04}-{}", "x".repeat(40))
}

/// Two rows of an epoch.
fn batch(epoch: i64, at: SystemTime) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![epoch; 2])),
        Arc::new(TimestampMicrosecondArray::from(vec![micros(at); 2]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![secret(epoch); 2])),
        Arc::new(StringArray::from(vec!["utf-8"; 2])),
        Arc::new(StringArray::from(vec![Some(secret(epoch)), None])),
        Arc::new(Int64Array::from(vec![epoch; 2])),
    ];
    RecordBatch::try_new(kept(None).schema, columns).unwrap()
}

fn lake_of(dir: &TempDir, generation: i64) -> Lake {
    let policy = Policy { compact_after_files: 4, checkpoint_interval_commits: 10, ..policy() };
    lake_with(dir, generation, policy)
}

async fn open_kept(dir: &TempDir, generation: i64, what: Option<Expires>) -> TableWriter {
    TableWriter::open_or_create(&lake_of(dir, generation), kept(what)).await.unwrap()
}

/// An epoch a day.
fn time_of(epoch: u64) -> SystemTime {
    start() + DAY * u32::try_from(epoch).unwrap()
}

async fn publish(writer: &mut TableWriter, epoch: u64) {
    let rows = batch(i64::try_from(epoch).unwrap(), time_of(epoch));
    writer.publish(epoch, None, Some(&rows)).await.unwrap();
}

/// The rows by epoch: how many, how many of them without a payload, and how many say that they have none.
async fn read(dir: &TempDir) -> BTreeMap<i64, [usize; 3]> {
    let mut found = BTreeMap::new();
    for batch in batches(dir, &kept(None), None).await {
        let epochs = batch.column(0).as_primitive::<Int64Type>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let [payloads, encodings, details] = [2, 3, 4].map(|index| batch.column(index).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let epoch = epochs.value(row);
            assert_eq!(times.value(row), micros(time_of(epoch.cast_unsigned())), "a row has another time");
            let of: &mut [usize; 3] = found.entry(epoch).or_default();
            let gone = payloads.value(row).is_empty();
            assert!(gone && details.is_null(row) || payloads.value(row) == secret(epoch));
            of[0] += 1;
            of[1] += usize::from(gone);
            of[2] += usize::from(encodings.value(row) == "omitted");
        }
    }
    found
}

/// Whether a row of an epoch must have expired by then, or may not; in between it may or may not.
fn must(epoch: u64, now: SystemTime) -> Option<bool> {
    let age = now.duration_since(time_of(epoch)).unwrap_or_default();
    match () {
        () if age < 10 * DAY => Some(false),
        () if age > 10 * DAY + 10 * DAY / 24 => Some(true),
        () => None,
    }
}

/// Whether a text stands in any file below a folder, in a page or a footer or a log. What the tests write is too short for the
/// codec to find anything to take together, but for repetitions.
fn is_found(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| match entry.file_type().unwrap().is_dir() {
        true => is_found(&entry.path(), text),
        false => contains(&std::fs::read(entry.path()).unwrap(), &text.as_bytes()[..12]),
    })
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_when_they_are_old_and_no_byte_of_them_is_left_after_vacuum() {
    let dir = TempDir::new().unwrap();
    let mut writer = open_kept(&dir, 1, Some(values())).await;
    for epoch in 1..=30 {
        publish(&mut writer, epoch).await;
        let now = time_of(epoch) + HOUR;
        writer.maintain(now).await.unwrap();
        for (found, [rows, gone, marked]) in read(&dir).await {
            assert_eq!((rows, gone), (2, marked), "epoch {found} at {epoch}");
            match must(found.cast_unsigned(), now) {
                Some(true) => assert_eq!(gone, 2, "epoch {found} at {epoch}"),
                Some(false) => assert_eq!(gone, 0, "epoch {found} at {epoch}"),
                None => {}
            }
        }
        let version = writer.version();
        writer.maintain(now + Duration::from_secs(1)).await.unwrap();
        assert_eq!(writer.version(), version, "what has been done is not done again");
    }
    let table = path(&dir, &kept(None));
    assert!((1..=30).all(|epoch| is_found(&table, &secret(epoch))), "all of it is in files of before");
    writer.maintain(SystemTime::now() + 2 * HOUR + 400 * DAY).await.unwrap();
    assert!((1..=30).all(|epoch| !is_found(&table, &secret(epoch))), "{:?}", files(&table, ""));
    assert_eq!(read(&dir).await.len(), 30);
    assert!(damaged_files(&location(&dir), &kept(None).name, writer.version()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_when_they_are_old_and_what_they_were_in_all_stays() {
    let dir = TempDir::new().unwrap();
    let mut writer = open_kept(&dir, 1, Some(rows())).await;
    for epoch in 1..=30 {
        publish(&mut writer, epoch).await;
        let now = time_of(epoch) + HOUR;
        writer.maintain(now).await.unwrap();
        writer.checkpoint_log(true).await.unwrap();
        if epoch % 7 == 0 {
            writer = open_kept(&dir, i64::try_from(epoch).unwrap(), Some(rows())).await;
        }
        let left: Vec<u64> = read(&dir).await.into_keys().map(i64::cast_unsigned).collect();
        let first = *left.first().unwrap();
        assert_eq!(left, (first..=epoch).collect::<Vec<_>>());
        assert!((1..first).all(|gone| must(gone, now) != Some(false)), "{first} at {epoch}");
        assert!(left.iter().all(|left| must(*left, now) != Some(true)), "{first} at {epoch}");
        let gone = expired(&location(&dir), &kept(None).name, writer.version()).await.unwrap();
        let first = i64::try_from(first).unwrap();
        let sums = [("count".to_owned(), first * (first - 1))].into();
        let whole = Expired { epoch: first - 1, rows: 2 * (first - 1).cast_unsigned(), sums };
        assert_eq!(gone, Some(whole).filter(|whole| whole.rows > 0));
    }
    // Everything can go.
    writer.maintain(time_of(60)).await.unwrap();
    assert!(read(&dir).await.is_empty());
    publish(&mut writer, 61).await;
    assert_eq!(read(&dir).await.into_keys().collect::<Vec<_>>(), [61]);
}

/// Files of before say nothing of times; rows of several slices are in one file.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_kept_for_ever_follow_and_files_stay_few() {
    for what in [values(), rows()] {
        let dir = TempDir::new().unwrap();
        let before = TableSpec { bounded: vec![], ..kept(None) };
        let mut writer = TableWriter::open_or_create(&lake_of(&dir, 1), before).await.unwrap();
        for epoch in 1..=11 {
            publish(&mut writer, epoch).await;
            writer.maintain(time_of(epoch)).await.unwrap();
        }
        let mut writer = open_kept(&dir, 2, Some(what.clone())).await;
        writer.maintain(time_of(13)).await.unwrap();
        let found = read(&dir).await;
        for epoch in 1..=11 {
            let whole = found.get(&epoch) == Some(&[2, 0, 0]);
            assert!(must(epoch.cast_unsigned(), time_of(13)).is_none_or(|gone| gone != whole), "{epoch} of {found:?}");
        }
        let mut most = 0;
        for step in 1..=150_u32 {
            let (epoch, now) = (100 + u64::from(step), time_of(14) + 2 * HOUR * step);
            let rows = batch(i64::try_from(epoch).unwrap(), now);
            writer.publish(epoch, None, Some(&rows)).await.unwrap();
            writer.maintain(now).await.unwrap();
            writer.checkpoint_log(true).await.unwrap();
            if step % 5 == 0 {
                let table = load(&dir, &kept(None), None).await;
                most = most.max(table.snapshot().unwrap().log_data().num_files());
            }
        }
        // 25 slices of which each is one or few files, the newest with up to four small ones.
        assert!(most <= 60, "{most} files");
    }
}

/// Whatever fails, or is lost, on the way: what goes is gone once, with its sums.
#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_failed_anywhere_is_repeated() {
    for what in [values(), rows()] {
        let template = TempDir::new().unwrap();
        let mut writer = open_kept(&template, 1, Some(what.clone())).await;
        for epoch in 1..=6 {
            publish(&mut writer, epoch).await;
        }
        let template = Template::of(template);
        let now = time_of(14);
        let judged = async |dir: &TempDir, store: &Judged| {
            let policy = Policy { compact_after_files: 4, ..policy() };
            let lake = judged_lake_with(dir, 2, store, policy);
            TableWriter::open_or_create(&lake, kept(Some(what.clone()))).await.unwrap()
        };
        let (copy, store) = (template.copy(), Judged::new());
        let mut writer = judged(&copy, &store).await;
        let recorded = Recorded::on(&store);
        writer.maintain(now).await.unwrap();
        let points = recorded.points();
        assert!(points.iter().any(|point| point.writes), "{points:?}");
        for point in points {
            for verdict in [Verdict::Fail(injected), Verdict::Lose(injected), Verdict::Twice] {
                let context = format!("{what:?} {point:?} {verdict:?}");
                let (dir, store) = (template.copy(), Judged::new());
                let mut writer = judged(&dir, &store).await;
                store.judge_only(point, verdict);
                let first = writer.maintain(now).await;
                assert!(first.as_ref().err().is_none_or(|error| error.is_retryable()), "{context}: {first:?}");
                store.pass();
                writer.maintain(now).await.unwrap();
                assert_expired(&dir, &what, writer.version(), &context).await;
            }
        }
    }
}

/// Of the epochs 1 to 6 the first three have expired, or four.
async fn assert_expired(dir: &TempDir, what: &Expires, version: u64, context: &str) {
    let found = read(dir).await;
    if matches!(what, Expires::Values { .. }) {
        assert_eq!(found.len(), 6, "{context}: {found:?}");
        assert!(found.range(..4).all(|(_, row)| *row == [2, 2, 2]), "{context}: {found:?}");
        assert!(found.range(5..).all(|(_, row)| *row == [2, 0, 0]), "{context}: {found:?}");
    } else {
        let first = *found.keys().next().unwrap();
        assert!((4..=5).contains(&first) && found.len() == 7 - usize::try_from(first).unwrap(), "{context}: {found:?}");
        assert!(found.values().all(|row| *row == [2, 0, 0]), "{context}: {found:?}");
        let gone = expired(&location(dir), &kept(None).name, version).await.unwrap().unwrap();
        let rows = 2 * (first - 1).cast_unsigned();
        assert_eq!((gone.epoch, gone.rows, gone.sums["count"]), (first - 1, rows, first * (first - 1)), "{context}");
    }
    let commits = history(&location(dir), &kept(None).name).await.unwrap();
    let of_expiry = commits.iter().filter(|commit| commit.kind == Some(tidemark_delta::Kind::Expire));
    assert_eq!(of_expiry.count(), 1, "{context}");
}

/// One file at a time, here.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_let_go_of_in_several_times() {
    let dir = TempDir::new().unwrap();
    let policy = Policy { target_file_bytes: 1, ..policy() };
    let lake = lake_with(&dir, 1, policy);
    let mut writer = TableWriter::open_or_create(&lake, kept(Some(rows()))).await.unwrap();
    for epoch in 1..=5 {
        publish(&mut writer, epoch).await;
    }
    for left in (0..5).rev() {
        let done = writer.maintain(time_of(40)).await.unwrap();
        assert_eq!((done.rows_expired, done.more_expired, read(&dir).await.len()), (2, left > 0, left));
    }
    assert!(!writer.maintain(time_of(40)).await.unwrap().more_expired);
}

/// Somebody who reads changes, or forbids them, is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_forbids_changes_is_refused_once_some_expire() {
    let dir = TempDir::new().unwrap();
    open_kept(&dir, 1, None).await;
    set_property(&dir, &kept(None), "delta.appendOnly", "true");
    open_kept(&dir, 2, None).await;
    let error = TableWriter::open_or_create(&lake_of(&dir, 3), kept(Some(rows()))).await.unwrap_err();
    assert!(error.to_string().contains("delta.appendOnly"), "{error}");
    let specs =
        [Shape::Keyed { key: vec!["payload".to_owned()] }].map(|shape| TableSpec { shape, ..kept(Some(rows())) });
    assert!(specs.iter().all(|spec| spec.validate().is_err()), "rows of a keyed table never expire");
}
