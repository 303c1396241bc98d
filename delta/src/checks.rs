//! The CHECK constraints of a table, ours and those that somebody has added, held against every batch before it is written.
//!
//! All are of one form, `column operator literal`. Whatever else SQL could say is refused when the table is opened.

use arrow::array::{Array, BooleanArray, Scalar, StringArray};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::{eq, gt, gt_eq, lt, lt_eq, neq};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::Error;
use crate::spec::Check;

/// Longest operators first, so that none is taken for a shorter one.
const OPERATORS: [(&str, Operator); 8] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<>", Operator::Differs),
    ("!=", Operator::Differs),
    ("==", Operator::Equals),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equals),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Equals,
    Differs,
    AtLeast,
    Greater,
}

/// A constraint that was understood.
#[derive(Debug)]
struct Constraint {
    check: Check,
    /// Whether it is part of the specification, and not somebody else's.
    ours: bool,
    column: usize,
    operator: Operator,
    /// One value of the column's type.
    literal: Scalar<arrow::array::ArrayRef>,
}

/// Constraints of one table.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Constraint>);

impl Checks {
    /// Understands constraints on a table with these columns, of which `ours` are part of its specification.
    ///
    /// # Errors
    /// The constraint that is of another form.
    pub(crate) fn parse(
        checks: impl IntoIterator<Item = Check>,
        ours: &[Check],
        schema: &Schema,
    ) -> Result<Checks, Check> {
        let parsed = checks.into_iter().map(|check| match parse(&check.sql, schema) {
            Some((column, operator, literal)) => {
                Ok(Constraint { ours: ours.contains(&check), check, column, operator, literal })
            }
            None => Err(check),
        });
        parsed.collect::<Result<_, _>>().map(Checks)
    }

    /// Refuses a batch with a row of which a constraint is not true.
    ///
    /// # Errors
    /// [`Error::DataCheck`] where the constraint is ours, [`Error::StateMismatch`] where somebody has added it.
    pub(crate) fn hold(&self, table: &str, batch: &RecordBatch) -> Result<(), Error> {
        for constraint in &self.0 {
            let holds = constraint.hold(batch).map_err(|error| Error::bug(table, error.to_string()))?;
            if holds.true_count() == holds.len() {
                continue;
            }
            let row = (0..holds.len()).find(|row| holds.is_null(*row) || !holds.value(*row)).unwrap_or_default();
            let Check { name, sql } = &constraint.check;
            let broken = format!("row {row} breaks constraint {name} ({sql})");
            return Err(match constraint.ours {
                true => Error::data(table, broken),
                false => {
                    let undo = format!("which somebody has added: ALTER TABLE .. DROP CONSTRAINT {name}");
                    Error::mismatch(table, format!("{broken}, {undo}"))
                }
            });
        }
        Ok(())
    }
}

impl Constraint {
    fn hold(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let column = batch.column(self.column);
        match self.operator {
            Operator::Less => lt(column, &self.literal),
            Operator::AtMost => lt_eq(column, &self.literal),
            Operator::Equals => eq(column, &self.literal),
            Operator::Differs => neq(column, &self.literal),
            Operator::AtLeast => gt_eq(column, &self.literal),
            Operator::Greater => gt(column, &self.literal),
        }
    }
}

fn parse(sql: &str, schema: &Schema) -> Option<(usize, Operator, Scalar<arrow::array::ArrayRef>)> {
    let sql = without_parentheses(sql);
    let (at, sign, operator) = sql.char_indices().find_map(|(at, _)| {
        let rest = &sql[at..];
        OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign)).map(|(sign, operator)| (at, *sign, *operator))
    })?;
    let name = unquoted(sql[..at].trim(), &['`', '"']);
    let column = schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name))?;
    let literal = sql[at + sign.len()..].trim();
    Some((column, operator, Scalar::new(value(literal, schema.field(column).data_type())?)))
}

fn without_parentheses(sql: &str) -> &str {
    let sql = sql.trim();
    match sql.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => without_parentheses(inner),
        None => sql,
    }
}

