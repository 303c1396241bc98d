//! Two instances on one checkpoint: who is refused, who waits, who is displaced, and what the displaced one can do.

use std::time::{Duration, Instant};

use super::azurite::Container;
use super::remote::Remote;
use crate::crash::job::{Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Ended, Running};

fn remote() -> Option<Remote> {
    Remote::new(&eventful(91, &[60, 50]), Rules::epochs_of(24))
}

/// Starts it and stops the whole process at a place. Woken, it goes on from there.
fn asleep_at(remote: &Remote, stop: &Stop) -> Running {
    let mut running = remote.start("", &stop.pause());
    let word = format!("stopped at {}", stop.place);
    assert!(running.says(&word), "never came to {stop:?}:\n{}", running.log());
    running.signal("STOP");
    running
}

fn displaced(ended: &Ended) {
    assert_eq!(ended.code(), 4, "{}{}", ended.stdout, ended.stderr);
    let told = ["taken over", "taken it over", "generation", "is lost"].iter().any(|word| ended.stderr.contains(word));
    assert!(told && !ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_second_instance_is_refused_and_one_after_a_kill_waits_visibly_unless_it_takes_over() {
    let Some(remote) = remote() else { return };
    // It does not end by itself: it stops at a place for good, and goes on to renew its lease.
    let mut first = remote.start("", &Stop { place: "group-published", passed: 1 }.fail_points());
    assert!(first.says("stopped at group-published"), "{}", first.log());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let refused = remote.start("", "").ended();
    let words = [host.trim(), &first.pid().to_string(), "last heard of", "take over", &remote.output];
    assert_eq!(refused.code(), 4, "{}", refused.stderr);
    assert!(words.iter().all(|word| refused.stderr.contains(word)), "{words:?} in {}", refused.stderr);
    first.kill().unwrap();

    let begun = Instant::now();
    let mut next = remote.start("", "");
    next.await_line("waiting 2 s for a sign of life");
    next.await_line("s left");
    next.await_line(" running");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    next.kill().unwrap();

    let mut taker = remote.start("--take-over", "");
    taker.await_line("taking over");
    let ended = taker.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("sign of life"), "{}", ended.stderr);
    remote.check();
    // It gave the lease back at its end.
    let last = remote.finish("");
    assert!(!last.stderr.contains("sign of life") && last.stderr.contains("nothing to do"), "{}", last.stderr);
}

#[test]
fn a_displaced_instance_changes_nothing_when_it_wakes_up() {
    if Container::new().is_none() {
        return;
    }
    let places =
        [("adopted", 0), ("before-cut", 1), ("before-table", 1), ("table-committed", 8), ("before-manifest", 1)];
    let stops = places.map(|(place, passed)| Stop { place, passed });
    side_by_side(&stops, |stop| {
        let remote = remote().unwrap();
        let zombie = asleep_at(&remote, stop);
        let second = remote.start("--take-over", "").ended();
        assert_eq!(second.code(), 0, "{}", second.stderr);
        let tables = remote.check();
        zombie.signal("CONT");
        displaced(&zombie.ended());
        remote.check().assert_equals(&tables);
        remote.verb(&["evidence"]).well();
    });
}

#[test]
fn an_instance_whose_lease_ran_out_writes_nothing_until_it_has_renewed_it() {
    let Some(remote) = remote() else { return };
    // It renews its lease late, and comes to its next write long before, after the two seconds that a lease lives here.
    let renewal = "before-renewal=1*return(15000)->off";
    let write = Stop { place: "before-table", passed: 1 }.pause();
    let mut late = remote.start("", &format!("{renewal};{write}"));
    late.await_line("the lease has run out");
    late.await_line("the lease is renewed");
    let ended = late.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    remote.check();
}

#[test]
fn an_instance_that_runs_gives_way_to_a_take_over() {
    let Some(remote) = Remote::new(&eventful(92, &[1_200, 1_200]), Rules::epochs_of(30)) else { return };
    let mut first = remote.start("", "");
    first.await_line("published");
    let mut second = remote.start("--take-over", "");
    second.await_line("published");
    displaced(&first.ended());
    assert_eq!(second.ended().code(), 0);
    remote.check();
}
