//! What the commits of a table say about themselves, read from the log files that are still there.

use std::collections::HashMap;

use deltalake::logstore::object_store::{Error as StoreError, ObjectStoreExt, path::Path};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError, ObjectStore};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{existing, patiently};
use crate::foreign::ForeignChanges;
use crate::txn::{Kind, epoch_app, fence_app};
use crate::{Error, Location, cause, damage};

/// How many log files are read at once.
const READ_AHEAD: usize = 16;

/// How many commits of others are looked at, at most.
const OTHERS_MAX: u64 = 1_000;

/// One commit. What its user metadata should say is `None` in commits of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Version of the table that it made.
    pub version: u64,
    /// When it was made, by its writer's clock, in milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Why it was made.
    pub kind: Option<Kind>,
    /// The pipeline that made it.
    pub pipeline: Option<String>,
    /// The lineage of that pipeline, as the table has it; none in commits of before.
    pub lineage: Option<String>,
    /// The generation of its writer, by its metadata.
    pub generation: Option<i64>,
    /// The epoch that the table holds from then on, by its metadata.
    pub epoch: Option<i64>,
    /// The watermark (microseconds) of a publication.
    pub watermark: Option<i64>,
    /// The version of its transaction `<pipeline>/epoch`.
    pub epoch_txn: Option<i64>,
    /// The version of its transaction `<pipeline>/fence`.
    pub fence_txn: Option<i64>,
    /// Rows that were inserted or replaced, by the metrics of the commit: none by transactions alone.
    pub rows_changed: u64,
    /// Whether it adds or removes files, or parts of files, and rows with them.
    pub changes_rows: bool,
    /// Rows that it inserted, replaced or deleted, if it says so in any of the ways that are known.
    pub rows_affected: Option<u64>,
    /// What it says of changes of others that are not settled.
    pub foreign: Option<ForeignChanges>,
    /// Paths of the files that it removes.
    pub(crate) files_removed: Vec<String>,
    /// Paths of the files that it adds, with their statistics.
    pub(crate) files_added: Vec<(String, Value)>,
    /// What it is called.
    pub operation: Option<String>,
    /// The program that made it.
    pub engine: Option<String>,
}

/// The commits of a table, oldest first, from the oldest whose successors are all there. While a writer goes on, the
/// newest commits may be left out; expired ones are.
///
/// # Errors
/// [`Error::Unavailable`] when the table is missing or cannot be read.
pub async fn history(location: &Location, table: &str) -> Result<Vec<Commit>, Error> {
    patiently(location, table, async || history_now(location, table).await).await
}

async fn history_now(location: &Location, table: &str) -> Result<Vec<Commit>, Error> {
    let store = existing(location, table)?.log_store().object_store(None);
    let unavailable = |error| Error::unavailable(table, error);
    let listed = list(store.as_ref()).await.map_err(unavailable)?;
    let (Some(first), Some(last)) = (listed.iter().min(), listed.iter().max()) else {
        return Err(unavailable(DeltaTableError::NotATable(table.to_owned())));
    };
    // One file of a number that does not follow would let us look for all those in between.
    if *last - *first > 2 * listed.len() as u64 + OTHERS_MAX {
        return Err(Error::mismatch(
            table,
            format!("_delta_log/{last:020}.json does not follow on the commits before it"),
        ));
    }
    // A listing is no snapshot: a version between two that were listed may have come, or gone, meanwhile.
    let reads = stream::iter(*first..=*last).map(|version| commit(store.as_ref(), version)).buffered(READ_AHEAD);
    let unbroken = reads.try_fold(Vec::new(), |mut commits, commit| async move {
        match commit {
            Some(commit) => commits.push(commit),
            None => commits.clear(),
        }
        Ok(commits)
    });
    let commits = unbroken.await.map_err(unavailable)?;
    let lineage = commits.iter().rev().find_map(|commit| commit.lineage.as_ref());
    match commits.iter().find(|commit| commit.lineage.is_some() && commit.lineage.as_ref() != lineage) {
        Some(Commit { version, .. }) => Err(Error::mismatch(
            table,
            format!("_delta_log/{version:020}.json is of another pipeline than the commits after it"),
        )),
        None => Ok(commits),
    }
}

