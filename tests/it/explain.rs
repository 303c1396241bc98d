//! What became of an event: every arrival with its place, epoch and verdict, whatever the answer has to be put together
//! from.

use serde_json::{Value, json};

use crate::data::{Event, HOUR_US, START_US, eventful, instant, quoted};
use crate::oracle::{PRESENT, Rules, cuts_of_files};
use crate::program::{Case, finish, tidemark};
use crate::tables::{CURATED, REJECTED, Tables};

const DAY: i64 = 86_400;

fn explained(case: &Case, id: &str, args: &str) -> Value {
    let args = ["explain", id, "--json"].into_iter().chain(args.split_whitespace());
    let ended = case.tidemark(&args.collect::<Vec<_>>()).quiet();
    let json: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
    let found = !json["arrivals"].as_array().unwrap().is_empty() || !json["memory"]["entry"].is_null();
    assert_eq!(ended.code(), if found { 0 } else { 1 }, "{json}");
    json
}

/// Epoch, place and verdict of each arrival: `1 p0.ndjson:3 accepted`, with the rule or the other place behind it.
fn arrivals(json: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = |value: &Value| format!("{}:{}", text(&value["partition"]), value["offset"]);
    let arrival = |arrival: &Value| {
        let verdict = &arrival["verdict"];
        let mut line = format!("{} {} {}", arrival["epoch"], place(arrival), text(&verdict["is"]));
        if verdict["reason"].is_string() {
            line = format!("{line} {}", text(&verdict["reason"]));
        }
        for other in ["of", "conflicts_with"].into_iter().filter(|other| verdict[*other].is_object()) {
            line = format!("{line} {}", place(&verdict[other]));
        }
        line
    };
    json["arrivals"].as_array().unwrap().iter().map(arrival).collect()
}

/// One event of every outcome; three events of each file make an epoch.
fn outcomes() -> Vec<Vec<String>> {
    let line = |id: &str, seconds| Event::new(id, seconds).line();
    let broken = |id: &str, change: fn(&mut Event)| {
        let mut event = Event::new(id, 0);
        change(&mut event);
        event.line()
    };
    let p0 = [
        vec![line("a", 0), broken("b", |event| event.amount = "-1".to_owned()), line("it's", 2 * DAY)],
        vec![line("e", 0), line("a", 0), line("f", 4_000_000_000)],
        vec![line("a", 0)],
    ];
    let p1 = [
        vec![line("a", 0), Event::new("a", 0).user("bob").line(), line("d", 2 * DAY)],
        vec![
            broken("r020", |event| event.user = "null".to_owned()),
            broken("r030", |event| event.time = quoted("soon")),
            line("r040", 0).replace("ingest_time", "ingested"),
        ],
        vec![
            broken("r050", |event| event.kind = "1".to_owned()),
            broken("r060", |event| event.amount = quoted("1")),
            broken("r070", |event| event.currency = "null".to_owned()),
        ],
        vec![
            broken("r080", |event| event.channel = "[]".to_owned()),
            broken("r090", |event| event.kind = quoted("deposit")),
            broken("r100", |event| event.channel = quoted("Web")),
        ],
        vec![
            broken("r110", |event| event.currency = quoted("EUR")),
            broken("r130", |event| event.amount = "0.001".to_owned()),
            line("d", 2 * DAY),
        ],
    ];
    vec![p0.concat(), p1.concat()]
}

/// Both files are read side by side, three events of each, and the watermark follows each event at once.
fn rules() -> Rules {
    Rules { witnesses: 1, alignment_us: 2400 * HOUR_US, ..Rules::epochs_of(6) }
}

