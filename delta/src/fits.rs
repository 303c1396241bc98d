//! Whether a stored table is the one that is specified, and what it asks of a writer.
//!
//! Others may change a table. What does not concern a writer, such as a comment or a property for readers, is passed by.
//! What does, and is more than this crate does, is refused by name, with how to undo it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde_json::Value;

use crate::Error;
use crate::checks::Checks;
use crate::log::Log;
use crate::spec::{Check, Shape, TableSpec};

/// Features that ask nothing of this writer, or only what it does: see [`properties`] and [`columns`] for the conditions.
/// From the Delta protocol, "Valid Feature Names in Table Features".
const BORNE: [&str; 15] = [
    "allowColumnDefaults",
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "identityColumns",
    "inCommitTimestamp",
    "invariants",
    "timestampNtz",
    "typeWidening",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// Marks of a column that give it values, or rules, of its own.
const BINDING: [&str; 4] =
    ["delta.invariants", "delta.generationExpression", "delta.identity.start", "delta.identity.step"];

/// What a table asks of whoever writes to it.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) checks: Checks,
    /// The columns of new files.
    pub(crate) columns: SchemaRef,
}

impl Terms {
    /// Reads them off the log.
    ///
    /// # Errors
    /// [`Error::StateMismatch`] for a table that is not the one specified, or asks for more.
    pub(crate) fn of(spec: &TableSpec, log: &Log) -> Result<Terms, Error> {
        let refuse = |what: String| Error::mismatch(&spec.name, what);
        protocol(&log.protocol).map_err(refuse)?;
        if let Some(file) = log.files().find(|file| !file.is_plain()) {
            return Err(refuse(format!(
                "file {:?} has a name that this program cannot give in a commit: write the table anew, as OPTIMIZE does",
                file.path
            )));
        }
        if let Some(file) = &log.with_deletion_vector {
            return Err(refuse(format!(
                "file {file} has a deletion vector, somebody has deleted rows of it: REORG TABLE .. APPLY (PURGE)"
            )));
        }
        let columns = columns(spec, &log.metadata).map_err(refuse)?;
        properties(spec, &log.metadata).map_err(refuse)?;
        let checks = constraints(spec, &log.metadata).map_err(refuse)?;
        Ok(Terms { checks, columns })
    }
}

fn protocol(protocol: &Value) -> Result<(), String> {
    let version = |name: &str| protocol[name].as_i64().unwrap_or(i64::MAX);
    let (reader, writer) = (version("minReaderVersion"), version("minWriterVersion"));
    if reader > 3 || writer > 7 {
        return Err(format!(
            "its protocol (reader {reader}, writer {writer}) is newer than this program: use a newer one, or RESTORE the \
             table to a version before the upgrade"
        ));
    }
    let features = ["readerFeatures", "writerFeatures"].map(|list| protocol[list].as_array());
    let names = features.into_iter().flatten().flatten().filter_map(Value::as_str);
    match names.into_iter().find(|name| !BORNE.contains(name)) {
        Some(name) => Err(format!(
            "it has the feature {name}, which this program does not write: ALTER TABLE .. DROP FEATURE {name}"
        )),
        None => Ok(()),
    }
}

