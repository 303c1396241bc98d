//! Reading tables back, for summaries and checks, apart from any writer: nothing here creates, fences or locks anything.

mod history;

use arrow::record_batch::RecordBatch;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::{DeltaTable, DeltaTableError};

pub use self::history::{Commit, history};
use crate::txn::Held;
use crate::{Error, Location};

/// Runs `sql` over the newest version of the named tables. A table is called by the last part of its path there.
///
/// # Errors
/// [`Error::Unavailable`] when a table is missing or cannot be read, or the statement is wrong.
pub async fn query(location: &Location, tables: &[&str], sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let newest: Vec<_> = tables.iter().map(|name| (*name, None)).collect();
    run(location, &newest, sql).await
}

/// Runs `sql` over the named tables as they were at the given versions. The same table cannot be named twice.
///
/// # Errors
/// As for [`query`]; also when a version is unknown, or its files were deleted after the retention.
pub async fn query_at(location: &Location, tables: &[(&str, u64)], sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let versions: Vec<_> = tables.iter().map(|(name, version)| (*name, Some(*version))).collect();
    run(location, &versions, sql).await
}

async fn run(location: &Location, tables: &[(&str, Option<u64>)], sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let context = SessionContext::new();
    for (name, version) in tables {
        let unavailable = |error: DataFusionError| Error::unavailable(name, 1, error.into());
        let table = load(location, name, *version).await?;
        let provider = table.table_provider().await.map_err(unavailable)?;
        let short = name.rsplit('/').next().unwrap_or(name);
        context.register_table(short, provider).map_err(unavailable)?;
    }
    let rows = async { context.sql(sql).await?.collect().await };
    let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
    // Converted here, a storage failure keeps its type.
    rows.await.map_err(|error| Error::unavailable(&names.join(", "), 1, DeltaTableError::from(error)))
}

async fn load(location: &Location, name: &str, version: Option<u64>) -> Result<DeltaTable, Error> {
    let mut table = existing(location, name)?;
    let loaded = match version {
        Some(version) => table.load_version(version).await,
        None => table.load().await,
    };
    loaded.map_err(|error| Error::unavailable(name, 1, error))?;
    Ok(table)
}

fn existing(location: &Location, name: &str) -> Result<DeltaTable, Error> {
    let missing = || Error::unavailable(name, 1, DeltaTableError::NotATable(name.to_owned()));
    location.existing(name)?.ok_or_else(missing)
}

/// The transactions of `pipeline` that a table holds; `None` where there is no table.
///
/// # Errors
/// [`Error::Unavailable`] when the table cannot be read.
pub async fn held(location: &Location, pipeline: &str, table: &str) -> Result<Option<Held>, Error> {
    let unavailable = |error| Error::unavailable(table, 1, error);
    let Some(mut handle) = location.existing(table)? else {
        return Ok(None);
    };
    if !handle.verify_deltatable_existence().await.map_err(unavailable)? {
        return Ok(None);
    }
    handle.load().await.map_err(unavailable)?;
    Held::read(&handle, pipeline).await.map(Some).map_err(unavailable)
}
