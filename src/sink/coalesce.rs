//! Several epochs' batches of one table to the one batch that a publication writes.

use std::hash::Hash;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashSet;
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
    let newest = match key.columns() {
        // The usual case: keys are compared where they lie.
        [text] if *text.data_type() == DataType::Utf8 => {
            let text = text.as_string::<i32>();
            last_of_each(text.len(), |row| text.value(row))
        }
        columns => {
            let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
            let rows = RowConverter::new(fields)?.convert_columns(columns)?;
            last_of_each(rows.num_rows(), |row| rows.row(row))
        }
    };
    filter_record_batch(batch, &newest)
}

/// Marks the last of each key among `rows` keys.
fn last_of_each<K: Hash + Eq>(rows: usize, key: impl Fn(usize) -> K) -> BooleanArray {
    let mut seen = HashSet::with_capacity(rows);
    let mut last: Vec<bool> = (0..rows).rev().map(|row| seen.insert(key(row))).collect();
    last.reverse();
    BooleanArray::from(last)
}
