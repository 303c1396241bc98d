//! The end of a process that cannot go on because of another one.
//!
//! Workers that wait for a lost process wait for ever, and the threads of timely that read and write its connections
//! panic. So nothing is unwound: whoever notices first says one line and ends the process, and all other threads stand
//! still until it is gone. What was not durable by then is computed again at the next start.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use tracing::Level;

use super::links::Links;
use crate::exit::ExitStatus;

/// How the panics of timely's threads for connections begin.
const CONNECTION_PANIC: &str = "timely communication error:";

/// How long whatever is to be given back may take.
const GIVING_BACK: Duration = Duration::from_secs(2);

static ENDING: AtomicBool = AtomicBool::new(false);
static LINKS: Mutex<Option<&'static Links>> = Mutex::new(None);
static GIVE_BACK: Mutex<Option<GiveBack>> = Mutex::new(None);

/// Something that is given back before the process ends.
pub type GiveBack = Box<dyn FnOnce() + Send>;

/// Says which links a panic of a connection's thread is about.
pub(super) fn watch_over(links: &'static Links) {
    *LINKS.lock().unwrap_or_else(PoisonError::into_inner) = Some(links);
}

/// Has something given back before the process ends early, such as a lease that the next start would wait out.
pub fn give_back_before(give_back: GiveBack) {
    *GIVE_BACK.lock().unwrap_or_else(PoisonError::into_inner) = Some(give_back);
}

/// Begins the end. Returns whether the caller is the first; all others should [stand still](stand_still).
pub fn begin() -> bool {
    !ENDING.swap(true, Ordering::AcqRel)
}

/// Waits for the end of the process.
pub fn stand_still() -> ! {
    loop {
        std::thread::park();
    }
}

/// Says why, and ends the process; if another thread does so already, waits for that.
pub fn end(status: ExitStatus, why: &str) -> ! {
    if !begin() {
        stand_still();
    }
    if tracing::enabled!(Level::ERROR) {
        tracing::error!("{why}");
    } else {
        eprintln!("error: {why}");
    }
    give_back();
    std::process::exit(status as i32)
}

fn give_back() {
    let Some(give_back) = GIVE_BACK.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let (done, awaited) = channel();
    let thread = std::thread::Builder::new().name("give-back".to_owned()).spawn(move || {
        give_back();
        let _ = done.send(());
    });
    if thread.is_ok() {
        // A store that does not answer does not hold up the end.
        let _ = awaited.recv_timeout(GIVING_BACK);
    }
}

/// Looks at a panic before anybody tells of it. Returns only if it is one of this process; the others know of it then.
///
/// A thread of timely that reads from or writes to another process panics when that is gone. During the end of a process
/// anything may panic.
pub fn look_at_panic(thread: Option<&str>, message: &str) {
    if ENDING.load(Ordering::Acquire) {
        stand_still();
    }
    let Some(links) = *LINKS.lock().unwrap_or_else(PoisonError::into_inner) else { return };
    let peer = thread.and_then(|name| name.rsplit('-').next()?.parse().ok());
    match (message.strip_prefix(CONNECTION_PANIC), peer) {
        (Some(why), Some(peer)) => links.lost(peer, &format!("its connection broke ({})", why.trim())),
        _ => links.fail(ExitStatus::Bug, &format!("a bug in Tidemark: {message}")),
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
