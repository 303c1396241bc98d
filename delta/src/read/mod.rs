//! Reading tables back, for summaries and checks, apart from any writer: nothing here creates, fences or locks anything.

mod history;
mod predicate;
mod scan;

use std::time::Duration;

use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;

pub(crate) use self::history::name_others;
pub use self::history::{Commit, history};
pub use self::predicate::Predicate;
pub use self::scan::Scan;
pub(crate) use self::scan::with_schema;
use crate::txn::Held;
use crate::{Error, Location, Retry};

/// Nobody waits here but the one who asked: a few attempts, over some seconds.
const PATIENCE: Retry =
    Retry { attempts: 5, first_wait: Duration::from_millis(200), longest_wait: Duration::from_secs(3) };

/// Reads again what failed for a reason that may pass.
async fn patiently<T>(read: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        let error = match read().await {
            Err(error) if !error.is_damage() => error,
            settled => return settled,
        };
        let wait = match &error {
            Error::Unavailable { source, .. } => PATIENCE.wait_after(attempt, source),
            _ => None,
        };
        let Some(wait) = wait else { return Err(error) };
        tracing::debug!(attempt, wait_ms = wait.as_millis(), %error, "reading failed, trying again");
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
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
    patiently(async || held_now(location, pipeline, table).await).await
}

async fn held_now(location: &Location, pipeline: &str, table: &str) -> Result<Option<Held>, Error> {
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

/// Whether there is anything of a table: a directory of that name, or an object below it.
///
/// # Errors
/// [`Error::Unavailable`] when that cannot be found out.
pub async fn exists(location: &Location, table: &str) -> Result<bool, Error> {
    patiently(async || {
        let Some(handle) = location.existing(table)? else { return Ok(false) };
        if location.is_local() {
            return Ok(true);
        }
        let store = handle.log_store().object_store(None);
        let first = store.list(None).next().await.transpose();
        first.map(|found| found.is_some()).map_err(|error| Error::unavailable(table, 1, error.into()))
    })
    .await
}
