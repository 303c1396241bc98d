//! Others change rows of our tables: that is noticed, reported, carried along, and settled.

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemark_delta::{Error, ForeignChanges, Lake, OnForeignChanges, Policy, TableWriter, accepted_changes, standing};

use crate::support::*;

fn lake_that(dir: &TempDir, generation: i64, foreign_changes: OnForeignChanges) -> Lake {
    lake_with(dir, generation, Policy { foreign_changes, ..policy() })
}

/// A writer of a table of two users, at epoch 2.
async fn two_users(dir: &TempDir, foreign_changes: OnForeignChanges) -> TableWriter {
    let lake = lake_that(dir, 1, foreign_changes);
    let mut writer = TableWriter::open_or_create(&lake, keyed()).await.unwrap();
    writer.publish(1, None, Some(&users(&[("a", 1, 1), ("b", 2, 2)]))).await.unwrap();
    writer.publish(2, None, Some(&users(&[("a", 5, 5)]))).await.unwrap();
    writer
}

/// Somebody leaves one row of the table, and changes it.
async fn spoil(dir: &TempDir) {
    let mut actions = removals(dir, &keyed(), true).await;
    actions.push(foreign_file(dir, &keyed(), &users(&[("a", 9, 9), ("z", 7, 7)]), true));
    foreign(dir, &keyed(), "UPDATE", &actions);
}

fn right() -> Vec<(String, i128, i64)> {
    [("a", 5, 5), ("b", 2, 2)].map(|(id, pence, n)| (id.to_owned(), pence, n)).into()
}

