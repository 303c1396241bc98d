//! A scan: the rows of a table at a version, file by file, as far as they are meant, in batches of the columns asked for.

use std::ops::Range;
use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use deltalake::kernel::LogicalFileView;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use deltalake::parquet::arrow::ProjectionMask;
use deltalake::parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use deltalake::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use deltalake::parquet::errors::Result as ParquetResult;
use deltalake::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use serde_json::Value;

use super::predicate::Predicate;
use super::{load, patiently};
use crate::{Error, Location};

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 1 << 12;

/// What is read of the end of a file at once: the footer of nearly every one of ours.
const FOOTER_BYTES: usize = 16 << 10;

/// What is read of a table.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    /// Its path below the root.
    pub table: &'a str,
    /// Its version; the newest where there is none.
    pub version: Option<u64>,
    /// The columns of a batch, in this order.
    pub columns: &'a [&'a str],
    /// The rows that are meant.
    pub predicate: Predicate,
}

impl Scan<'_> {
    /// Folds the rows into a value: `step` takes up one batch after the other, in no order that means anything, each with the
    /// columns that were asked for in the types of the table. A batch may be empty. Where storage fails in between, all
    /// begins anew from `start`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the table, its version or a file of it is missing or cannot be read,
    /// [`Error::StateMismatch`] when it has no such column, or rows were deleted from a file by a vector beside it.
    pub async fn fold<T>(
        &self,
        location: &Location,
        start: impl Fn() -> T,
        mut step: impl FnMut(&mut T, &RecordBatch),
    ) -> Result<T, Error> {
        patiently(location, self.table, async || {
            let table = load(location, self.table, self.version).await?;
            let mut value = start();
            self.each(&table, |batch| step(&mut value, batch)).await?;
            Ok(value)
        })
        .await
    }

    async fn each(&self, table: &DeltaTable, mut take: impl FnMut(&RecordBatch)) -> Result<(), Error> {
        let unavailable = |error: DeltaTableError| Error::unavailable(self.table, error);
        let state = table.snapshot().map_err(unavailable)?;
        let schema: Schema = state.schema().as_ref().try_into_arrow().map_err(|error| unavailable(error.into()))?;
        let indices: Result<Vec<usize>, _> = self.columns.iter().map(|name| schema.index_of(name)).collect();
        let indices = indices.map_err(|error| Error::mismatch(self.table, error.to_string()))?;
        let wanted = Arc::new(schema.project(&indices).map_err(|error| unavailable(error.into()))?);
        for file in state.log_data().iter() {
            let statistics = file.stats().map_or(Ok(Value::Null), |stats| serde_json::from_str(&stats));
            if !self.predicate.may_hold(&statistics.map_err(|error| unavailable(error.into()))?) {
                continue;
            }
            if file.deletion_vector_descriptor().is_some() {
                let what = format!("file {} has a deletion vector: somebody deleted rows of it", file.path());
                return Err(Error::mismatch(self.table, what));
            }
            self.file(table, &file, &wanted, &mut take).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Hands out the rows of one file.
    async fn file(
        &self,
        table: &DeltaTable,
        file: &LogicalFileView,
        wanted: &SchemaRef,
        take: &mut impl FnMut(&RecordBatch),
    ) -> DeltaResult<()> {
        let size = u64::try_from(file.size()).unwrap_or_default();
        let reader = Object { store: table.object_store(), path: file.object_store_path(), size };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?.with_batch_size(BATCH_ROWS);
        let looked_at = self.predicate.columns();
        let descriptor = builder.parquet_schema();
        let mask = ProjectionMask::columns(descriptor, self.columns.iter().copied());
        let filter = (!looked_at.is_empty()).then(|| {
            let predicate = self.predicate.clone();
            let looked_at = ProjectionMask::columns(descriptor, looked_at);
            RowFilter::new(vec![Box::new(ArrowPredicateFn::new(looked_at, move |batch| predicate.select(&batch)))])
        });
        let builder = builder.with_projection(mask);
        let mut batches = match filter {
            Some(filter) => builder.with_row_filter(filter),
            None => builder,
        }
        .build()?;
        while let Some(batch) = batches.try_next().await? {
            take(&with_schema(&batch, wanted)?);
        }
        Ok(())
    }
}

type Bytes = <PutPayload as IntoIterator>::Item;

/// A file in a store, of which only the columns that are wanted are read.
struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

/// The same rows as columns of `schema`: in files of other writers every column may be null, and text may be of another type.
pub(crate) fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let missing = || ArrowError::SchemaError(format!("a file has no column {}", field.name()));
        cast(batch.column_by_name(field.name()).ok_or_else(missing)?, field.data_type())
    });
    let columns = columns.collect::<Result<_, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}
