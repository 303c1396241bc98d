//! `tidemark schema`: what the configuration may hold.

use super::print;
use crate::config::schema;
use crate::exit::{ExitStatus, Failure};
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
        }
    }
}
