//! Files are rewritten and deleted; rows, order, transactions and readers are not harmed.

use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tidemark_delta::{Error, Lake, Maintained, Policy, TableWriter};

use crate::support::*;

fn small() -> Policy {
    Policy { compact_after_files: 4, checkpoint_interval_commits: 10, ..policy() }
}

async fn writer(dir: &TempDir, policy: Policy, spec: tidemark_delta::TableSpec) -> TableWriter {
    let lake: Lake = lake_with(dir, 1, policy);
    TableWriter::open_or_create(&lake, spec).await.unwrap()
}

fn two_hours_on() -> SystemTime {
    SystemTime::now() + 2 * HOUR
}

/// Appends epochs `from..to` of two rows each, maintaining after each.
async fn fill(writer: &mut TableWriter, from: i64, to: i64, now: SystemTime) -> Maintained {
    let mut sum = Maintained::default();
    for epoch in from..to {
        let batch = rejected([(epoch, 0), (epoch, 1)]);
        writer.publish(u64::try_from(epoch).unwrap(), None, Some(&batch)).await.unwrap();
        writer.checkpoint_log(true).await.unwrap();
        let done = writer.maintain(now).await.unwrap();
        sum.files_compacted += done.files_compacted;
        sum.data_files_deleted += done.data_files_deleted;
        sum.log_files_deleted += done.log_files_deleted;
    }
    sum
}

