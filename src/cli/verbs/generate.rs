//! `tidemark generate`: writes generated events to files, to standard output, or to an event hub.

use crate::cli::Global;
use crate::cli::flags::{OfGenerate, SettingFlags};
use crate::exit::{ExitStatus, Failure};
use crate::report::numbers::{grouped, rate};
use crate::runtime::{RunError, access, build};
use crate::signals;
use crate::source::generator::{EventSender, EventWriter, Sent, Written};
use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "Examples:
  tidemark generate --out events --events 1000000
  tidemark generate --stdout --rate 100 --events 0 | tidemark run --input -
  tidemark generate --to eventhubs --events 1000000   (see EVENT_HUB_CONNECTION_STRING, EVENT_HUB_NAME)";

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
    /// Send to a service; the section eventhubs of the configuration says which
    #[arg(long, value_name = "SERVICE", group = "destination")]
    to: Option<Service>,
    /// Replace files that are already there
    #[arg(long)]
    pub force: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfGenerate>,
}

/// A service that takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// An event hub.
    #[value(name = "eventhubs")]
    EventHubs,
}

/// Where generated events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// One file per partition in this directory.
    Directory(&'a Path),
    /// Standard output.
    Stdout,
    /// The configured event hub.
    EventHub,
}

impl Generate {
    /// Where the events go.
    pub fn destination(&self) -> Destination<'_> {
        match (self.to, self.out.as_deref()) {
            (Some(Service::EventHubs), _) => Destination::EventHub,
            (None, Some(directory)) if directory != Path::new("-") => Destination::Directory(directory),
            (None, _) => Destination::Stdout,
        }
    }

    /// Writes the events, until there are enough or a signal comes.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let stop = signals::stop_flag().map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
        let (generator, pacing) = build::generator(&config, None).map_err(RunError::from)?;
        let writer = EventWriter::new(&generator, pacing, &stop);
        let begun = Instant::now();
        let written = match self.destination() {
            Destination::Directory(directory) => writer.write_files(directory, self.force),
            Destination::Stdout => writer.write_stream("standard output", out),
            Destination::EventHub => access::hub(&config).and_then(|hub| {
                let sender = EventSender::new(&generator, pacing, &stop, hub, config.eventhubs.give_up_after);
                sender.send().map(told)
            }),
        };
        let written = written.map_err(RunError::from)?;
        let speed = rate(written.events, begun.elapsed());
        tracing::info!("wrote {} events, {} bytes, {speed}", grouped(written.events), grouped(written.bytes));
        Ok(ExitStatus::Done)
    }
}

/// Says what only an event hub has.
fn told(sent: Sent) -> Written {
    tracing::info!("sent to {} partitions", sent.partitions);
    if sent.repeated > 0 {
        let batches = grouped(sent.repeated);
        tracing::warn!("{batches} batches were sent again after a fault, so that some events may have come twice");
    }
    sent.written
}
