//! The breaker: an epoch with too many rejected events is the last one that is published, the run ends with status 1, and a
//! restart goes on after it.

use std::process::Stdio;

use crate::cluster::crew::{SECRET, ended_because, start_all};
use crate::crash::job::{EAGER, Job, Stop};
use crate::data::Event;
use crate::oracle::{Partition, Rules, check};
use crate::program::{Running, tidemark};
use crate::tables::{ALWAYS, HEALTH, REJECTED, Tables, USER_METRICS};

/// Events of an epoch.
const EVENTS: usize = 40;

/// More than a quarter is too much, of however few.
const BOUND: &str = "--max-rejected-share 0.25 --set breaker.min_events=20";

/// So many events: those that are `bad` have another currency, the one at `late` comes a week late.
fn lines(name: &str, events: usize, bad: fn(usize) -> bool, late: usize) -> Vec<String> {
    let line = |index: usize| {
        let mut event = Event::new(&format!("{name}{index}"), 60 * i64::try_from(index).unwrap());
        if index == late {
            event = Event::new(&format!("{name}{index}"), -7 * 86_400);
        }
        if bad(index) {
            event.currency = r#""EUR""#.to_owned();
        }
        event.line()
    };
    (0..events).map(line).collect()
}

/// Six epochs: of the third 10 events have another currency and one is late, of the fifth 20 have another currency. One
/// more than there may be, and twice as many.
fn job(settings: &str) -> Job {
    let lines = lines("e", 6 * EVENTS, |index| matches!(index, 80..90 | 165..185), 100);
    Job::new(&[lines], Rules::epochs_of(EVENTS), settings)
}

/// The tables must be those of the epochs up to this one, and nothing more.
fn check_up_to(job: &Job, epoch: usize) -> Tables {
    let mut partitions = job.partitions();
    partitions.iter_mut().for_each(|partition: &mut Partition| partition.bodies.truncate(epoch * EVENTS));
    check(&job.output(), &partitions, job.rules)
}

fn trips(running: Running, words: &[&str]) {
    let ended = running.ended().fails_with(1, words);
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", ended.stderr);
}

#[test]
fn an_epoch_beyond_the_bound_is_the_last_one_and_restarts_go_on_after_it() {
    // Publications of many epochs, and one for each.
    for (workers, pace) in [(1, ""), (2, EAGER), (4, "--set sink.publish_interval=1h")] {
        let job = job("");
        let start = |bound: &str| job.start(workers, &format!("{pace} {bound}"), "");
        let third = [
            "11 of 40 events of epoch 3",
            "a share of 0.275",
            "is 0.25 (10 R110",
            ", 1 R200",
            "--since 3 --output out",
        ];
        trips(start(BOUND), &third);
        let tables = check_up_to(&job, 3);
        assert_eq!(tables.rows(&REJECTED).len(), 11, "the quarantine shows why");
        // The same bound: the third epoch has been seen, the fifth has not.
        trips(start(BOUND), &["20 of 40 events of epoch 5", "0.5"]);
        check_up_to(&job, 5);
        start(BOUND).ended().well();
        job.check();
        job.case.tidemark(&["evidence", "--output", "out"]).well();
        job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    }
}

#[test]
fn with_a_raised_bound_a_restart_gives_what_an_undisturbed_run_gives() {
    let job = job("");
    trips(job.start(2, BOUND, ""), &["epoch 3"]);
    job.start(1, "--max-rejected-share 0.5 --set breaker.min_events=20", "").ended().well();
    job.check();
}

#[test]
fn the_bound_is_off_by_default_and_is_not_exceeded_by_being_reached() {
    let all_bad = Job::new(&[lines("e", 120, |_| true, 0)], Rules::epochs_of(40), "");
    all_bad.finish(2);
    all_bad.check();
    let job = job("");
    job.start(2, "--max-rejected-share 0.5 --set breaker.min_events=1", "").ended().well();
    job.check();
    // Epochs of 40 are too small by default.
    let few = self::job("");
    few.start(2, "--max-rejected-share 0.01", "").ended().well();
    few.check();
}

#[test]
fn an_epoch_that_not_all_tables_hold_is_judged_again_after_a_crash() {
    // Nothing is published together with the first epoch: it is alone in the first group.
    let of_first = || {
        Job::new(
            &[lines("e", 6 * EVENTS, |index| matches!(index, 5..16 | 165..185), 100)],
            Rules::epochs_of(EVENTS),
            BOUND,
        )
    };
    let job = of_first();
    job.kill_at(2, &Stop { place: "table-committed", passed: ALWAYS.len() - 1 });
    // Which of the tables are ahead when a process dies is chance, so one commit is taken back.
    let log = std::fs::read_dir(job.output().join(USER_METRICS.name).join("_delta_log")).unwrap();
    let commits = log.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("json".as_ref()));
    std::fs::remove_file(commits.max().unwrap()).unwrap();
    trips(job.start(1, EAGER, ""), &["11 of 40 events of epoch 1"]);
    check_up_to(&job, 1);
    // Published, and never told of.
    let other = of_first();
    other.kill_at(2, &Stop::first("group-published"));
    trips(other.start(1, EAGER, ""), &["20 of 40 events of epoch 5"]);
    check_up_to(&other, 5);
}

#[test]
fn of_several_processes_the_first_decides_and_all_end() {
    let halves = [lines("a", 120, |index| (40..60).contains(&index), 0), lines("b", 120, |_| false, 0)];
    let job = Job::new(&halves, Rules::epochs_of(40), "");
    let mut crew = start_all(&job, 2, 1, BOUND);
    let other = crew.pop().unwrap().ended();
    ended_because(&other, 1, &["breaker.max_rejected_share", "20 of 40 events of epoch 3"]);
    trips(crew.pop().unwrap(), &["20 of 40 events of epoch 3"]);
    assert_eq!(Tables::read(&job.output()).rows(&HEALTH).len(), 3);
    // The supervisor starts nothing again: that would be to go on.
    job.case.file("secret", SECRET);
    let again = Job::new(&halves, Rules::epochs_of(40), "");
    let args = format!("cluster --processes 2 --workers 1 --input in --output out --epoch-events 40 {BOUND}");
    let command = &mut tidemark(again.case.root(), args.split_whitespace());
    let ended = Running::start(command.stdin(Stdio::null())).ended();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("started again"), "{}", ended.stderr);
    for job in [job, again] {
        job.finish(2);
        job.check();
    }
}

#[test]
fn a_live_source_is_stopped_and_goes_on_when_it_is_started_again() {
    let job = job("");
    let live = "run --output live --rate 2000 --trigger 100ms --set generator.invalid=0.4";
    let start = |more: &str| {
        let args: Vec<&str> = live.split_whitespace().chain(more.split_whitespace()).collect();
        Running::start(tidemark(job.case.root(), args).stdin(Stdio::null()))
    };
    trips(start("--max-rejected-share 0.1"), &["breaker.max_rejected_share is 0.1", "--output live"]);
    let epochs = Tables::read(&job.case.path("live")).rows(&HEALTH).len();
    job.case.tidemark(&["evidence", "--output", "live"]).well();
    let mut running = start("--set log.level=warn,tidemark=debug,deltalake_core=error");
    running.await_line(&format!("epoch={}", epochs + 1));
    running.signal("INT");
    running.ended().well();
    job.case.tidemark(&["evidence", "--output", "live"]).well();
}
