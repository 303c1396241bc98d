//! Reading tables back, for summaries and checks, apart from any writer: nothing here creates, fences or locks anything.

mod history;
mod predicate;
mod scan;

use deltalake::logstore::object_store::{Error as StoreError, ObjectStoreExt, PutPayload};
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use futures::StreamExt;
use serde_json::Value;
use tidemark_store::{Cause, Persistence};

pub(crate) use self::history::{Back, commits_back_from};
pub use self::history::{Commit, history};
pub use self::predicate::Predicate;
pub use self::scan::Scan;
pub(crate) use self::scan::with_schema;
use crate::damage::{self, Damage};
use crate::foreign::{ForeignChanges, Found, files_of};
use crate::lake::Sound;
use crate::log::LiveFile;
use crate::maintain::Expired;
use crate::open::lineage;
use crate::txn::Held;
use crate::{Error, Location, log};

type Bytes = <PutPayload as IntoIterator>::Item;

/// Reads again what failed for a reason that may pass.
async fn patiently<T>(
    location: &Location,
    table: &str,
    read: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let cause = |error: &Error| if error.is_damage() { Cause::Lasting } else { error.cause() };
    let persistence = Persistence::new(format!("table {table}"), location.patience().clone());
    persistence.persist("reading", cause, read).await.map_err(|gave_up| gave_up.error)
}

async fn load(location: &Location, name: &str, version: Option<u64>) -> Result<DeltaTable, Error> {
    Ok(location.load(name, existing(location, name)?, version).await?.0)
}

fn existing(location: &Location, name: &str) -> Result<DeltaTable, Error> {
    let missing = || Error::unavailable(name, DeltaTableError::NotATable(name.to_owned()));
    location.existing(name)?.ok_or_else(missing)
}

/// What a table says of who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The lineage of its pipeline; none where a version of before made it, and none has taken it over since.
    pub lineage: Option<u64>,
    /// The generation that has taken it over last; none where another pipeline made it.
    pub fence: Option<u64>,
    /// The greatest epoch that it holds; none before the first publication.
    pub epoch: Option<u64>,
    /// Its newest version.
    pub version: u64,
    /// What is wrong with what is stored of it, in words.
    pub damage: Option<String>,
    /// What others have changed, and nobody has settled.
    pub foreign: Option<ForeignChanges>,
}

/// What a table says of who wrote it, as far as `pipeline` is concerned; `None` where there is no table.
///
/// # Errors
/// [`Error::StateMismatch`] when its protocol is not known, or its log makes no sense, [`Error::Unavailable`] when it cannot be
/// read.
pub async fn standing(location: &Location, pipeline: &str, table: &str) -> Result<Option<Standing>, Error> {
    patiently(location, table, async || standing_now(location, pipeline, table).await).await
}

async fn standing_now(location: &Location, pipeline: &str, table: &str) -> Result<Option<Standing>, Error> {
    let unavailable = |error| Error::unavailable(table, error);
    let Some(handle) = location.existing(table)? else {
        return Ok(None);
    };
    if !handle.verify_deltatable_existence().await.map_err(unavailable)? {
        return Ok(None);
    }
    let Sound { table: handle, damage, .. } = location.load_sound(table, handle).await?;
    // Some damage shows in the transactions alone.
    let held =
        Held::read(&handle, pipeline).await.map_err(|failure| Error::damaged(table, damage.as_ref(), failure))?;
    let metadata = handle.snapshot().and_then(|state| Ok(serde_json::to_value(state.metadata())?));
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let version = handle.version().unwrap_or_default();
    let (_, foreign) = foreign(location, table, &handle, pipeline, None).await.map_err(unavailable)?;
    Ok(Some(Standing {
        version,
        lineage: lineage(&metadata.map_err(unavailable)?),
        fence: held.fence.map(unsigned),
        epoch: held.epoch.map(unsigned),
        damage,
        foreign,
    }))
}

/// What others have changed since the last commit of `pipeline`, and before it, if that is not settled; and all of it in one.
/// `epoch` is the column of an append table that holds epochs.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn foreign(
    location: &Location,
    name: &str,
    table: &DeltaTable,
    pipeline: &str,
    epoch: Option<&str>,
) -> DeltaResult<(Found, Option<ForeignChanges>)> {
    let found = Found::since_ours(table, table.version().unwrap_or_default(), pipeline).await?;
    let files = match found.needs_files_of() {
        // Where it cannot be read any more, less is known.
        Some(before) => load(location, name, Some(before)).await.ok().and_then(|table| files_of(&table).ok()),
        None => None,
    };
    let found = found.that_change_rows(files.as_ref());
    let together = found.together(&files.unwrap_or_default(), epoch);
    Ok((found, together))
}

