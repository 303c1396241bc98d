//! A keyed table written anew from what its rows must be, after somebody else has changed them.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use deltalake::DeltaResult;
use serde_json::json;

use super::rewrite::part_rows;
use super::sorted;
use crate::Error;
use crate::foreign::ForeignChanges;
use crate::log::{Changes, LiveFile, Operation};
use crate::spec::Shape;
use crate::txn::{Kind, Stamp};
use crate::writer::TableWriter;

impl TableWriter {
    /// Makes `rows`, which are all rows as of the epoch that the table holds, the rows of the table, in one commit: with it,
    /// changes of others are settled. A stored row that differs from its new one in `changed_at` alone stays as it is.
    ///
    /// # Errors
    /// [`Error::Bug`] for an append table; else as for [`TableWriter::publish`].
    pub async fn write_anew(&mut self, rows: &RecordBatch, changed_at: &str) -> Result<(), Error> {
        let Shape::Keyed { key } = self.spec.shape.clone() else {
            return Err(Error::bug(&self.spec.name, "an append table is never written anew"));
        };
        let rows = sorted(&self.spec.name, rows, &key)?;
        self.terms.checks.hold(&self.spec.name, &rows)?;
        loop {
            let known = self.version();
            let failure = match self.know().await? {
                Ok(()) => match self.try_write_anew(&rows, changed_at).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            self.reload().await?;
            if self.version() == known {
                return Err(Error::failed(&self.spec.name, failure));
            }
        }
    }

    async fn try_write_anew(&mut self, rows: &RecordBatch, changed_at: &str) -> DeltaResult<()> {
        let removed: Vec<LiveFile> = self.log.files().cloned().collect();
        let mut batches = Vec::new();
        for file in &removed {
            batches.extend(self.read_file(file).await?);
        }
        let stored: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let (order, kept) = stored_where_equal(&batches, rows, changed_at)?;
        let stamp = Stamp { kind: Kind::Repair, epoch: self.epoch, watermark: None };
        let mut operation = Operation {
            name: Operation::APPEND,
            parameters: json!({ "mode": "Overwrite", "partitionBy": "[]" }),
            metrics: json!({}),
        };
        let mut changes = Changes::default();
        if stored != rows.num_rows() || kept != rows.num_rows() {
            batches.push(rows.clone());
            let batches: Vec<&RecordBatch> = batches.iter().collect();
            for part in order.chunks(part_rows(order.len(), self.lake.policy.merged_file_rows)) {
                let part = interleave_record_batch(&batches, part)?;
                changes.added.push(self.file_writer().write(&[part]).await?);
            }
            operation.metrics = json!({
                "numFiles": changes.added.len(),
                "numOutputRows": rows.num_rows(),
                "numOutputBytes": changes.added.iter().map(|file| file.bytes).sum::<u64>(),
            });
            changes = Changes { removed, rows: true, ..changes };
        }
        let mut metadata = self.log.metadata.clone();
        let accepted = metadata["configuration"].as_object_mut().and_then(|all| all.remove(ForeignChanges::ACCEPTED));
        changes.metadata = accepted.map(|_| metadata);
        let left = self.log.foreign.take();
        let done = self.commit(stamp, operation, changes).await;
        match &done {
            Ok(()) => tracing::warn!(
                table = self.spec.name,
                rows = rows.num_rows(),
                restored = rows.num_rows() - kept,
                removed = stored - kept,
                "written anew, as somebody else had changed it"
            ),
            Err(_) => self.log.foreign = left,
        }
        done
    }
}

/// For each row, where it is taken from: a stored row that is the same but for `changed_at`, or, in the batch after the stored
/// ones, the row itself. And how many are stored.
fn stored_where_equal(
    stored: &[RecordBatch],
    rows: &RecordBatch,
    changed_at: &str,
) -> Result<(Vec<(usize, usize)>, usize), ArrowError> {
    let schema = rows.schema();
    let compared: Vec<usize> = (0..schema.fields().len()).filter(|at| schema.field(*at).name() != changed_at).collect();
    let fields = compared.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encoded = |batch: &RecordBatch| converter.convert_columns(batch.project(&compared)?.columns());
    let stored = stored.iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
    let mut places = HashMap::new();
    for (batch, rows) in stored.iter().enumerate() {
        for (at, row) in rows.iter().enumerate() {
            places.entry(row).or_insert((batch, at));
        }
    }
    let new = encoded(rows)?;
    let mut kept = 0;
    let place = |(at, row)| match places.get(&row) {
        Some(place) => {
            kept += 1;
            *place
        }
        None => (stored.len(), at),
    };
    let order = new.iter().enumerate().map(place).collect();
    Ok((order, kept))
}
