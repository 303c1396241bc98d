//! Reading tables row by row, at versions that were chosen before. What is kept of the rows is for the caller to bound.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use tidemark_delta::{Error, Predicate, Scan, TableSpec};

use crate::report::reader::Reader;

/// The version of each table, by name.
pub(super) type Versions = BTreeMap<&'static str, u64>;

/// The tables at their versions.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) reader: &'a Reader,
    pub(super) versions: &'a Versions,
}

impl Tables<'_> {
    /// Folds some columns of the rows that are meant.
    pub(super) fn fold<T>(
        self,
        table: &str,
        columns: &[&str],
        predicate: Predicate,
        start: impl Fn() -> T,
        step: impl FnMut(&mut T, &RecordBatch),
    ) -> Result<T, Error> {
        let version = self.versions.get(table).copied();
        self.reader.fold(&Scan { table, version, columns, predicate }, start, step)
    }

    /// Folds all rows, of which every column is read, so that whatever is damaged is found. Also counts the rows that have a
    /// null where the specification admits none; the files of another program may.
    pub(super) fn every<T>(
        self,
        spec: &TableSpec,
        start: impl Fn() -> T,
        mut step: impl FnMut(&mut T, &RecordBatch),
    ) -> Result<(T, u64), Error> {
        let columns: Vec<&str> = spec.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let with_nulls = || (start(), 0);
        self.fold(&spec.name, &columns, Predicate::default(), with_nulls, |(value, nulls), batch| {
            *nulls += with_a_null(spec, batch);
            step(value, batch);
        })
    }
}

/// Rows with a null in a column that admits none.
fn with_a_null(spec: &TableSpec, batch: &RecordBatch) -> u64 {
    let columns = spec.schema.fields().iter().zip(batch.columns());
    let columns = columns.filter(|(field, column)| !field.is_nullable() && column.null_count() > 0);
    let columns: Vec<_> = columns.map(|(_, column)| column).collect();
    let rows = (0..batch.num_rows()).filter(|row| columns.iter().any(|column| column.is_null(*row)));
    rows.count() as u64
}
