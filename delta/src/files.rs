//! The files of a table: reading one that is live, writing one that is not yet, and the rows that stay in memory.

use std::collections::HashMap;

use arrow::record_batch::RecordBatch;
use deltalake::kernel::{Add, LogicalFileView};
use deltalake::logstore::object_store::ObjectStoreExt;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaResult, DeltaTableError};
use serde_json::Value;

use crate::read::with_schema;
use crate::spec::Shape;
use crate::writer::TableWriter;

/// Rows that are read from a file at once. Fewer make more, smaller arrays.
const READ_ROWS: usize = 1 << 16;

/// Zstandard at its fastest, for size: 100,000 generated rows took 0.34 MB, with Snappy 1.17 MB; at six rows they are equal.
/// No difference in time between codecs showed above the noise of the measurement. Statistics are for whole columns: readers
/// of such small files gain nothing from those of pages.
///
/// Rows with a key have hardly two equal values in a column: a dictionary would be filled, and then given up.
pub(crate) fn writer_properties(shape: &Shape) -> WriterProperties {
    let compression = ZstdLevel::try_new(1).map_or(Compression::SNAPPY, Compression::ZSTD);
    WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(matches!(shape, Shape::Append { .. }))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}

/// The rows of live files that this writer has written, as far as they are few. Files never change, so what is here is right
/// as long as its file is part of the table, whatever became of the commit.
#[derive(Debug, Default)]
pub(crate) struct Resident(HashMap<String, RecordBatch>);

impl Resident {
    /// The rows of the file at `path`, if they are here.
    pub(crate) fn rows(&self, path: &str) -> Option<&RecordBatch> {
        self.0.get(path)
    }

    /// Drops the rows of files that are not `live` any more, and takes in those of new ones, as long as all of them together
    /// stay within `limit` bytes.
    pub(crate) fn replace(
        &mut self,
        new: impl IntoIterator<Item = (String, RecordBatch)>,
        live: impl Fn(&str) -> bool,
        limit: usize,
    ) {
        self.0.retain(|path, _| live(path));
        let mut bytes: usize = self.0.values().map(RecordBatch::get_array_memory_size).sum();
        for (path, rows) in new {
            bytes += rows.get_array_memory_size();
            if bytes > limit {
                return;
            }
            self.0.insert(path, rows);
        }
    }
}

impl TableWriter {
    /// Whether the table asks no more of a writer than what is done here: no feature, and no constraint but ours.
    pub(crate) fn is_plain(&self) -> DeltaResult<bool> {
        let state = self.table.snapshot()?;
        let protocol = state.protocol();
        let ours = |key: &String| self.spec.checks.iter().any(|check| check.property() == *key);
        let mut constraints =
            state.metadata().configuration().keys().filter(|key| key.starts_with("delta.constraints."));
        Ok(protocol.min_reader_version() == 1 && protocol.min_writer_version() <= 3 && constraints.all(ours))
    }

    /// The rows of a live file, in their order.
    pub(crate) async fn read_file(&self, file: &LogicalFileView) -> DeltaResult<Vec<RecordBatch>> {
        if let Some(rows) = self.resident.rows(&file.path()) {
            return Ok(vec![rows.clone()]);
        }
        // Files are small enough for memory: MERGE splits them by rows, compaction passes over large ones.
        let bytes = self.table.object_store().get(&file.object_store_path()).await?.bytes().await?;
        let batches = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(READ_ROWS).build()?;
        batches.map(|batch| Ok(with_schema(&batch?, &self.spec.schema)?)).collect()
    }

    /// Writes rows into a new file. It is an orphan until it is committed.
    pub(crate) async fn write_file(&self, rows: &[RecordBatch]) -> DeltaResult<Add> {
        self.file_writer()?.write(rows).await
    }

    /// Writes files for the table, on whatever thread.
    pub(crate) fn file_writer(&self) -> DeltaResult<FileWriter> {
        let properties = writer_properties(&self.spec.shape);
        Ok(FileWriter(RecordBatchWriter::for_table(&self.table)?.with_writer_properties(properties)))
    }
}

/// Writes files of a table, and knows no more of it.
pub(crate) struct FileWriter(RecordBatchWriter);

impl FileWriter {
    /// Writes rows into a new file. It is an orphan until it is committed.
    pub(crate) async fn write(&mut self, rows: &[RecordBatch]) -> DeltaResult<Add> {
        for batch in rows {
            self.0.write(batch.clone()).await?;
        }
        let mut files = self.0.flush().await?;
        let (Some(add), true) = (files.pop(), files.is_empty()) else {
            return Err(DeltaTableError::generic("the rows did not come to one file"));
        };
        let statistics: Value = serde_json::from_str(add.stats.as_deref().unwrap_or_default())?;
        let (written, expected) = (statistics["numRecords"].as_u64(), rows.iter().map(RecordBatch::num_rows).sum());
        if written.and_then(|rows| usize::try_from(rows).ok()) != Some(expected) {
            return Err(DeltaTableError::generic(format!("{written:?} rows were written instead of {expected}")));
        }
        Ok(add)
    }
}
