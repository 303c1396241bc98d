//! Kills at named places and at random instants; the next instance takes over at once or waits the lease out.

use std::time::{Duration, Instant};

use super::azurite::Container;
use super::remote::Remote;
use crate::crash::job::{Stop, side_by_side};
use crate::data::{Random, eventful};
use crate::oracle::Rules;

const PLACES: [(&str, usize); 12] = [
    ("generation-claimed", 0),
    ("table-opened", 3),
    ("adopted", 0),
    ("before-cut", 1),
    ("cut-written", 1),
    ("before-table", 1),
    ("table-committed", 8),
    ("group-published", 1),
    ("run-written", 3),
    ("before-manifest", 1),
    ("manifest-published", 1),
    ("pruning", 1),
];

#[test]
fn a_kill_at_each_place_changes_nothing() {
    if Container::new().is_none() {
        return;
    }
    let cases: Vec<(Stop, Stop)> =
        PLACES.chunks(2).map(|two| [two[0], two[1]].map(|(place, passed)| Stop { place, passed }).into()).collect();
    side_by_side(&cases, |(first, second)| {
        let remote = Remote::new(&eventful(81, &[70, 50]), Rules::epochs_of(15)).unwrap();
        remote.kill_at("", first);
        remote.kill_at("--take-over", &Stop { passed: second.passed.min(1), ..*second });
        // This one waits.
        remote.finish("");
        remote.check();
        remote.verb(&["evidence"]).well();
    });
}

#[test]
fn kills_at_random_instants_change_nothing() {
    let Some(remote) = Remote::new(&eventful(82, &[240, 200]), Rules::epochs_of(10)) else { return };
    let mut random = Random(82);
    let (mut killed, mut startup) = (0, Duration::from_secs(1));
    for _ in 0..8 {
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
    assert!(killed >= 4, "{killed}");
    remote.start("--take-over", "").ended().well();
    remote.check();
    remote.verb(&["evidence"]).well();
}
