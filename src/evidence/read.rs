//! Reading tables by aggregates, at versions that were chosen before. No query returns more than a few hundred rows.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use tidemark_delta::{Commit, Error, Location, exists, history, query_at};

use crate::config::Config;
use crate::runtime::RunError;
use crate::sink::publisher::SinkError;
use crate::storage::Storage;

/// Reads the tables of an output.
pub(super) struct Reader {
    location: Location,
    runtime: tokio::runtime::Runtime,
}

/// The one row of an aggregate, by column. Money is in pence; what is null is 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(BTreeMap<String, i128>);

impl Figures {
    /// One of them. A name that the statement does not have is a bug.
    pub(super) fn get(&self, name: &str) -> i128 {
        debug_assert!(self.0.contains_key(name), "no column {name}");
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Takes up the columns of another statement.
    pub(super) fn extend(&mut self, other: Figures) {
        self.0.extend(other.0);
    }
}

/// The version of each table, by name.
pub(super) type Versions = BTreeMap<&'static str, u64>;

impl Reader {
    pub(super) fn new(config: &Config) -> Result<Reader, RunError> {
        let location = Storage::new(config).tables()?;
        // The reader blocks inside its own tasks: a runtime of one thread could wait for itself.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Reader { location, runtime: runtime.map_err(SinkError::Start)? })
    }

    /// Whether there is anything of a table. Where that cannot be found out, reading it will say why.
    pub(super) fn exists(&self, table: &str) -> bool {
        self.runtime.block_on(exists(&self.location, table)).unwrap_or(true)
    }

    /// The commits of a table.
    pub(super) fn history(&self, table: &str) -> Result<Vec<Commit>, Error> {
        self.runtime.block_on(history(&self.location, table))
    }

    /// The rows of a statement over tables at their versions.
    pub(super) fn query(
        &self,
        versions: &Versions,
        tables: &[&'static str],
        sql: &str,
    ) -> Result<Vec<RecordBatch>, Error> {
        let at: Vec<(&str, u64)> = tables.iter().filter_map(|name| Some((*name, *versions.get(name)?))).collect();
        self.runtime.block_on(query_at(&self.location, &at, sql))
    }

    /// The one row of a statement without `group by`.
    pub(super) fn figures(&self, versions: &Versions, tables: &[&'static str], sql: &str) -> Result<Figures, Error> {
        let batches = self.query(versions, tables, sql)?;
        let mut figures = Figures::default();
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                figures.0.insert(field.name().clone(), whole(column, 0));
            }
        }
        Ok(figures)
    }

    /// Rows of whole numbers.
    pub(super) fn rows(
        &self,
        versions: &Versions,
        tables: &[&'static str],
        sql: &str,
    ) -> Result<Vec<Vec<i128>>, Error> {
        let batches = self.query(versions, tables, sql)?;
        let row = |batch: &RecordBatch, row| batch.columns().iter().map(|column| whole(column, row)).collect();
        Ok(batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)).collect::<Vec<_>>())
            .collect())
    }

    /// Rows of a text and a count.
    pub(super) fn counts(
        &self,
        versions: &Versions,
        tables: &[&'static str],
        sql: &str,
    ) -> Result<BTreeMap<String, i128>, Error> {
        let mut counts = BTreeMap::new();
        for batch in self.query(versions, tables, sql)? {
            let [texts, numbers] = batch.columns() else { continue };
            counts.extend((0..batch.num_rows()).map(|row| (text(texts, row), whole(numbers, row))));
        }
        Ok(counts)
    }
}

fn whole(column: &dyn Array, row: usize) -> i128 {
    if column.is_null(row) {
        0
    } else if let Some(money) = column.as_primitive_opt::<Decimal128Type>() {
        money.value(row)
    } else if let Some(counts) = column.as_primitive_opt::<Int64Type>() {
        counts.value(row).into()
    } else {
        debug_assert!(false, "a column of {}", column.data_type());
        0
    }
}

/// A whole number, or an instant in microseconds since 1970.
pub(super) fn long(column: &dyn Array, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    let instants = || Some(column.as_primitive_opt::<TimestampMicrosecondType>()?.value(row));
    column.as_primitive_opt::<Int64Type>().map(|longs| longs.value(row)).or_else(instants)
}

/// A text; empty where there is none.
pub(super) fn text(column: &dyn Array, row: usize) -> String {
    if let Some(texts) = column.as_string_view_opt() {
        texts.value(row).to_owned()
    } else if let Some(texts) = column.as_string_opt::<i32>() {
        texts.value(row).to_owned()
    } else {
        String::new()
    }
}