async fn list(store: &dyn ObjectStore) -> DeltaResult<Vec<u64>> {
    let files = store.list(Some(&Path::from("_delta_log")));
    let versions = files.try_filter_map(|file| async move { Ok(file.location.filename().and_then(version_of)) });
    Ok(versions.try_collect().await?)
}

fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// One commit; `None` when its log file is gone.
async fn commit(store: &dyn ObjectStore, version: u64) -> DeltaResult<Option<Commit>> {
    let path = Path::from_iter(["_delta_log".to_owned(), format!("{version:020}.json")]);
    let bytes = match store.get(&path).await {
        Ok(found) => found.bytes().await?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let actions =
        damage::actions(version, &bytes, None).ok_or_else(|| DeltaTableError::generic(format!("{path} is damaged")))?;
    Ok(Some(parse(version, &actions)))
}

/// Commits, from the newest one back.
#[derive(Debug, Default)]
pub(crate) struct Back {
    /// Those after the one that was looked for, the newest first.
    pub(crate) commits: Vec<Commit>,
    /// The one that was looked for.
    pub(crate) last: Option<Commit>,
    /// Whether a commit before it was reached is not in the log any more, or cannot be made out.
    pub(crate) gap: bool,
}

/// Looks back from `newest` to the commit that is `known`, or to the first one after version `after`.
pub(crate) async fn commits_back_from(
    table: &DeltaTable,
    newest: u64,
    after: Option<u64>,
    known: impl Fn(&Commit) -> bool,
) -> DeltaResult<Back> {
    let store = table.log_store().object_store(None);
    let mut back = Back::default();
    let first = after.map_or(0, |after| after.saturating_add(1)).max(newest.saturating_sub(OTHERS_MAX));
    for version in (first..=newest).rev() {
        match commit(store.as_ref(), version).await {
            Ok(Some(commit)) if known(&commit) => return Ok(Back { last: Some(commit), ..back }),
            Ok(Some(commit)) => back.commits.push(commit),
            Ok(None) => return Ok(Back { gap: true, ..back }),
            Err(error) if cause::is_damage(&error) => return Ok(Back { gap: true, ..back }),
            Err(error) => return Err(error),
        }
    }
    back.gap = after.is_none_or(|after| first > after.saturating_add(1));
    Ok(back)
}

fn parse(version: u64, actions: &[Value]) -> Commit {
    let info = actions.iter().find_map(|action| action.get("commitInfo")).unwrap_or(&Value::Null);
    let told = Told::by(info);
    let transaction =
        |action: &Value| Some((action["txn"]["appId"].as_str()?.to_owned(), action["txn"]["version"].as_i64()?));
    let transactions: HashMap<String, i64> = actions.iter().filter_map(transaction).collect();
    let held = |app: fn(&str) -> String| transactions.get(&app(told.pipeline.as_ref()?)).copied();
    let named = |name: &'static str| actions.iter().filter_map(move |action| action.get(name));
    let changes = |file: &Value| file["dataChange"] != false;
    let statistics = |file: &Value| serde_json::from_str(file["stats"].as_str()?).ok();
    let path = |file: &Value| file["path"].as_str().map(ToOwned::to_owned);
    let added = |file: &Value| Some((path(file)?, statistics(file).unwrap_or_default()));
    let rows_added = || named("add").filter(|file| changes(file)).filter_map(statistics).collect::<Vec<Value>>();
    let text = |name: &str| info[name].as_str().map(ToOwned::to_owned);
    Commit {
        version,
        timestamp_ms: info["timestamp"].as_i64(),
        kind: told.kind,
        generation: told.generation,
        lineage: told.lineage,
        epoch: told.epoch,
        watermark: told.watermark,
        epoch_txn: held(epoch_app),
        fence_txn: held(fence_app),
        rows_changed: rows_changed(info),
        changes_rows: ["add", "remove", "cdc"].into_iter().flat_map(named).any(changes),
        rows_affected: rows_affected(info, &rows_added()),
        foreign: told.foreign,
        files_removed: named("remove").filter_map(path).collect(),
        files_added: named("add").filter_map(added).collect(),
        operation: text("operation"),
        engine: text("engineInfo").or_else(|| text("clientVersion")),
        pipeline: told.pipeline,
    }
}

/// Rows that were inserted or replaced, by the names that Spark uses, and by those of the Delta library for Rust.
fn rows_changed(info: &Value) -> u64 {
    let names: &[&str] = match info["operation"].as_str() {
        Some("MERGE") => {
            &["numTargetRowsInserted", "numTargetRowsUpdated", "num_target_rows_inserted", "num_target_rows_updated"]
        }
        Some("WRITE" | "STREAMING UPDATE") => &["numOutputRows", "num_added_rows"],
        _ => &[],
    };
    let metrics = &info["operationMetrics"];
    let number = |name: &&str| metrics[*name].as_u64().or_else(|| metrics[*name].as_str()?.parse().ok());
    names.iter().filter_map(number).sum()
}

/// Rows that were inserted, replaced or deleted, by the names that engines have for their numbers; else those that were added.
fn rows_affected(info: &Value, added: &[Value]) -> Option<u64> {
    const OUTPUT: [&str; 2] = ["numOutputRows", "num_added_rows"];
    const CHANGED: [&str; 10] = [
        "numDeletedRows",
        "num_deleted_rows",
        "numUpdatedRows",
        "num_updated_rows",
        "numTargetRowsInserted",
        "num_target_rows_inserted",
        "numTargetRowsUpdated",
        "num_target_rows_updated",
        "numTargetRowsDeleted",
        "num_target_rows_deleted",
    ];
    let metrics = &info["operationMetrics"];
    let number = |name: &&str| metrics[*name].as_u64().or_else(|| metrics[*name].as_str()?.parse().ok());
    let sum = |names: &[&str]| names.iter().filter_map(number).reduce(|a, b| a + b);
    let by_files = || added.iter().map(|statistics| statistics["numRecords"].as_u64()).sum::<Option<u64>>();
    sum(&CHANGED).or_else(|| sum(&OUTPUT)).or_else(|| by_files().filter(|rows| *rows > 0))
}

/// What a commit of ours says of itself.
#[derive(Default)]
struct Told {
    kind: Option<Kind>,
    pipeline: Option<String>,
    generation: Option<i64>,
    lineage: Option<String>,
    epoch: Option<i64>,
    watermark: Option<i64>,
    foreign: Option<ForeignChanges>,
}

impl Told {
    /// In its user metadata, or, before there was any, in members of its own.
    fn by(info: &Value) -> Told {
        let metadata = info["userMetadata"].as_str().and_then(|text| serde_json::from_str(text).ok());
        let metadata: Value = metadata.unwrap_or_default();
        let member = |name: &str| match &info[format!("tidemark.{name}")] {
            Value::Null => metadata[name].clone(),
            before => before.clone(),
        };
        let kind = member("kind").as_str().and_then(Kind::from_word);
        let pipeline = member("pipeline").as_str().map(ToOwned::to_owned);
        // Others may write JSON there as well.
        if pipeline.is_none() {
            return Told::default();
        }
        let number = |name: &str| member(name).as_i64();
        Told {
            kind,
            pipeline,
            generation: number("generation"),
            lineage: member("lineage").as_str().map(ToOwned::to_owned),
            epoch: number("epoch"),
            watermark: number("watermark"),
            foreign: serde_json::from_value(member("foreign")).ok(),
        }
    }
}
