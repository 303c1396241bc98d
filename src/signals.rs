//! SIGINT and SIGTERM: the first asks for an orderly end, a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

/// A signal so soon after the first is the same request: `timeout` sends one to its child and one to the process group, and
/// terminals and supervisors do the like.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// A flag that the first signal sets. Another one ends the process with 128 plus its number, unless it comes within a second
/// of the first.
///
/// # Errors
///
/// When the operating system refuses a handler or a thread.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let asked = Arc::clone(&stop);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            let again = first.get_or_insert_with(Instant::now).elapsed() >= SAME_REQUEST;
            if again {
                exit(128 + signal);
            }
            asked.store(true, Ordering::Release);
        }
    })?;
    Ok(stop)
}
