//! Lateness is a fact about a payment: which payments are late follows from the files alone, and not from their names, their
//! number, the workers, the processes or how fast anything is read.

use std::collections::HashMap;

use crate::cluster::crew;
use crate::crash::job::{EAGER, Job, Stop};
use crate::data::{Event, Random};
use crate::oracle::{Partition, Rules};
use crate::tables::{HEALTH, MANIFEST, REJECTED, Tables};

const DAY_S: i64 = 86_400;

/// A payment in each of `count` equal parts of a span of seconds.
fn payments(name: &str, from_s: i64, span_s: i64, count: i64) -> Vec<String> {
    (0..count).map(|i| Event::new(&format!("{name}-{i}"), from_s + i * span_s / count).line()).collect()
}

/// A pipeline over files with these names and lines.
fn over(files: &[(String, Vec<String>)], rules: Rules) -> Job {
    let job = Job::new(&[], rules, "");
    for (name, lines) in files {
        job.case.file(&format!("in/{name}"), lines.join("\n") + "\n");
    }
    job
}

/// Rejected events by reason.
fn rejected(tables: &Tables) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    tables.texts(&REJECTED, "rejection_reason").into_iter().for_each(|reason| *counts.entry(reason).or_default() += 1);
    counts
}

/// The greatest number of ids that were remembered after an epoch.
fn most_remembered(tables: &Tables) -> i128 {
    tables.wholes(&HEALTH, "retained_ids").into_iter().max().unwrap_or(0)
}

/// Guarantee 7a, from the order of events alone: before each late event there are, in its own partition, at least as many
/// witnesses as there have to be whose event times lie the delay or more after its own.
fn every_late_event_is_late_in_its_own_file(tables: &Tables, partitions: &[Partition], rules: Rules) {
    let contract = rules.settings().contract;
    let names = tables.texts(&REJECTED, "source_partition");
    let offsets = tables.wholes(&REJECTED, "source_offset");
    let reasons = tables.texts(&REJECTED, "rejection_reason");
    for ((name, offset), reason) in names.iter().zip(offsets).zip(reasons) {
        if reason != "R200_late_event" {
            continue;
        }
        let partition = partitions.iter().find(|partition| partition.name == *name).unwrap();
        let times = partition.times(&contract);
        let offset = usize::try_from(offset).unwrap();
        let own = times[offset].expect("a late event has a time");
        let later = |time: &&Option<i64>| time.is_some_and(|time| time >= own + rules.watermark_delay_us);
        let witnesses = times[..offset].iter().filter(later).count();
        assert!(witnesses >= rules.witnesses, "{name} {offset}: {witnesses} events before it are a delay ahead of it");
    }
}

/// Runs it in all ways that must make no difference, and returns the tables of the last one.
fn the_same_in_every_way(files: &[(String, Vec<String>)], rules: Rules) -> Tables {
    let alone = over(files, rules);
    alone.finish(1);
    let tables = alone.check();
    every_late_event_is_late_in_its_own_file(&tables, &alone.partitions(), rules);
    let threads = over(files, rules);
    threads.start(3, EAGER, "").ended().well();
    let together = over(files, rules);
    crew::finish(&together, 2, 1);
    for other in [threads, together] {
        other.check().without_times().assert_equals(&tables.clone().without_times());
    }
    tables
}

fn daily(count: i64, payments_each: i64) -> Vec<(String, Vec<String>)> {
    let file = |day: i64| {
        let name = format!("2025-03-{:02}.ndjson", day + 1);
        (name.clone(), payments(&name, day * DAY_S, DAY_S, payments_each))
    };
    (0..count).map(file).collect()
}

#[test]
fn of_ten_daily_files_no_payment_is_late() {
    let tables = the_same_in_every_way(&daily(10, 3000), Rules::epochs_of(1000));
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [30_000]);
    assert!(rejected(&tables).is_empty());
    // A day of delay, a day of retention and its bucket, the hour of alignment and two epochs.
    let bound = 3000 * 2 + 3000 / 24 * 2 + 2 * 1000;
    assert!(most_remembered(&tables) <= bound, "{} of {bound}", most_remembered(&tables));
}

#[test]
fn of_files_of_an_hour_each_in_any_order_of_names_no_payment_is_late() {
    let file = |hour: i64| {
        let name = format!("{:02}-part.ndjson", hour * 29 % 72);
        (name.clone(), payments(&name, hour * 3600, 3600, 40))
    };
    let tables = the_same_in_every_way(&(0..72).map(file).collect::<Vec<_>>(), Rules::epochs_of(300));
    assert!(rejected(&tables).is_empty());
    assert!(most_remembered(&tables) <= 40 * (24 + 24 + 1 + 1) + 2 * 300);
}

#[test]
fn a_wrong_date_decides_nothing() {
    let mut files = daily(6, 300);
    // A year ahead at the head of a file, in the middle of another, and in 1970.
    files[3].1[0] = Event::new("ahead", 400 * DAY_S).line();
    files[1].1[150] = Event::new("far", 380 * DAY_S).line();
    files[4].1[20] = Event::new("old", 0).at("1970-01-02T00:00:00Z").line();
    let tables = the_same_in_every_way(&files, Rules::epochs_of(100));
    assert_eq!(rejected(&tables), HashMap::from([("R200_late_event".to_owned(), 1)]));
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [1799]);
}

