//! The quarantine: what it lists is what the table holds, and what is replayed counts exactly once more, as the events of
//! one more partition.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cells::Cell;
use crate::data::{Event, eventful, instant};
use crate::oracle::{PRESENT, Partition, Rules, Taken, check, check_cuts, cuts_of_files};
use crate::program::{Case, Running, tidemark};
use crate::tables::{HEALTH, MANIFEST, REJECTED, Tables};

const EVENTS: usize = 40;

/// Shows each publication in the log.
const CHATTY: &str = "--set log.level=warn,tidemark=debug,deltalake_core=error";

fn verb(case: &Case, args: &str) -> String {
    let args: Vec<&str> = args.split_whitespace().chain(["--output", "out"]).collect();
    case.tidemark(&args).well().stdout
}

fn json(case: &Case, args: &str) -> Value {
    serde_json::from_str(&verb(case, &format!("{args} --json"))).unwrap()
}

/// The payloads of the rejected events in the order in which they are replayed.
fn payloads(case: &Case) -> Vec<Vec<u8>> {
    let tables = Tables::read(&case.path("out"));
    tables.texts(&REJECTED, "raw_payload").into_iter().map(String::into_bytes).collect()
}

/// Checks the tables of a finished run over the files of `case` after which `replayed` were fed in epochs of their own.
fn check_replayed(case: &Case, replayed: &[Vec<u8>], rules: Rules) -> Tables {
    let mut partitions = Partition::of_directory(&case.path("in"));
    let mut cuts = cuts_of_files(&partitions, rules, |_| PRESENT);
    cuts.iter_mut().for_each(|taken| taken.counts.push(0));
    let empty = vec![0; partitions.len()];
    cuts.extend(replayed.chunks(rules.epoch_events).map(|part| Taken::of([&empty[..], &[part.len()]].concat())));
    partitions.push(Partition { name: "replay".to_owned(), bodies: replayed.to_vec() });
    check_cuts(&case.path("out"), &partitions, &cuts, rules)
}

fn flags(rules: Rules) -> Vec<String> {
    rules.flags().into_iter().chain(["--curated".to_owned()]).collect()
}

fn run(case: &Case, rules: Rules) {
    case.run("out", &flags(rules).iter().map(String::as_str).collect::<Vec<_>>());
}

fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[test]
fn replayed_events_come_again_as_a_last_partition() {
    let mut lines = eventful(51, &[120, 90]);
    // They come from the future now, and will not when they are replayed.
    let due = now_us() + 12_000_000;
    for index in 0..5i64 {
        let event = Event::new(&format!("soon {index}"), 0).at(&instant(due - index));
        lines[0].insert(3, event.line());
    }
    let case = Case::of(&lines);
    let rules = Rules { max_future_skew_us: 0, ..Rules::epochs_of(EVENTS) };
    run(&case, rules);
    let before = check(&case.path("out"), &Partition::of_directory(&case.path("in")), rules);
    let reasons = before.texts(&REJECTED, "rejection_reason");
    assert!(reasons.iter().filter(|reason| reason.starts_with("R140")).count() == 5, "{reasons:?}");

    let replayed = payloads(&case);
    let done = json(&case, "quarantine replay --all");
    assert_eq!(done["events"], replayed.len());
    assert_eq!((&done["replay"]["first"], &done["left_out"]), (&Value::from(0), &Value::Array(Vec::new())));
    while now_us() <= due {
        assert_eq!(json(&case, "quarantine list").as_array().unwrap().len(), distinct(&reasons));
    }
    run(&case, rules);
    let after = check_replayed(&case, &replayed, rules);
    let accepted = |tables: &Tables| tables.wholes(&MANIFEST, "total_events_valid")[0];
    assert_eq!(accepted(&after), accepted(&before) + 5);
    // Nothing is left to do.
    run(&case, rules);
    check_replayed(&case, &replayed, rules);
}

