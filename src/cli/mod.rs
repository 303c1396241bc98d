//! The command line: arguments to checked configuration to work.
//!
//! A verb is one file in [`verbs`]; the flags that are settings come from the table of settings ([`flags`]). What a verb
//! prints goes to standard output, everything else to standard error.

pub mod flags;
pub mod verbs;
mod version;

use crate::config::memory::shortages;
use crate::config::{Effective, Layers, Problems};
use crate::exit::{ExitStatus, Failure};
use crate::logging;
use crate::report::terminal::{Escaping, steers};
use clap::{Args, Parser};
use std::io::{self, Write};
use std::{path::PathBuf, process::ExitCode};

const EXIT_STATUSES: &str = "Exit status:
  0   done
  1   a data check failed
  2   wrong usage or configuration
  3   something outside is unavailable
  4   refused or fenced because of another instance
  5   stored state is corrupt or does not fit this configuration
  70  a bug in Tidemark
  128+n  ended by signal n";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "tidemark",
    version = version::SHORT,
    long_version = version::LONG,
    about = "Streaming financial metrics that are exactly right",
    long_about = "Streaming financial metrics that are exactly right: events in, Delta Lake tables out.\n\nEvery setting \
                  has a default; a configuration file, environment variables (TIDEMARK__SECTION__KEY) and flags change \
                  them, each over the ones before. `tidemark config show` prints them all.",
    after_long_help = EXIT_STATUSES
)]
pub struct Cli {
    /// What concerns every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: verbs::Verb,
}

/// Flags of every verb.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl Global {
    /// The configuration in effect: the configuration file, the environment of this process, and the given flags.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn load<V: flags::Takes>(&self, settings: &flags::SettingFlags<V>) -> Result<Effective, Problems> {
        Effective::load(Layers {
            verb: V::DEFAULTS,
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            flags: settings.given(),
        })
    }

    /// Loads the configuration and sets up logging as it says, for verbs that go on to work.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration.
    pub fn start<V: flags::Takes>(&self, settings: &flags::SettingFlags<V>) -> Result<Effective, Failure> {
        let effective = self.load(settings)?;
        let log = &effective.config.log;
        logging::install(&log.level, log.format).map_err(|error| Failure::new(ExitStatus::Bug, error))?;
        Ok(effective)
    }
}

/// Refuses settings that ask for more memory than there is on the machines that share them.
///
/// # Errors
///
/// Each of them by name.
fn check_memory(effective: &Effective, machines: usize) -> Result<(), Failure> {
    let lines = shortages(effective, machines);
    if lines.is_empty() { Ok(()) } else { Err(Failure { status: ExitStatus::Usage, lines }) }
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    logging::exit_on_panic();
    tidemark_eventhubs::choose_cryptography();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well, and go to standard output; nobody reads is no failure.
            let text = error.render().to_string();
            if text.chars().any(steers) {
                let _ = Escaping::new(io::stderr()).write_all(text.as_bytes());
            } else {
                let _ = error.print();
            }
            return if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done }.into();
        }
    };
    // Ids, names and paths of any origin come this way.
    let mut out = Escaping::new(io::stdout());
    let done = cli.verb.execute(&cli.global, &mut out);
    let flushed = |status| out.flush().map(|()| status).map_err(Failure::output);
    match done.and_then(flushed) {
        Ok(status) => status.into(),
        Err(failure) => {
            let mut to = Escaping::new(io::stderr().lock());
            // Nobody reads is no failure.
            failure.lines.iter().for_each(|line| drop(writeln!(to, "error: {line}")));
            failure.status.into()
        }
    }
}

#[cfg(test)]
mod tests;
