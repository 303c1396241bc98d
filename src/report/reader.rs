//! Reads tables back, and hands out their columns as plain values.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use tidemark_delta::{Location, held, query};

use crate::config::Config;
use crate::runtime::RunError;
use crate::sink::publisher::SinkError;
use crate::storage::{Storage, Stores};

/// Reads the tables of a configuration.
pub(crate) struct Reader {
    location: Location,
    runtime: tokio::runtime::Runtime,
    pipeline: String,
}

impl Reader {
    /// A reader of the tables below the configured output.
    ///
    /// # Errors
    ///
    /// When the output is no place for tables, or no thread can be started.
    pub(crate) fn new(config: &Config) -> Result<Self, RunError> {
        Reader::with(config, Stores::default())
    }

    /// The same, with stores that the caller has made.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub(crate) fn with(config: &Config, stores: Stores) -> Result<Self, RunError> {
        let location = Storage::with(config, stores).tables()?;
        // The reader blocks inside its own tasks: a runtime of one thread could wait for itself.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let pipeline = config.pipeline.name.clone();
        Ok(Reader { location, runtime: runtime.map_err(SinkError::Start)?, pipeline })
    }

    /// Runs a statement over the newest version of a table.
    ///
    /// # Errors
    ///
    /// When the table is missing or cannot be read.
    pub(crate) fn rows(&self, table: &str, sql: &str) -> Result<Vec<RecordBatch>, RunError> {
        Ok(self.runtime.block_on(query(&self.location, &[table], sql))?)
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub(crate) fn has(&self, table: &str) -> Result<bool, RunError> {
        Ok(self.runtime.block_on(held(&self.location, &self.pipeline, table))?.is_some())
    }
}

/// A text of the batch, `None` where it is null; whatever type it has is written as text.
///
/// # Errors
///
/// When the column is not there or has no text form, which would be a bug.
pub(crate) fn texts(batch: &RecordBatch, column: usize) -> Result<Vec<Option<String>>, RunError> {
    let column = casted(batch, column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
}

/// Whole numbers of the batch; instants are microseconds since 1970.
///
/// # Errors
///
/// As for [`texts`].
pub(crate) fn longs(batch: &RecordBatch, column: usize) -> Result<Vec<Option<i64>>, RunError> {
    let column = casted(batch, column, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().iter().collect())
}

fn casted(batch: &RecordBatch, column: usize, kind: &DataType) -> Result<std::sync::Arc<dyn Array>, RunError> {
    let missing = || arrow::error::ArrowError::SchemaError(format!("there is no column {column}"));
    let column = batch.columns().get(column).ok_or_else(missing).and_then(|column| cast(column, kind));
    column.map_err(|error| RunError::Sink(SinkError::Rows(error)))
}

/// A text as a literal of the query language.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