#[test]
fn every_outcome_is_told_with_its_place() {
    let case = Case::of(&outcomes());
    let flags = rules().flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    case.run("plain", &flags);
    case.run("kept", &[&flags[..], &["--curated"]].concat());
    for output in ["plain", "kept"] {
        // The settings of the pipeline and its inputs are those that are stored.
        let of = |id: &str| arrivals(&explained(&case, id, &format!("--output {output}")));
        let a = [
            "1 p0.ndjson:0 accepted",
            "1 p1.ndjson:0 duplicate p0.ndjson:0",
            "1 p1.ndjson:1 rejected R210_conflicting_duplicate p0.ndjson:0",
            "3 p0.ndjson:4 duplicate p0.ndjson:0",
            "4 p0.ndjson:6 duplicate p0.ndjson:0",
        ];
        assert_eq!(of("a"), a);
        assert_eq!(of("b"), ["1 p0.ndjson:1 rejected R120_non_positive_amount"]);
        assert_eq!(of("it's"), ["1 p0.ndjson:2 accepted"]);
        assert_eq!(of("d"), ["1 p1.ndjson:2 accepted", "4 p1.ndjson:14 duplicate p1.ndjson:2"]);
        assert_eq!(of("e"), ["3 p0.ndjson:3 rejected R200_late_event"]);
        assert_eq!(of("f"), ["3 p0.ndjson:5 rejected R140_event_time_in_future"]);
        let tables = Tables::read(&case.path(output));
        let broken = tables.rows(&REJECTED).iter().map(|row| row.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>());
        for row in broken.filter(|row| row[0].starts_with("\"r")) {
            let unquoted = |text: &str| text.trim_matches('"').to_owned();
            let place = format!("{} {}:{}", row[7], unquoted(&row[5]), row[6]);
            assert_eq!(of(&unquoted(&row[0])), [format!("{place} rejected {}", unquoted(&row[3]))]);
        }
        assert!(of("nobody").is_empty());
    }
    let late = explained(&case, "e", "--output plain");
    let verdict = &late["arrivals"][0]["verdict"];
    // The watermark of the third epoch lies a day behind "d".
    assert_eq!(verdict["late_by_us"], DAY * 1_000_000);
    assert_eq!(verdict["watermark_us"], START_US + DAY * 1_000_000);
    assert!(late["not_searched"].to_string().contains("transaction_events"), "{late}");
    let human = case.tidemark(&["explain", "a", "--output", "kept"]).well().stdout;
    for words in
        ["accepted in epoch 1 at p0.ndjson:0", "not counted again: 3 times", "curated", "remembered as of epoch 4"]
    {
        assert!(human.contains(words), "no {words:?} in {human}");
    }
    let nothing = case.tidemark(&["explain", "nobody", "--output", "kept"]);
    assert_eq!(nothing.code(), 1);
    assert!(nothing.stdout.contains("nothing was found") && nothing.stdout.contains("R000"), "{}", nothing.stdout);
}

#[test]
fn what_is_gone_is_said_and_the_rest_still_answers() {
    let case = Case::of(&outcomes());
    let flags = rules().flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    case.run("plain", &flags);
    case.run("kept", &[&flags[..], &["--curated"]].concat());
    std::fs::write(case.path("in/p0.ndjson"), {
        let mut text = std::fs::read_to_string(case.path("in/p0.ndjson")).unwrap();
        text.push_str(&Event::new("new", 0).line());
        text
    })
    .unwrap();
    assert_eq!(arrivals(&explained(&case, "new", "--output kept")), ["null p0.ndjson:7 unread"]);
    std::fs::remove_file(case.path("in/p0.ndjson")).unwrap();
    std::fs::remove_file(case.path("in/p1.ndjson")).unwrap();

    let kept = explained(&case, "a", "--output kept");
    let wanted = ["1 p0.ndjson:0 accepted", "1 p1.ndjson:1 rejected R210_conflicting_duplicate p0.ndjson:0"];
    assert_eq!(arrivals(&kept), wanted);
    let missing = kept["not_searched"].to_string();
    assert!(missing.contains("p0.ndjson") && missing.contains("p1.ndjson"), "{missing}");

    let plain = explained(&case, "it's", "--output plain");
    assert!(arrivals(&plain).is_empty());
    let entry = &plain["memory"]["entry"];
    assert_eq!((&entry["remembered"], &entry["forgotten_at_us"]), (&json!(true), &json!(START_US + 73 * HOUR_US)));
    assert!(plain["conclusion"].to_string().contains("cannot be told any more"), "{plain}");

    std::fs::remove_dir_all(case.path("kept/_tidemark")).unwrap();
    let bare = explained(&case, "a", "--output kept");
    assert_eq!(arrivals(&bare), wanted);
    assert!(bare["not_searched"].to_string().contains("no checkpoint"), "{bare}");
}

