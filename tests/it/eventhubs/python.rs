//! Clients that are none of ours: the `azure-eventhub` package for Python sends and reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::stream::{Hub, Stream};
use crate::oracle::Taken;
use crate::program::finish;
use crate::python::{python, repository};

const PACKAGES: &str = "import azure.eventhub, deltalake, numpy, pyarrow";

/// Runs a script of the workload, which must end well, and returns what it printed.
fn script(python: &Path, stream: &Stream, name: &str, args: &[&str]) -> String {
    let path = repository().join("tests/workload").join(name);
    let mut command = Command::new(python);
    command.current_dir(stream.case.root()).arg(path).args(args);
    let ended = finish(command.env("EVENT_HUB_CONNECTION_STRING", stream.hub.connection_string()), b"");
    assert_eq!(ended.code(), 0, "{name}:\n{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

#[test]
fn events_that_python_sends_give_the_tables_that_the_oracle_expects() {
    let Some(python) = python(PACKAGES) else { return };
    let stream = Stream::new(Hub::of(4));
    let shares = "--events 100000 --users 700 --partitions 4 --dup 0.05 --late 0.01 --segments 1 --out in";
    script(&python, &stream, "gen.py", &shares.split_whitespace().collect::<Vec<_>>());
    let names =
        stream.case.path("in").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names.filter(|name| name.ends_with(".ndjson")).map(|n| format!("in/{n}")).collect();
    files.sort();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut running = stream.start("--checkpoint-interval 1h", "");
    running.await_line(" running");
    let sent = script(&python, &stream, "hub_send.py", &files);
    let sent: usize = sent.trim().strip_prefix("sent ").unwrap().parse().unwrap();
    assert!(sent >= 100_000, "{sent}");
    stream.await_received(&mut running, sent);
    running.signal("TERM");
    running.ended().well();

    let name = |index: usize| files[index].strip_prefix("in/").unwrap();
    let of = |taken: &Taken| {
        let counts: BTreeMap<_, _> = taken.counts.iter().enumerate().map(|(i, n)| (name(i), *n)).collect();
        let behind = taken.behind.iter().flatten().map(|behind| (name(behind.partition.0 as usize), None::<i64>));
        serde_json::json!({ "counts": counts, "behind": behind.collect::<BTreeMap<_, _>>() })
    };
    let cuts: Vec<_> = stream.taken().iter().map(of).collect();
    assert!(cuts.len() > 2, "{cuts:?}");
    stream.case.file("cuts.json", serde_json::to_string(&cuts).unwrap());
    script(&python, &stream, "oracle.py", &[&["--out", "expected.json", "--cuts", "cuts.json"], &files[..]].concat());
    let said = script(&python, &stream, "check.py", &["expected.json", "out"]);
    assert!(said.starts_with("equal: "), "{said}");
    stream.evidence();
}

#[test]
fn python_reads_what_generate_sent() {
    let Some(python) = python(PACKAGES) else { return };
    let stream = Stream::new(Hub::of(4));
    let options = ["--events", "20000", "--seed", "9", "--start", "2025-01-01T00:00:00Z"];
    let sent = stream.verb(&[&["generate", "--to", "eventhubs"], &options[..]].concat()).well();
    assert!(sent.stderr.contains("20,000 events"), "{}", sent.stderr);
    stream.verb(&[&["generate", "--out", "files"], &options[..]].concat()).well();
    assert_eq!(script(&python, &stream, "hub_read.py", &["read", "20000"]).trim(), "read 20000");
    for partition in 0..4 {
        let of = |folder: &str| std::fs::read(stream.case.path(&format!("{folder}/p{partition}.ndjson"))).unwrap();
        assert!(of("read") == of("files"), "partition {partition}");
    }
}
