//! Creating, opening, taking over, and refusing what does not fit.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use tempfile::TempDir;
use tidemark_delta::{Check, Error, Identity, Lake, Outcome, Policy, TableSpec, TableWriter};

use crate::points::Template;
use crate::support::*;

async fn refused(lake: &Lake, spec: TableSpec) -> Error {
    TableWriter::open_or_create(lake, spec).await.expect_err("it must be refused")
}

#[tokio::test]
async fn a_new_table_is_complete_after_its_first_commit() {
    let dir = TempDir::new().unwrap();
    let writer = open(&dir, 1, keyed()).await;
    assert_eq!((writer.version(), writer.committed_epoch()), (0, None));
    let table = path(&dir, &keyed());
    assert_eq!(told(&table, 0)["kind"], "create");
    assert_eq!(transactions(&table, 0), [("p/fence".to_owned(), 1)].into());
    let metadata = actions(&table, 0).iter().find_map(|action| action.get("metaData").cloned()).unwrap();
    let properties = &metadata["configuration"];
    assert_eq!(properties["delta.constraints.count_not_negative"], "count >= 0");
    assert_eq!(properties["delta.dataSkippingStatsColumns"], "id");
    assert_eq!(properties["delta.deletedFileRetentionDuration"], "interval 3600 seconds");
    assert!(properties.get("delta.enableDeletionVectors").is_none());
    assert!(properties.get("delta.columnMapping.mode").is_none());
}

#[tokio::test]
async fn an_opened_table_goes_on_where_it_stopped() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    writer.publish(7, Some(5), Some(&users(&[("a", 1, 1)]))).await.unwrap();
    let mut again = open(&dir, 1, keyed()).await;
    assert_eq!((again.committed_epoch(), again.version()), (Some(7), writer.version()));
    assert_eq!(again.publish(7, None, None).await.unwrap().outcome, Outcome::Skipped);
}

#[tokio::test]
async fn a_take_over_fences_the_writer_before_it() {
    let dir = TempDir::new().unwrap();
    let mut old = open(&dir, 1, keyed()).await;
    old.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    let mut new = open(&dir, 2, keyed()).await;
    let table = path(&dir, &keyed());
    assert_eq!(told(&table, new.version())["kind"], "fence");
    assert_eq!(transactions(&table, new.version()), [("p/fence".to_owned(), 2), ("p/epoch".to_owned(), 1)].into());
    for batch in [Some(users(&[("a", 2, 2)])), None] {
        let error = old.publish(2, None, batch.as_ref()).await.unwrap_err();
        assert!(matches!(error, Error::Fenced { held: 2, ours: 1, .. }), "{error}");
    }
    let error = refused(&lake(&dir, 1), keyed()).await;
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    new.publish(2, None, Some(&users(&[("a", 3, 3)]))).await.unwrap();
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 3, 3)]);
}

#[tokio::test]
async fn a_take_over_brings_the_properties_to_the_policy() {
    let dir = TempDir::new().unwrap();
    open(&dir, 1, keyed()).await.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    set_property(&dir, &keyed(), "delta.randomizeFilePrefixes", "true");
    let changed = lake_with(&dir, 2, changed_policy());
    let mut writer = TableWriter::open_or_create(&changed, keyed()).await.unwrap();
    assert_eq!(told(&path(&dir, &keyed()), writer.version())["kind"], "fence");
    let table = load(&dir, &keyed(), None).await;
    let properties = table.snapshot().unwrap().metadata().configuration().clone();
    assert_eq!(properties["delta.checkpointInterval"], "7");
    assert_eq!(properties["delta.randomizeFilePrefixes"], "true", "a property of somebody else");
    assert_eq!(properties["delta.constraints.count_not_negative"], "count >= 0");
    writer.publish(2, None, Some(&users(&[("b", 1, 1)]))).await.unwrap();
    let mut again = TableWriter::open_or_create(&lake_with(&dir, 3, changed_policy()), keyed()).await.unwrap();
    let actions = actions(&path(&dir, &keyed()), again.version());
    assert!(actions.iter().all(|action| action.get("metaData").is_none()), "nothing had changed");
    again.publish(3, None, None).await.unwrap();
    assert_eq!(read_users(&dir, None).await.len(), 2);
}

fn changed_policy() -> Policy {
    Policy { checkpoint_interval_commits: 7, ..policy() }
}

#[tokio::test]
async fn another_schema_constraint_or_pipeline_is_refused() {
    let dir = TempDir::new().unwrap();
    open(&dir, 1, keyed()).await;
    let mut fields: Vec<_> = keyed().schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[1] = Field::new("total", DataType::Decimal128(38, 4), false);
    let other_type = TableSpec { schema: Arc::new(Schema::new(fields.clone())), ..keyed() };
    fields.swap(1, 2);
    let other_order = TableSpec { schema: Arc::new(Schema::new(fields)), ..keyed() };
    let other_check =
        TableSpec { checks: vec![Check { name: "more".to_owned(), sql: "count >= 1".to_owned() }], ..keyed() };
    for spec in [other_type, other_order, other_check] {
        let error = refused(&lake(&dir, 1), spec).await;
        assert!(matches!(error, Error::StateMismatch { .. }), "{error}");
    }
    let ours = lake(&dir, 1);
    let foreign = Identity { pipeline: "q".to_owned(), generation: 9, lineage: 1 };
    let foreign = Lake::new(ours.location().clone(), foreign, policy()).unwrap();
    let error = refused(&foreign, keyed()).await;
    assert!(matches!(error, Error::StateMismatch { .. }), "{error}");
}

