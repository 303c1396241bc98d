//! Which rows of a table are read: a conjunction of tests, each of one column, that files are passed over by as well.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{and, cast};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use serde_json::Value;

/// A condition on rows: all of its tests. The default holds for every row.
#[derive(Debug, Clone, Default)]
pub struct Predicate(Vec<(String, Test)>);

#[derive(Debug, Clone)]
enum Test {
    Texts(BTreeSet<String>),
    Longs(BTreeSet<i64>),
    Between(RangeInclusive<i64>),
}

impl Predicate {
    /// And the text in `column` is one of `values`.
    pub fn text_in(self, column: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.and(column, Test::Texts(values.into_iter().map(Into::into).collect()))
    }

    /// And the whole number in `column` is one of `values`.
    pub fn long_in(self, column: &str, values: impl IntoIterator<Item = i64>) -> Self {
        self.and(column, Test::Longs(values.into_iter().collect()))
    }

    /// And the whole number in `column` is within `range`.
    pub fn between(self, column: &str, range: RangeInclusive<i64>) -> Self {
        self.and(column, Test::Between(range))
    }

    fn and(mut self, column: &str, test: Test) -> Self {
        self.0.push((column.to_owned(), test));
        self
    }

    /// The columns that it looks at, each once.
    pub(super) fn columns(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(column, _)| column.as_str()).collect()
    }

    /// Whether a file with these statistics, as they stand in the log, can hold a row that meets the condition.
    pub(super) fn may_hold(&self, statistics: &Value) -> bool {
        self.0.iter().all(|(column, test)| {
            let (least, most) = (&statistics["minValues"][column], &statistics["maxValues"][column]);
            test.may_hold(least, most)
        })
    }

    /// The rows of a batch that meet the condition. A null meets none.
    pub(super) fn select(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let mut all = BooleanArray::from(vec![true; batch.num_rows()]);
        for (name, test) in &self.0 {
            let missing = || ArrowError::SchemaError(format!("there is no column {name}"));
            let column = batch.column_by_name(name).ok_or_else(missing)?;
            all = and(&all, &test.select(column)?)?;
        }
        Ok(all)
    }
}

impl Test {
    fn may_hold(&self, least: &Value, most: &Value) -> bool {
        match self {
            Test::Texts(values) => match (least.as_str(), most.as_str()) {
                (Some(least), Some(most)) => {
                    values.iter().any(|value| least <= value.as_str() && value.as_str() <= most)
                }
                _ => true,
            },
            Test::Longs(values) => match (least.as_i64(), most.as_i64()) {
                (Some(least), Some(most)) => least <= most && values.range(least..=most).next().is_some(),
                _ => true,
            },
            Test::Between(range) => {
                most.as_i64().is_none_or(|most| *range.start() <= most)
                    && least.as_i64().is_none_or(|least| least <= *range.end())
            }
        }
    }

    fn select(&self, column: &dyn Array) -> Result<BooleanArray, ArrowError> {
        let longs = || cast(column, &DataType::Int64);
        Ok(match self {
            Test::Texts(values) => {
                let column = cast(column, &DataType::Utf8)?;
                column
                    .as_string::<i32>()
                    .iter()
                    .map(|text| Some(text.is_some_and(|text| values.contains(text))))
                    .collect()
            }
            Test::Longs(values) => {
                let column = longs()?;
                let numbers = column.as_primitive::<Int64Type>();
                numbers.iter().map(|number| Some(number.is_some_and(|number| values.contains(&number)))).collect()
            }
            Test::Between(range) => {
                let column = longs()?;
                let numbers = column.as_primitive::<Int64Type>();
                numbers.iter().map(|number| Some(number.is_some_and(|number| range.contains(&number)))).collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_passed_over_only_where_no_row_can_be_meant() {
        let statistics = json!({ "minValues": { "n": 10, "t": "c" }, "maxValues": { "n": 20, "t": "f" } });
        let may = |predicate: Predicate| predicate.may_hold(&statistics);
        let any = Predicate::default;
        assert!(may(any()));
        assert!(
            may(any().between("n", 20..=30)) && may(any().between("n", 0..=10)) && may(any().between("n", 12..=13))
        );
        assert!(!may(any().between("n", 21..=30)) && !may(any().between("n", 0..=9)));
        assert!(may(any().long_in("n", [1, 15])) && !may(any().long_in("n", [1, 21])) && !may(any().long_in("n", [])));
        assert!(may(any().text_in("t", ["a", "f"])) && !may(any().text_in("t", ["a", "g"])));
        assert!(!may(any().between("n", 12..=13).text_in("t", ["z"])), "all tests must hold");
        assert!(may(any().between("other", 1..=1).text_in("another", ["z"])), "what is not known excludes nothing");
    }

    #[test]
    fn nulls_meet_no_test() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        let rows =
            |predicate: Predicate| predicate.select(&batch).unwrap().iter().map(Option::unwrap).collect::<Vec<_>>();
        assert_eq!(rows(Predicate::default()), [true, true, true]);
        assert_eq!(rows(Predicate::default().between("n", 0..=9)), [true, false, true]);
        assert_eq!(rows(Predicate::default().long_in("n", [3])), [false, false, true]);
        assert_eq!(rows(Predicate::default().text_in("t", ["a", "b"]).between("n", 0..=9)), [true, false, false]);
        assert!(Predicate::default().between("x", 0..=9).select(&batch).is_err());
    }
}
