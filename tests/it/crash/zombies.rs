//! Instances that were stopped, displaced by another one, and woken: they must notice, and change nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::crash::job::{EAGER, Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Ended, Running};

/// Before the first place, in the middle of a publication and of a checkpoint, between them, and while files are
/// deleted.
const ASLEEP: [(&str, usize); 14] = [
    ("generation-claimed", 0),
    ("table-opened", 2),
    ("tables-fenced", 0),
    ("adopted", 0),
    ("before-cut", 2),
    ("cut-written", 2),
    ("before-table", 2),
    ("table-committed", 9),
    ("group-published", 2),
    ("before-run", 4),
    ("before-manifest", 1),
    ("manifest-published", 1),
    ("pruning", 1),
    ("source-ended", 0),
];

fn job() -> Job {
    Job::new(&eventful(33, &[90, 70]), Rules::epochs_of(30), "")
}

/// Starts the program and stops the whole process at a place. Woken, it goes on from there.
pub(super) fn stopped_at(job: &Job, workers: usize, stop: &Stop) -> Running {
    let mut running = job.start(workers, EAGER, &stop.pause());
    let word = format!("stopped at {}", stop.place);
    assert!(running.says(&word), "never came to {stop:?}:\n{}", running.log());
    running.signal("STOP");
    running
}

/// Ends with status 4, and says that another instance is there.
pub(super) fn displaced(ended: Ended) {
    assert_eq!(ended.code(), 4, "{}{}", ended.stdout, ended.stderr);
    let told = ["taken over", "generation", "another"].iter().any(|word| ended.stderr.contains(word));
    assert!(told && !ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn counts(name: &str) -> bool {
    let kept = name.contains("_delta_log/") || name.contains("_tidemark/");
    kept && !name.contains('#') && !name.contains("/_upload_") && !name.contains("lock")
}

/// What is stored, but for the lock, data files that no log names, and objects that are not yet complete (`#`, or `_upload_`
/// in a table): whoever was stopped in the middle of one takes it away when it wakes up.
fn stored(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![output.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(output).unwrap().to_str().unwrap().to_owned();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if counts(&name) {
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// The zombie added nothing that counts and took nothing away that is needed: the thread that makes checkpoints may have been
/// pruning when the process was stopped, wherever the others were.
fn unchanged(output: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let after = stored(output);
    for (name, content) in before {
        match after.get(name) {
            Some(now) => assert!(now == content, "{name} has changed"),
            None => assert!(name.contains("_tidemark/"), "{name} is gone"),
        }
    }
    // A run that no manifest names is of no account.
    let added = after.keys().filter(|name| !before.contains_key(*name) && !name.contains("_tidemark/runs/"));
    assert_eq!(added.collect::<Vec<_>>(), Vec::<&String>::new());
}

/// More events, so that what was stored is needed once more.
fn goes_on(job: &Job) {
    job.append("p0.ndjson", &eventful(34, &[15]).remove(0));
    job.finish(2);
}

#[test]
fn a_displaced_instance_changes_nothing_when_it_wakes_up() {
    let stops = ASLEEP.map(|(place, passed)| Stop { place, passed });
    let cases: Vec<(Stop, usize)> = stops.into_iter().enumerate().map(|(i, stop)| (stop, 1 + i % 2)).collect();
    side_by_side(&cases, |(stop, workers)| {
        let job = job();
        let zombie = stopped_at(&job, *workers, stop);
        let second = job.start(3 - workers, "--take-over", "").ended();
        assert_eq!(second.code(), 0, "{}", second.stderr);
        let (tables, before) = (job.check(), stored(&job.output()));
        zombie.signal("CONT");
        displaced(zombie.ended());
        unchanged(&job.output(), &before);
        job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
        job.check().assert_equals(&tables);
        goes_on(&job);
    });
}

#[test]
fn a_displaced_instance_wakes_up_while_the_other_one_runs() {
    let places = ["adopted", "cut-written", "before-table", "table-committed", "before-run", "pruning"];
    let cases: Vec<Stop> = places.map(|place| Stop { place, passed: usize::from(place != "adopted") }).to_vec();
    side_by_side(&cases, |stop| {
        let job = job();
        let zombie = stopped_at(&job, 1, stop);
        let mut second = job.start(2, &format!("--take-over {EAGER}"), "");
        second.await_line("published");
        zombie.signal("CONT");
        displaced(zombie.ended());
        let second = second.ended();
        assert_eq!(second.code(), 0, "{}", second.stderr);
        job.check();
        goes_on(&job);
    });
}

#[test]
fn an_instance_that_runs_gives_way_to_a_take_over() {
    let job = Job::new(&eventful(35, &[1_500, 1_500]), Rules::epochs_of(50), "");
    let mut first = job.start(1, EAGER, "");
    first.await_line("published");
    let mut second = job.start(2, "--take-over", "");
    second.await_line("published");
    displaced(first.ended());
    assert_eq!(second.ended().code(), 0);
    job.check();
}

#[test]
fn a_second_instance_is_told_who_is_in_the_way_until_that_one_is_killed() {
    let job = job();
    let first = stopped_at(&job, 1, &Stop { place: "table-committed", passed: 9 });
    let before = stored(&job.output());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let refused = job.start(1, "", "").ended();
    refused.fails_with(4, &[host.trim(), &first.pid().to_string(), "last heard of", "take"]);
    assert_eq!(stored(&job.output()), before);
    first.kill().unwrap();
    let begun = Instant::now();
    let mut next = job.start(1, "", "");
    next.await_line("published");
    // Far less than any lease: there is nothing to wait for.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    next.ended().well();
    job.check();
}
