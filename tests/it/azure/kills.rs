//! Kills at named places and at random instants; the next instance takes over at once or waits the lease out.

use std::time::{Duration, Instant};

use super::azurite::Container;
use super::remote::Remote;
use crate::crash::job::{Stop, side_by_side};
use crate::data::{Random, eventful};
use crate::oracle::Rules;

/// Where the first instance is killed, having passed there so often, and where the one after it.
const PLACES: [(&str, usize, &str); 8] = [
    ("generation-claimed", 0, "cut-written"),
    ("table-opened", 3, "before-table"),
    ("cut-written", 1, "table-committed"),
    ("before-table", 1, "adopted"),
    ("table-committed", 8, "tables-fenced"),
    ("run-written", 2, "before-cut"),
    ("manifest-published", 0, "group-published"),
    ("pruning", 0, "replayed"),
];

#[test]
fn a_kill_at_each_place_changes_nothing() {
    if Container::new().is_none() {
        return;
    }
    side_by_side(&PLACES, |(place, passed, next)| {
        let remote = Remote::new(&eventful(81, &[50, 35]), Rules::epochs_of(24)).unwrap();
        remote.kill_at("", &Stop { place, passed: *passed });
        remote.kill_at("--take-over", &Stop::first(next));
        // This one waits.
        remote.finish("");
        remote.check();
        remote.verb(&["evidence"]).well();
    });
}

#[test]
fn kills_at_random_instants_change_nothing() {
    let Some(remote) = Remote::new(&eventful(82, &[150, 120]), Rules::epochs_of(20)) else { return };
    let mut random = Random(82);
    let (mut killed, mut startup) = (0, Duration::from_secs(1));
    for _ in 0..6 {
        let begun = Instant::now();
        let mut running = remote.start("--take-over", "");
        let published = random.below(3) > 0 && running.says("published");
        if published {
            startup = begun.elapsed();
        }
        let wait = Duration::from_micros(random.below(usize::try_from(startup.as_micros()).unwrap()) as u64);
        let alive = running.runs_until(Instant::now() + wait);
        killed += usize::from(alive && running.kill().is_ok());
    }
    assert!(killed >= 3, "{killed}");
    remote.finish("--take-over");
    remote.check();
    remote.verb(&["evidence"]).well();
}
