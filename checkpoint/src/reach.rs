//! Named places at which tests stop the program, to kill it there.
//!
//! Without the `failpoints` feature of the `fail` crate, which nothing but tests switches on, this is an empty function.
//! With it, `FAILPOINTS="cut-written=2*off->return"` in the environment stops the program when it comes to that place
//! for the third time.

/// Every place, in the order in which an epoch and a checkpoint come to them.
pub const PLACES: [&str; 21] = [
    "generation-claimed",
    "table-opened",
    "tables-fenced",
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
    "pruned",
    "checkpoint-asked",
    "inbox-taken",
    "source-ended",
];

/// Stops here for good if a test asks for it.
pub fn reach(place: &str) {
    debug_assert!(PLACES.contains(&place), "{place} is not in the list");
    fail::fail_point!(place, |_| stop(place));
}

/// Says so on standard error, and waits to be killed. Other threads go on, as they would until a signal comes.
#[cfg_attr(not(test), allow(dead_code))]
fn stop(place: &str) {
    eprintln!("stopped at {place}");
    loop {
        std::thread::park();
    }
}
