//! `tidemark checkpoint`: looks into what is kept for a restart, while a pipeline runs or not. Nothing is written.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::evidence::chain;
use crate::exit::{ExitStatus, Failure};
use crate::report::checkpoint as report;
use clap::{Args, Subcommand};
use std::io::Write;
use tidemark_checkpoint::inspect::Stored;
use tidemark_checkpoint::journal::{self, Past, Restorable};

/// What can be asked of checkpoints.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointVerb {
    /// List manifests and generations
    #[command(after_help = "Example:\n  tidemark checkpoint list --output tables")]
    List(Look),
    /// Show the state that a restart goes on from, and every cut that is still there; keys are masked
    #[command(after_help = "Example:\n  tidemark checkpoint show --output tables --json | jq .cuts")]
    Show {
        /// The manifest of this epoch instead of the newest
        #[arg(long, value_name = "N")]
        epoch: Option<u64>,
        /// Where, and in which form.
        #[command(flatten)]
        look: Look,
    },
    /// Check that everything fits together and can be read; exit status 1 if not
    #[command(after_help = "Example:\n  tidemark checkpoint verify --output tables")]
    Verify(Look),
}

/// Where to look, and in which form to print.
#[derive(Debug, Clone, Args)]
pub struct Look {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl CheckpointVerb {
    /// Prints what is there.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        match self {
            CheckpointVerb::List(look) => look.list(global, out),
            CheckpointVerb::Show { epoch, look } => look.show(global, *epoch, out),
            CheckpointVerb::Verify(look) => look.verify(global, out),
        }
    }
}

impl Look {
    fn list(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let store = chain::store(&config)?.ok_or_else(|| chain::none(&config))?;
        let stored = Stored::read(&store).map_err(chain::failure)?;
        if stored.is_empty() {
            return Err(chain::none(&config));
        }
        print(out, if self.json { report::list_json(&stored) } else { report::list(&stored) })
    }

    fn show(&self, global: &Global, epoch: Option<u64>, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let store = chain::store(&config)?.ok_or_else(|| chain::none(&config))?;
        let past = journal::look(&store).map_err(chain::failure)?.ok_or_else(|| chain::none(&config))?;
        let from = chosen(&past, epoch)?;
        print(out, if self.json { report::show_json(&past, from) } else { report::show(&past, from) })
    }

    fn verify(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let report = chain::verify(&config)?.ok_or_else(|| chain::none(&config))?;
        print(out, if self.json { report::verified_json(&report) } else { report::verified(&report) })?;
        Ok(if report.findings.is_empty() { ExitStatus::Done } else { ExitStatus::CheckFailed })
    }
}

/// The manifest of an epoch, or the newest if there is any.
fn chosen(past: &Past, epoch: Option<u64>) -> Result<Option<&Restorable>, Failure> {
    let Some(epoch) = epoch else { return Ok(past.manifests.first()) };
    let found = past.manifests.iter().find(|found| found.link.epoch == epoch);
    found.map(Some).ok_or_else(|| {
        let epochs: Vec<String> = past.manifests.iter().map(|found| found.link.epoch.to_string()).collect();
        let there = if epochs.is_empty() {
            "no manifest at all".to_owned()
        } else {
            format!("those of epochs {}", epochs.join(", "))
        };
        Failure::new(ExitStatus::Usage, format_args!("there is no manifest of epoch {epoch}, but {there}"))
    })
}
