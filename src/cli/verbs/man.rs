//! `tidemark man`: manual pages, made from the definition of the command line.

use super::print;
use crate::cli::{Cli, version};
use crate::exit::{ExitStatus, Failure};
use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man as Page;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tidemark man | man -l -\n  tidemark man --out man1")]
pub struct Man {
    /// Write the pages of all verbs to this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// The command line with the number of the version alone: pages say the same from whatever build they come.
fn command() -> Command {
    Cli::command().version(version::NUMBER).long_version(version::NUMBER)
}

impl Man {
    /// Prints the page of the program, or writes all pages.
    pub(super) fn execute(&self, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let Some(directory) = &self.out else {
            let mut page = Vec::new();
            Page::new(command()).render(&mut page).map_err(Failure::output)?;
            return print(out, page);
        };
        std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command(), directory))
            .map_err(|error| Failure::new(ExitStatus::Unavailable, format_args!("{}: {error}", directory.display())))?;
        Ok(ExitStatus::Done)
    }
}
