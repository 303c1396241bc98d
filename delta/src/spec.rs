//! What a table is: name, columns, how it is written, which constraints it has. No I/O.

use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use serde_json::Value;

use crate::checks::Checks;
use crate::{Error, Policy};

/// A table that this crate creates and writes.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Path below the root, such as `metrics/net_flow`. Also the name in errors and logs.
    pub name: String,
    /// One sentence for readers, stored as the table's description.
    pub comment: String,
    /// Columns, with comments for readers in their metadata (`comment`); not nullable unless marked. Types: `Utf8`, `Int32`, `Int64`, `Float64`, `Decimal128`, and `Timestamp` of
    /// microseconds in `UTC`.
    pub schema: SchemaRef,
    /// How batches are written.
    pub shape: Shape,
    /// Further columns with least and greatest value in the log, so that readers pass over files. Each makes the log longer.
    pub bounded: Vec<String>,
    /// CHECK constraints.
    pub checks: Vec<Check>,
    /// What an append table does not keep for ever.
    pub expiry: Option<Expiry>,
}

/// What of a table goes once it is old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The column that tells how old a row is: instants, one of the [bounded](TableSpec::bounded) columns.
    pub column: String,
    /// The age. A row goes between this and a 24th more.
    pub after: Duration,
    /// What goes.
    pub what: Expires,
}

/// How rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expires {
    /// As a whole. What they were in all stands in a property of the table, as [`Expired`](crate::Expired).
    Rows {
        /// `Int64` columns whose sums are kept.
        summed: Vec<String>,
    },
    /// Rows stay, without some of their values.
    Values {
        /// `Utf8` columns that become null, or empty where there may be no null.
        columns: Vec<String>,
        /// A bounded `Utf8` column that says so.
        marked: String,
        /// What it says.
        word: String,
    },
}

/// How batches become rows of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// MERGE: a row replaces the row with the same key.
    Keyed {
        /// The key's columns, none of them nullable.
        key: Vec<String>,
    },
    /// Rows are only added.
    Append {
        /// An `Int64` column with the epoch of each row: rows of epochs that the table already holds are left out.
        epoch: String,
    },
}

impl Shape {
    /// The column that holds the epochs of an append table.
    pub(crate) fn epoch(&self) -> Option<&str> {
        match self {
            Shape::Keyed { .. } => None,
            Shape::Append { epoch } => Some(epoch),
        }
    }
}

/// A CHECK constraint, which every writer of the table has to hold its rows against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name of the constraint.
    pub name: String,
    /// `column operator literal`: whole numbers, decimals or texts.
    pub sql: String,
}