fn distinct(reasons: &[String]) -> usize {
    reasons.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Runs until the program comes to `place`, and kills it there.
fn killed_at(case: &Case, rules: Rules, place: &str) {
    let fixed = ["run", "--input", "in", "--output", "out"].map(str::to_owned);
    let mut command = tidemark(case.root(), fixed.into_iter().chain(flags(rules)));
    command.env("FAILPOINTS", format!("{place}=return")).stdin(Stdio::null());
    let mut running = Running::start(&mut command);
    running.await_line(&format!("stopped at {place}"));
    running.signal("KILL");
    assert_eq!(running.ended().status.code(), None);
}

#[test]
fn a_replay_counts_once_wherever_the_program_is_killed() {
    let case = Case::of(&eventful(52, &[450, 400]));
    let rules = Rules::epochs_of(EVENTS);
    run(&case, rules);
    let replayed = payloads(&case);
    assert!(replayed.len() > 2 * EVENTS, "{}", replayed.len());
    verb(&case, "quarantine replay --all");
    for place in ["inbox-taken", "cut-written", "inbox-taken", "manifest-published"] {
        killed_at(&case, rules, place);
    }
    run(&case, rules);
    check_replayed(&case, &replayed, rules);
}

#[test]
fn a_replay_while_a_bounded_source_is_still_read_changes_no_cut_of_it() {
    let case = Case::new();
    let lines: Vec<String> = eventful(53, &[200]).remove(0).iter().map(|line| format!("{line}\n")).collect();
    let args = format!("run --input - --output out --epoch-events {EVENTS} {CHATTY}");
    let mut running = Running::start(tidemark(case.root(), args.split_whitespace()).stdin(Stdio::piped()));
    let mut stdin = running.take_stdin();
    stdin.write_all(lines[..2 * EVENTS].concat().as_bytes()).unwrap();
    running.await_line("epoch=2");
    let replayed = payloads(&case);
    assert_eq!(json(&case, "quarantine replay --all")["events"], replayed.len());
    // Taken while the third epoch waits for its share of the pipe.
    running.await_line("events of the inbox are fed again");
    stdin.write_all(lines[2 * EVENTS..].concat().as_bytes()).unwrap();
    drop(stdin);
    running.ended().well();
    let mut partitions = vec![Partition::new("stdin", lines.concat().as_bytes())];
    let mut cuts = cuts_of_files(&partitions, Rules::epochs_of(EVENTS), |_| PRESENT);
    cuts.iter_mut().for_each(|taken| taken.counts.push(0));
    cuts[2].counts[1] = replayed.len();
    partitions.push(Partition { name: "replay".to_owned(), bodies: replayed });
    check_cuts(&case.path("out"), &partitions, &cuts, Rules::epochs_of(EVENTS));
}

#[test]
fn a_repetition_under_the_same_id_does_nothing_and_another_replay_feeds_them_again() {
    let case = Case::of(&eventful(54, &[150]));
    let rules = Rules::epochs_of(EVENTS);
    run(&case, rules);
    let replayed = payloads(&case);
    let dry = json(&case, "quarantine replay --all --dry-run");
    assert_eq!((&dry["events"], &dry["replay"]), (&Value::from(replayed.len()), &Value::Null));
    assert!(!case.path("out/_tidemark/inbox").exists());
    let first = json(&case, "quarantine replay --all --id mine");
    let again = json(&case, "quarantine replay --all --id mine");
    assert_eq!((&first["put_before"], &again["put_before"]), (&Value::from(false), &Value::from(true)));
    assert_eq!(first["replay"], again["replay"]);
    let other = json(&case, "quarantine replay --epoch ..9");
    assert_eq!(other["replay"]["first"], replayed.len());
    run(&case, rules);
    let mut twice = replayed.clone();
    twice.extend(replayed);
    check_replayed(&case, &twice, rules);
    let inbox = || case.path("out/_tidemark/inbox").read_dir().unwrap().count();
    assert_eq!(inbox(), 2);
    // Once two checkpoints stand behind them, all but the newest are cleared away, and the ids are still known.
    let third = json(&case, "quarantine replay --epoch ..2 --id third");
    let flags = flags(rules).into_iter().chain(["--set".to_owned(), "checkpoint.keep=2".to_owned()]);
    case.run("out", &flags.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(inbox(), 1);
    assert_eq!(json(&case, "quarantine replay --all --id mine")["put_before"], true);
    run(&case, rules);
    let received = Tables::read(&case.path("out")).wholes(&MANIFEST, "total_events_received")[0];
    assert_eq!(received, 150 + twice.len() as i128 + i128::from(third["events"].as_u64().unwrap()));
}

#[test]
fn bytes_come_back_as_they_were_and_what_was_cut_is_left_out() {
    let case = Case::new();
    let long = format!("{{\"event_id\":\"{}\"", "x".repeat(100_000));
    let mut file = b"{\"event_id\":\"a\xff\"}\n[1,\x1b[2J2]\n".to_vec();
    file.extend_from_slice(long.as_bytes());
    file.push(b'\n');
    case.file("in/p0.ndjson", &file);
    let rules = Rules::epochs_of(EVENTS);
    run(&case, rules);
    let done = json(&case, "quarantine replay --reason R000 R010");
    assert_eq!((&done["events"], &done["left_out"][0]["why"]), (&Value::from(2), &Value::from("cut")));
    let told = verb(&case, "quarantine replay --partition p0.ndjson --offset 2");
    assert!(told.contains("p0.ndjson:2") && told.contains("no event to feed again"), "{told}");
    run(&case, rules);
    check_replayed(&case, &[b"{\"event_id\":\"a\xff\"}".to_vec(), b"[1,\x1b[2J2]".to_vec()], rules);
    let listed = verb(&case, "quarantine list --limit 9");
    assert!(listed.contains("[1,\\u{1b}[2J2]") && !listed.contains('\x1b'), "{listed}");
    assert!(listed.contains("5 of 5 rejected events") && listed.contains("(base64)"), "{listed}");
}

#[test]
fn the_list_is_what_the_table_holds() {
    let case = Case::of(&eventful(55, &[300, 200]));
    run(&case, Rules::epochs_of(100));
    let tables = Tables::read(&case.path("out"));
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    tables.texts(&REJECTED, "rejection_reason").into_iter().for_each(|r| *by_reason.entry(r).or_default() += 1);
    let listed = json(&case, "quarantine list");
    let listed = listed.as_array().unwrap().iter();
    let listed: BTreeMap<String, u64> =
        listed.map(|row| (row["reason"].as_str().unwrap().to_owned(), row["events"].as_u64().unwrap())).collect();
    assert_eq!(listed, by_reason);
    let human = verb(&case, "quarantine list");
    assert!(by_reason.keys().all(|reason| human.contains(reason.as_str())), "{human}");

    let late = json(&case, "quarantine list --reason r200 --since 2 --limit 3");
    let wanted = tables
        .rows(&REJECTED)
        .iter()
        .filter(|row| row[3] == Cell::from("R200_late_event") && matches!(row[7], Cell::Whole(epoch) if epoch >= 2));
    let place = |row: &Value| (row["partition"].as_str().unwrap().to_owned(), row["offset"].as_i64().unwrap());
    let places: Vec<_> = late.as_array().unwrap().iter().map(place).collect();
    let wanted: Vec<_> = wanted.take(3).map(|row| (row[5].clone(), row[6].clone())).collect();
    assert!(!wanted.is_empty());
    assert_eq!(places.iter().map(|(p, o)| (Cell::from(p.as_str()), Cell::from(*o))).collect::<Vec<_>>(), wanted);
    case.tidemark(&["quarantine", "list", "--reason", "R999"]).fails_with(2, &["R999", "R120"]);
    case.tidemark(&["quarantine", "replay"]).fails_with(2, &["--all"]);
    case.tidemark(&["quarantine", "replay", "--all", "--output", "none"]).fails_with(3, &["no pipeline"]);
    assert!(!case.path("none").exists());
}

#[test]
fn a_live_run_takes_a_replay_while_it_goes_on() {
    let case = Case::new();
    let stream = "--rate 300 --users 20 --trigger 100ms --checkpoint-interval 300ms --set generator.invalid=0.2";
    let args = format!("run --output out {stream} {CHATTY}");
    let mut running = Running::start(tidemark(case.root(), args.split_whitespace()).stdin(Stdio::null()));
    (0..3).for_each(|_| running.await_line("published"));
    let events = json(&case, "quarantine replay --all")["events"].as_u64().unwrap();
    let more = json(&case, "quarantine replay --epoch ..2")["events"].as_u64().unwrap();
    assert!(events > 0 && more > 0);
    let started = Instant::now();
    let replayed = |case: &Case| {
        let rows = json(case, "quarantine list --limit 1000000");
        let rows = rows.as_array().unwrap().iter().filter(|row| row["partition"] == "replay");
        rows.map(|row| row["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Each of them breaks its rule again, so each shows in the quarantine.
    while (replayed(&case).len() as u64) < events + more {
        assert!(started.elapsed().as_secs() < 120 && running.is_running());
    }
    running.signal("INT");
    running.ended().well();
    assert_eq!(replayed(&case), (0..events + more).collect::<Vec<_>>());
    let tables = Tables::read(&case.path("out"));
    let sum = |column: &str| tables.wholes(&HEALTH, column).iter().sum::<i128>();
    assert_eq!(sum("events_rejected"), tables.rows(&REJECTED).len() as i128);
    assert_eq!(sum("events_received"), sum("events_valid") + sum("duplicate_events") + sum("events_rejected"));
}
