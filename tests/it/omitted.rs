//! The cap on the quarantine: which payloads are left out follows from the events and the cuts, every row stays, and
//! whoever looks for an event is told.

use serde_json::Value;

use crate::cluster::crew::finish;
use crate::crash::job::{Job, Stop};
use crate::data::{Event, eventful};
use crate::oracle::{Partition, Rules, check};
use crate::program::Case;
use crate::tables::{HEALTH, REJECTED, Tables};

/// Events of a partition in an epoch. About a quarter of some 200 bytes each is rejected.
const EVENTS: usize = 40;

fn rules(cap: u64) -> Rules {
    Rules { payload_cap: Some(cap), ..Rules::epochs_of(EVENTS) }
}

/// How many of so many rows have lost their payloads.
fn omitted(tables: &Tables) -> (usize, usize) {
    let encodings = tables.texts(&REJECTED, "payload_encoding");
    (encodings.iter().filter(|encoding| *encoding == "omitted").count(), encodings.len())
}

#[test]
fn which_payloads_are_left_out_does_not_depend_on_workers() {
    let case = Case::of(&eventful(71, &[400, 260, 90]));
    for cap in [0, 700, 5_000] {
        let rules = rules(cap);
        for workers in ["1", "2", "4"] {
            let output = format!("out-{cap}-{workers}");
            let flags: Vec<String> =
                rules.flags().into_iter().chain(["--workers".to_owned(), workers.to_owned()]).collect();
            case.run(&output, &flags.iter().map(String::as_str).collect::<Vec<_>>());
            let tables = check(&case.path(&output), &Partition::of_directory(&case.path("in")), rules);
            let (left_out, rows) = omitted(&tables);
            let right = match cap {
                0 => left_out == rows,
                700 => (rows / 4..rows).contains(&left_out),
                _ => left_out == 0,
            };
            assert!(rows > 100 && right, "{left_out} of {rows} with {cap}");
        }
    }
}

#[test]
fn kills_and_other_numbers_of_processes_change_nothing() {
    let job = Job::new(&eventful(72, &[300, 180]), rules(600), "");
    for place in ["cut-announced", "table-committed", "manifest-published"] {
        job.kill_at(2, &Stop { place, passed: 1 });
    }
    finish(&job, 2, 1);
    let (left_out, rows) = omitted(&job.check());
    assert!(left_out > 10 && rows > left_out, "{left_out} of {rows}");
    job.case.tidemark(&["evidence", "--output", "out"]).well();
}

#[test]
fn another_cap_is_refused() {
    let mut job = Job::new(&eventful(73, &[120]), rules(600), "");
    job.kill_at(1, &Stop::first("group-published"));
    let other = job.start(1, "--max-quarantine-bytes 1KiB", "").ended();
    other.fails_with(5, &["quarantine.max_bytes_per_epoch was 600 B, now 1 KiB"]);
    job.rules = Rules::epochs_of(EVENTS);
    job.start(1, "", "").ended().fails_with(5, &["quarantine.max_bytes_per_epoch was 600 B, now not set"]);
    job.rules = rules(600);
    job.finish(1);
    job.check();
}

#[test]
fn what_is_left_out_is_listed_and_not_replayed() {
    let lines: Vec<String> = (10..30).map(|index| Event::new(&format!("e{index}"), 0).amount("0").line()).collect();
    let length = lines[0].len();
    let rules = Rules { payload_cap: Some(3 * length as u64), ..Rules::epochs_of(20) };
    let job = Job::new(&[lines], rules, "");
    job.finish(2);
    let tables = job.check();
    assert_eq!((omitted(&tables), tables.wholes(&HEALTH, "events_rejected")), ((17, 20), vec![20]));
    let details = tables.texts(&REJECTED, "detail");
    assert!(details[3].ends_with(&format!("{length} bytes in all, none kept")), "{details:?}");

    let verb = |args: &str| job.case.tidemark(&args.split_whitespace().collect::<Vec<_>>()).well().stdout;
    assert!(verb("quarantine list --output out --limit 9").contains("(omitted)"));
    let dry: Value = serde_json::from_str(&verb("quarantine replay --output out --all --dry-run --json")).unwrap();
    assert_eq!((&dry["events"], dry["left_out"].as_array().unwrap().len()), (&Value::from(3), 17));
    assert_eq!(dry["left_out"][0]["why"], "omitted");
    let told = verb("explain e29 --output out");
    assert!(told.contains("R120_non_positive_amount"), "{told}");
}
