//! `tidemark validate`: checks the configuration, and reaches nothing outside.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::config::Origin;
use crate::exit::{ExitStatus, Failure};
use clap::Args;
use std::io::Write;

/// Arguments of `validate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidemark validate --config tidemark.toml")]
pub struct Validate {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl Validate {
    /// Says that the configuration is valid.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let effective = global.load(&self.settings)?;
        let changed = effective.iter().filter(|(_, assigned)| assigned.origin != Origin::Default).count();
        let all = effective.iter().count();
        print(out, format!("the configuration is valid: {all} settings, {changed} not at their default\n"))
    }
}
