//! Several epochs' batches of one table to the one batch that a publication writes.

use std::collections::HashSet;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use tidemark_delta::{Shape, TableSpec};

/// Concatenates `batches`, given in the order of their epochs. Of a merged table only the newest row of each key
/// remains: the values are absolute, so the newest says all.
///
/// # Errors
///
/// When a batch does not have the table's schema, which would be a bug.
pub fn coalesce(spec: &TableSpec, batches: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
    let all = match batches {
        [] => return Ok(None),
        [one] => one.clone(),
        several => concat_batches(&spec.schema, several)?,
    };
    match &spec.shape {
        Shape::Keyed { key } if batches.len() > 1 => newest_of_each_key(key, &all).map(Some),
        _ => Ok(Some(all)),
    }
}

fn newest_of_each_key(key: &[String], batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let key: Result<Vec<usize>, _> = key.iter().map(|column| batch.schema_ref().index_of(column)).collect();
    let key = batch.project(&key?)?;
    let fields = key.schema_ref().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(key.columns())?;
    let mut seen: HashSet<OwnedRow> = HashSet::with_capacity(rows.num_rows());
    let mut newest: Vec<bool> = (0..rows.num_rows()).rev().map(|i| seen.insert(rows.row(i).owned())).collect();
    newest.reverse();
    filter_record_batch(batch, &BooleanArray::from(newest))
}
