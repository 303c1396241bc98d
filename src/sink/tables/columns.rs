//! Column types and array builders that the tables share.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use tidemark_dataflows::event::Micros;
use tidemark_delta::{Check, Shape, TableSpec};

/// Digits of a money column.
pub(super) const MONEY_DIGITS: u8 = 38;

/// Decimal places of every money column: the unit is the penny.
pub(super) const MONEY_SCALE: i8 = 2;

/// A column that is never null, and what it means.
fn column(name: &str, data_type: DataType, comment: &str) -> Field {
    Field::new(name, data_type, false).with_metadata([("comment".to_owned(), comment.to_owned())].into())
}

pub(super) fn money(name: &str, comment: &str) -> Field {
    money_of(name, MONEY_DIGITS, comment)
}

pub(super) fn money_of(name: &str, digits: u8, comment: &str) -> Field {
    column(name, DataType::Decimal128(digits, MONEY_SCALE), comment)
}

pub(super) fn int(name: &str, comment: &str) -> Field {
    column(name, DataType::Int32, comment)
}

pub(super) fn long(name: &str, comment: &str) -> Field {
    column(name, DataType::Int64, comment)
}

pub(super) fn double(name: &str, comment: &str) -> Field {
    column(name, DataType::Float64, comment)
}

pub(super) fn text(name: &str, comment: &str) -> Field {
    column(name, DataType::Utf8, comment)
}

pub(super) fn time(name: &str, comment: &str) -> Field {
    column(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), comment)
}

/// A table whose rows are set by MERGE on `key`. Counts get a CHECK that they are not negative.
pub(super) fn merged(name: &str, comment: &str, key: &[&str], fields: Vec<Field>) -> TableSpec {
    let key = key.iter().map(|column| (*column).to_owned()).collect();
    spec(name, comment, Shape::Keyed { key }, fields)
}

/// A table that rows are only ever appended to; `epoch` names the column with the epoch of a row.
pub(super) fn appended(name: &str, comment: &str, epoch: &str, fields: Vec<Field>) -> TableSpec {
    spec(name, comment, Shape::Append { epoch: epoch.to_owned() }, fields)
}

fn spec(name: &str, comment: &str, shape: Shape, fields: Vec<Field>) -> TableSpec {
    let counts = fields.iter().map(Field::name).filter(|column| is_count(column));
    let checks =
        counts.map(|column| Check { name: format!("{column}_not_negative"), sql: format!("{column} >= 0") }).collect();
    TableSpec {
        name: name.to_owned(),
        comment: comment.to_owned(),
        schema: Arc::new(Schema::new(fields)),
        shape,
        bounded: vec![],
        checks,
        expiry: None,
    }
}

fn is_count(column: &str) -> bool {
    column.ends_with("_count")
        || column.starts_with("events_")
        || (column.starts_with("total_") && column.contains("event"))
}

pub(super) fn money_array(pence: impl Iterator<Item = i128>) -> Result<ArrayRef, ArrowError> {
    money_array_of(pence, MONEY_DIGITS)
}

pub(super) fn money_array_of(pence: impl Iterator<Item = i128>, digits: u8) -> Result<ArrayRef, ArrowError> {
    let array = Decimal128Array::from_iter_values(pence).with_precision_and_scale(digits, MONEY_SCALE)?;
    array.validate_decimal_precision(digits)?;
    Ok(Arc::new(array))
}

pub(super) fn long_array(values: impl Iterator<Item = u64>) -> Result<ArrayRef, ArrowError> {
    let overflow = |_| ArrowError::ArithmeticOverflow("a count is beyond 2^63".to_owned());
    let values: Result<Vec<i64>, _> = values.map(|v| i64::try_from(v).map_err(overflow)).collect();
    Ok(Arc::new(Int64Array::from(values?)))
}

pub(super) fn text_array<S: AsRef<str>>(values: impl Iterator<Item = S>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn time_array(values: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(|at| at.0)).with_timezone("UTC"))
}
