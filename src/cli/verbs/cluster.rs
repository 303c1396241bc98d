//! `tidemark cluster`: runs the pipeline in several processes of this machine, and starts them again when one is lost.

use crate::cli::flags::{OfCluster, SettingFlags};
use crate::cli::{Global, check_memory};
use crate::cluster::supervisor::{Plan, supervise};
use crate::config::{Effective, Origin, SourceKind};
use crate::exit::{ExitStatus, Failure};
use crate::signals;
use clap::Args;
use std::ffi::OsString;

/// The log of the processes that say what process 0 says as well: warnings and errors.
const QUIET: &str = "warn,deltalake_core=off,buoyant_kernel=off,azure_messaging_eventhubs=off,azure_core_amqp=off,\
                     fe2o3_amqp=off";

/// Arguments of `cluster`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidemark cluster --processes 2 --workers 1 --input events/ --output tables")]
pub struct ClusterVerb {
    /// Displace an instance that is still running on this checkpoint; it can write nothing any more
    #[arg(long)]
    pub take_over: bool,
    /// Take changes as they are that others have made to the tables' rows; from then on `evidence` names them, and passes
    #[arg(long)]
    pub accept_changes: bool,
    /// Settings, as those of `run`.
    #[command(flatten)]
    pub settings: SettingFlags<OfCluster>,
}

impl ClusterVerb {
    /// Runs the processes until process 0 ends for good, with the status that it ends with.
    pub(super) fn execute(&self, global: &Global) -> Result<ExitStatus, Failure> {
        let effective = global.start(&self.settings)?;
        check_memory(&effective, 1)?;
        let plan = plan(&effective)?;
        let unavailable = |error| Failure::new(ExitStatus::Unavailable, error);
        let stop = signals::stop_flag().map_err(unavailable)?;
        supervise(plan, &stop).map_err(unavailable)
    }
}

fn plan(effective: &Effective) -> Result<Plan, Failure> {
    let origin = |key: &str| effective.iter().find(|(setting, _)| setting.key == key).map(|(_, value)| &value.origin);
    for key in ["cluster.process", "cluster.hosts", "cluster.listen"] {
        if let Some(origin @ Origin::Flag(_)) = origin(key) {
            let problem = format!("{key} ({origin}): `tidemark cluster` sets it for each process; leave it out");
            return Err(Failure::new(ExitStatus::Usage, problem));
        }
    }
    let config = &effective.config;
    if !config.cluster.is_shared() {
        let problem = "cluster.processes = 1: one process needs nobody beside it; allowed: 2 to 64, or `tidemark run`";
        return Err(Failure::new(ExitStatus::Usage, problem));
    }
    let mut environment = Vec::new();
    if let Some(Origin::Verb(_)) = origin("cluster.secret") {
        environment.push(("TIDEMARK__CLUSTER__SECRET".to_owned(), secret()?));
    }
    let of_followers = match origin("log.level") {
        Some(Origin::Flag(_)) => Vec::new(),
        _ => vec![("TIDEMARK__LOG__LEVEL".to_owned(), QUIET.to_owned())],
    };
    let from_stdin = config.source.kind == SourceKind::File && config.source.inputs.iter().any(|input| input == "-");
    Ok(Plan {
        command: command()?,
        environment,
        of_followers,
        processes: config.cluster.processes,
        // What is accepted, and who is displaced, is what there was when somebody asked for it.
        first_only: &["--accept-changes", "--take-over"],
        repeatable: !from_stdin,
    })
}

/// This command, with `run` in the place of `cluster`.
fn command() -> Result<Vec<OsString>, Failure> {
    let unknown = |error| Failure::new(ExitStatus::Unavailable, format_args!("this program cannot be found: {error}"));
    let program = std::env::current_exe().map_err(unknown)?;
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if let Some(first) = words.first_mut() {
        *first = program.into();
    }
    // Of the flags before the verb only one has a value apart from it.
    let mut at = 1;
    while let Some(word) = words.get(at) {
        match word.to_string_lossy().as_ref() {
            "--config" => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => break,
        }
    }
    if let Some(verb) = words.get_mut(at) {
        *verb = "run".into();
    }
    Ok(words)
}

/// Drawn for one run: whoever is not started here cannot know it.
fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
