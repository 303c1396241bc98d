//! One instance per checkpoint folder: a lock that the operating system gives back however the process ends, with a
//! heartbeat in it for people.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::lease::{Holder, LocalLock};

use super::RunError;
use crate::checkpoint::writer::Faults;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Holds the folder for as long as it lives, and notices when somebody else takes it.
#[derive(Debug)]
pub(super) struct InstanceLock {
    lock: Arc<Mutex<LocalLock>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl InstanceLock {
    /// Takes the folder for this process: by force, if `take_over` says so. Whoever loses it is told through `faults`.
    ///
    /// # Errors
    ///
    /// While another process holds it, or when the lock cannot be written.
    pub(super) fn take(folder: &Path, take_over: bool, faults: &Arc<Faults>) -> Result<Self, RunError> {
        let lock = LocalLock::take_or_over(folder, Holder::this_process(&host(), None), take_over)?;
        let lock = Arc::new(Mutex::new(lock));
        let done = Arc::new(AtomicBool::new(false));
        let (beating, ended, faults) = (Arc::clone(&lock), Arc::clone(&done), Arc::clone(faults));
        let thread = std::thread::Builder::new().name("heartbeat".to_owned());
        let thread = thread.spawn(move || {
            loop {
                std::thread::park_timeout(HEARTBEAT);
                let mut lock = beating.lock().unwrap_or_else(PoisonError::into_inner);
                if !lock.still_ours() {
                    return faults.report(lost());
                }
                // For people only: the lock does not depend on it.
                let _ = lock.refresh();
                if ended.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        // Without the thread, the fences still keep a displaced instance from doing harm.
        Ok(InstanceLock { lock, done, thread: thread.ok() })
    }

    /// Refuses when another process has taken over.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] then.
    pub(super) fn still_held(&self) -> Result<(), Error> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.still_ours() { Ok(()) } else { Err(lost()) }
    }

    /// Says which generation this process has won.
    pub(super) fn set_generation(&self, generation: u64) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // For people only.
        let _ = lock.set_generation(generation);
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn lost() -> Error {
    let what = "another process has taken over".to_owned();
    Error::Lost { place: "the lock of the checkpoint".to_owned(), what }
}

/// Name of this machine.
pub(super) fn host() -> String {
    hostname::get().map_or_else(|_| "this machine".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::exit::ExitStatus;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone_or_displaced() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let first = InstanceLock::take(folder.path(), false, &faults).unwrap();
        let refused = InstanceLock::take(folder.path(), false, &faults).unwrap_err();
        assert_eq!(refused.status(), ExitStatus::Refused);
        let words = refused.to_string();
        assert!(words.contains(&host()) && words.contains(&std::process::id().to_string()), "{words}");
        let second = InstanceLock::take(folder.path(), true, &faults).unwrap();
        // Its next heartbeat tells the first one.
        first.thread.as_ref().unwrap().thread().unpark();
        drop(first);
        assert!(matches!(faults.take(), Some(Error::Lost { .. })));
        drop(second);
        InstanceLock::take(folder.path(), false, &faults).unwrap();
    }
}
