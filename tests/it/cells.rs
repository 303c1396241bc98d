//! Values of tables in one form, whatever their type, so that any table compares with any other.

use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

/// One value. Money is in pence, an instant in microseconds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cell {
    Null,
    Whole(i128),
    /// The bits of a double: equal means the same double.
    Double(u64),
    Text(String),
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Whole(value) => write!(f, "{value}"),
            Cell::Double(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Cell::Text(text) if text.len() <= 200 => write!(f, "{text:?}"),
            Cell::Text(text) => write!(f, "{:?}… ({} bytes)", text.chars().take(80).collect::<String>(), text.len()),
        }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Whole(value.into())
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Cell {
        Cell::Whole(value.into())
    }
}

impl From<i128> for Cell {
    fn from(value: i128) -> Cell {
        Cell::Whole(value)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Cell {
        Cell::Double(value.to_bits())
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// One row: the values in the order of the columns of the specification.
pub(crate) type Row = Vec<Cell>;

/// Makes a [`Row`] of values of different types.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::cells::Cell::from($value)),*] };
}
pub(crate) use row;

/// The rows of a batch, which must have exactly the given types: `(name, type)`.
pub(crate) fn rows(batch: &RecordBatch, columns: &[(&str, &str)]) -> Vec<Row> {
    let mut rows = vec![Vec::with_capacity(columns.len()); batch.num_rows()];
    for (index, (name, kind)) in columns.iter().enumerate() {
        let column = batch.column(index);
        let values = values(column.as_ref(), kind).unwrap_or_else(|| panic!("{name} is {:?}", column.data_type()));
        rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
    }
    rows
}

/// The values of a column of the named type; `None` if it is of another.
fn values(column: &dyn Array, kind: &str) -> Option<Vec<Cell>> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Some(match (kind.trim_end_matches('?'), column.data_type()) {
        ("int", DataType::Int32) => {
            column.as_primitive::<Int32Type>().iter().map(|v| v.map(i64::from).into()).collect()
        }
        ("long", DataType::Int64) => column.as_primitive::<Int64Type>().iter().map(Cell::from).collect(),
        ("double", DataType::Float64) => column.as_primitive::<Float64Type>().iter().map(Cell::from).collect(),
        ("money", DataType::Decimal128(38, 2)) | ("amount", DataType::Decimal128(17, 2)) => {
            column.as_primitive::<Decimal128Type>().iter().map(Cell::from).collect()
        }
        ("time", kind) if *kind == utc => {
            column.as_primitive::<TimestampMicrosecondType>().iter().map(Cell::from).collect()
        }
        // Readers may choose among several layouts of text.
        ("text", DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            cast(column, &DataType::Utf8).ok()?.as_string::<i32>().iter().map(Cell::from).collect()
        }
        _ => return None,
    })
}