/// The same columns in the same order, unpartitioned, under their own names.
fn columns(spec: &TableSpec, metadata: &Value) -> Result<SchemaRef, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("its schema cannot be read: {error}");
    let stored: Value =
        serde_json::from_str(metadata["schemaString"].as_str().unwrap_or_default()).map_err(|error| damaged(&error))?;
    let wanted = kernel_schema(spec).map_err(|error| damaged(&error))?;
    let wanted = serde_json::to_value(&wanted).map_err(|error| damaged(&error))?;
    let fields = |schema: &Value| schema["fields"].as_array().cloned().unwrap_or_default();
    let (stored, wanted) = (fields(&stored), fields(&wanted));
    let told = |field: &Value| {
        let nullable = if field["nullable"] == true { "" } else { " not null" };
        format!("{} {}{nullable}", field["name"].as_str().unwrap_or_default(), field["type"])
    };
    let list = |fields: &[Value]| fields.iter().map(told).collect::<Vec<_>>();
    if list(&stored) != list(&wanted) {
        let [stored, wanted] = [list(&stored), list(&wanted)].map(|fields| fields.join(", "));
        return Err(format!(
            "stored columns are [{stored}], expected are [{wanted}]: undo the change, or RESTORE the table to a version before it"
        ));
    }
    if metadata["partitionColumns"].as_array().is_some_and(|columns| !columns.is_empty()) {
        return Err("it is partitioned".to_owned());
    }
    let by_id = mapping(metadata)?;
    let mut columns = Vec::with_capacity(stored.len());
    for (field, ours) in stored.iter().zip(spec.schema.fields()) {
        let marks = &field["metadata"];
        if let Some(mark) = BINDING.iter().find(|mark| !marks[**mark].is_null()) {
            return Err(format!("column {} has {mark}: drop it, this program writes every value itself", ours.name()));
        }
        let physical = marks["delta.columnMapping.physicalName"].as_str().filter(|_| by_id);
        if physical.is_some_and(|physical| physical != ours.name()) {
            return Err(format!(
                "column {} has another name in files: rename it back, or RESTORE the table",
                ours.name()
            ));
        }
        let id = marks["delta.columnMapping.id"].as_i64().filter(|_| by_id);
        let id = id.map(|id| (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()));
        let field = Field::new(ours.name(), ours.data_type().clone(), ours.is_nullable());
        columns.push(field.with_metadata(HashMap::from_iter(id)));
    }
    Ok(Arc::new(Schema::new(columns)))
}

/// Whether columns have ids, which files must have as well.
fn mapping(metadata: &Value) -> Result<bool, String> {
    match metadata["configuration"]["delta.columnMapping.mode"].as_str() {
        None | Some("none") => Ok(false),
        Some("name") => Ok(true),
        Some(mode) => Err(format!("its columns are mapped by {mode}: set delta.columnMapping.mode = 'name'")),
    }
}

fn properties(spec: &TableSpec, metadata: &Value) -> Result<(), String> {
    let properties = &metadata["configuration"];
    let is_on = |name: &str| properties[name].as_str().is_some_and(|value| value.eq_ignore_ascii_case("true"));
    // Rows of an append table are only added, so nothing that forbids or records other changes concerns it, unless some expire.
    let keyed = matches!(spec.shape, Shape::Keyed { .. });
    let changes = keyed || spec.expiry.is_some();
    let binding = [
        ("delta.appendOnly", changes),
        ("delta.enableChangeDataFeed", changes),
        ("delta.enableInCommitTimestamps", true),
        ("delta.enableRowTracking", true),
        ("delta.enableIcebergCompatV1", true),
        ("delta.enableIcebergCompatV2", true),
    ];
    match binding.into_iter().find(|(name, concerns)| *concerns && is_on(name)) {
        Some((name, _)) => {
            let why = if keyed { "" } else { " where rows or values of the table are not kept for ever" };
            let undo = format!("SET TBLPROPERTIES ('{name}' = 'false')");
            Err(format!("{name} is set, which this program cannot honour{why}: {undo}"))
        }
        None => Ok(()),
    }
}

/// All constraints, of which ours must be among them as they are specified.
fn constraints(spec: &TableSpec, metadata: &Value) -> Result<Checks, String> {
    let properties = &metadata["configuration"];
    let missing = |check: &&Check| properties[check.property()].as_str() != Some(&check.sql);
    if let Some(check) = spec.checks.iter().find(missing) {
        let Check { name, sql } = check;
        return Err(format!(
            "constraint {name} is missing or differs: ALTER TABLE .. ADD CONSTRAINT {name} CHECK ({sql})"
        ));
    }
    let stored = properties.as_object().into_iter().flatten().filter_map(|(key, sql)| {
        let name = key.strip_prefix(Check::PREFIX)?.to_owned();
        Some(Check { name, sql: sql.as_str()?.to_owned() })
    });
    Checks::parse(stored, &spec.checks, &spec.schema).map_err(|Check { name, sql }| {
        format!(
            "constraint {name} ({sql}) is no comparison of a column with a literal: ALTER TABLE .. DROP CONSTRAINT {name}"
        )
    })
}

/// The columns of a specification, comments included, as the log writes them.
pub(crate) fn kernel_schema(spec: &TableSpec) -> Result<StructType, ArrowError> {
    spec.schema.as_ref().try_into_kernel()
}
