//! `tidemark completions`: completion scripts for shells.

use super::print;
use crate::cli::Cli;
use crate::exit::{ExitStatus, Failure};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidemark completions bash > /etc/bash_completion.d/tidemark")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(super) fn execute(&self, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        // Into memory first: the generator panics if it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tidemark", &mut script);
        print(out, script)
    }
}
