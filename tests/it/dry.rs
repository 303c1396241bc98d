//! Dry runs: everything is read and computed, the summary is that of a real run, and nothing is written anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use tidemark_broker::BrokerOptions;

use crate::data::{Event, eventful};
use crate::eventhubs::stream::{Hub, Stream};
use crate::program::{Case, Running, finish, tidemark};

/// Everything below a folder: what is in each file, and when it and each folder was changed.
fn tree(root: &Path) -> BTreeMap<PathBuf, (SystemTime, Option<Vec<u8>>)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        found.insert(folder.clone(), (folder.metadata().unwrap().modified().unwrap(), None));
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let changed = entry.metadata().unwrap().modified().unwrap();
                found.insert(path.clone(), (changed, Some(std::fs::read(&path).unwrap())));
            }
        }
    }
    found
}

/// The summary without its first line, which tells of time and publications, and without where the tables are.
fn figures(summary: &str) -> Vec<&str> {
    let place = |line: &&str| !line.starts_with("tables below") && !line.starts_with("a dry run:");
    summary.lines().skip(1).filter(place).collect()
}

#[test]
fn a_dry_run_prints_what_a_real_run_would_and_leaves_no_trace() {
    let case = Case::of(&eventful(81, &[300, 170]));
    case.file("tmp/empty", "");
    let before = tree(case.root());
    let args = ["run", "--dry-run", "--input", "in", "--epoch-events", "50", "--curated"];
    let dry = finish(tidemark(case.root(), args).env("TMPDIR", case.path("tmp")), b"").well();
    assert!(tree(case.root()) == before, "nothing is made");
    // What stands for the place of the tables is no place.
    assert!(!Path::new("/dry-run").exists());
    assert!(dry.stdout.contains("\na dry run: nothing was written"), "{}", dry.stdout);
    let first = dry.stderr.lines().next().unwrap();
    assert!(first.contains("a dry run: everything is read") && first.contains("nothing is written"), "{}", dry.stderr);
    let real = case.run("out", &["--epoch-events", "50"]);
    assert_eq!(figures(&dry.stdout), figures(&real.stdout));
    assert!(figures(&dry.stdout).len() > 20 && dry.stdout.starts_with("470 events in "), "{}", dry.stdout);
}

#[test]
fn an_existing_output_is_neither_read_nor_changed() {
    let mut lines = eventful(82, &[240]);
    let case = Case::of(&lines);
    let run = ["--input", "in", "--output", "out", "--epoch-events", "50"];
    let mut args = vec!["run", "--checkpoint-interval", "0s"];
    args.extend(run);
    case.tidemark(&args).well();
    // What was read is not what it was: a real run is refused.
    lines[0].reverse();
    case.file("in/p0.ndjson", lines[0].join("\n") + "\n");
    case.tidemark(&args).fails_with(5, &["p0.ndjson"]);
    let before = tree(case.root());
    let mut args = vec!["run", "--dry-run", "--watermark-delay", "1h"];
    args.extend(run);
    let dry = case.tidemark(&args).well();
    assert!(dry.stdout.starts_with("240 events in "), "{}", dry.stdout);
    assert!(tree(case.root()) == before, "something was changed");
}

#[test]
fn a_dry_run_goes_beside_a_running_instance_on_the_same_output() {
    let case = Case::of(&eventful(85, &[60]));
    let args = ["run", "--output", "out", "--rate", "10", "--trigger", "100ms"];
    let mut running = Running::start(tidemark(case.root(), args).stdin(Stdio::null()));
    running.await_line(" running");
    case.tidemark(&["run", "--output", "out", "--input", "in"]).fails_with(4, &["is in use by process"]);
    let dry = case.tidemark(&["run", "--output", "out", "--input", "in", "--dry-run"]).well();
    assert!(dry.stdout.starts_with("60 events in "), "{}", dry.stdout);
    running.signal("INT");
    running.ended().well();
    case.tidemark(&["evidence", "--output", "out"]).well();
}

#[test]
fn a_dry_run_ends_with_the_status_of_a_real_one() {
    let lines: Vec<String> = (0..300).map(|index| Event::new(&format!("e{index}"), 0).amount("0").line()).collect();
    let case = Case::of(&[lines]);
    let before = tree(case.root());
    let dry = |more: &str| {
        let args = format!("run --dry-run {more}");
        case.tidemark(&args.split_whitespace().collect::<Vec<_>>())
    };
    let words = ["300 of 300 events of epoch 1", "nothing was written: this was a dry run"];
    let tripped = dry("--input in --max-rejected-share 0.01").fails_with(1, &words);
    assert!(!tripped.stderr.contains("quarantine list"), "there is nothing to look at: {}", tripped.stderr);
    dry("--input in --max-rejected-share 1").well();
    dry("--input nowhere.ndjson").fails_with(3, &["nowhere.ndjson"]);
    dry("--input in --processes 2 --set cluster.secret_file=in/p0.ndjson").fails_with(2, &["--dry-run", "set it to 1"]);
    dry("--input in --take-over").fails_with(2, &["--take-over", "cannot be used with"]);
    let piped = finish(&mut tidemark(case.root(), ["run", "--dry-run", "--input", "-"]), b"").well();
    assert!(piped.stdout.starts_with("0 events in"), "{}", piped.stdout);
    assert!(tree(case.root()) == before, "something was written");
}

#[test]
fn a_live_source_runs_dry_until_it_is_stopped() {
    let case = Case::new();
    let args = "run --dry-run --rate 500 --trigger 50ms --set log.level=warn,tidemark=debug,deltalake_core=error";
    let mut running = Running::start(tidemark(case.root(), args.split_whitespace()).stdin(Stdio::null()));
    running.says_times(4, "published");
    running.signal("INT");
    let ended = running.ended().well();
    assert!(ended.stdout.contains("a dry run:") && ended.stdout.contains("M3 channels"), "{}", ended.stdout);
    assert_eq!(case.root().read_dir().unwrap().count(), 1, "the folder of inputs");
}

#[test]
fn a_dry_run_displaces_no_reader_of_an_event_hub() {
    let consumer_groups = vec!["dry".to_owned()];
    let mut stream =
        Stream::new(Hub::new(BrokerOptions { partitions: 2, consumer_groups, ..BrokerOptions::default() }));
    stream.send(&eventful(83, &[60, 50]));
    let mut running = stream.start("", "");
    stream.await_received(&mut running, 110);
    // In the same group the service lets nobody in beside a reader that keeps others away.
    let refused = stream.verb(&["run", "--dry-run", "--source", "eventhubs", "--until", "end"]);
    assert_eq!(refused.code(), 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("consumer group of its own"), "{}", refused.stderr);
    let args = ["run", "--dry-run", "--source", "eventhubs", "--until", "end", "--consumer-group", "dry"];
    let dry = stream.verb(&args).well();
    assert!(dry.stdout.starts_with("110 events in"), "{}", dry.stdout);
    assert!(!stream.case.path("data").exists(), "the output that would have been");
    stream.send(&eventful(84, &[5, 5]));
    stream.await_received(&mut running, 120);
    running.signal("TERM");
    running.ended().well();
    stream.evidence();
}
