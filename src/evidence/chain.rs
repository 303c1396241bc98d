//! What is kept for a restart, opened for reading alone, and its verification.

use tidemark_checkpoint::Error;
use tidemark_checkpoint::records::Identity;
use tidemark_checkpoint::verify::{self, About, Report};
use tidemark_store::{Patience, Store};

use crate::config::Config;
use crate::exit::{ExitStatus, Failure};
use crate::report::numbers::{counted, grouped};
use crate::runtime::RunError;
use crate::storage::Storage;

/// Opens the checkpoint of a configuration as it is; `None` where there is none.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn store(config: &Config) -> Result<Option<Store>, Failure> {
    let patience = Patience {
        give_up_after: config.store.give_up_after,
        request_timeout: config.store.request_timeout,
        ..Patience::default()
    };
    Storage::new(config).existing_checkpoint(patience).map_err(|error| RunError::from(error).into())
}

/// Says that there is no checkpoint.
pub fn none(config: &Config) -> Failure {
    let folder = config.checkpoint_path();
    let problem = format!("{}: there is no checkpoint; give the --output or --checkpoint of the run", folder.display());
    Failure::new(ExitStatus::Unavailable, problem)
}

/// What an error of the store means for the one who asked.
pub fn failure(error: Error) -> Failure {
    RunError::from(error).into()
}

/// Verifies the checkpoint of a configuration; `None` where there is none.
///
/// # Errors
///
/// When it cannot be read.
pub fn verify(config: &Config) -> Result<Option<Report>, Failure> {
    let Some(store) = store(config)? else { return Ok(None) };
    verify::verify(&store, counts_offsets).map_err(failure)
}

/// Whether the offsets of the source are counted from 0, one for each event.
fn counts_offsets(identity: &Identity) -> bool {
    ["generate", "files"].iter().any(|kind| identity.source.get(kind).is_some())
}

/// What was compared for one subject of a verification.
pub fn compared(about: About, report: &Report) -> String {
    let f = &report.figures;
    let span = |epochs: Option<(u64, u64)>| match epochs {
        Some((first, last)) => format!("epochs {} to {}", grouped(first), grouped(last)),
        None => "no epoch".to_owned(),
    };
    match about {
        About::Generations => format!("{} follow on one another", counted(f.generations as u64, "generation")),
        About::Seals => format!("{} of older generations sealed", counted(f.seals as u64, "end")),
        About::Chain => {
            format!("{}, {}, each named by the next", counted(f.manifests as u64, "manifest"), span(f.manifest_epochs))
        }
        About::Runs => format!(
            "{}, {}, {}: digest, size, rows, content",
            counted(f.runs as u64, "run"),
            counted(f.rows, "row"),
            counted(f.bytes, "byte")
        ),
        About::Cuts => format!("{}, {}, without a gap", counted(f.cuts as u64, "cut"), span(f.cut_epochs)),
        About::Positions => {
            format!("{}: offsets follow on one another and match counts", counted(f.positions as u64, "comparison"))
        }
        About::Counts => format!(
            "received {} = accepted {} + duplicates {} + rejected {}; totals add up to the accepted",
            grouped(f.received),
            grouped(f.accepted),
            grouped(f.duplicates),
            grouped(f.rejected)
        ),
    }
}
