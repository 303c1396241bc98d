//! `tidemark config show`: the configuration in effect.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::config::show;
use crate::exit::{ExitStatus, Failure};
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;

/// What can be done with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigVerb {
    /// Print every setting, its value, and where that came from; secrets are masked
    Show(Show),
}

/// Arguments of `config show`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tidemark config show --config tidemark.toml\n  tidemark config show --format toml"
)]
pub struct Show {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = ShowFormat::Human)]
    pub format: ShowFormat,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

/// Forms of `config show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// A table
    Human,
    /// One object, key to value and origin
    Json,
    /// A configuration file, origins as comments
    Toml,
}

impl ConfigVerb {
    /// Prints the configuration.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let ConfigVerb::Show(Show { format, settings }) = self;
        let effective = global.load(settings)?;
        let text = match format {
            ShowFormat::Human => show::human(&effective),
            ShowFormat::Json => show::json(&effective),
            ShowFormat::Toml => show::toml(&effective),
        };
        print(out, text)
    }
}
