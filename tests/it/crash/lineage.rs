//! Outputs and checkpoints of different pipelines, and instances that start at once: nobody takes what is not theirs, and
//! one is always left running.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::zombies::{displaced, stopped_at};
use crate::crash::job::{EAGER, Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::Ended;

fn job() -> Job {
    Job::new(&eventful(61, &[80, 60]), Rules::epochs_of(30), "")
}

/// Every file below a folder, but for the lock, in which a running instance shows that it lives.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = next.read_dir() else { continue };
        for entry in entries.map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() != "lock" {
                let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Both, by names alone: what failed is long.
fn assert_same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    let changed = before.iter().filter(|(name, content)| after.get(*name) != Some(content)).map(|(name, _)| name);
    let added = after.keys().filter(|name| !before.contains_key(*name));
    assert_eq!(changed.chain(added).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Refused with status 5, at once, and nothing has changed anywhere.
fn refused(job: &Job, arguments: &str, words: &[&str]) {
    let root = job.case.root();
    let before = files(root);
    for verb in ["run", "run --dry-run", "validate --online"] {
        let mut args: Vec<&str> = verb.split(' ').collect();
        args.extend(["--input", "in", "--epoch-events", "30", "--workers", "1"]);
        args.extend(arguments.split(' '));
        let ended = job.case.tidemark(&args);
        assert_eq!(ended.code(), 5, "{verb} {arguments}: {}{}", ended.stdout, ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{verb} {arguments}: {word:?} is not in {}", ended.stderr);
        }
        assert_same(&before, &files(root));
    }
}

fn ends_well(ended: &Ended) {
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
}

/// What is stored is right and whole, to whoever looks.
fn sound(job: &Job) {
    job.check();
    job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    job.case.tidemark(&["evidence", "--output", "out"]).well();
}

#[test]
fn an_output_has_one_checkpoint_and_a_checkpoint_one_output() {
    let job = job();
    job.finish(1);
    job.case.run("other", &["--epoch-events", "30"]);
    // Another checkpoint: none, and that of a pipeline of the same name, whose epochs are the same.
    refused(&job, "--output out --checkpoint none", &["hold epoch", "none", "no epoch at all"]);
    refused(&job, "--output out --checkpoint other/_tidemark", &["do not belong together", "out", "other/_tidemark"]);
    // Tables of another output, and none.
    refused(&job, "--output none --checkpoint out/_tidemark", &["none", "there is no table"]);
    // A part of one output in the other.
    fs::rename(job.case.path("other/metrics"), job.case.path("metrics")).unwrap();
    fs::rename(job.case.path("out/metrics"), job.case.path("other/metrics")).unwrap();
    refused(&job, "--output other", &["metrics/", "another pipeline of the same name"]);
    fs::rename(job.case.path("other/metrics"), job.case.path("out/metrics")).unwrap();
    sound(&job);
}

/// Before its first manifest, and after a kill before it, a checkpoint belongs to its output as ever.
#[test]
fn a_checkpoint_without_a_manifest_belongs_to_its_output() {
    let job = job();
    let rarely = "--checkpoint-interval 1h --set sink.publish_interval=0ms --set epochs.max_in_flight=1";
    let mut running = job.start(1, rarely, &Stop { place: "group-published", passed: 1 }.fail_points());
    running.await_line("stopped at group-published");
    for more in ["", "--take-over", "--dry-run"] {
        let args = "run --input in --epoch-events 30 --output none --checkpoint out/_tidemark".split(' ');
        let args: Vec<&str> = args.chain((!more.is_empty()).then_some(more)).collect();
        let ended = job.case.tidemark(&args);
        assert_eq!(ended.code(), 5, "{more}: {}", ended.stderr);
        assert!(!job.case.path("none").exists());
    }
    assert!(running.is_running(), "{}", running.log());
    running.kill().unwrap();
    refused(&job, "--output none --checkpoint out/_tidemark", &["there is no table", "none"]);
    let (table, kept) = (job.case.path("out/metrics/net_flow"), job.case.path("kept"));
    fs::rename(&table, &kept).unwrap();
    refused(&job, "--output out", &["there is no table metrics/net_flow"]);
    fs::rename(&kept, &table).unwrap();
    job.finish(2);
    sound(&job);
}

#[test]
fn a_generated_stream_that_several_begin_at_once_is_gone_on_with_by_one() {
    let seeds: Vec<usize> = (0..8).collect();
    side_by_side(&seeds, |seed| {
        let case = crate::program::Case::new();
        let start = |more: &str| {
            let args = "run --output out --rate 200 --events 300 --trigger 100ms --console off".split(' ');
            let args = args.chain(more.split(' ').filter(|word| !word.is_empty()));
            crate::program::Running::start(&mut crate::program::tidemark(case.root(), args))
        };
        let first = start("");
        std::thread::yield_now();
        let others = (0..1 + seed % 3).map(|_| start("--take-over"));
        let all: Vec<_> = [first].into_iter().chain(others.collect::<Vec<_>>()).collect();
        let statuses: Vec<i32> = all.into_iter().map(|running| running.ended().code()).collect();
        assert!(statuses.contains(&0) && statuses.iter().all(|status| [0, 4].contains(status)), "{statuses:?}");
        case.tidemark(&["evidence", "--output", "out"]).well();
        case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    });
}

#[test]
fn a_lost_or_older_checkpoint_is_refused_at_once_and_so_are_lost_tables() {
    let job = job();
    job.kill_at(1, &Stop { place: "group-published", passed: 1 });
    let older = job.case.copy();
    job.finish(2);
    let (out, kept) = (job.case.path("out"), job.case.path("kept"));
    let lake = out.join("_tidemark");
    fs::rename(&lake, &kept).unwrap();
    refused(&job, "--output out", &["hold epoch", "no epoch at all", "restore it from a copy"]);
    let copy = crate::program::Case::copy_of(&older.path("out/_tidemark"));
    fs::rename(copy.root(), &lake).unwrap();
    refused(&job, "--output out", &["hold epoch", "restore it from a copy"]);
    fs::remove_dir_all(&lake).unwrap();
    fs::rename(&kept, &lake).unwrap();
    for lost in ["monitoring/stream_health", "metrics"] {
        fs::rename(out.join(lost), &kept).unwrap();
        refused(&job, "--output out", &["there is no table", lost, "restore the tables from a copy"]);
        fs::rename(&kept, out.join(lost)).unwrap();
    }
    sound(&job);
}

/// Then the pipeline goes on, with a generation above every one that a table knows.
#[test]
fn an_older_checkpoint_of_which_no_table_is_ahead_is_gone_on_from() {
    let job = job();
    job.finish(1);
    let copy = job.case.copy();
    for seed in 0..3 {
        job.finish(1 + seed % 2);
    }
    let lake = job.case.path("out/_tidemark");
    fs::remove_dir_all(&lake).unwrap();
    fs::rename(copy.path("out/_tidemark"), &lake).unwrap();
    job.append("p0.ndjson", &eventful(62, &[40]).remove(0));
    job.finish(2);
    job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    job.case.tidemark(&["evidence", "--output", "out"]).well();
}

#[test]
fn a_stranger_does_not_disturb_the_instance_that_runs() {
    let job = Job::new(&eventful(63, &[2_400, 2_100]), Rules::epochs_of(30), "");
    let mut running = job.start(1, EAGER, "");
    for wrong in ["--checkpoint wrong", "--checkpoint wrong --take-over", "--pipeline other"] {
        running.await_line("published");
        let more = wrong.replace("--pipeline other", "--set pipeline.name=other");
        let ended = job.start(1, &format!("--input in {more}"), "").ended();
        let status = ended.code();
        assert!(status == 5 || more.contains("name") && status == 4, "{wrong}: {status} {}", ended.stderr);
    }
    assert!(!job.case.path("wrong").exists());
    ends_well(&running.ended());
    sound(&job);
}

#[test]
fn of_two_first_starts_with_checkpoints_of_their_own_one_has_the_output() {
    for place in ["generation-numbered", "generation-claimed", "table-opened"] {
        let job = job();
        let slow = stopped_at(&job, 1, &Stop::first(place));
        let second = job.start(2, "--checkpoint other", "").ended();
        slow.signal("CONT");
        let slow = slow.ended();
        let statuses = (slow.code(), second.code());
        // The lock of the process at first, and the one that says whose output it is from then on.
        assert!(matches!(statuses, (0, 4 | 5)), "{place}: {statuses:?} {}{}", slow.stderr, second.stderr);
        job.check();
        job.case.tidemark(&["evidence", "--output", "out"]).well();
        // Once the first one has ended, it is known whose output it is.
        assert_eq!(job.start(2, "--checkpoint other", "").ended().code(), 5);
    }
}

#[test]
fn a_copy_of_the_checkpoint_is_no_way_past_the_instance_that_runs() {
    let job = job();
    let slow = stopped_at(&job, 1, &Stop::first("manifest-published"));
    let places = [job.output().join("_tidemark"), job.case.path("copy")];
    assert!(std::process::Command::new("cp").arg("-r").args(places).status().unwrap().success());
    let second = job.start(1, "--checkpoint copy", "").ended();
    assert_eq!(second.code(), 4, "{}", second.stderr);
    slow.signal("CONT");
    ends_well(&slow.ended());
    job.check();
}

/// Stopped on its way from the lock to the adoption and displaced, it ends with 4 and harms nobody.
#[test]
fn an_instance_that_is_displaced_while_it_starts_leaves_the_other_one_alone() {
    let places = ["generation-numbered", "generation-claimed", "table-opened", "tables-fenced", "before-adoption"];
    side_by_side(&places, |place| {
        for (cut_before, wakes_late) in [(false, false), (true, false), (true, true)] {
            // The other one is still at work when the first claims its generation.
            let lengths = if *place == "generation-numbered" { [2_400, 2_100] } else { [80, 60] };
            let job = Job::new(&eventful(61, &lengths), Rules::epochs_of(30), "");
            if cut_before {
                job.kill_at(1, &Stop { place: "manifest-published", passed: 1 });
            }
            let zombie = stopped_at(&job, 1, &Stop::first(place));
            let mut second = job.start(2, &format!("--take-over {EAGER}"), "");
            if wakes_late {
                ends_well(&second.ended());
                zombie.signal("CONT");
                displaced(zombie.ended());
            } else {
                assert!(second.says("published"), "{place}: {}", second.log());
                zombie.signal("CONT");
                displaced(zombie.ended());
                ends_well(&second.ended());
            }
            sound(&job);
        }
    });
}

#[test]
fn of_several_take_overs_at_once_one_is_left() {
    let seeds: Vec<usize> = (0..12).collect();
    side_by_side(&seeds, |seed| {
        let job = Job::new(&eventful(64, &[300, 200]), Rules::epochs_of(30), "");
        let first = job.start(1, EAGER, "");
        let others: Vec<_> = (0..2 + seed % 2).map(|_| job.start(1, &format!("--take-over {EAGER}"), "")).collect();
        let ended: Vec<Ended> = [first].into_iter().chain(others).map(|running| running.ended()).collect();
        let statuses: Vec<i32> = ended.iter().map(Ended::code).collect();
        assert!(statuses.iter().all(|status| [0, 4].contains(status)), "{statuses:?}");
        assert!(
            statuses.contains(&0),
            "nobody is left: {}",
            ended.iter().map(|ended| &*ended.stderr).collect::<String>()
        );
        sound(&job);
    });
}

/// Tables and checkpoints of before have no lineage outside of the adoption.
#[test]
fn what_was_written_before_there_was_a_lineage_is_given_one() {
    let job = job();
    job.kill_at(1, &Stop { place: "group-published", passed: 2 });
    let out = job.case.path("out");
    fs::remove_file(out.join("_tidemark/output")).unwrap();
    let mut changed = 0;
    for (name, content) in files(&out) {
        if name.contains("_delta_log/") && name.ends_with(".json") {
            let text = String::from_utf8(content).unwrap();
            let members = ["\"tidemark.lineage\":\"", "\\\"lineage\\\":\\\"", "\\\"digest\\\":\\\""];
            let without = members.iter().fold(text.clone(), |text, begin| without(&text, begin));
            changed += usize::from(without != text);
            fs::write(out.join(name), without).unwrap();
        }
    }
    assert!(changed > 12, "{changed}");
    // Another pipeline's checkpoint of before does not fit: it knows of no such generation.
    job.finish(2);
    sound(&job);
    refused(&job, "--output out --checkpoint none", &["no epoch at all"]);
    for (name, content) in files(&out.join("metrics")) {
        let newest = name.ends_with("_delta_log/00000000000000000000.json");
        assert!(!newest || !String::from_utf8(content).unwrap().contains("tidemark.lineage"), "{name}");
    }
    let fenced = files(&out.join("metrics")).into_values().filter_map(|content| String::from_utf8(content).ok());
    assert!(fenced.filter(|text| text.contains("\"tidemark.lineage\":\"")).count() >= 3);
}

/// A text without the member that begins so, and the comma before or after it.
fn without(text: &str, begin: &str) -> String {
    let Some(at) = text.find(begin) else { return text.to_owned() };
    let value = &text[at + begin.len()..];
    let end = value.find('"').unwrap() + 1;
    let (before, after) = (&text[..at], &value[end..]);
    match before.strip_suffix(',') {
        Some(before) => format!("{before}{after}"),
        None => format!("{before}{}", after.trim_start_matches(',')),
    }
}
