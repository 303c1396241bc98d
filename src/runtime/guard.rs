//! What keeps other instances away from a checkpoint, as a courtesy: a lock on a local disk, a lease in an object store.

use tidemark_checkpoint::Error;
use tidemark_checkpoint::lease::LocalLock;

use super::RunError;
use super::lease::Lease;
use super::lock::InstanceLock;
use super::run_context::RunContext;
use crate::cluster::ending::GiveBack;
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::storage::Storage;

/// What keeps other instances away.
pub(super) enum Guard {
    /// On a local disk.
    Lock(InstanceLock),
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
            Some(folder) => Guard::Lock(InstanceLock::take(folder, take_over, &context.faults)?),
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
            Guard::Lock(_) | Guard::Nobody => None,
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
            Guard::Lock(lock) => lock.still_held(),
            Guard::Lease(lease) => lease.still_held(),
            Guard::Nobody => Ok(()),
        }
    }

    /// Says which generation this process has won.
    pub(super) fn set_generation(&self, generation: u64) {
        match self {
            Guard::Lock(lock) => lock.set_generation(generation),
            Guard::Lease(lease) => lease.set_generation(generation),
            Guard::Nobody => {}
        }
    }
}
