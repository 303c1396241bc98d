//! The library's MERGE: it plans and runs a join of the table with the rows.

use arrow::record_batch::RecordBatch;
use deltalake::datafusion::common::Column;
use deltalake::datafusion::prelude::Expr;
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};

use crate::files::writer_properties;
use crate::txn::Stamp;
use crate::writer::TableWriter;

const SOURCE: &str = "source";
const TARGET: &str = "target";

/// Inserts or replaces the rows, in one commit. The writer's handle is cloned, as a failed merge consumes it.
pub(super) async fn merge(
    writer: &TableWriter,
    key: &[String],
    rows: RecordBatch,
    stamp: Stamp,
) -> DeltaResult<DeltaTable> {
    let before = writer.table.version();
    let names: Vec<String> = writer.spec.schema.fields().iter().map(|field| field.name().clone()).collect();
    let session = &writer.lake.session;
    let same_key = key.iter().map(|name| column(TARGET, name).eq(column(SOURCE, name))).reduce(Expr::and);
    let same_key = same_key.ok_or_else(|| DeltaTableError::generic("no key"))?;
    let (table, _) = writer
        .table
        .clone()
        .merge(session.read_batch(rows)?, same_key)
        .with_source_alias(SOURCE)
        .with_target_alias(TARGET)
        .with_session_state(std::sync::Arc::new(session.state()))
        .with_writer_properties(writer_properties(&writer.spec.shape))
        .with_commit_properties(writer.lake.identity.commit_properties(stamp, vec![]))
        .when_matched_update(|update| {
            let changed = names.iter().filter(|name| !key.contains(name));
            changed.fold(update, |update, name| update.update(name.as_str(), column(SOURCE, name)))
        })?
        .when_not_matched_insert(|insert| {
            names.iter().fold(insert, |insert, name| insert.set(name.as_str(), column(SOURCE, name)))
        })?
        .await?;
    // A merge that changes no file makes no commit, and would lose the epoch.
    if table.version() == before {
        return Err(DeltaTableError::generic("the merge made no commit"));
    }
    Ok(table)
}

fn column(table: &str, name: &str) -> Expr {
    Expr::Column(Column::new(Some(table), name))
}
