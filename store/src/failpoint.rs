//! Named places at which tests stop the program, to kill it there.
//!
//! Without the feature `failpoints`, which nothing but tests switches on, [`reach`] does nothing. With it,
//! `FAILPOINTS="cut-written=2*off->return"` in the environment stops the program when it comes to that place
//! for the third time.

/// Every place, in the order in which an epoch and a checkpoint come to them; a lease is renewed beside them.
const PLACES: [&str; 25] = [
    "generation-numbered",
    "generation-claimed",
    "table-opened",
    "tables-fenced",
    "before-adoption",
    "adopted",
    "replayed",
    "before-cut",
    "cut-written",
    "cut-announced",
    "before-table",
    "table-committed",
    "group-published",
    "maintained",
    "before-run",
    "run-written",
    "runs-merged",
    "before-manifest",
    "manifest-published",
    "pruning",
    "pruned",
    "checkpoint-asked",
    "inbox-taken",
    "source-ended",
    "before-renewal",
];

/// Stops here if a test asks for it: for good, or for so many milliseconds (`adopted=1*return(500)->off`).
pub fn failpoint(place: &str) {
    debug_assert!(PLACES.contains(&place), "{place} is not in the list");
    #[cfg(feature = "failpoints")]
    stop::at(place);
}

#[cfg(feature = "failpoints")]
mod stop {
    use std::mem::forget;
    use std::sync::Once;
    use std::time::{Duration, Instant};

    pub(super) fn at(place: &str) {
        static FROM_ENVIRONMENT: Once = Once::new();
        // Dropping it would forget what the environment asks for.
        FROM_ENVIRONMENT.call_once(|| forget(fail::FailScenario::setup()));
        fail::fail_point!(place, |argument| stop(place, argument));
    }

    /// Says so on standard error, and waits: without an argument to be killed. Other threads go on, as they would until
    /// a signal comes.
    fn stop(place: &str, argument: Option<String>) {
        eprintln!("stopped at {place}");
        let time = argument.and_then(|argument| argument.parse().ok()).map(Duration::from_millis);
        let until = time.map(|time| Instant::now() + time);
        loop {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(Duration::ZERO) => return,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }
}