/// Parquet itself would not notice most of these: a bound of a key that is another would hide rows from a MERGE.
/// A table of so many epochs, whose log gets a checkpoint after every two commits.
async fn with_log_checkpoints(dir: &TempDir, epochs: u32) -> TableWriter {
    let lake_of_one = lake_with(dir, 1, Policy { checkpoint_interval_commits: 2, ..policy() });
    let mut writer = TableWriter::open_or_create(&lake_of_one, keyed()).await.unwrap();
    for epoch in 1..=epochs {
        writer.publish(epoch.into(), None, Some(&users(&[("a", 1, 1), ("b", epoch.into(), 1)]))).await.unwrap();
        writer.checkpoint_log(true).await.unwrap();
    }
    writer
}

async fn flip_bits_of_a_log_checkpoint(vouched: bool) {
    let dir = TempDir::new().unwrap();
    let mut writer = with_log_checkpoints(&dir, 2).await;
    if vouched {
        writer.publish(4, None, None).await.unwrap();
    }
    let template = Template::of(dir);
    let name = "_delta_log/00000000000000000002.checkpoint.parquet";
    let bytes = std::fs::metadata(path(template.dir(), &keyed()).join(name)).unwrap().len();
    for (round, at) in (0..usize::try_from(bytes).unwrap()).step_by(211).enumerate() {
        let context = format!("byte {at}, vouched {vouched}");
        let dir = template.copy();
        let table = path(&dir, &keyed());
        let mut content = std::fs::read(table.join(name)).unwrap();
        content[at] ^= 1 << (round % 8);
        std::fs::write(table.join(name), content).unwrap();
        let alone = vouched && round % 4 == 3;
        if alone {
            std::fs::remove_file(table.join("_delta_log/00000000000000000001.json")).unwrap();
        }
        match TableWriter::open_or_create(&lake(&dir, 2), keyed()).await {
            Ok(mut writer) => {
                assert!(!alone, "{context}: nothing else tells what it says");
                writer.publish(5, None, Some(&users(&[("b", 5, 5)]))).await.unwrap();
                let rows = [("a", 1, 1), ("b", 5, 5)].map(|(id, pence, n)| (id.to_owned(), pence, n));
                assert_eq!(read_users(&dir, None).await, rows, "{context}");
                // What is passed over is written anew, and vouched for from then on.
                let last = &told(&table, writer.version())["logCheckpoint"]["version"];
                assert_eq!(*last, writer.version() - 1, "{context}");
            }
            Err(error) => {
                assert!(alone && matches!(error, Error::StateMismatch { .. }), "{context}: {error}");
                assert!(error.to_string().contains(name), "{context}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_checkpoint_that_is_not_what_was_written_is_passed_over() {
    flip_bits_of_a_log_checkpoint(true).await;
}

/// The last one before a run ends: no commit after it tells its digest, so it is held against the commits before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_checkpoint_that_no_commit_vouches_for_is_held_against_the_commits() {
    flip_bits_of_a_log_checkpoint(false).await;
    let dir = TempDir::new().unwrap();
    let lake_of_one = lake_with(&dir, 1, Policy { checkpoint_interval_commits: 2, ..policy() });
    let mut writer = TableWriter::open_or_create(&lake_of_one, keyed()).await.unwrap();
    for epoch in 1..3 {
        writer.publish(epoch, None, Some(&users(&[("a", 1, 1), ("b", epoch.into(), 1)]))).await.unwrap();
    }
    writer.checkpoint_log(true).await.unwrap();
    let writer = open(&dir, 2, keyed()).await;
    let log = path(&dir, &keyed()).join("_delta_log");
    assert_eq!((files(&log, ".checkpoint.parquet").len(), writer.version()), (2, 3), "another one in its place");
    // Nor does any commit vouch for that one: whoever comes next has the same to do.
    for generation in 3..6 {
        drop(open(&dir, generation, keyed()).await);
    }
}

/// Versions of before told no digests of log checkpoints, and their tables have many.
#[tokio::test(flavor = "multi_thread")]
async fn log_checkpoints_of_before_are_trusted() {
    let dir = TempDir::new().unwrap();
    let writer = with_log_checkpoints(&dir, 11).await;
    let table = path(&dir, &keyed());
    for version in 0..=writer.version() {
        let name = table.join(format!("_delta_log/{version:020}.json"));
        let commit = std::fs::read_to_string(&name).unwrap();
        let (info, rest) = commit.split_once('\n').unwrap();
        let mut info: Value = serde_json::from_str(info).unwrap();
        let mut metadata = told(&table, version);
        metadata.as_object_mut().unwrap().remove("logCheckpoint");
        info["commitInfo"]["userMetadata"] = metadata.to_string().into();
        std::fs::write(name, format!("{info}\n{rest}")).unwrap();
    }
    let mut writer = open(&dir, 2, keyed()).await;
    writer.publish(12, None, Some(&users(&[("b", 12, 12)]))).await.unwrap();
    let rows = [("a", 1, 1), ("b", 12, 12)].map(|(id, pence, n)| (id.to_owned(), pence, n));
    assert_eq!(read_users(&dir, None).await, rows);
}
