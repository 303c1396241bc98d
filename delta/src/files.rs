//! The files of a table: reading one that is live, writing one that is not yet, and the rows that stay in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use deltalake::DeltaResult;
use deltalake::logstore::object_store::{ObjectStore, ObjectStoreExt};
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::parquet::arrow::arrow_writer::ArrowWriterOptions;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::errors::ParquetError;
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use uuid::Uuid;

use crate::log::{LiveFile, digest, now_ms};
use crate::read::with_schema;
use crate::spec::Shape;
use crate::statistics;
use crate::writer::TableWriter;

/// Rows that are read from a file at once. Fewer make more, smaller arrays; of more, the longest payloads would not fit into one
/// array of texts, which holds 2 GiB.
const READ_ROWS: usize = 1 << 14;

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
    /// The rows of a live file, in their order.
    pub(crate) async fn read_file(&self, file: &LiveFile) -> DeltaResult<Vec<RecordBatch>> {
        if let Some(rows) = self.resident.rows(&file.path) {
            return Ok(vec![rows.clone()]);
        }
        // Files are small enough for memory: MERGE splits them by rows, compaction passes over large ones.
        let bytes = self.log.store.object_store(None).get(&file.place()).await?.bytes().await?;
        if let Some(what) = file.damage(&bytes) {
            return Err(ParquetError::General(what).into());
        }
        let batches = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(READ_ROWS).build()?;
        batches.map(|batch| Ok(with_schema(&batch?, &self.spec.schema)?)).collect()
    }

    /// Writes files for the table, on whatever thread.
    pub(crate) fn file_writer(&self) -> FileWriter {
        FileWriter {
            store: self.log.store.object_store(None),
            columns: SchemaRef::clone(&self.terms.columns),
            properties: writer_properties(&self.spec.shape),
            bounded: self.spec.statistics_columns().into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Writes files of a table, and knows no more of it.
pub(crate) struct FileWriter {
    store: Arc<dyn ObjectStore>,
    columns: SchemaRef,
    properties: WriterProperties,
    /// Columns with least and greatest value in the log.
    bounded: Vec<String>,
}

impl FileWriter {
    /// Writes rows into a new file, in memory first and then by one request. It is an orphan until it is committed.
    pub(crate) async fn write(&self, rows: &[RecordBatch]) -> DeltaResult<LiveFile> {
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(&self.columns), options)?;
        for batch in rows {
            writer.write(&RecordBatch::try_new(SchemaRef::clone(&self.columns), batch.columns().to_vec())?)?;
        }
        let bytes = writer.into_inner()?;
        let file = LiveFile {
            path: format!("part-00000-{}-c000.{}.zstd.parquet", Uuid::new_v4(), digest(&bytes)),
            bytes: bytes.len() as u64,
            modified_ms: now_ms(),
            statistics: statistics::of(rows, &self.bounded),
        };
        self.store.put(&file.place(), bytes.into()).await?;
        Ok(file)
    }
}
