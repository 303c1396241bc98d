//! Threads for the connections. Each has an async runtime of its own, and a connection stays on the thread that it was
//! opened on: the client passes every event through several tasks, and handing them from core to core costs it a
//! quarter more processor time (see `docs/event-hubs.md`).

use std::future::Future;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::source::SourceError;

/// The threads. They end when this is dropped, without waiting for anybody; what runs on them is dropped there.
pub(super) struct Threads {
    handles: Vec<Handle>,
    /// Dropped, it ends them.
    _alive: watch::Sender<()>,
}

impl Threads {
    /// Starts so many, at least one.
    ///
    /// # Errors
    ///
    /// When the machine has none left.
    pub(super) fn start(count: usize) -> Result<Threads, SourceError> {
        let (alive, ended) = watch::channel(());
        let refused = |error| SourceError::unavailable("the event hub", "given threads", error);
        let mut handles = Vec::new();
        for _ in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
            handles.push(runtime.handle().clone());
            let mut ended = ended.clone();
            let run = move || {
                // An error says that the sender is gone, which is what is waited for.
                let _ = runtime.block_on(ended.changed());
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name("event-hubs".to_owned()).spawn(run).map_err(refused)?;
        }
        Ok(Threads { handles, _alive: alive })
    }

    /// The thread with this number, counted round.
    pub(super) fn handle(&self, index: usize) -> &Handle {
        &self.handles[index % self.handles.len()]
    }

    /// Waits for `future` on the calling thread, which must not be one of these.
    pub(super) fn wait_for<F: Future>(&self, future: F) -> F::Output {
        self.handle(0).block_on(future)
    }
}
