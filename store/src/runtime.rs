//! The one runtime of all storage requests of a process: its threads, connections and timers outlive those who ask.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Threads that drive requests, and encode files: with two groups of a MERGE being written, one is left that answers.
const THREADS: usize = 3;

/// How long a thread for calls that block is kept for the next one: opening many files at once takes many for a moment.
const KEPT: Duration = Duration::from_secs(1);

/// The most threads for calls that block: a log is read by some sixteen of them, several at a time. Each takes a megabyte.
const BLOCKING_MAX: usize = 64;

/// The runtime, started with the first request. A process that ends does not wait for requests that never do.
///
/// # Errors
///
/// When the system gives no threads.
pub fn io() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, (io::ErrorKind, String)>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_keep_alive(KEPT)
            .thread_name("storage-io")
            .enable_all();
        builder.build().map_err(|error| (error.kind(), format!("no threads for storage: {error}")))
    });
    started.as_ref().map_err(|(kind, why)| io::Error::new(*kind, why.clone()))
}
