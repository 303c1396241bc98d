//! `tidemark generate`: the arguments of the event generator.

use crate::cli::flags::{OfGenerate, SettingFlags};
use clap::{ArgGroup, Args, ValueHint};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  tidemark generate --out events --events 1000000
  tidemark generate --stdout --rate 100 --events 0 | tidemark run --input -";

/// Arguments of `generate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("destination").required(true))]
pub struct Generate {
    /// Directory for one file per partition, or - for standard output
    #[arg(long, value_name = "DIR", group = "destination", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Write to standard output
    #[arg(long, group = "destination")]
    stdout: bool,
    /// Replace files that are already there
    #[arg(long)]
    pub force: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfGenerate>,
}

/// Where generated events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// One file per partition in this directory.
    Directory(&'a Path),
    /// Standard output.
    Stdout,
}

impl Generate {
    /// Where the events go.
    pub fn destination(&self) -> Destination<'_> {
        match self.out.as_deref() {
            Some(directory) if directory != Path::new("-") => Destination::Directory(directory),
            _ => Destination::Stdout,
        }
    }
}
