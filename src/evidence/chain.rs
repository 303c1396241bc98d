//! What is kept for a restart, opened for reading alone, and its verification.

use std::path::PathBuf;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::records::Identity;
use tidemark_checkpoint::store::{Patience, Store};
use tidemark_checkpoint::verify::{self, Report};

use crate::config::Config;
use crate::exit::{ExitStatus, Failure};
use crate::runtime::RunError;

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
    let folder: PathBuf = config.checkpoint_path();
    Store::existing(&folder, patience).map_err(failure)
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
