//! Reading tables back with SQL: for summaries and checks, apart from any writer.

use arrow::record_batch::RecordBatch;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::{DeltaResult, DeltaTableError};

use crate::{Error, Location};

/// Runs `sql` over the newest version of the named tables. A table is called by the last part of its path there.
///
/// # Errors
/// [`Error::Unavailable`] when a table is missing or cannot be read, or the statement is wrong.
pub async fn query(location: &Location, tables: &[&str], sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let context = SessionContext::new();
    for name in tables {
        let short = name.rsplit('/').next().unwrap_or(name);
        register(&context, location, name, short).await.map_err(|error| Error::unavailable(name, 1, error))?;
    }
    let rows = async { context.sql(sql).await?.collect().await };
    rows.await.map_err(|error| Error::unavailable(&tables.join(", "), 1, DeltaTableError::Generic(error.to_string())))
}

async fn register(context: &SessionContext, location: &Location, name: &str, short: &str) -> DeltaResult<()> {
    let mut table = location.table(name).map_err(|error| DeltaTableError::Generic(error.to_string()))?;
    table.load().await?;
    context.register_table(short, table.table_provider().await?)?;
    Ok(())
}
