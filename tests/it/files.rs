//! Files of every shape, standard input, directories and patterns.

use std::io::Write;
use std::process::Stdio;

use crate::cells::{Cell, row};
use crate::data::{Event, eventful};
use crate::oracle::{Partition, Rules, check};
use crate::program::{Case, Running, finish, tidemark};
use crate::tables::{CURATED, HEALTH, MANIFEST, NET_FLOW, REJECTED, Shape, Tables, USER_METRICS};

fn line(id: &str) -> String {
    Event::new(id, 0).line()
}

/// An event whose body has exactly this many bytes.
fn padded(id: &str, bytes: usize) -> String {
    let short = line(id).replace('{', r#"{"pad":"","#);
    let missing = bytes - short.len();
    let pad = "é".repeat(missing / 2) + &"e".repeat(missing % 2);
    short.replace(r#""pad":"""#, &format!(r#""pad":"{pad}""#))
}

#[test]
fn files_of_every_shape() {
    let case = Case::new();
    let all = [line("a1"), line("a2"), line("a3"), line("a4"), line("a5")];
    case.file("in/a.ndjson", all.join("\n") + "\n");
    case.file("in/b-empty.ndjson", "");
    case.file("in/c-blank.ndjson", "\n  \n\t\r\n\r\n \n");
    case.file("in/d-crlf.ndjson", format!("{}\r\n\r\n{}\r\n", line("d1"), line("d2")));
    case.file("in/e-no-end.ndjson", format!("\n\n{}\n \n{}", line("e1"), line("e2")));
    let mut bytes = [b"\xff{}\n".as_slice(), line("f1").as_bytes(), b"\n\xc3\x28\n\x00\n{\"a\":\"\x00\"}\n"].concat();
    bytes.extend((line("f2").replace("ann", "a\u{0}n") + "\n").bytes());
    case.file("in/f-bytes.ndjson", bytes);
    let (fits, over) = (padded("g1", 1 << 20), padded("g2", (1 << 20) + 2));
    assert_eq!((fits.len(), over.len()), (1 << 20, (1 << 20) + 2));
    let shifted = format!("x{}", "é".repeat(700_000));
    case.file("in/g-long.ndjson", format!("{fits}\n{over}\n{}\n{shifted}\n{}\n", " ".repeat(3 << 20), line("g3")));
    case.file("in/h-unended-long.ndjson", "z".repeat((1 << 20) + 1));

    let rules = Rules::epochs_of(2);
    let run = ["run", "--input", "in", "--output", "out", "--epoch-events", "2", "--workers", "2", "--curated"];
    let ended = case.tidemark(&run);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let warnings: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("h-unended-long.ndjson"), "{warnings:?}");
    let tables = check(&case.path("out"), &Partition::of_directory(&case.path("in")), rules);

    assert_eq!(tables.wholes(&HEALTH, "events_received").into_iter().sum::<i128>(), 19);
    let mut accepted = tables.texts(&CURATED, "event_id");
    accepted.sort();
    assert_eq!(accepted, ["a1", "a2", "a3", "a4", "a5", "d1", "d2", "e1", "e2", "f1", "g1", "g3"]);
    let payloads = tables.texts(&REJECTED, "payload_encoding").into_iter().zip(tables.texts(&REJECTED, "raw_payload"));
    let short: Vec<(String, String)> = payloads.filter(|(_, payload)| payload.len() < 1000).collect();
    let pairs = [("base64", "/3t9"), ("base64", "wyg="), ("utf-8", "\0"), ("utf-8", "{\"a\":\"\0\"}")];
    let control = line("f2").replace("ann", "a\u{0}n");
    let wanted = pairs.into_iter().chain([("utf-8", control.as_str())]);
    let mut wanted: Vec<(String, String)> = wanted.map(|(e, p)| (e.to_owned(), p.to_owned())).collect();
    wanted.sort();
    let mut short = short;
    short.sort();
    assert_eq!(short, wanted);
    let long: Vec<usize> =
        tables.texts(&REJECTED, "raw_payload").iter().map(String::len).filter(|n| *n > 1000).collect();
    // The last character of one was cut in two.
    assert_eq!(long, [65_536, 65_535]);
}

#[test]
fn standard_input_is_one_partition() {
    let case = Case::new();
    let lines = eventful(3, &[300]).remove(0).join("\n");
    let args = ["run", "--input", "-", "--output", "out", "--epoch-events", "70", "--curated"];
    finish(&mut tidemark(case.root(), args), lines.as_bytes()).well();
    let tables = check(&case.path("out"), &[Partition::new("stdin", lines.as_bytes())], Rules::epochs_of(70));
    assert!(tables.texts(&CURATED, "source_partition").iter().all(|name| name == "stdin"));
}

#[test]
fn the_last_publication_waits_for_no_interval() {
    let case = Case::new();
    let lines = eventful(5, &[300]).remove(0);
    let text = |lines: &[String]| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
    let mut args = vec!["run", "--input", "-", "--output", "out", "--epoch-events", "70"];
    args.extend(["--set", "sink.publish_interval=1d", "--log-level", "warn,tidemark=debug,deltalake_core=error"]);
    let mut running = Running::start(tidemark(case.root(), args).stdin(Stdio::piped()));
    let mut stdin = running.take_stdin();
    stdin.write_all(text(&lines[..70]).as_bytes()).unwrap();
    running.await_line("published epoch=1 ");
    // The next publication would be due tomorrow.
    stdin.write_all(text(&lines[70..]).as_bytes()).unwrap();
    drop(stdin);
    let ended = running.ended().well();
    assert_eq!(ended.stderr.matches(": published epoch=").count(), 2, "{}", ended.stderr);
    check(&case.path("out"), &[Partition::new("stdin", text(&lines).as_bytes())], Rules::epochs_of(70));
}

#[test]
fn directories_patterns_and_lists_name_the_same_files() {
    let case = Case::of(&eventful(4, &[60, 90, 30]));
    case.file("in/.hidden.ndjson", "{}\n");
    case.file("in/readme.txt", "no events\n");
    let partitions: Vec<Partition> =
        Partition::of_directory(&case.path("in")).into_iter().filter(|p| p.name.starts_with('p')).collect();
    assert_eq!(partitions.len(), 3);
    let ways: [&[&str]; 4] = [
        &["in"],
        &["in/p*.ndjson"],
        &["in/p2.ndjson", "in/p0.ndjson", "./in/p1.ndjson", "in/../in/p0.ndjson"],
        &["in/p[12].ndjson", "in"],
    ];
    let mut seen: Vec<Tables> = Vec::new();
    for (index, inputs) in ways.iter().enumerate() {
        let output = index.to_string();
        let fixed = ["--output", &output, "--epoch-events", "25"];
        case.tidemark(&[&["run", "--input"], *inputs, &fixed].concat()).well();
        let tables = check(&case.path(&output), &partitions, Rules::epochs_of(25));
        assert!(tables.texts(&MANIFEST, "source")[0].contains(inputs[0]));
        assert_eq!(tables.texts(&MANIFEST, "output_path"), [output]);
        seen.push(tables.without_times());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1] || different_only_in_source(&pair[0], &pair[1])));
}

