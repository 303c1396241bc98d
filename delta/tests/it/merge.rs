//! MERGE leads to the rows that a map would hold, and rewrites no more than it must.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tidemark_delta::{Error, Outcome, Policy, TableWriter};

use crate::store::{Judged, Kind, Verdict};
use crate::support::*;

/// Files of a few rows, so that a small table has many.
fn narrow() -> Policy {
    Policy { merged_file_rows: 8, ..policy() }
}

async fn narrow_writer(dir: &TempDir, generation: i64) -> TableWriter {
    TableWriter::open_or_create(&lake_with(dir, generation, narrow()), keyed()).await.unwrap()
}

/// A number from a seed (Marsaglia, "Xorshift RNGs", 2003).
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Some of sixty keys: short ones, long ones that statistics cannot tell apart, and the empty one.
fn some_rows(seed: &mut u64, epoch: i64) -> Vec<(String, i128, i64)> {
    let count = 1 + draw(seed) % 20;
    let rows = (0..count).map(|_| {
        let id = match draw(seed) % 60 {
            0 => String::new(),
            number if number % 3 == 0 => format!("{}{number}", "é".repeat(40)),
            number => format!("user {number}"),
        };
        let pence = i128::from(draw(seed));
        (id.clone(), (id, pence, epoch))
    });
    rows.collect::<BTreeMap<_, _>>().into_values().rev().collect()
}

fn adds(table: &std::path::Path, version: u64) -> (usize, usize) {
    let actions = actions(table, version);
    let count = |kind: &str| actions.iter().filter(|action| action.get(kind).is_some()).count();
    (count("remove"), count("add"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_agrees_with_a_map() {
    let dir = TempDir::new().unwrap();
    let mut writer = narrow_writer(&dir, 1).await;
    let (mut model, mut seed) = (BTreeMap::new(), 0x7469_6465);
    for epoch in 1..=14 {
        match epoch {
            // The rows of the files are not in memory any more.
            5 => writer = narrow_writer(&dir, 2).await,
            // Somebody else has written all rows into one file. Our commit fails, and is tried again.
            9 => foreign_optimize(&dir, &keyed()).await,
            _ => {}
        }
        let rows = some_rows(&mut seed, epoch);
        let batch: Vec<_> = rows.iter().map(|(id, pence, count)| (id.as_str(), *pence, *count)).collect();
        writer.publish(u64::try_from(epoch).unwrap(), None, Some(&users(&batch))).await.unwrap();
        model.extend(rows.into_iter().map(|(id, pence, count)| (id, (pence, count))));
        let expected: Vec<_> = model.iter().map(|(id, (pence, count))| (id.clone(), *pence, *count)).collect();
        assert_eq!(read_users(&dir, None).await, expected, "epoch {epoch}");
    }
    assert!(files(&path(&dir, &keyed()), ".parquet").len() > 14, "no file was ever split");
}

#[tokio::test]
async fn an_epoch_rewrites_the_files_that_can_hold_its_keys() {
    let dir = TempDir::new().unwrap();
    let mut writer = narrow_writer(&dir, 1).await;
    let table = path(&dir, &keyed());
    let ids: Vec<String> = (0..80).map(|number| format!("user {number:02}")).collect();
    let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, 1)).collect();
    writer.publish(1, None, Some(&users(&rows))).await.unwrap();
    assert_eq!(adds(&table, 1), (0, 10));
    writer.publish(2, None, Some(&users(&[("user 42", 2, 2)]))).await.unwrap();
    assert_eq!(adds(&table, 2), (1, 1));
    writer.publish(3, None, Some(&users(&[("user 79a", 2, 2), ("a", 2, 2)]))).await.unwrap();
    assert_eq!(adds(&table, 3), (2, 4), "both were full");
    let metrics = &commit_info(&table, 3)["operationMetrics"];
    assert_eq!((&metrics["numTargetRowsInserted"], &metrics["numTargetRowsCopied"]), (&2.into(), &16.into()));
    let info = commit_info(&table, 2);
    assert_eq!((&info["operation"], &info["operationMetrics"]["numTargetRowsUpdated"]), (&"MERGE".into(), &1.into()));
    assert_eq!(read_users(&dir, None).await.len(), 82);
}

/// Reads of data files that are made while an epoch is published.
async fn reads(store: &Judged, writer: &mut TableWriter, epoch: u64) -> usize {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    store.judge(move |kind, path| {
        *count.lock().unwrap() +=
            usize::from(kind == Kind::Get && path.ends_with(".parquet") && !path.contains("_log"));
        Verdict::Pass
    });
    writer.publish(epoch, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    *seen.lock().unwrap()
}

#[tokio::test]
async fn what_was_written_is_not_read_again() {
    let (dir, store) = (TempDir::new().unwrap(), Judged::new());
    let lake = |generation| judged_lake_with(&dir, generation, &store, policy());
    let mut writer = TableWriter::open_or_create(&lake(1), keyed()).await.unwrap();
    for epoch in 1..4 {
        assert_eq!(reads(&store, &mut writer, epoch).await, 0);
    }
    let mut writer = TableWriter::open_or_create(&lake(2), keyed()).await.unwrap();
    assert_eq!(reads(&store, &mut writer, 4).await, 1, "a new writer has to read");
    assert_eq!(reads(&store, &mut writer, 5).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_constraint_holds() {
    for spec in [keyed(), appended_with_count()] {
        let dir = TempDir::new().unwrap();
        drop(open(&dir, 1, spec.clone()).await);
        set_property(&dir, &spec, "delta.constraints.small", "count < 1000000");
        let mut writer = open(&dir, 2, spec.clone()).await;
        let error = writer.publish(1, None, Some(&counted(&spec, 1_000_000))).await.unwrap_err();
        assert!(error.to_string().contains("DROP CONSTRAINT small"), "{error}");
        assert!(matches!(error, Error::StateMismatch { .. }), "{error}");
        // One that is added while the writer goes on holds for the very next epoch.
        set_property(&dir, &spec, "delta.constraints.smaller", "count < 8");
        let error = writer.publish(1, None, Some(&counted(&spec, 8))).await.unwrap_err();
        assert!(error.to_string().contains("DROP CONSTRAINT smaller"), "{error}");
        assert_eq!(writer.publish(1, None, Some(&counted(&spec, 7))).await.unwrap().outcome, Outcome::Committed);
    }
}

#[tokio::test]
async fn our_own_constraint_names_the_row() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    let error = writer.publish(1, None, Some(&users(&[("a", 1, 1), ("b", 1, -1)]))).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("row 1 breaks constraint count_not_negative (count >= 0)"), "{text}");
    let info: Value = commit_info(&path(&dir, &keyed()), 0);
    assert_eq!(info["operation"], "CREATE TABLE");
    assert_eq!(writer.version(), 0, "nothing was written");
}
