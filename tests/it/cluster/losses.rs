//! Processes that are killed, fail, or fall silent: the others end, and a restart in any shape goes on exactly.

use super::crew::{Places, ended_because, finish, start_all};
use crate::crash::job::{EAGER, Job, Named, Stop};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::Running;

/// Shows quickly that a process is silent.
const ALERT: &str = "--set cluster.lost_after=2s";

fn job(seed: u64, epochs: usize) -> Job {
    let hour_us = crate::data::HOUR_US;
    let rules = Rules { watermark_delay_us: 2 * hour_us, dedup_retention_us: 3 * hour_us, ..Rules::epochs_of(24) };
    Job::new(&eventful(seed, &[12 * epochs, 12 * epochs - 29, 12 * epochs - 5]), rules, "")
}

/// Starts so many processes, of which one stops at a place.
fn stopped_at(job: &Job, processes: usize, workers: usize, process: usize, stop: &Stop) -> Vec<Running> {
    let places = Places::of(processes);
    let fail_points = |other: usize| if other == process { stop.fail_points() } else { String::new() };
    let start = |other| places.start(job, other, workers, EAGER, &fail_points(other));
    let mut crew: Vec<Running> = (0..processes).map(start).collect();
    let word = format!("stopped at {}", stop.place);
    assert!(crew[process].says(&word), "never came to {stop:?}:\n{}", crew[process].log());
    crew
}

/// Kills a process; all others end with status 3 and say which one was lost.
fn kill(mut crew: Vec<Running>, killed: usize) {
    let process = crew.remove(killed);
    process.kill().unwrap_or_else(|ended| panic!("ended before it was killed: {ended:?}"));
    for other in crew {
        ended_because(&other.ended(), 3, &[&format!("process {killed} "), "is lost", "started again"]);
    }
}

#[test]
fn a_kill_of_each_process_in_turn_changes_nothing() {
    let job = job(71, 24);
    // Process 0 stands still at a place, so that the kill always meets a run that is under way.
    let rounds = [
        (3, 1, 0, Stop { place: "group-published", passed: 2 }),
        (2, 2, 1, Stop { place: "manifest-published", passed: 1 }),
        (3, 1, 2, Stop { place: "cut-written", passed: 3 }),
    ];
    for (processes, workers, killed, stop) in rounds {
        let _named = Named(format!("{processes} x {workers}, {killed} killed at {stop:?}"));
        kill(stopped_at(&job, processes, workers, 0, &stop), killed);
    }
    // One process takes over what several have left, and the other way round.
    job.kill_at(2, &Stop { place: "manifest-published", passed: 0 });
    finish(&job, 3, 1);
    job.check();
    job.case.tidemark(&["evidence", "--output", "out"]).well();
    job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
}

#[test]
fn a_process_that_is_killed_where_it_writes_its_runs_changes_nothing() {
    let job = job(72, 12);
    for (place, passed) in [("before-run", 1), ("run-written", 2)] {
        let _named = Named(place.to_owned());
        kill(stopped_at(&job, 2, 1, 1, &Stop { place, passed }), 1);
    }
    finish(&job, 2, 2);
    job.check();
}

#[test]
fn a_process_that_stands_still_is_lost_and_finds_that_out_when_it_wakes() {
    let job = job(73, 30);
    let stop = Stop { place: "group-published", passed: 2 };
    let places = Places::of(2);
    let mut zero = places.start(&job, 0, 1, &format!("{EAGER} {ALERT}"), &stop.fail_points());
    let one = places.start(&job, 1, 1, &format!("{EAGER} {ALERT}"), "");
    zero.await_line("stopped at group-published");
    one.signal("STOP");
    ended_because(&zero.ended(), 3, &["process 1 ", "no sign of life for 2s"]);
    one.signal("CONT");
    ended_because(&one.ended(), 3, &["process 0 ", "is lost"]);
    finish(&job, 1, 2);
    job.check();
}

#[test]
fn what_a_process_cannot_do_ends_all_with_its_name_and_status() {
    let job = job(74, 20);
    // What was read before has changed, in a file that process 1 reads: 5, on both.
    kill(stopped_at(&job, 2, 1, 0, &Stop { place: "group-published", passed: 2 }), 1);
    let path = job.case.path("in/p1.ndjson");
    let whole = std::fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[20] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let mut crew = start_all(&job, 2, 1, "");
    crew.pop().unwrap().ended().fails_with(5, &["p1.ndjson"]);
    ended_because(&crew.remove(0).ended(), 5, &["process 1 ", "p1.ndjson"]);
    // And the other way round: process 0 reads p0 and p2.
    std::fs::write(&path, &whole).unwrap();
    let path = job.case.path("in/p0.ndjson");
    let whole = std::fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[20] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let mut crew = start_all(&job, 2, 1, "");
    ended_because(&crew.pop().unwrap().ended(), 5, &["process 0 ", "p0.ndjson"]);
    crew.remove(0).ended().fails_with(5, &["p0.ndjson"]);
    std::fs::write(&path, &whole).unwrap();
    finish(&job, 2, 1);
    job.check();
}

#[test]
fn a_second_pipeline_on_one_checkpoint_is_refused_as_ever() {
    let job = job(75, 20);
    let crew = stopped_at(&job, 2, 1, 0, &Stop { place: "group-published", passed: 1 });
    let mut second = start_all(&job, 2, 1, "");
    ended_because(&second.pop().unwrap().ended(), 4, &["process 0 "]);
    assert_eq!(second.remove(0).ended().code(), 4);
    kill(crew, 1);
    finish(&job, 2, 1);
    job.check();
}
