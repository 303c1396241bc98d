//! `tidemark evidence`: checks every guarantee on what is stored.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::evidence::Evidence as Found;
use crate::exit::{ExitStatus, Failure};
use crate::report::{evidence, page};
use clap::{Args, ValueHint};
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  tidemark evidence                              of the tables in ./data, while they are written or not
  tidemark evidence --output tables --html evidence.html";

/// Arguments of `evidence`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct Evidence {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Look at aggregates alone, and not at every byte of every file
    #[arg(long)]
    pub quick: bool,
    /// Also write a page for a browser to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl Evidence {
    /// Prints each check; status 1 if one failed.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let found = Found::gather(&config, self.quick)?;
        if let Some(file) = &self.html {
            let unwritable = |error| Failure::new(ExitStatus::Unavailable, format_args!("{}: {error}", file.display()));
            std::fs::write(file, page::html(&found)).map_err(unwritable)?;
        }
        print(out, if self.json { evidence::json(&found) } else { evidence::text(&found) })?;
        Ok(if found.failed() == 0 { ExitStatus::Done } else { ExitStatus::CheckFailed })
    }
}