fn carried(dir: &TempDir, writer: &TableWriter) -> Value {
    told(&path(dir, &keyed()), writer.version())["foreign"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_met_live_and_carried_until_it_is_settled() {
    let dir = TempDir::new().unwrap();
    let mut writer = two_users(&dir, OnForeignChanges::Report).await;
    assert_eq!(writer.foreign_changes(), None);
    spoil(&dir).await;
    writer.publish(3, None, None).await.unwrap();
    let met = writer.foreign_changes().cloned().unwrap();
    assert_eq!((met.version, met.operation.as_str(), met.commits, met.rows), (3, "UPDATE", 1, Some(1)));
    assert!(met.to_string().contains("UPDATE by Somebody/1 in version 3, 1 row(s)"), "{met}");
    assert_eq!(serde_json::from_value::<ForeignChanges>(carried(&dir, &writer)).unwrap(), met);
    // Another one comes, and the next generation knows of both.
    spoil(&dir).await;
    let lake = lake_that(&dir, 2, OnForeignChanges::Report);
    let mut writer = TableWriter::open_or_create(&lake, keyed()).await.unwrap();
    assert_eq!(writer.foreign_changes().unwrap().commits, 2);
    let look = standing(&location(&dir), PIPELINE, "metrics/users").await.unwrap().unwrap();
    assert_eq!(look.foreign.as_ref(), writer.foreign_changes());
    // Files that are only written anew are nobody's business.
    foreign_optimize(&dir, &keyed()).await;
    writer.publish(4, None, None).await.unwrap();
    assert_eq!(writer.foreign_changes().unwrap().commits, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_written_anew_from_what_it_must_hold() {
    let dir = TempDir::new().unwrap();
    let mut writer = two_users(&dir, OnForeignChanges::Repair).await;
    spoil(&dir).await;
    writer.publish(3, None, None).await.unwrap();
    assert_ne!(read_users(&dir, None).await, right());
    writer.write_anew(&users(&[("b", 2, 2), ("a", 5, 5)]), "updated_at").await.unwrap();
    assert_eq!((read_users(&dir, None).await, writer.foreign_changes()), (right(), None));
    assert_eq!(told(&path(&dir, &keyed()), writer.version())["kind"], "repair");
    assert_eq!((carried(&dir, &writer), writer.committed_epoch()), (Value::Null, Some(3)));
    // Nothing is left for whoever comes next, and rows go on from there.
    let lake = lake_that(&dir, 2, OnForeignChanges::Refuse);
    let mut writer = TableWriter::open_or_create(&lake, keyed()).await.unwrap();
    writer.publish(4, None, Some(&users(&[("c", 1, 1)]))).await.unwrap();
    assert_eq!(read_users(&dir, None).await.len(), 3);
    // A table that is right is left as it is: files too.
    let before = files(&path(&dir, &keyed()), ".parquet").len();
    writer.write_anew(&users(&[("a", 5, 5), ("b", 2, 2), ("c", 1, 1)]), "updated_at").await.unwrap();
    assert_eq!(files(&path(&dir, &keyed()), ".parquet").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_refused_where_it_is_to_be() {
    let dir = TempDir::new().unwrap();
    let mut writer = two_users(&dir, OnForeignChanges::Refuse).await;
    spoil(&dir).await;
    let refused = |result: Result<(), Error>| {
        let error = result.expect_err("it must be refused");
        let words = error.to_string();
        assert!(matches!(error, Error::StateMismatch { .. }) && words.contains("UPDATE by Somebody/1"), "{words}");
    };
    refused(writer.publish(3, None, None).await.map(drop));
    let lake = lake_that(&dir, 2, OnForeignChanges::Refuse);
    refused(TableWriter::open_or_create(&lake, keyed()).await.map(drop));
    assert_eq!(load(&dir, &keyed(), None).await.version(), Some(3), "nothing was written");
    // Accepted, it is as it is from then on, and the table says so.
    let policy = Policy { accept_changes: true, foreign_changes: OnForeignChanges::Refuse, ..policy() };
    let mut writer = TableWriter::open_or_create(&lake_with(&dir, 3, policy), keyed()).await.unwrap();
    assert_eq!(writer.foreign_changes(), None);
    writer.publish(3, None, None).await.unwrap();
    assert_eq!(read_users(&dir, None).await[0].1, 9);
    let accepted = &metadata(&dir, &keyed())["configuration"]["tidemark.acceptedChanges"];
    let accepted: Vec<ForeignChanges> = serde_json::from_str(accepted.as_str().unwrap()).unwrap();
    assert_eq!((accepted.len(), accepted[0].version), (1, 3));
    drop(writer);
    TableWriter::open_or_create(&lake_that(&dir, 4, OnForeignChanges::Refuse), keyed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn log_entries_that_are_gone_count_as_a_change() {
    let dir = TempDir::new().unwrap();
    drop(two_users(&dir, OnForeignChanges::Report).await);
    spoil(&dir).await;
    foreign(&dir, &keyed(), "SET TBLPROPERTIES", &[]);
    // Somebody makes a checkpoint of the log, and clears away what it replaces.
    let table = load(&dir, &keyed(), None).await;
    deltalake::checkpoints::create_checkpoint(&table, None).await.unwrap();
    let log = path(&dir, &keyed()).join("_delta_log");
    for version in 0..4 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let refused = TableWriter::open_or_create(&lake_that(&dir, 2, OnForeignChanges::Refuse), keyed()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("is gone")));
    let mut writer = open(&dir, 2, keyed()).await;
    let met = writer.foreign_changes().unwrap();
    assert_eq!((met.operation.as_str(), met.version), ("unknown", 3));
    writer.publish(3, None, None).await.unwrap();
    assert_eq!(carried(&dir, &writer)["version"], 3);
}

/// Whatever it says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewriting_with_other_rows_than_before_is_a_change() {
    for live in [true, false] {
        let dir = TempDir::new().unwrap();
        let mut writer = two_users(&dir, OnForeignChanges::Report).await;
        foreign(&dir, &keyed(), "OPTIMIZE", &removals(&dir, &keyed(), false).await);
        let writer = if live {
            writer.publish(3, None, None).await.unwrap();
            writer
        } else {
            open(&dir, 2, keyed()).await
        };
        assert_eq!(writer.foreign_changes().map(|met| met.version), Some(3), "live {live}");
        let look = standing(&location(&dir), PIPELINE, "metrics/users").await.unwrap().unwrap();
        assert!(look.foreign.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_counts_until_the_table_is_written_anew() {
    let dir = TempDir::new().unwrap();
    drop(two_users(&dir, OnForeignChanges::Report).await);
    spoil(&dir).await;
    let accepting = Policy { accept_changes: true, ..policy() };
    drop(TableWriter::open_or_create(&lake_with(&dir, 2, accepting), keyed()).await.unwrap());
    let place = location(&dir);
    assert_eq!(accepted_changes(&place, "metrics/users").await.unwrap().len(), 1);
    spoil(&dir).await;
    let mut writer = open(&dir, 3, keyed()).await;
    writer.write_anew(&users(&[("b", 2, 2), ("a", 5, 5)]), "updated_at").await.unwrap();
    assert_eq!(accepted_changes(&place, "metrics/users").await.unwrap(), []);
    assert_eq!(read_users(&dir, None).await, right());
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_that_may_not_be_whole_are_named() {
    for live in [true, false] {
        let dir = TempDir::new().unwrap();
        let mut writer = open(&dir, 1, appended()).await;
        for epoch in 1..6_i64 {
            writer.publish(epoch.unsigned_abs(), None, Some(&rejected([(epoch, 0), (epoch, 1)]))).await.unwrap();
        }
        let all = removals(&dir, &appended(), true).await;
        let of = |path: &Value| {
            let found = (1..6)
                .find(|version| actions(&path_of(&dir), *version).iter().any(|action| action["add"]["path"] == *path));
            found.unwrap()
        };
        let gone: Vec<Value> = all.into_iter().filter(|file| [2, 4].contains(&of(&file["remove"]["path"]))).collect();
        assert_eq!(gone.len(), 2);
        foreign(&dir, &appended(), "DELETE", &gone);
        let writer = if live {
            writer.publish(6, None, None).await.unwrap();
            writer
        } else {
            open(&dir, 2, appended()).await
        };
        assert_eq!(writer.foreign_changes().unwrap().epochs, Some((2, 4)), "live {live}");
        let refused = {
            let mut writer = writer;
            writer.write_anew(&rejected([(1, 1)]), "detail").await
        };
        assert!(matches!(refused, Err(Error::Bug { .. })));
    }
}

fn path_of(dir: &TempDir) -> std::path::PathBuf {
    path(dir, &appended())
}

#[tokio::test]
async fn metadata_of_before_says_nothing_of_others() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    foreign(&dir, &keyed(), "STREAMING UPDATE", &[json!({ "txn": { "appId": "somebody", "version": 3 } })]);
    writer.publish(1, None, None).await.unwrap();
    assert_eq!((writer.foreign_changes(), carried(&dir, &writer)), (None, Value::Null));
}

/// Rows that were put into a table that must have none.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_is_written_anew_as_well() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    foreign(&dir, &keyed(), "WRITE", &[foreign_file(&dir, &keyed(), &users(&[("z", 7, 7)]), true)]);
    writer.publish(1, None, None).await.unwrap();
    assert_eq!(read_users(&dir, None).await.len(), 1);
    writer.write_anew(&users(&[]), "updated_at").await.unwrap();
    assert_eq!((read_users(&dir, None).await, writer.foreign_changes()), (vec![], None));
}

/// As OPTIMIZE of some engines does, which passes by our compaction as it says that it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_did_not_see_ours_leaves_rows_twice_and_is_noticed() {
    let dir = TempDir::new().unwrap();
    let lake = lake_with(&dir, 1, Policy { compact_after_files: 4, ..policy() });
    let mut writer = TableWriter::open_or_create(&lake, appended()).await.unwrap();
    for epoch in 1..=4 {
        writer.publish(epoch, None, Some(&rejected([(epoch.cast_signed(), 0)]))).await.unwrap();
    }
    let mut rewrite = removals(&dir, &appended(), false).await;
    let mut file = foreign_file(&dir, &appended(), &rejected((1..=4).map(|epoch| (epoch, 0))), false);
    file["add"]["stats"] = json!({ "numRecords": 4 }).to_string().into();
    rewrite.push(file);
    assert_eq!(writer.maintain(std::time::SystemTime::now()).await.unwrap().files_compacted, 4);
    foreign(&dir, &appended(), "OPTIMIZE", &rewrite);
    assert_eq!(read_rejected(&dir, None).await.len(), 8);
    writer.publish(5, None, None).await.unwrap();
    assert_eq!(writer.foreign_changes().map(|changes| changes.operation.as_str()), Some("OPTIMIZE"));
    let opened = TableWriter::open_or_create(&lake_that(&dir, 2, OnForeignChanges::Report), appended()).await.unwrap();
    assert_eq!(opened.foreign_changes(), writer.foreign_changes());
}
