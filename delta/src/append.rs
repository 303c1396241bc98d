//! Appending rows, less those of epochs that the table holds.

use arrow::array::{AsArray, Int64Array, Scalar};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{filter_record_batch, max};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaResult, DeltaTableError};

use serde_json::json;

use crate::Error;
use crate::files::writer_properties;
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

/// Adds the rows as one file, in one commit: by hand, which spares planning a query, unless the table asks more of a writer.
pub(crate) async fn append(writer: &mut TableWriter, rows: RecordBatch, stamp: Stamp) -> DeltaResult<()> {
    if writer.is_plain()? {
        let added = rows.num_rows();
        let add = writer.write_file(&[rows]).await?;
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let metrics = json!({ "num_added_files": 1, "num_added_rows": added, "num_removed_files": 0 });
        let more = vec![("operationMetrics".to_owned(), metrics)];
        return writer.commit(stamp, vec![Action::Add(add)], operation, more).await;
    }
    writer.table = writer
        .table
        .clone()
        .write([rows])
        .with_save_mode(SaveMode::Append)
        .with_session_state(std::sync::Arc::new(writer.lake.session.state()))
        .with_writer_properties(writer_properties(&writer.spec.shape))
        .with_commit_properties(writer.lake.identity.commit_properties(stamp, vec![]))
        .await?;
    Ok(())
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
