//! Appending rows, less those of epochs that the table holds.

use arrow::array::{AsArray, Int64Array, Scalar};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{filter_record_batch, max};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use deltalake::{DeltaResult, DeltaTableError};
use serde_json::json;

use crate::Error;
use crate::log::{Changes, Operation};
use crate::txn::Stamp;
use crate::writer::TableWriter;

/// The rows of epochs after `held`, if there are any. After a restart one publication can span epochs on both sides.
pub(crate) fn rows_after(batch: &RecordBatch, epoch: &str, held: Option<i64>) -> DeltaResult<Option<RecordBatch>> {
    let Some(held) = held else {
        return Ok(Some(batch.clone()));
    };
    let epochs = batch.column_by_name(epoch).ok_or_else(|| DeltaTableError::generic("no epoch column"))?;
    let rows = filter_record_batch(batch, &gt(epochs, &Scalar::new(Int64Array::from(vec![held])))?)?;
    Ok((rows.num_rows() > 0).then_some(rows))
}

/// Refuses rows of epochs after the one that is published: they would be left out, or added twice, later.
pub(crate) fn check_epochs(table: &str, batch: &RecordBatch, column: &str, epoch: i64) -> Result<(), Error> {
    let epochs = batch.column_by_name(column).and_then(|column| column.as_primitive_opt::<Int64Type>());
    match epochs.and_then(max) {
        Some(latest) if latest > epoch => {
            Err(Error::bug(table, format!("epoch {epoch} is published with a row of epoch {latest}")))
        }
        _ => Ok(()),
    }
}

/// Adds the rows as one file, in one commit.
pub(crate) async fn append(writer: &mut TableWriter, rows: RecordBatch, stamp: Stamp) -> DeltaResult<()> {
    let count = rows.num_rows();
    let file = writer.file_writer().write(&[rows]).await?;
    let operation = Operation {
        name: Operation::APPEND,
        parameters: json!({ "mode": "Append", "partitionBy": "[]" }),
        metrics: json!({ "numFiles": 1, "numOutputRows": count, "numOutputBytes": file.bytes }),
    };
    let changes = Changes { added: vec![file], rows: true, ..Changes::default() };
    writer.commit(stamp, operation, changes).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    #[test]
    fn rows_of_held_epochs_are_left_out() {
        let epochs: ArrayRef = Arc::new(Int64Array::from(vec![4, 5, 5, 6, 7]));
        let batch = RecordBatch::try_from_iter([("epoch", epochs)]).unwrap();
        let left = |held| {
            let rows = rows_after(&batch, "epoch", held).unwrap()?;
            Some(rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        };
        assert_eq!(left(None), Some(vec![4, 5, 5, 6, 7]));
        assert_eq!(left(Some(5)), Some(vec![6, 7]));
        assert_eq!(left(Some(7)), None);
        assert!(check_epochs("t", &batch, "epoch", 7).is_ok());
        assert!(matches!(check_epochs("t", &batch, "epoch", 6), Err(Error::Bug { .. })));
    }
}
