//! The tables' schemas, for people and for programs.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};
use tidemark_delta::{Shape, TableSpec};

use crate::sink::tables::specs;

/// Every table as text.
pub fn human() -> String {
    let mut text = String::new();
    for spec in specs(true) {
        let _ = writeln!(text, "{}: {}\n  written by {}", spec.name, spec.comment, shape(&spec));
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["column", "type", "nullable", "meaning"]);
        for field in spec.schema.fields() {
            let nullable = if field.is_nullable() { "yes" } else { "" };
            table.add_row([field.name().as_str(), &type_name(field.data_type()), nullable, meaning(field)]);
        }
        let _ = writeln!(text, "{table}\n");
    }
    text
}

/// Every table as an array of objects.
pub fn json() -> String {
    let tables: Vec<Value> = specs(true).iter().map(as_json).collect();
    format!("{:#}\n", Value::Array(tables))
}

fn as_json(spec: &TableSpec) -> Value {
    let column = |field: &FieldRef| {
        let (kind, nullable) = (type_name(field.data_type()), field.is_nullable());
        json!({"name": field.name(), "type": kind, "nullable": nullable, "comment": meaning(field)})
    };
    let columns: Vec<Value> = spec.schema.fields().iter().map(column).collect();
    let checks: Vec<&str> = spec.checks.iter().map(|check| check.sql.as_str()).collect();
    let key = match &spec.shape {
        Shape::Keyed { key } => key.clone(),
        Shape::Append { .. } => Vec::new(),
    };
    json!({"name": spec.name, "comment": spec.comment, "written_by": shape(spec), "key": key, "columns": columns, "checks": checks})
}

/// What a column means, as its table says.
fn meaning(field: &Field) -> &str {
    field.metadata().get("comment").map_or("", String::as_str)
}

fn shape(spec: &TableSpec) -> String {
    match &spec.shape {
        Shape::Keyed { key } => format!("MERGE on {}", key.join(", ")),
        Shape::Append { .. } => "append".to_owned(),
    }
}

/// The type as Delta spells it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "long".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(digits, scale) => format!("decimal({digits},{scale})"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp".to_owned(),
        other => other.to_string(),
    }
}
