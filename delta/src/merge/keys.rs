//! Keys of rows, and their order: by the bytes of each key column in turn.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use crate::Error;

/// The keys of a batch, by row.
pub(super) enum Keys {
    /// Of one text column, the usual case, where nothing needs to be copied.
    Text(StringArray),
    /// Of any other columns, in a form whose bytes have the order of the values.
    Rows(Rows),
}

impl Keys {
    /// The keys of `batch`. None of the columns is nullable.
    pub(super) fn of(batch: &RecordBatch, key: &[String]) -> Result<Keys, ArrowError> {
        let indices: Result<Vec<usize>, _> = key.iter().map(|name| batch.schema_ref().index_of(name)).collect();
        let columns = batch.project(&indices?)?;
        match columns.columns() {
            [text] if *text.data_type() == DataType::Utf8 => Ok(Keys::Text(text.as_string::<i32>().clone())),
            columns => {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                Ok(Keys::Rows(RowConverter::new(fields)?.convert_columns(columns)?))
            }
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        match self {
            Keys::Text(text) => text.len(),
            Keys::Rows(rows) => rows.num_rows(),
        }
    }

    /// Compares the key of row `mine` with that of row `its` of another batch of the same table.
    pub(super) fn compare(&self, mine: usize, other: &Keys, its: usize) -> Ordering {
        match (self, other) {
            (Keys::Text(left), Keys::Text(right)) => left.value(mine).cmp(right.value(its)),
            (Keys::Rows(left), Keys::Rows(right)) => left.row(mine).cmp(&right.row(its)),
            // Batches of one table have columns of the same types.
            (Keys::Text(_), Keys::Rows(_)) => Ordering::Less,
            (Keys::Rows(_), Keys::Text(_)) => Ordering::Greater,
        }
    }
}

/// The first eight bytes of each key behind what all keys begin with, as a number of the same order, and the row: nearly all
/// comparisons end there.
fn heads(keys: &Keys, rows: u32) -> Vec<(u64, u32)> {
    let Keys::Text(text) = keys else {
        return (0..rows).map(|row| (0, row)).collect();
    };
    let key = |row: u32| text.value(row as usize).as_bytes();
    let first = if rows == 0 { &[] } else { key(0) };
    let shared = (0..rows).fold(first.len(), |shared, row| {
        first[..shared].iter().zip(key(row)).take_while(|(first, byte)| first == byte).count()
    });
    let head = |row| {
        let mut head = [0; 8];
        head.iter_mut().zip(&key(row)[shared..]).for_each(|(to, byte)| *to = *byte);
        (u64::from_be_bytes(head), row)
    };
    (0..rows).map(head).collect()
}

/// The rows in the order of their keys.
///
/// # Errors
///
/// [`Error::DataCheck`] when two rows share a key: where it is new to the table, MERGE would insert both.
pub(crate) fn sorted(table: &str, batch: &RecordBatch, key: &[String]) -> Result<RecordBatch, Error> {
    let bug = |error: ArrowError| Error::bug(table, error.to_string());
    let rows = u32::try_from(batch.num_rows()).map_err(|_| Error::bug(table, "more than 2^32 rows"))?;
    let keys = Keys::of(batch, key).map_err(bug)?;
    let compare = |a: u32, b: u32| keys.compare(a as usize, &keys, b as usize);
    let mut heads = heads(&keys, rows);
    heads.sort_unstable_by(|(head, row), (other, its)| head.cmp(other).then_with(|| compare(*row, *its)));
    let order: Vec<u32> = heads.into_iter().map(|(_, row)| row).collect();
    if let Some([first, second]) =
        order.array_windows().find(|[first, second]| compare(*first, *second) == Ordering::Equal)
    {
        let (first, second) = (first.min(second), first.max(second));
        let key = key.join(", ");
        return Err(Error::data(table, format!("row {second} repeats the key ({key}) of row {first}")));
    }
    if order.is_sorted() {
        return Ok(batch.clone());
    }
    take_record_batch(batch, &UInt32Array::from(order)).map_err(bug)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("a", text), ("b", number)]).unwrap()
    }

    fn key(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn keys_are_compared_over_all_their_columns() {
        let rows = batch(&[("x", 1), ("x", 2), ("y", 1)]);
        assert!(sorted("t", &rows, &key(&["a", "b"])).is_ok());
        let error = sorted("t", &rows, &key(&["a"])).unwrap_err();
        assert!(matches!(error, Error::DataCheck { .. }), "{error}");
        assert!(error.to_string().contains("row 1 repeats the key (a) of row 0"), "{error}");
    }

    #[test]
    fn keys_that_share_their_beginnings_are_in_order_too() {
        let texts =
            ["user", "user\0", "user-1", "user-12345678", "user-123456789", "user-1234567", "üser", "user-\0\0", ""];
        for texts in [&texts[..], &texts[..8], &texts[..6], &texts[2..6], &texts[..1], &[]] {
            let rows: Vec<(&str, i64)> = texts.iter().zip(0..).map(|(text, row)| (*text, row)).collect();
            let sorted = sorted("t", &batch(&rows), &key(&["a"])).unwrap();
            let mut expected = texts.to_vec();
            expected.sort_unstable();
            assert_eq!(sorted.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn rows_come_in_the_order_of_their_keys() {
        let rows = batch(&[("y", -1), ("x", 2), ("x", -2), ("", 0)]);
        let numbers = |key: &[String]| {
            let rows = sorted("t", &rows, key).unwrap();
            rows.column(1).as_primitive::<Int64Type>().values().to_vec()
        };
        assert_eq!(numbers(&key(&["a", "b"])), [0, -2, 2, -1]);
        assert_eq!(numbers(&key(&["b"])), [-2, -1, 0, 2]);
    }
}