/// The changes of others that somebody has accepted in a table.
///
/// # Errors
/// [`Error::Unavailable`] when the table is missing or cannot be read, [`Error::StateMismatch`] when its log is damaged.
pub async fn accepted_changes(location: &Location, table: &str) -> Result<Vec<ForeignChanges>, Error> {
    let metadata = patiently(location, table, async || metadata(location, table, None).await);
    Ok(ForeignChanges::accepted_in(&metadata.await?))
}

/// The rows of a table that have expired as of a version, if some have.
///
/// # Errors
/// As for [`accepted_changes`].
pub async fn expired(location: &Location, table: &str, version: u64) -> Result<Option<Expired>, Error> {
    let metadata = patiently(location, table, async || metadata(location, table, Some(version)).await);
    Ok(Expired::of(&metadata.await?))
}

async fn metadata(location: &Location, name: &str, version: Option<u64>) -> Result<Value, Error> {
    let loaded = load(location, name, version).await?;
    let metadata = loaded.snapshot().and_then(|state| Ok(serde_json::to_value(state.metadata())?));
    metadata.map_err(|error| Error::unavailable(name, error))
}

/// What is wrong with the files of a table as of a version, in words: each is read to its end, and compared with the digest in
/// its name, or, where that has none, decoded.
///
/// # Errors
/// [`Error::StateMismatch`] when the log is damaged, [`Error::Unavailable`] when storage does not answer.
pub async fn damaged_files(location: &Location, table: &str, version: u64) -> Result<Vec<String>, Error> {
    patiently(location, table, async || {
        let unavailable = |error| Error::unavailable(table, error);
        let (loaded, passed_over) = location.load(table, existing(location, table)?, Some(version)).await?;
        let store = loaded.log_store().object_store(None);
        let mut findings = Vec::new();
        let found =
            if !passed_over.is_empty() { None } else { damage::of_table(&loaded, false).await.map_err(unavailable)?.0 };
        let altered = match &found {
            Some(Damage::Passable(names)) => Some(names),
            Some(Damage::Unvouched(names)) => {
                let again = location.load_without(table, names, Some(version)).await?;
                (!log::say_the_same(&loaded, &again).unwrap_or(false)).then_some(names)
            }
            _ => None,
        };
        if let Some(newest) = altered.and_then(damage::newest) {
            findings.push(format!("{table}/_delta_log/{newest} is not what was written; the commits say the same"));
        }
        if let Some(newest) = damage::newest(&passed_over) {
            findings.push(format!("{table}/_delta_log/{newest} cannot be read, as other readers must"));
        }
        for file in loaded.snapshot().map_err(unavailable)?.log_data().iter() {
            let file = LiveFile::of(&file).map_err(unavailable)?;
            match store.get(&file.place()).await {
                Ok(found) => {
                    let bytes = found.bytes().await.map_err(|error| unavailable(error.into()))?;
                    let told = file.damage(&bytes).or_else(|| undecodable(&file, bytes));
                    findings.extend(told.map(|what| format!("{table}/{what}")));
                }
                Err(StoreError::NotFound { .. }) => findings.push(format!("{table}/{} is gone", file.path)),
                Err(error) => return Err(unavailable(error.into())),
            }
        }
        Ok(findings)
    })
    .await
}

/// Why a file without a digest cannot be decoded, if it cannot.
fn undecodable(file: &LiveFile, bytes: Bytes) -> Option<String> {
    if file.digest().is_some() {
        return None;
    }
    let batches = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let error = match batches {
        Ok(batches) => batches.filter_map(Result::err).next()?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(format!("{} cannot be read: {error}", file.path))
}

/// Whether there is anything of a table: a directory of that name, or an object below it.
///
/// # Errors
/// [`Error::Unavailable`] when that cannot be found out.
pub async fn exists(location: &Location, table: &str) -> Result<bool, Error> {
    patiently(location, table, async || {
        let Some(handle) = location.existing(table)? else { return Ok(false) };
        if location.is_local() {
            return Ok(true);
        }
        let store = handle.log_store().object_store(None);
        let first = store.list(None).next().await.transpose();
        first.map(|found| found.is_some()).map_err(|error| Error::unavailable(table, error.into()))
    })
    .await
}
