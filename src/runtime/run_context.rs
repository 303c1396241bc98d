//! What all threads of a run share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidemark_store::Patience;

use super::{RunError, build};
use crate::checkpoint::writer::Faults;
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::health::Health;
use crate::permit::Permit;
use crate::telemetry::Telemetry;

/// How long a start takes at most to notice that it is asked to stop.
const STOP_LATENCY: Duration = Duration::from_millis(50);

/// What is known to all threads of a run.
#[derive(Clone, Default)]
pub(super) struct RunContext {
    /// Faults of the threads that make things durable.
    pub(super) faults: Arc<Faults>,
    /// What does not work at the moment.
    pub(super) health: Arc<Health>,
    /// Leave to write.
    pub(super) permit: Permit,
    /// What is measured.
    pub(super) telemetry: Arc<Telemetry>,
    /// Set while a start is asked to stop: then nothing is waited for any more.
    pub(super) stopped_early: Arc<AtomicBool>,
}

impl RunContext {
    /// How storage that fails is met.
    pub(super) fn patience(&self, config: &Config) -> Patience {
        Patience { stop: Some(Arc::clone(&self.stopped_early)), ..build::patience(config, &self.health) }
    }

    /// Begins a run, and ends waiting for what fails once somebody asks it to stop.
    ///
    /// # Errors
    ///
    /// As `begin` does; [`RunError::Stopped`] where it waited when it was asked to stop.
    pub(super) fn starting<T>(
        &self,
        stop: &AtomicBool,
        begin: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let done = AtomicBool::new(false);
        let begun = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Relaxed) {
                    self.stopped_early.store(stop.load(Relaxed), Relaxed);
                    std::thread::park_timeout(STOP_LATENCY);
                }
            });
            let begun = begin();
            done.store(true, Relaxed);
            watch.thread().unpark();
            begun
        });
        // From here on a stop drains what was begun, for which a store may have to be waited for.
        let stopped = self.stopped_early.swap(false, Relaxed);
        begun.map_err(|error| match error.status() {
            ExitStatus::Unavailable if stopped => RunError::Stopped(Box::new(error)),
            _ => error,
        })
    }
}
