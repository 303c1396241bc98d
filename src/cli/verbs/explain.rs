//! `tidemark explain`: what became of an event.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::exit::{ExitStatus, Failure};
use crate::explain::explain;
use crate::quarantine::list::json_line;
use clap::Args;
use std::io::Write;

const HELP: &str =
    "Looks in the quarantine, the curated events and the remembered ids, then reads the retained source \
again. Exit status 1 if nothing was found anywhere.

Example:
  tidemark explain 9f1c2f6e-0d4b-4c7a-8f55-2f1f0f9f8a11 --output tables";

/// Arguments of `explain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct Explain {
    /// The `event_id`, as its producer wrote it
    #[arg(value_name = "EVENT_ID")]
    pub event_id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl Explain {
    /// Prints what was found.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let explanation = explain(&config, &self.event_id)?;
        print(out, if self.json { json_line(&explanation) } else { explanation.text() })?;
        Ok(if explanation.found() { ExitStatus::Done } else { ExitStatus::CheckFailed })
    }
}