fn expected(from: i64, to: i64) -> Vec<(i64, i64)> {
    (from..to).flat_map(|epoch| [(epoch, 0), (epoch, 1)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_rows_order_and_transactions() {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(&dir, small(), appended()).await;
    fill(&mut writer, 1, 4, SystemTime::now()).await;
    assert_eq!(fill(&mut writer, 4, 5, SystemTime::now()).await.files_compacted, 4);
    let (table, version) = (path(&dir, &appended()), writer.version());
    let info = told(&table, version);
    assert_eq!((&info["kind"], &info["epoch"]), (&"maintenance".into(), &4.into()));
    assert_eq!(transactions(&table, version), [("p/fence".to_owned(), 1), ("p/epoch".to_owned(), 4)].into());
    let actions = actions(&table, version);
    let of = |kind: &str| actions.iter().filter_map(|action| action.get(kind).cloned()).collect::<Vec<_>>();
    let (removes, adds) = (of("remove"), of("add"));
    assert_eq!((removes.len(), adds.len()), (4, 1));
    assert!(removes.iter().chain(&adds).all(|action| action["dataChange"] == false));
    let file = std::fs::File::open(table.join(adds[0]["path"].as_str().unwrap())).unwrap();
    let mut stored = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let column = |index| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
        stored.extend(column(0).into_iter().zip(column(1)));
    }
    assert_eq!(stored, expected(1, 5), "in the order of epochs and positions");
    assert_eq!(read_rejected(&dir, None).await, expected(1, 5));
    assert_eq!(read_rejected(&dir, Some(version - 1)).await, expected(1, 5));
}

/// Once where compaction is due and meets the fence, once where vacuum does.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_writer_maintains_nothing() {
    for policy in [small(), policy()] {
        let dir = TempDir::new().unwrap();
        let mut old = writer(&dir, policy, appended()).await;
        for epoch in 1..5 {
            old.publish(epoch, None, Some(&rejected([(i64::try_from(epoch).unwrap(), 0)]))).await.unwrap();
        }
        let table = path(&dir, &appended());
        std::fs::write(table.join("part-orphan.parquet"), "expired two hours on").unwrap();
        let new = open(&dir, 2, appended()).await;
        for _ in 0..2 {
            let error = old.maintain(two_hours_on()).await.unwrap_err();
            assert!(matches!(error, Error::Fenced { .. }), "{error}");
        }
        assert_eq!(load(&dir, &appended(), None).await.version(), Some(new.version()));
        assert!(table.join("part-orphan.parquet").exists());
        assert_eq!(read_rejected(&dir, None).await.len(), 4);
    }
}

/// Two rewrites of the same files that pass each other would leave every row twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_optimize_doubles_no_rows() {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(&dir, small(), appended()).await;
    for epoch in 1..5 {
        writer.publish(epoch, None, Some(&rejected([(i64::try_from(epoch).unwrap(), 0)]))).await.unwrap();
    }
    foreign_optimize(&dir, &appended()).await;
    let error = writer.maintain(SystemTime::now()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    writer.maintain(SystemTime::now()).await.unwrap();
    assert_eq!(read_rejected(&dir, None).await, [(1, 0), (2, 0), (3, 0), (4, 0)]);
    writer.publish(5, None, Some(&rejected([(5, 0)]))).await.unwrap();
    assert_eq!(read_rejected(&dir, None).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_deletes_the_dead_and_keeps_the_living() {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(&dir, policy(), keyed()).await;
    let now = SystemTime::now();
    for epoch in 1..=5 {
        writer.publish(epoch, None, Some(&users(&[("a", i128::from(epoch), 1)]))).await.unwrap();
    }
    let table = path(&dir, &keyed());
    let within = writer.maintain(now + HOUR - Duration::from_secs(60)).await.unwrap();
    assert_eq!(within, Maintained::default(), "nothing has expired");
    assert_eq!(read_users(&dir, Some(2)).await, [("a".to_owned(), 2, 1)], "time travel within the retention");
    std::fs::write(table.join("_delta_log/00000000000000000099.json#1"), "killed").unwrap();
    std::fs::write(table.join("part-orphan.parquet"), "killed").unwrap();
    let later = writer.maintain(two_hours_on()).await.unwrap();
    assert_eq!((later.data_files_deleted, later.leftovers_deleted), (5, 1));
    assert_eq!(files(&table, ".parquet").len(), 1);
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 5, 1)]);
    for version in [writer.version() - 1, writer.version()] {
        assert_eq!(told(&table, version)["kind"], "maintenance");
        assert_eq!(transactions(&table, version)["p/epoch"], 5);
    }
    writer.publish(6, None, Some(&users(&[("b", 6, 1)]))).await.unwrap();
    assert_eq!(read_users(&dir, None).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn synced_tables_are_the_same_and_fenced_alike() {
    let dir = TempDir::new().unwrap();
    let policy = Policy { sync: true, checkpoint_interval_commits: 2, ..small() };
    let mut appends = writer(&dir, policy.clone(), appended()).await;
    let mut merges = writer(&dir, policy.clone(), keyed()).await;
    let compacted = fill(&mut appends, 1, 9, SystemTime::now()).await.files_compacted;
    assert!(compacted >= 4, "{compacted} files");
    for epoch in 1..4 {
        merges.publish(epoch, None, Some(&users(&[("a", i128::from(epoch), 1)]))).await.unwrap();
        merges.checkpoint_log(true).await.unwrap();
    }
    for spec in [appended(), keyed()] {
        let table = path(&dir, &spec);
        assert!(table.join("_delta_log/_last_checkpoint").exists());
        for directory in [table.join("_delta_log"), table.clone()] {
            assert!(!files(&directory, "").iter().any(|name| name.ends_with(".tmp") || name.contains('#')));
        }
        std::fs::write(table.join("_upload_1_1.tmp"), "killed").unwrap();
    }
    assert_eq!(appends.maintain(two_hours_on()).await.unwrap().leftovers_deleted, 1);
    assert_eq!(merges.maintain(two_hours_on()).await.unwrap().leftovers_deleted, 1);
    let second = lake_with(&dir, 2, policy);
    for old in [&mut appends, &mut merges] {
        let mut new = TableWriter::open_or_create(&second, old.spec().clone()).await.unwrap();
        assert!(matches!(old.publish(9, None, None).await, Err(Error::Fenced { held: 2, .. })));
        new.publish(10, None, None).await.unwrap();
    }
    assert_eq!(read_rejected(&dir, None).await, expected(1, 9));
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 3, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_epochs_leave_a_small_directory() {
    let dir = TempDir::new().unwrap();
    let policy = Policy { clean_every: Duration::from_secs(1), ..small() };
    let mut appends = writer(&dir, policy.clone(), appended()).await;
    let mut merges = writer(&dir, policy, keyed()).await;
    let mut log_files = 0;
    for round in 0..10_u32 {
        // Every file is two hours old at once, so that only what lives may stay; cleaned once a round.
        let now = two_hours_on() + round * HOUR;
        let from = 1 + i64::from(round) * 6;
        log_files += fill(&mut appends, from, from + 6, now).await.log_files_deleted;
        for epoch in from..from + 6 {
            let rows = users(&[("a", i128::from(epoch), epoch), ("b", 1, 1)]);
            let rows = (epoch % 3 > 0).then_some(&rows);
            merges.publish(u64::try_from(epoch).unwrap(), None, rows).await.unwrap();
            merges.checkpoint_log(true).await.unwrap();
            merges.maintain(now).await.unwrap();
        }
    }
    for writer in [&mut appends, &mut merges] {
        writer.maintain(two_hours_on() + 100 * HOUR).await.unwrap();
    }
    assert!(log_files > 40, "{log_files} log files expired");
    for spec in [appended(), keyed()] {
        let table = path(&dir, &spec);
        let (data, log) = (files(&table, ".parquet").len(), files(&table.join("_delta_log"), "").len());
        assert!(data <= 6 && log <= 40, "{}: {data} data files, {log} log files", spec.name);
    }
    assert_eq!(read_rejected(&dir, None).await, expected(1, 61));
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 59, 59), ("b".to_owned(), 1, 1)]);
    let again = open(&dir, 1, appended()).await;
    assert_eq!(again.committed_epoch(), Some(60), "transactions outlive the log entries");
}
