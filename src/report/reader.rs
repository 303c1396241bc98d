//! Reads tables back, and hands out their columns as plain values.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use tidemark_delta::{
    Commit, Error, Expired, ForeignChanges, Location, Predicate, Scan, accepted_changes, damaged_files, exists,
    expired, history, standing,
};
use tidemark_store::Patience;

use crate::config::Config;
use crate::runtime::{RunError, build};
use crate::sink::publisher::SinkError;
use crate::storage::{Storage, Stores};

/// Nobody waits here but the one who asked.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Reads the tables of a configuration.
pub(crate) struct Reader {
    location: Location,
    runtime: &'static tokio::runtime::Runtime,
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
        let patience = build::patience(config, &Arc::default());
        let patience = Patience { give_up_after: patience.give_up_after.min(GIVE_UP_AFTER), ..patience };
        let location = Storage::with(config, stores).tables(patience)?;
        let runtime = tidemark_store::io().map_err(SinkError::Start)?;
        Ok(Reader { location, runtime, pipeline: config.pipeline.name.clone() })
    }

    /// Folds the rows that a scan hands out, in no order; anew from `start` where storage fails in between.
    ///
    /// # Errors
    ///
    /// When the table is missing or cannot be read.
    pub(crate) fn fold<T>(
        &self,
        scan: &Scan<'_>,
        start: impl Fn() -> T,
        step: impl FnMut(&mut T, &RecordBatch),
    ) -> Result<T, Error> {
        self.runtime.block_on(scan.fold(&self.location, start, step))
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub(crate) fn has(&self, table: &str) -> Result<bool, RunError> {
        Ok(self.runtime.block_on(standing(&self.location, &self.pipeline, table))?.is_some())
    }

    /// Whether there is anything of a table. Where that cannot be found out, reading it will say why.
    pub(crate) fn exists(&self, table: &str) -> bool {
        self.runtime.block_on(exists(&self.location, table)).unwrap_or(true)
    }

    /// What is wrong with the files of a table as of a version, in words.
    ///
    /// # Errors
    ///
    /// When the table is missing or cannot be read.
    pub(crate) fn damaged_files(&self, table: &str, version: u64) -> Result<Vec<String>, Error> {
        self.runtime.block_on(damaged_files(&self.location, table, version))
    }

    /// The changes of others that somebody has accepted in a table; none where that cannot be read, as others will say.
    pub(crate) fn accepted_changes(&self, table: &str) -> Vec<ForeignChanges> {
        self.runtime.block_on(accepted_changes(&self.location, table)).unwrap_or_default()
    }

    /// The rows of a table that have expired as of a version, if some have.
    ///
    /// # Errors
    ///
    /// When the table is missing or cannot be read.
    pub(crate) fn expired(&self, table: &str, version: u64) -> Result<Option<Expired>, Error> {
        self.runtime.block_on(expired(&self.location, table, version))
    }

    /// The commits of a table.
    ///
    /// # Errors
    ///
    /// When the table is missing or its log cannot be read.
    pub(crate) fn history(&self, table: &str) -> Result<Vec<Commit>, Error> {
        self.runtime.block_on(history(&self.location, table))
    }
}

/// A scan of the newest version of a table.
pub(crate) fn newest<'a>(table: &'a str, columns: &'a [&'a str], predicate: Predicate) -> Scan<'a> {
    Scan { table, version: None, columns, predicate }
}

/// The numbers of a column of a batch.
pub(crate) struct Numbers<T: ArrowPrimitiveType>(PrimitiveArray<T>);

/// Whole numbers; instants are microseconds since 1970.
pub(crate) type Longs = Numbers<Int64Type>;

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    /// What is null is 0.
    pub(crate) fn at(&self, row: usize) -> T::Native {
        self.get(row).unwrap_or_default()
    }
}

impl Longs {
    /// A count or number of the tables: never null, never negative, else 0.
    pub(crate) fn whole(&self, row: usize) -> u64 {
        u64::try_from(self.at(row)).unwrap_or(0)
    }
}

/// The texts of a column of a batch.
pub(crate) struct Texts(StringArray);

impl Texts {
    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    /// What is null is empty.
    pub(crate) fn at(&self, row: usize) -> &str {
        self.get(row).unwrap_or_default()
    }

    /// The same as a value of its own.
    pub(crate) fn owned(&self, row: usize) -> Option<String> {
        self.get(row).map(ToOwned::to_owned)
    }
}

pub(crate) fn longs(batch: &RecordBatch, column: &str) -> Longs {
    Numbers(typed(batch, column, &DataType::Int64).as_primitive().clone())
}

/// Amounts in pence.
pub(crate) fn money(batch: &RecordBatch, column: &str) -> Numbers<Decimal128Type> {
    Numbers(typed(batch, column, &DataType::Decimal128(38, 2)).as_primitive().clone())
}

pub(crate) fn doubles(batch: &RecordBatch, column: &str) -> Numbers<Float64Type> {
    Numbers(typed(batch, column, &DataType::Float64).as_primitive().clone())
}

pub(crate) fn texts(batch: &RecordBatch, column: &str) -> Texts {
    Texts(typed(batch, column, &DataType::Utf8).as_string().clone())
}

/// A column that another program has given a type without such values has none.
fn typed(batch: &RecordBatch, name: &str, kind: &DataType) -> ArrayRef {
    let column = batch.column_by_name(name);
    debug_assert!(column.is_some(), "no column {name}");
    column.and_then(|column| cast(column, kind).ok()).unwrap_or_else(|| new_null_array(kind, batch.num_rows()))
}
