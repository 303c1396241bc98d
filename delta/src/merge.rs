//! MERGE of absolute rows into a keyed table.

use std::collections::HashSet;

use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use deltalake::datafusion::common::Column;
use deltalake::datafusion::prelude::Expr;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};

use crate::Error;
use crate::txn::Stamp;
use crate::writer::TableWriter;

const SOURCE: &str = "source";
const TARGET: &str = "target";

/// Refuses a batch in which two rows share a key: where the key is new to the table, MERGE would insert both.
pub(crate) fn check_unique(table: &str, batch: &RecordBatch, key: &[String]) -> Result<(), Error> {
    let columns: Vec<_> = key.iter().filter_map(|name| batch.column_by_name(name).cloned()).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let bug = |error: arrow::error::ArrowError| Error::bug(table, error.to_string());
    let rows = RowConverter::new(fields).map_err(bug)?.convert_columns(&columns).map_err(bug)?;
    let mut seen = HashSet::with_capacity(batch.num_rows());
    match rows.iter().position(|row| !seen.insert(row)) {
        Some(row) => {
            Err(Error::data(table, format!("row {row} repeats the key ({}) of an earlier row", key.join(", "))))
        }
        None => Ok(()),
    }
}

/// Inserts or replaces the rows, in one commit. The writer's handle is cloned, as a failed merge consumes it.
pub(crate) async fn merge(
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
        .with_writer_properties(writer_properties())
        .with_commit_properties(writer.lake.identity.commit_properties(stamp))
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

/// Zstandard at its fastest, for size: 100,000 generated rows took 0.34 MB, with Snappy 1.17 MB; at six rows they are equal.
/// No difference in time between codecs showed above the noise of the measurement.
pub(crate) fn writer_properties() -> WriterProperties {
    let compression = ZstdLevel::try_new(1).map_or(Compression::SNAPPY, Compression::ZSTD);
    WriterProperties::builder().set_compression(compression).build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("a", text), ("b", number)]).unwrap()
    }

    #[test]
    fn keys_are_compared_over_all_their_columns() {
        let key = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let rows = batch(&[("x", 1), ("x", 2), ("y", 1)]);
        assert!(check_unique("t", &rows, &key(&["a", "b"])).is_ok());
        let error = check_unique("t", &rows, &key(&["a"])).unwrap_err();
        assert!(matches!(error, Error::DataCheck { .. }), "{error}");
    }
}
