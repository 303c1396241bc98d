//! `tidemark run`: the arguments of the pipeline.

use crate::cli::flags::{OfRun, SettingFlags};
use clap::Args;

const EXAMPLES: &str = "Examples:
  tidemark run                                   generated events into ./data, until Ctrl-C
  tidemark run --input events/ --output tables   every file below events, then end
  tidemark generate --stdout | tidemark run --input -";

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}
