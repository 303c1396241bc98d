//! The verbs, one file each: the arguments, and a thin function that does the work or calls who does.

#[cfg(feature = "broker")]
pub mod broker;
pub mod checkpoint;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod evidence;
pub mod explain;
pub mod generate;
pub mod graph;
pub mod man;
pub mod quarantine;
pub mod run;
pub mod schema;
pub mod status;
pub mod validate;

use super::Global;
use crate::exit::{ExitStatus, Failure};
use clap::Subcommand;
use std::io::Write;

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the pipeline
    Run(run::Run),
    /// Run the pipeline in several processes of this machine
    Cluster(cluster::ClusterVerb),
    /// Write generated events
    Generate(generate::Generate),
    /// Run a local broker for Event Hubs clients, for development and tests
    #[cfg(feature = "broker")]
    Broker(broker::BrokerVerb),
    /// Check the configuration
    Validate(validate::Validate),
    /// Check every guarantee on what is stored
    Evidence(evidence::Evidence),
    /// Show a running instance at a glance
    Status(status::Status),
    /// Look into what is kept for a restart
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointVerb),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Say what became of an event
    Explain(explain::Explain),
    /// Look at rejected events, and feed them again
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineVerb),
    /// Print schemas
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Draw the dataflow
    Graph(graph::Graph),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write those of all verbs
    Man(man::Man),
}

impl Verb {
    /// Does what the verb says; `out` is standard output.
    ///
    /// # Errors
    ///
    /// What stands in the way, with the exit status for it.
    pub fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        match self {
            Verb::Run(verb) => verb.execute(global, out),
            Verb::Cluster(verb) => verb.execute(global),
            Verb::Generate(verb) => verb.execute(global, out),
            #[cfg(feature = "broker")]
            Verb::Broker(verb) => verb.execute(global, out),
            Verb::Validate(verb) => verb.execute(global, out),
            Verb::Status(verb) => verb.execute(global, out),
            Verb::Evidence(verb) => verb.execute(global, out),
            Verb::Checkpoint(verb) => verb.execute(global, out),
            Verb::Config(verb) => verb.execute(global, out),
            Verb::Explain(verb) => verb.execute(global, out),
            Verb::Quarantine(verb) => verb.execute(global, out),
            Verb::Schema(verb) => verb.execute(out),
            Verb::Graph(verb) => verb.execute(out),
            Verb::Completions(verb) => verb.execute(out),
            Verb::Man(verb) => verb.execute(out),
        }
    }
}

/// Writes `text` as the whole output of a verb.
fn print(out: &mut dyn Write, text: impl AsRef<[u8]>) -> Result<ExitStatus, Failure> {
    out.write_all(text.as_ref()).map_err(Failure::output)?;
    Ok(ExitStatus::Done)
}
