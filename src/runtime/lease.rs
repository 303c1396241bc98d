//! One instance per checkpoint in an object store: a lease that is renewed as long as the instance lives.
//!
//! A local disk has locks that the operating system gives back; an object store has nothing of that kind, so whoever
//! comes after a crash waits the time to live out. The lease is courtesy: fences keep a displaced instance from harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::lease::{Heartbeat, Holder, SystemClock};
use tidemark_store::{Patience, Watch, failpoint};

use super::lock::host;
use super::run_context::RunContext;
use super::{RunError, build};
use crate::checkpoint::writer::Faults;
use crate::cluster::ending::GiveBack;
use crate::config::Config;
use crate::health::Health;
use crate::storage::Storage;

/// Holds the checkpoint for as long as it lives, and gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    heartbeat: Arc<Heartbeat>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes the checkpoint for this process: after waiting for a sign of life of the one before, or, if `take_over` says
    /// so, by force. From then on writing depends on it.
    ///
    /// # Errors
    ///
    /// While another process holds it, or when the store does not answer.
    pub(super) fn take(
        config: &Config,
        storage: &Storage<'_>,
        take_over: bool,
        context: &RunContext,
    ) -> Result<Lease, RunError> {
        let done = Arc::new(AtomicBool::new(false));
        let patience = Patience {
            watch: Arc::new(Apart(Arc::clone(&context.health))),
            stop: Some(Arc::clone(&done)),
            ..build::patience(config, &context.health)
        };
        let store = storage.checkpoint(patience)?;
        let holder = Holder::this_process(&host(), None);
        let clock = Arc::new(SystemClock::default());
        let tell = &mut |text: &str| tracing::info!("{text}");
        let lease = Heartbeat::acquire(&store, holder, config.checkpoint.lease_ttl, take_over, clock, tell)?;
        let heartbeat = Arc::new(lease);
        context.permit.depend_on(Arc::clone(&heartbeat));
        let (beating, ended, faults) = (Arc::clone(&heartbeat), Arc::clone(&done), Arc::clone(&context.faults));
        let thread = std::thread::Builder::new().name("heartbeat".to_owned());
        let thread = thread.spawn(move || beat(&beating, &ended, &faults));
        match thread {
            Ok(thread) => Ok(Lease { heartbeat, done, thread: Some(thread) }),
            Err(error) => Err(RunError::Worker(format!("cannot start the heartbeat: {error}"))),
        }
    }

    /// Gives the lease back, so that who comes next need not wait.
    pub(super) fn give_back(&self) -> GiveBack {
        let (heartbeat, done) = (Arc::clone(&self.heartbeat), Arc::clone(&self.done));
        Box::new(move || {
            done.store(true, Ordering::Release);
            let given = heartbeat.release();
            given.unwrap_or_else(|error| tracing::debug!(%error, "the lease was not given back"));
        })
    }

    /// Refuses when another process has taken the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] then, or when the store cannot be read.
    pub(super) fn still_held(&self) -> Result<(), Error> {
        self.heartbeat.ask()
    }

    /// Says which generation this process has won.
    pub(super) fn set_generation(&self, generation: u64) {
        self.heartbeat.set_generation(generation);
    }
}

/// Renews the lease until the end, and gives it back then. Whoever lost it, or could not renew it for as long as a store
/// is waited for, ends the run.
fn beat(heartbeat: &Heartbeat, done: &AtomicBool, faults: &Faults) {
    loop {
        std::thread::park_timeout(heartbeat.interval());
        if done.load(Ordering::Acquire) {
            // Who comes next need not wait. If that does not work, they wait.
            return heartbeat.release().unwrap_or_else(|error| tracing::debug!(%error, "the lease was not given back"));
        }
        failpoint("before-renewal");
        match heartbeat.renew() {
            Ok(()) => {}
            // The store was told to wait no more.
            Err(Error::Store(tidemark_store::Error::Unavailable { .. })) if done.load(Ordering::Acquire) => {}
            Err(error) => {
                faults.report(error);
                return heartbeat.forsake();
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The requests of the lease fail and recover apart from those of the checkpoint.
struct Apart(Arc<Health>);

impl Watch for Apart {
    fn failing(&self, place: &str, why: &str) {
        Watch::failing(self.0.as_ref(), &format!("lease in {place}"), why);
    }

    fn recovered(&self, place: &str) {
        self.0.recovered(&format!("lease in {place}"));
    }
}
