//! Starts on what is already there: finished, grown, changed, or lost.

use std::fs;

use crate::crash::job::{EAGER, Job, Named, Stop};
use crate::data::{Event, eventful};
use crate::oracle::{Rules, Taken, check_cuts};
use crate::tables::{HEALTH, Tables};

const DAY_S: i64 = 86_400;

/// A job of six epochs that was killed once the second of them, at least, had been cut.
fn killed() -> Job {
    let job = Job::new(&eventful(41, &[120, 90]), Rules::epochs_of(40), "");
    job.kill_at(2, &Stop { place: "cut-written", passed: 3 });
    job
}

#[test]
fn a_finished_run_started_again_does_nothing_and_says_so() {
    let job = Job::new(&eventful(42, &[70, 50]), Rules::epochs_of(20), "");
    job.finish(2);
    let before = job.check();
    for workers in [1, 2] {
        let again = job.finish(workers);
        assert!(format!("{}{}", again.stdout, again.stderr).contains("nothing to do"), "{again:?}");
        job.check().assert_equals(&before);
    }
}

#[test]
fn an_input_without_events_can_be_started_again_and_may_grow() {
    let job = Job::new(&[Vec::new()], Rules::epochs_of(20), "");
    job.finish(1);
    job.finish(2);
    job.append("p0.ndjson", &eventful(43, &[50]).remove(0));
    job.finish(2);
    job.check();
}

#[test]
fn standard_input_is_fed_again() {
    let mut job = Job::on_stdin(Rules::epochs_of(20), "");
    let text = |lines: &[String]| (lines.join("\n") + "\n").into_bytes();
    let lines = eventful(44, &[130]).remove(0);
    job.feed(text(&lines));
    job.kill_at(1, &Stop { place: "table-committed", passed: 15 });
    // Other bytes are refused, then fewer, and the right ones are taken.
    let mut other = lines.clone();
    other.swap(0, 1);
    for wrong in [text(&other), text(&lines[..25])] {
        job.feed(wrong);
        job.start(1, "", "").ended().fails_with(5, &["stdin", "the same"]);
    }
    job.feed(text(&lines));
    job.finish(2);
    job.check();
    let again = job.finish(1);
    assert!(format!("{}{}", again.stdout, again.stderr).contains("nothing to do"), "{again:?}");
}

#[test]
fn one_event_days_later_frees_the_remembered_ids() {
    let lines = (0..40).map(|i| Event::new(&format!("old-{i}"), i * 60).line()).collect();
    let job = Job::new(&[lines], Rules { witnesses: 1, ..Rules::epochs_of(20) }, "");
    job.finish(2);
    let retained = |tables: &Tables| tables.wholes(&HEALTH, "retained_ids");
    assert_eq!(retained(&job.check()), [20, 40]);
    // It moves the watermark of the epoch after its own.
    for (id, events) in [("later", 1), ("last", 2)] {
        job.append("p0.ndjson", &[Event::new(id, 3 * DAY_S).line()]);
        job.finish(events);
    }
    let cuts = [20, 20, 1, 1].map(|count| Taken::of([count]));
    let tables = check_cuts(&job.output(), &job.partitions(), &cuts, job.rules);
    assert_eq!(retained(&tables), [20, 40, 41, 2]);
    // A late repetition of what is forgotten is not counted again.
    job.append("p0.ndjson", &[Event::new("old-7", 7 * 60).line()]);
    job.finish(1);
    let cuts = [20, 20, 1, 1, 1].map(|count| Taken::of([count]));
    let tables = check_cuts(&job.output(), &job.partitions(), &cuts, job.rules);
    assert_eq!((tables.wholes(&HEALTH, "late_events")[4], tables.wholes(&HEALTH, "events_valid")[4]), (1, 0));
}

#[test]
fn changed_settings_are_refused_by_name_and_value() {
    let job = killed();
    let cases: [(&str, &[&str]); 8] = [
        ("--watermark-delay 5h", &["dedup.watermark_delay", "1 day", "5h"]),
        ("--dedup-retention 6h", &["dedup.retention", "1 day", "6h"]),
        ("--epoch-events 21", &["epochs.events", "40", "21"]),
        ("--witnesses 3", &["watermark.witnesses", "10", "3"]),
        ("--alignment 2h", &["files.alignment", "1h", "2h"]),
        ("--max-future-skew 2h", &["contract.max_future_skew", "1h", "2h"]),
        ("--curated", &["output.curated", "false", "true"]),
        ("--set pipeline.name=other", &["pipeline.name", "tidemark", "other"]),
    ];
    for (change, words) in cases {
        let _named = Named(change.to_owned());
        job.start(1, change, "").ended().fails_with(5, words);
    }
    // All at once.
    job.start(1, "--watermark-delay 5h --curated", "")
        .ended()
        .fails_with(5, &["dedup.watermark_delay", "output.curated"]);
    job.finish(2);
    job.check();
}