fn different_only_in_source(one: &Tables, other: &Tables) -> bool {
    one.clone().without_free_columns() == other.clone().without_free_columns()
}

#[test]
fn partitions_are_ordered_by_file_name_then_by_path() {
    let case = Case::new();
    // Only the first arrival of an id counts, and the user says which that was.
    case.file("in/x/b.ndjson", Event::new("id", 0).user("x/b").line());
    case.file("in/y/a.ndjson", Event::new("id", 0).user("y/a").line());
    case.file("in/z/a.ndjson", Event::new("id", 0).user("z/a").line());
    case.file("in/z/B.ndjson", Event::new("other", 0).user("z/B").line());
    case.file("in/z/Ä.ndjson", Event::new("other", 0).user("z/Ä").line());
    for (output, input) in [("1", "in"), ("2", "in/*/*.ndjson")] {
        case.tidemark(&["run", "--input", input, "--output", output]).well();
        let tables = Tables::read(&case.path(output));
        assert_eq!(tables.texts(&USER_METRICS, "user_id"), ["y/a", "z/B"]);
        assert_eq!(tables.texts(&REJECTED, "source_partition"), ["x/b.ndjson", "z/a.ndjson", "z/Ä.ndjson"]);
    }
    // Named one by one, two of them would have one name.
    let apart = ["run", "--input", "in/x", "in/y", "in/z", "--output", "3"];
    case.tidemark(&apart).fails_with(2, &["y/a.ndjson", "z/a.ndjson"]);
}

#[test]
fn an_input_without_events_gives_rows_of_zeros() {
    let case = Case::new();
    case.file("in/empty.ndjson", "");
    case.file("in/blank.ndjson", " \r\n\n\t\n");
    for (output, workers) in [("1", "1"), ("2", "2")] {
        case.run(output, &["--workers", workers, "--curated"]);
        let tables = Tables::read(&case.path(output));
        let now = tables.column(&NET_FLOW, "updated_at").remove(0);
        let zero = || Cell::from(0i64);
        let double = || Cell::from(0.0);
        let metrics =
            [Cell::from(1i64), zero(), zero(), zero(), zero(), zero(), double(), double(), double(), now.clone()];
        assert_eq!(tables.rows(&NET_FLOW), [metrics.to_vec()]);
        let manifest = &tables.rows(&MANIFEST)[0];
        assert_eq!(tables.rows(&MANIFEST).len(), 1);
        assert_eq!(manifest[..7], row![now.clone(), now, 0i64, 0i64, 0i64, 0i64, 0i64]);
        let empty: [&Shape; 5] = [&USER_METRICS, &crate::tables::CHANNELS, &REJECTED, &HEALTH, &CURATED];
        assert!(empty.iter().all(|shape| tables.rows(shape).is_empty()));
    }
}

#[test]
fn nothing_but_rejected_events_still_gives_a_net_flow_of_zeros() {
    let case = Case::of(&[vec!["{}".to_owned(), "[]".to_owned(), "x".to_owned()]]);
    case.run("out", &["--epoch-events", "2", "--workers", "2"]);
    let tables = check(&case.path("out"), &Partition::of_directory(&case.path("in")), Rules::epochs_of(2));
    assert_eq!(tables.wholes(&NET_FLOW, "deposit_count"), [0]);
    assert_eq!(tables.wholes(&MANIFEST, "total_events_rejected"), [3]);
    assert_eq!(tables.column(&HEALTH, "watermark"), [Cell::Null, Cell::Null]);
}
