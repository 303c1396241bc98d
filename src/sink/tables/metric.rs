//! The table of a metric: a row for each key, from what the metric says of its columns.

use std::marker::PhantomData;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark};
use tidemark_dataflows::metrics::{Column, Metric, Row, TableText, Value};
use tidemark_delta::TableSpec;

use super::Table;
use super::columns::{long, long_array, merged, money, money_array, text, text_array, time, time_array};

/// The table of a metric.
pub struct MetricTable<M>(PhantomData<fn() -> M>);

impl<M> Default for MetricTable<M> {
    fn default() -> Self {
        MetricTable(PhantomData)
    }
}

impl<M: Metric> Table for MetricTable<M> {
    type Row = Row<M::Key>;

    fn spec() -> TableSpec {
        let columns = M::columns();
        let keys = columns.iter().filter(|column| matches!(column.value, Value::Key(_)));
        let keys: Vec<&str> = keys.map(|column| column.name).collect();
        let field = |Column { name, comment, value }: &Column<M>| match value {
            Value::Key(_) => text(name, comment),
            Value::Count(_) => long(name, comment),
            Value::Money(_) => money(name, comment),
            Value::Time(_) => time(name, comment),
        };
        let updated_at = time("updated_at", "closing time of the epoch that last changed the row");
        let fields = columns.iter().map(field).chain([updated_at]).collect();
        let TableText(path, comment) = M::TABLE;
        merged(path, comment, &keys, fields)
    }

    fn epoch_of(row: &Row<M::Key>, _: Epoch) -> Epoch {
        row.epoch
    }

    fn batch(&mut self, rows: Vec<Row<M::Key>>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let array = |column: Column<M>| -> Result<ArrayRef, ArrowError> {
            Ok(match column.value {
                Value::Key(of) => text_array(rows.iter().map(|row| of(&row.key))),
                Value::Count(of) => long_array(rows.iter().map(|row| of(&row.key, &row.totals)))?,
                Value::Money(of) => money_array(rows.iter().map(|row| of(&row.key, &row.totals)))?,
                Value::Time(of) => time_array(rows.iter().map(|row| of(&row.key, &row.totals))),
            })
        };
        let mut arrays = M::columns().into_iter().map(array).collect::<Result<Vec<_>, _>>()?;
        arrays.push(time_array(rows.iter().map(|_| mark.closed)));
        RecordBatch::try_new(Self::spec().schema, arrays).map(Some)
    }
}