#[test]
fn other_files_are_refused() {
    let job = killed();
    let one = job.case.path("in/p0.ndjson");
    // It was begun, and has not ended.
    fs::rename(&one, job.case.path("away")).unwrap();
    job.start(1, "", "").ended().fails_with(5, &["p0.ndjson"]);
    fs::rename(job.case.path("away"), &one).unwrap();
    job.finish(1);
    job.check();
}

#[test]
fn changed_content_of_what_was_read_is_refused() {
    let job = killed();
    let path = job.case.path("in/p0.ndjson");
    let whole = fs::read(&path).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        drop(job.start(1, "", "").ended().fails_with(5, &["p0.ndjson"]));
    };
    let line_end = |line: usize| whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(line).unwrap().0 + 1;
    // One byte of the first event; no first event; a file that ends within the first epoch; none at all.
    let mut changed = whole.clone();
    changed[20] ^= 1;
    refused(&changed);
    refused(&whole[line_end(0)..]);
    refused(&whole[..line_end(10)]);
    refused(b"");
    fs::write(&path, &whole).unwrap();
    job.finish(2);
    let before = job.check();
    // The same of the end, once everything has been read.
    let mut changed = whole.clone();
    changed[line_end(118) + 20] ^= 1;
    refused(&changed);
    refused(&whole[..line_end(118)]);
    fs::write(&path, &whole).unwrap();
    job.finish(1);
    job.check().assert_equals(&before);
}

#[test]
fn changed_content_of_what_is_read_again_after_a_kill_is_refused() {
    let job = Job::new(&eventful(36, &[60]), Rules::epochs_of(10), "");
    let rarely = "--checkpoint-interval 1h --set sink.publish_interval=0ms --set epochs.max_in_flight=1";
    let mut killed = job.start(1, rarely, &Stop { place: "group-published", passed: 2 }.fail_points());
    assert!(killed.says("stopped at group-published"), "{}", killed.log());
    killed.kill().unwrap();
    let path = job.case.path("in/p0.ndjson");
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[20] ^= 1;
    fs::write(&path, &changed).unwrap();
    job.start(1, rarely, "").ended().fails_with(5, &["p0.ndjson", "its content has changed before event 10"]);
    fs::write(&path, &whole).unwrap();
    job.finish(2);
    job.check();
}

#[test]
fn tables_without_their_checkpoint_and_the_other_way_round_are_refused() {
    let job = killed();
    let (checkpoint, aside) = (job.output().join("_tidemark"), job.case.path("aside"));
    fs::rename(&checkpoint, &aside).unwrap();
    job.start(1, "", "").ended().fails_with(5, &["out", "_tidemark", "--output"]);
    assert!(!checkpoint.exists(), "a start that is refused makes nothing");
    fs::rename(&aside, &checkpoint).unwrap();

    let tables = ["metrics", "monitoring"];
    let swap = |from: &str, to: &str| {
        tables
            .iter()
            .for_each(|name| fs::rename(job.case.path(from).join(name), job.case.path(to).join(name)).unwrap());
    };
    fs::create_dir(&aside).unwrap();
    swap("out", "aside");
    job.start(1, "", "").ended().fails_with(5, &["out", "_tidemark", "--output"]);
    tables.iter().for_each(|name| drop(fs::remove_dir_all(job.output().join(name))));
    swap("aside", "out");
    job.finish(2);
    job.check();
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_and_is_made_up_for() {
    // The last checkpoint of a run is the one that nothing comes after; the first is met by a run in full flow.
    for epochs in [1, 40] {
        let job = Job::new(&eventful(46, &[10 * epochs]), Rules::epochs_of(10), "");
        let runs = job.output().join("_tidemark/runs");
        fs::create_dir_all(runs.parent().unwrap()).unwrap();
        fs::write(&runs, "in the way").unwrap();
        let failed = job.start(2, EAGER, "").ended();
        assert_eq!(failed.code(), 3, "{}", failed.stderr);
        assert!(failed.stderr.contains("runs"), "{}", failed.stderr);
        fs::remove_file(&runs).unwrap();
        job.finish(1);
        job.check();
    }
}