#[test]
fn a_replayed_event_has_two_arrivals() {
    let case = Case::of(&outcomes());
    let flags = rules().flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    case.run("out", &flags);
    case.tidemark(&["quarantine", "replay", "--output", "out", "--reason", "R120", "--id", "x"]).well();
    assert_eq!(arrivals(&explained(&case, "b", "--output out"))[1], "null replay:0 unread");
    case.run("out", &flags);
    let wanted = ["1 p0.ndjson:1", "5 replay:0"].map(|place| format!("{place} rejected R120_non_positive_amount"));
    assert_eq!(arrivals(&explained(&case, "b", "--output out")), wanted);
}

/// Every row of the two tables of single events is found at its place.
fn tables_are_explained(case: &Case, args: &str, every: usize) {
    let tables = Tables::read(&case.path("out"));
    for (shape, verdict) in [(&CURATED, "accepted"), (&REJECTED, "rejected")] {
        let columns = ["epoch", "source_offset"].map(|column| tables.wholes(shape, column));
        let (ids, names) = (tables.column(shape, "event_id"), tables.texts(shape, "source_partition"));
        for row in (0..ids.len()).step_by(every) {
            let crate::cells::Cell::Text(id) = &ids[row] else { continue };
            let wanted = format!("{} {}:{} {verdict}", columns[0][row], names[row], columns[1][row]);
            let json = explained(case, id, args);
            let found = arrivals(&json);
            assert!(found.iter().any(|arrival| arrival.starts_with(&wanted)), "no {wanted:?} in {json}");
            let sources = json["arrivals"].as_array().unwrap().iter();
            assert!(sources.clone().all(|arrival| arrival["found_in"].to_string().contains("source")), "{json}");
        }
    }
}

#[test]
fn a_stream_in_which_everything_happens_is_explained_as_its_tables_say() {
    let lines = eventful(61, &[150, 100]);
    let case = Case::of(&lines);
    assert!(
        cuts_of_files(&crate::oracle::Partition::of_directory(&case.path("in")), Rules::epochs_of(20), |_| PRESENT)
            .len()
            > 5
    );
    case.run("out", &["--epoch-events", "20", "--curated"]);
    tables_are_explained(&case, "--output out", 17);
}

#[test]
fn generated_events_are_made_again_and_standard_input_cannot_be_read_again() {
    let case = Case::new();
    let stream = "--events 600 --seed 9 --rate 0 --users 20";
    let args = format!("run --output out --curated {stream}");
    case.tidemark(&args.split_whitespace().collect::<Vec<_>>()).well();
    tables_are_explained(&case, &format!("--output out {stream}"), 97);
    let id = Tables::read(&case.path("out")).texts(&CURATED, "event_id").remove(0);
    let other = explained(&case, &id, "--output out --events 600 --seed 8 --rate 0 --users 20");
    assert!(other["not_searched"].to_string().contains("generator.seed was 9, now 8"), "{other}");

    let line = Event::new("a", 0).at(&instant(START_US)).line();
    let mut run = tidemark(case.root(), ["run", "--input", "-", "--output", "piped"]);
    finish(&mut run, line.as_bytes()).well();
    let piped = explained(&case, "a", "--output piped");
    assert!(piped["not_searched"].to_string().contains("standard input"), "{piped}");
    assert_eq!(piped["memory"]["entry"]["remembered"], true);
}
