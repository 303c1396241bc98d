//! The CHECK constraints of a table, compiled once and held against every batch before it is written.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use deltalake::datafusion::common::DFSchema;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::physical_plan::PhysicalExpr;
use deltalake::datafusion::prelude::SessionContext;

use crate::Error;
use crate::spec::{Check, TableSpec};

/// Constraints of one table.
#[derive(Debug)]
pub(crate) struct Checks(Vec<(Check, Arc<dyn PhysicalExpr>)>);

impl Checks {
    /// Compiles the constraints of `spec`.
    ///
    /// # Errors
    ///
    /// [`Error::Bug`] for one that is no boolean expression over the table's columns.
    pub(crate) fn compile(session: &SessionContext, spec: &TableSpec) -> Result<Checks, Error> {
        let bug = |error: DataFusionError| Error::bug(&spec.name, error.to_string());
        let schema = DFSchema::try_from(spec.schema.as_ref().clone()).map_err(bug)?;
        let mut checks = Vec::with_capacity(spec.checks.len());
        for check in &spec.checks {
            let logical = session.parse_sql_expr(&check.sql, &schema).map_err(bug)?;
            let physical = session.create_physical_expr(logical, &schema).map_err(bug)?;
            if physical.data_type(&spec.schema).map_err(bug)? != DataType::Boolean {
                return Err(Error::bug(&spec.name, format!("constraint {} is not true or false", check.name)));
            }
            checks.push((check.clone(), physical));
        }
        Ok(Checks(checks))
    }

    /// Refuses a batch with a row of which a constraint is not true.
    ///
    /// # Errors
    ///
    /// [`Error::DataCheck`].
    pub(crate) fn hold(&self, table: &str, batch: &RecordBatch) -> Result<(), Error> {
        let bug = |error: DataFusionError| Error::bug(table, error.to_string());
        for (check, compiled) in &self.0 {
            let holds = compiled.evaluate(batch).and_then(|v| v.into_array(batch.num_rows())).map_err(bug)?;
            let holds = holds.as_boolean();
            let broken = (0..holds.len()).find(|row| holds.is_null(*row) || !holds.value(*row));
            if let Some(row) = broken.filter(|_| holds.true_count() < holds.len()) {
                let Check { name, sql } = check;
                return Err(Error::data(table, format!("row {row} breaks constraint {name} ({sql})")));
            }
        }
        Ok(())
    }
}
