//! Reading for checks: what the log says, tables at versions, what a table holds.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tempfile::TempDir;
use tidemark_delta::{Held, Kind, Policy, TableWriter, held, history, query, query_at};

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
    assert!(commits.iter().all(|commit| (now - 60_000..=now).contains(&commit.timestamp_ms.unwrap())));
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
    let sql = "select sum(count) from users union all select cast(count(*) as bigint) from rejected";
    for epoch in 1..4 {
        let rows = query_at(&location, &[(&keyed, epoch), (&appended, epoch)], sql).await.unwrap();
        let read: Vec<i64> =
            rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(read, [epoch.cast_signed(), epoch.cast_signed()]);
    }
    assert!(query_at(&location, &[(&keyed, 9)], "select * from users").await.is_err());
}

#[tokio::test]
async fn what_a_table_holds_is_told_without_touching_it() {
    let dir = TempDir::new().unwrap();
    let (location, name) = (location(&dir), keyed().name);
    assert_eq!(held(&location, PIPELINE, &name).await.unwrap(), None);
    assert!(history(&location, &name).await.is_err() && query(&location, &[&name], "select 1").await.is_err());
    assert!(!path(&dir, &keyed()).exists(), "reading made a directory");
    std::fs::create_dir_all(path(&dir, &keyed())).unwrap();
    assert_eq!(held(&location, PIPELINE, &name).await.unwrap(), None);
    let mut writer = open(&dir, 3, keyed()).await;
    assert_eq!(held(&location, PIPELINE, &name).await.unwrap(), Some(Held { epoch: None, fence: Some(3) }));
    writer.publish(8, None, None).await.unwrap();
    assert_eq!(held(&location, PIPELINE, &name).await.unwrap(), Some(Held { epoch: Some(8), fence: Some(3) }));
    assert_eq!(held(&location, "another", &name).await.unwrap(), Some(Held { epoch: None, fence: None }));
    writer.publish(9, None, None).await.unwrap();
    assert_eq!(writer.version(), 2, "reading made a commit");
}
