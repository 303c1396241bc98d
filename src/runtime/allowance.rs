//! Whether a run may have the threads that it needs: found out before anything is begun, as later one of them fails wherever it
//! stands, in a library too.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::RunError;
use crate::config::{Config, SourceKind};

/// Threads beside the workers: those of the program that have names, and the pool for storage.
const BESIDE_WORKERS: usize = 20;

/// Threads for each other process: two connections, each read and written, and messages.
const EACH_PROCESS: usize = 6;

/// Starts as many threads as a run has at its busiest, and lets them end.
///
/// # Errors
///
/// When there may not be as many.
pub fn check_threads(config: &Config) -> Result<(), RunError> {
    let of_source = if config.source.kind == SourceKind::EventHubs { config.eventhubs.threads } else { 0 };
    let others = config.cluster.processes.saturating_sub(1) * EACH_PROCESS;
    let needed = config.runtime.worker_count() + BESIDE_WORKERS + of_source + others;
    all_at_once(needed).map_err(|error| RunError::Threads { needed, error })
}

fn all_at_once(count: usize) -> io::Result<()> {
    let mut started: Vec<(Sender<()>, JoinHandle<()>)> = Vec::new();
    let outcome = (0..count).try_for_each(|_| {
        let (hold, held) = channel::<()>();
        // An error says that it may go.
        let wait = move || {
            let _ = held.recv();
        };
        started.push((hold, Builder::new().name("trial".to_owned()).spawn(wait)?));
        Ok(())
    });
    for (hold, thread) in started {
        drop(hold);
        let _ = thread.join();
    }
    outcome
}