impl TableSpec {
    /// Refuses a specification that the storage layer would store wrongly or not at all.
    ///
    /// # Errors
    /// [`Error::Bug`]: specifications are written in code.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::bug(&self.name, what));
        if self.name.is_empty() || self.name.split('/').any(|part| part.is_empty() || part.starts_with(['.', '_'])) {
            return refuse(format!("{:?} is no relative table path", self.name));
        }
        if let Some(field) = self.schema.fields().iter().find(|field| !is_supported(field.data_type())) {
            return refuse(format!("column {} has the unsupported type {}", field.name(), field.data_type()));
        }
        for name in self.statistics_columns() {
            match self.schema.field_with_name(name) {
                Ok(field) if !field.is_nullable() => {}
                _ => return refuse(format!("{name} must be a column that is not nullable")),
            }
        }
        match &self.shape {
            Shape::Keyed { key } if key.is_empty() => return refuse("a keyed table needs a key".to_owned()),
            Shape::Append { epoch } if !self.is_long(epoch) => return refuse(format!("{epoch} must be Int64")),
            _ => {}
        }
        if let Some(expiry) = self.expiry.as_ref().filter(|expiry| !self.can_expire(expiry)) {
            return refuse(format!("{expiry:?} does not fit the table"));
        }
        match Checks::parse(self.checks.clone(), &self.checks, &self.schema) {
            Err(Check { name, sql }) => refuse(format!("constraint {name} ({sql}) compares no column with a literal")),
            Ok(_) => Ok(()),
        }
    }

    /// The columns with min and max in the log: the key, or the epoch, and what else was asked for. No decimals: some keep
    /// them as floats there, which prunes wrongly above 9e13.
    pub(crate) fn statistics_columns(&self) -> Vec<&str> {
        let first = match &self.shape {
            Shape::Keyed { key } => key.as_slice(),
            Shape::Append { epoch } => std::slice::from_ref(epoch),
        };
        first.iter().chain(&self.bounded).map(String::as_str).collect()
    }

    /// Table properties, constraints included.
    pub(crate) fn properties(&self, policy: &Policy) -> Vec<(String, Value)> {
        let seconds = |duration: std::time::Duration| format!("interval {} seconds", duration.as_secs());
        let mut properties = vec![
            ("delta.checkpointInterval".to_owned(), policy.checkpoint_interval_commits.to_string()),
            ("delta.logRetentionDuration".to_owned(), seconds(policy.log_retention)),
            ("delta.deletedFileRetentionDuration".to_owned(), seconds(policy.retention)),
            ("delta.enableExpiredLogCleanup".to_owned(), "true".to_owned()),
            ("delta.dataSkippingStatsColumns".to_owned(), self.statistics_columns().join(",")),
        ];
        properties.extend(self.checks.iter().map(|check| (check.property(), check.sql.clone())));
        properties.into_iter().map(|(key, value)| (key, value.into())).collect()
    }

    fn can_expire(&self, expiry: &Expiry) -> bool {
        let kind = |column: &str| self.schema.field_with_name(column).map(|field| field.data_type());
        let is_text = |column: &String| kind(column).is_ok_and(|kind| *kind == DataType::Utf8);
        let bounded = |column: &String| self.bounded.contains(column);
        let columns = match &expiry.what {
            Expires::Rows { summed } => summed.iter().all(|column| self.is_long(column)),
            Expires::Values { columns, marked, .. } => {
                columns.iter().all(is_text) && is_text(marked) && bounded(marked)
            }
        };
        let instants = kind(&expiry.column).is_ok_and(|kind| matches!(kind, DataType::Timestamp(..)));
        self.shape.epoch().is_some() && instants && bounded(&expiry.column) && columns
    }

    fn is_long(&self, column: &str) -> bool {
        self.schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Int64)
    }
}

impl Check {
    /// What the property of every constraint begins with.
    pub(crate) const PREFIX: &str = "delta.constraints.";

    /// The table property that holds the constraint.
    pub(crate) fn property(&self) -> String {
        format!("{}{}", Check::PREFIX, self.name)
    }
}

fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::Int32 | DataType::Int64 | DataType::Float64 => true,
        DataType::Decimal128(_, scale) => *scale >= 0,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => zone.as_ref() == "UTC",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn spec(shape: Shape, check: &str) -> TableSpec {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("note", DataType::Utf8, true),
            Field::new("epoch", DataType::Int64, false),
            Field::new("amount", DataType::Decimal128(38, 2), false),
        ]);
        TableSpec {
            name: "a/b".to_owned(),
            comment: String::new(),
            schema: Arc::new(schema),
            shape,
            bounded: vec![],
            checks: vec![Check { name: "c".to_owned(), sql: check.to_owned() }],
            expiry: None,
        }
    }

    fn keyed(key: &[&str]) -> Shape {
        Shape::Keyed { key: key.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn a_key_must_exist_and_not_be_nullable() {
        assert!(spec(keyed(&["id"]), "epoch >= 0").validate().is_ok());
        for key in [&["note"][..], &["nowhere"], &[]] {
            assert!(spec(keyed(key), "epoch >= 0").validate().is_err(), "{key:?}");
        }
    }

    #[test]
    fn constraints_compare_a_column_with_a_literal() {
        assert!(spec(keyed(&["id"]), "epoch >= 0 AND amount >= 0").validate().is_err());
    }

    #[test]
    fn the_epoch_of_an_append_table_is_a_long() {
        assert!(spec(Shape::Append { epoch: "epoch".to_owned() }, "epoch >= 0").validate().is_ok());
        assert!(spec(Shape::Append { epoch: "id".to_owned() }, "epoch >= 0").validate().is_err());
    }

    #[test]
    fn names_stay_below_the_root() {
        for name in ["", "../x", "/x", "a//b", "_delta_log"] {
            let spec = TableSpec { name: name.to_owned(), ..spec(keyed(&["id"]), "epoch >= 0") };
            assert!(spec.validate().is_err(), "{name:?}");
        }
    }
}