fn unquoted<'a>(name: &'a str, quotes: &[char]) -> &'a str {
    let inner = quotes.iter().find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(name)
}

/// A literal as a value of a type; none where it is no literal, or the type could not hold it exactly.
fn value(literal: &str, data_type: &DataType) -> Option<arrow::array::ArrayRef> {
    let text = if *data_type == DataType::Utf8 {
        let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
        // A quote within is written twice; a single one would end the literal, and more would follow.
        let whole = inner.replace("''", "");
        // A backslash is itself to some engines, and an escape to others.
        (!whole.contains(['\'', '\\'])).then(|| inner.replace("''", "'"))?
    } else {
        let digits = literal.strip_prefix(['-', '+']).unwrap_or(literal);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let exact = match data_type {
            DataType::Int32 | DataType::Int64 => fraction.bytes().all(|byte| byte == b'0'),
            DataType::Decimal128(_, scale) => fraction.len() <= usize::try_from(*scale).unwrap_or(0),
            _ => false,
        };
        (!whole.is_empty() && all_digits(whole) && all_digits(fraction) && exact).then_some(())?;
        let is_whole = matches!(data_type, DataType::Int32 | DataType::Int64);
        let digits = if is_whole { literal.split('.').next()? } else { literal };
        digits.trim_start_matches('+').to_owned()
    };
    let value = cast(&StringArray::from(vec![text]), data_type).ok()?;
    (value.null_count() == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array};
    use arrow::datatypes::Field;

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("count", DataType::Int64, true),
            Field::new("total", DataType::Decimal128(38, 2), false),
            Field::new("name", DataType::Utf8, false),
        ])
    }

    fn batch() -> RecordBatch {
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(0), Some(5)]));
        let totals = Decimal128Array::from(vec![-150, 0, 150]).with_precision_and_scale(38, 2).unwrap();
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b's", "c"]));
        RecordBatch::try_new(Arc::new(schema()), vec![counts, Arc::new(totals), names]).unwrap()
    }

    fn one(sql: &str) -> Option<Checks> {
        let check = Check { name: "c".to_owned(), sql: sql.to_owned() };
        Checks::parse([check.clone()], &[check], &schema()).ok()
    }

    #[test]
    fn each_operator_compares() {
        for (sql, first_broken) in [
            ("count >= 0", Some(0)),
            ("count >= -1", None),
            ("(count < 5)", Some(2)),
            ("`Count` <= 5", None),
            ("\"count\" <> 0", Some(1)),
            ("count != 7", None),
            ("total > -1.5", Some(0)),
            ("total>=-1.50", None),
            ("total = 0", Some(0)),
            ("name <> 'b''s'", Some(1)),
            ("name < 'd'", None),
            ("((name == 'a'))", Some(1)),
        ] {
            let text = one(sql).unwrap().hold("t", &batch()).err().map(|error| error.to_string());
            let expected =
                first_broken.map(|row| format!("table t: rows refused: row {row} breaks constraint c ({sql})"));
            assert_eq!(text, expected, "{sql}");
        }
    }

    #[test]
    fn a_null_breaks_a_constraint() {
        let mut columns = batch().columns().to_vec();
        columns[0] = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
        let nulls = RecordBatch::try_new(Arc::new(schema()), columns).unwrap();
        assert!(one("count > 0").unwrap().hold("t", &nulls).unwrap_err().to_string().contains("row 1"));
    }

    #[test]
    fn what_is_no_comparison_with_a_literal_is_not_understood() {
        for sql in [
            "count",
            "count >= total",
            "count >= 0 AND total >= 0",
            "count >= 0.5",
            "count >= 99999999999999999999",
            "total > 0.001",
            "nobody = 1",
            "name = 'a' OR name = 'b'",
            "name = \"a\"",
            "name = 1",
            "abs(count) > 1",
            "count IS NOT NULL",
            "count > ",
            "(count > 0) AND (count < 9)",
            "",
        ] {
            assert!(one(sql).is_none(), "{sql}");
        }
    }
}
