//! What keeps other instances away from a checkpoint, as a courtesy: a lock on a local disk, a lease in an object store.

use std::fs;
use std::path::Path;

use tidemark_checkpoint::lease::{Holder, LocalLock};
use tidemark_checkpoint::{Error, names};

use super::RunError;
use super::lease::Lease;
use super::lock::{InstanceLock, host};
use super::run_context::RunContext;
use crate::cluster::ending::GiveBack;
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::storage::Storage;

/// What keeps other instances away.
pub(super) enum Guard {
    /// On a local disk: the lock of the checkpoint, and, where that lies elsewhere, the one of the output, so that a copy of the
    /// checkpoint is no way past. The first one decides who is at work.
    Lock { checkpoint: InstanceLock, _output: Option<LocalLock> },
    /// In an object store.
    Lease(Lease),
    /// Nothing: a dry run is in nobody's way.
    Nobody,
}

impl Guard {
    /// Takes the checkpoint for this process, by force if `take_over` says so.
    ///
    /// # Errors
    ///
    /// While another process holds it, or when it cannot be written.
    pub(super) fn take(
        config: &Config,
        storage: &Storage<'_>,
        take_over: bool,
        context: &RunContext,
    ) -> Result<Guard, RunError> {
        Ok(match config.checkpoint_path().local() {
            Some(folder) => {
                let lock = InstanceLock::take(folder, take_over, &context.faults)?;
                Guard::Lock { checkpoint: lock, _output: of_output(config, folder, take_over)? }
            }
            None => Guard::Lease(Lease::take(config, storage, take_over, context)?),
        })
    }

    /// Why a start is refused: what does not fit while another instance is at work there is because of that instance.
    pub(super) fn blamed(config: &Config, take_over: bool, error: RunError) -> RunError {
        let of_another = matches!(error, RunError::Strange { .. } | RunError::TableMissing { .. })
            || error.status() != ExitStatus::Corrupt;
        if take_over || of_another {
            return error;
        }
        let held = config.checkpoint_path().local().and_then(LocalLock::held_by_another);
        held.map_or(error, RunError::from)
    }

    /// Gives it back early, from another thread; none where the operating system does so.
    pub(super) fn give_back(&self) -> Option<GiveBack> {
        match self {
            Guard::Lock { .. } | Guard::Nobody => None,
            Guard::Lease(lease) => Some(lease.give_back()),
        }
    }

    /// Refuses when another instance has taken over.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] then, or when that cannot be found out.
    pub(super) fn still_held(&self) -> Result<(), Error> {
        match self {
            Guard::Lock { checkpoint, .. } => checkpoint.still_held(),
            Guard::Lease(lease) => lease.still_held(),
            Guard::Nobody => Ok(()),
        }
    }

    /// Says which generation this process has won.
    pub(super) fn set_generation(&self, generation: u64) {
        match self {
            Guard::Lock { checkpoint, .. } => checkpoint.set_generation(generation),
            Guard::Lease(lease) => lease.set_generation(generation),
            Guard::Nobody => {}
        }
    }
}

/// Takes the lock of a local output whose checkpoint lies elsewhere.
///
/// # Errors
///
/// While another process holds it, or when it cannot be written.
fn of_output(config: &Config, checkpoint: &Path, take_over: bool) -> Result<Option<LocalLock>, RunError> {
    let Some(folder) = config.output.path.local().map(|output| output.join(names::IN_OUTPUT)) else { return Ok(None) };
    let unwritable = |error| RunError::Output { output: config.output.path.to_string(), error };
    fs::create_dir_all(&folder).map_err(unwritable)?;
    if fs::canonicalize(&folder).ok() == fs::canonicalize(checkpoint).ok() {
        return Ok(None);
    }
    Ok(Some(LocalLock::take_or_over(&folder, Holder::this_process(&host(), None), take_over)?))
}