#[test]
fn headers_and_files_of_nothing_valid_hold_nothing_up() {
    let mut files = daily(12, 100);
    for (_, lines) in &mut files {
        lines.insert(0, "event_id,user_id,event_time".to_owned());
    }
    files.push(("2025-03-05b.ndjson".to_owned(), (0..700).map(|i| format!("no event {i}")).collect()));
    let tables = the_same_in_every_way(&files, Rules::epochs_of(50));
    assert_eq!(rejected(&tables), HashMap::from([("R000_malformed_event".to_owned(), 712)]));
    assert!(most_remembered(&tables) <= 100 * 2 + 100 / 24 * 2 + 2 * 50 + 10);
}

#[test]
fn files_that_come_one_a_run_or_grow_lose_nothing() {
    let job = over(&[], Rules::epochs_of(50));
    for (day, (name, lines)) in daily(5, 120).into_iter().enumerate() {
        job.case.file(&format!("in/{name}"), lines[..80].join("\n") + "\n");
        job.finish(1 + day % 2);
        job.append(&name, &lines[80..]);
        job.finish(1 + day % 2);
    }
    let tables = Tables::read(&job.output());
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [600]);
    assert!(rejected(&tables).is_empty());
    job.case.tidemark(&["evidence", "--output", "out"]).well();
    job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    // What has ended may be gone.
    std::fs::remove_file(job.case.path("in/2025-03-02.ndjson")).unwrap();
    assert!(job.finish(1).stderr.contains("nothing to do"));
}

#[test]
fn which_files_have_ended_is_known_also_of_epochs_that_were_replayed() {
    let job = over(&[("a.ndjson".to_owned(), payments("a", 0, 10, 10))], Rules::epochs_of(10));
    job.finish(1);
    // It has more now, and a file that lies before that in time comes first.
    job.append("a.ndjson", &payments("more", 3 * DAY_S, 60, 50));
    job.case.file("in/b.ndjson", payments("b", 100, 1000, 200).join("\n") + "\n");
    let rarely = "--checkpoint-interval 1h --set sink.publish_interval=0ms --set epochs.max_in_flight=1";
    let mut killed = job.start(1, rarely, &Stop { place: "group-published", passed: 3 }.fail_points());
    assert!(killed.says("stopped at group-published"), "{}", killed.log());
    killed.kill().unwrap();
    let mut drained = job.start(1, rarely, &Stop::first("replayed").pause());
    assert!(drained.says("stopped at replayed"), "{}", drained.log());
    drained.signal("TERM");
    drained.ended().well();
    job.case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
    let a = job.case.path("in/a.ndjson");
    std::fs::rename(&a, job.case.path("a")).unwrap();
    job.start(1, "", "").ended().fails_with(5, &["a.ndjson", "not to its end"]);
    std::fs::rename(job.case.path("a"), &a).unwrap();
    job.finish(1);
    job.case.tidemark(&["evidence", "--output", "out"]).well();
    assert_eq!(Tables::read(&job.output()).wholes(&MANIFEST, "total_events_valid"), [260]);
}

#[test]
fn a_half_line_waits_until_it_is_whole() {
    let job = over(&[], Rules::epochs_of(50));
    let lines = payments("p", 0, 3600, 4);
    let (begun, rest) = lines[3].split_at(lines[3].len() / 2);
    job.case.file("in/p0.ndjson", format!("{}\n{}\n{}\n{begun}", lines[0], lines[1], lines[2]));
    let ended = job.start(1, "", "").ended();
    assert!(ended.code() == 0 && ended.stderr.contains("file=\"in/p0.ndjson\""), "{}", ended.stderr);
    assert_eq!(Tables::read(&job.output()).wholes(&MANIFEST, "total_events_received"), [3]);
    job.append("p0.ndjson", &[rest.to_owned()]);
    job.finish(1);
    let tables = Tables::read(&job.output());
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [4]);
    assert!(rejected(&tables).is_empty());
}

#[test]
fn random_files_give_the_same_tables_whoever_reads_them() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut files: Vec<(String, Vec<String>)> = Vec::new();
        for index in 0..2 + random.below(6) {
            let day = i64::try_from(random.below(6)).unwrap();
            let name = format!("{:03}-{index}.ndjson", random.below(1000));
            let count = i64::try_from(random.below(160)).unwrap();
            let mut lines = payments(&name, day * DAY_S, DAY_S * 2, count);
            for line in &mut lines {
                match random.below(60) {
                    0 => *line = "\u{feff}{}".to_owned(),
                    1 => *line = Event::new(&format!("w{index}-{}", random.next()), 500 * DAY_S).line(),
                    2 => {
                        *line = Event::new(&format!("o{index}-{}", random.next()), 0).at("1970-01-01T00:00:01Z").line()
                    }
                    _ => {}
                }
            }
            files.push((name, lines));
        }
        the_same_in_every_way(
            &files,
            Rules { witnesses: 1 + random.below(10), ..Rules::epochs_of(1 + random.below(90)) },
        );
    }
}
