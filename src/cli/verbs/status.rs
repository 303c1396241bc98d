//! `tidemark status`: a running instance at a glance, asked over its HTTP API.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::config::Config;
use crate::exit::{ExitStatus, Failure};
use crate::http::answers::Everything;
use crate::http::client::{Client, ClientError};
use crate::report::status;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  tidemark status                                the instance that http.listen says
  tidemark status --watch --url http://host:9464 that one, every second
  tidemark status --json | jq .status.ready";

/// Time between two pictures.
const EVERY: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its first line.
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    /// Show it every second, until Ctrl-C or until nobody answers any more
    #[arg(long)]
    pub watch: bool,
    /// Print JSON; with --watch an object on each line
    #[arg(long)]
    pub json: bool,
    /// Where the instance serves; by default what http.listen says
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub url: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(if error.is_usage() { ExitStatus::Usage } else { ExitStatus::Unavailable }, error)
    }
}

impl Status {
    /// Prints what the instance says; status 1 where it does not do its work.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let client = self.client(&config)?;
        loop {
            let all = client.everything()?;
            if self.watch && !self.json && std::io::stdout().is_terminal() {
                // Not through `out`, which lets nothing pass that steers a terminal.
                std::io::stdout().write_all(CLEAR).map_err(Failure::output)?;
            }
            print(out, self.picture(&all)?)?;
            if !self.watch {
                return Ok(if all.status.ready { ExitStatus::Done } else { ExitStatus::CheckFailed });
            }
            out.flush().map_err(Failure::output)?;
            std::thread::sleep(EVERY);
        }
    }

    fn client(&self, config: &Config) -> Result<Client, ClientError> {
        Client::new(self.url.as_deref(), &config.http)
    }

    fn picture(&self, all: &Everything) -> Result<String, Failure> {
        if self.json {
            let text = if self.watch { serde_json::to_string(all) } else { serde_json::to_string_pretty(all) };
            return Ok(text.map_err(|error| Failure::new(ExitStatus::Bug, error))? + "\n");
        }
        Ok(status::text(all))
    }
}
