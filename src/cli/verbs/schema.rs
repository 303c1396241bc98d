//! `tidemark schema`: what the configuration may hold, what the tables hold, and what a running instance tells.

use super::print;
use crate::config::schema;
use crate::exit::{ExitStatus, Failure};
use crate::http::{openapi, reference};
use crate::report::schema as tables;
use clap::{Subcommand, ValueEnum};
use std::io::Write;

/// Which schema.
#[derive(Debug, Clone, Subcommand)]
pub enum Schema {
    /// Every setting: its meaning, its default, and what is allowed
    #[command(after_help = "Example:\n  tidemark schema config > tidemark.schema.json")]
    Config {
        /// Form of the output
        #[arg(long, value_enum, default_value_t = ConfigSchemaFormat::Json)]
        format: ConfigSchemaFormat,
    },
    /// Every table: its columns, key and constraints
    #[command(after_help = "Example:\n  tidemark schema tables --format json | jq '.[].name'")]
    Tables {
        /// Form of the output
        #[arg(long, value_enum, default_value_t = TableSchemaFormat::Human)]
        format: TableSchemaFormat,
    },
    /// Every metric: its kind, its labels and its meaning
    #[command(after_help = "Example:\n  tidemark schema metrics > metrics.md")]
    Metrics {
        /// Form of the output
        #[arg(long, value_enum, default_value_t = MetricsFormat::Markdown)]
        format: MetricsFormat,
    },
    /// The description of the HTTP API, as OpenAPI
    #[command(after_help = "Example:\n  tidemark schema api | jq '.paths | keys'")]
    Api,
}

/// Forms of `schema metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricsFormat {
    /// A page of documentation
    Markdown,
}

/// Forms of `schema tables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableSchemaFormat {
    /// Tables for a terminal
    Human,
    /// An array with one object for each table
    Json,
}

/// Forms of `schema config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigSchemaFormat {
    /// JSON Schema of a configuration file
    Json,
    /// A page of documentation
    Markdown,
}

impl Schema {
    /// Prints the schema.
    pub(super) fn execute(&self, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        match self {
            Schema::Config { format: ConfigSchemaFormat::Json } => print(out, schema::json_schema()),
            Schema::Config { format: ConfigSchemaFormat::Markdown } => print(out, schema::markdown()),
            Schema::Tables { format: TableSchemaFormat::Human } => print(out, tables::human()),
            Schema::Tables { format: TableSchemaFormat::Json } => print(out, tables::json()),
            Schema::Metrics { format: MetricsFormat::Markdown } => print(out, reference::markdown()),
            Schema::Api => print(out, format!("{:#}\n", openapi::document())),
        }
    }
}
