//! What goes wrong before the first event: each with its exit status, the name of what is wrong, and what to do.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::data::eventful;
use crate::program::{Case, finish, skipped, tidemark};

fn case() -> Case {
    Case::of(&eventful(31, &[50]))
}

#[test]
fn a_missing_input_is_named() {
    let case = case();
    let ended = case.tidemark(&["run", "--input", "in", "nowhere.ndjson", "--output", "out"]);
    ended.fails_with(3, &["nowhere.ndjson", "check the spelling"]);
    assert!(!case.path("out").exists(), "nothing is begun");
}

#[test]
fn a_directory_or_pattern_without_files_is_refused() {
    let case = case();
    case.file("bare/readme.txt", "no events");
    case.tidemark(&["run", "--input", "bare", "--output", "out"]).fails_with(2, &["bare", ".ndjson"]);
    case.tidemark(&["run", "--input", "in/*.json", "--output", "out"]).fails_with(2, &["in/*.json", "no file"]);
    case.tidemark(&["run", "--input", "-", "-", "--output", "out"]).fails_with(2, &["-"]);
    case.tidemark(&["run", "--source", "file", "--output", "out"]).fails_with(2, &["input"]);
    case.file("in/p9.ndjson.xz", "");
    case.tidemark(&["run", "--input", "in/p9.ndjson.xz", "--output", "out"]).fails_with(2, &["p9.ndjson.xz", "zcat"]);
}

#[test]
fn an_unreadable_file_is_named() {
    let case = case();
    case.file("in/secret.ndjson", "{}");
    let path = case.path("in/secret.ndjson");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        skipped("this user reads every file");
        return;
    }
    case.tidemark(&["run", "--input", "in", "--output", "out"]).fails_with(3, &["secret.ndjson", "grant"]);
}

#[test]
fn settings_are_refused_all_at_once() {
    let case = case();
    case.file("c.toml", "[epochs]\ntriger = \"1s\"\nevents = 0\n\n[sinks]\nx = 1\n");
    let args = ["run", "--config", "c.toml", "--input", "in", "--workers", "5000", "--set", "dedup.retentoin=1s"];
    let ended = finish(tidemark(case.root(), args).env("TIDEMARK__GENERATOR__USERS", "none"), b"");
    let places = ["c.toml:2:1", "epochs.triger", "did you mean epochs.trigger?", "c.toml:3:1", "epochs.events"];
    let more = ["sinks", "--workers", "1024", "dedup.retentoin", "--set", "TIDEMARK__GENERATOR__USERS"];
    let ended = ended.fails_with(2, &[&places[..], &more].concat());
    assert!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count() >= 6, "{}", ended.stderr);
    assert!(!case.path("data").exists() && !case.path("out").exists());
}

#[test]
fn what_takes_more_memory_than_there_is_is_refused_by_name() {
    let case = case();
    let words = ["dedup.expected_ids = 10000000000 (flag --expected-ids)", "allowed here: at most"];
    for verb in [&["run"][..], &["cluster", "--processes", "2"], &["validate", "--online"]] {
        case.tidemark(&[verb, &["--input", "in", "--expected-ids", "10000000000"]].concat()).fails_with(2, &words);
    }
    assert!(!case.path("data").exists());
}

/// As somebody else than root, whom no limit holds.
#[test]
fn a_run_that_may_not_have_its_threads_ends_with_words_and_never_hangs() {
    let case = case();
    std::fs::set_permissions(case.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let limited = |threads: u32, args: &[&str]| {
        let program = tidemark(case.root(), args);
        let mut command = Command::new("setpriv");
        command.current_dir(case.root()).args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit"]);
        command.arg(format!("--nproc={threads}")).arg(program.get_program()).args(program.get_args());
        command
    };
    if !limited(200, &["--version"]).output().is_ok_and(|ended| ended.status.success()) {
        return skipped("no other user may run the program here");
    }
    let run = ["run", "--input", "in", "--dry-run", "--console", "off"];
    for threads in [1, 2, 5, 9, 14, 18] {
        let ended = finish(&mut limited(threads, &run), b"");
        assert!(ended.code() == 3 && ended.stderr.contains("ulimit -u"), "{threads}: {}", ended.stderr);
    }
    assert_eq!(finish(&mut limited(200, &run), b"").code(), 0);
}

#[test]
fn wrong_usage_has_status_2() {
    let case = case();
    case.tidemark(&["run", "--inptu", "in"]).fails_with(2, &["--inptu", "--input"]);
    case.tidemark(&["walk"]).fails_with(2, &["walk"]);
    case.tidemark(&[]).fails_with(2, &["run"]);
    case.tidemark(&["run", "--config", "nowhere.toml"]).fails_with(2, &["nowhere.toml"]);
    case.file("broken.toml", "[run\n");
    case.tidemark(&["validate", "--config", "broken.toml"]).fails_with(2, &["broken.toml:1"]);
    case.tidemark(&["run", "--input", "in", "--dedup-retention", "soon"]).fails_with(2, &["dedup.retention", "soon"]);
    case.tidemark(&["generate", "--events", "5"]).fails_with(2, &["--out", "--stdout"]);
}

#[test]
fn an_output_that_is_no_directory_is_refused() {
    let case = case();
    case.file("taken", "a file");
    for output in ["taken", "taken/below"] {
        case.tidemark(&["run", "--input", "in", "--output", output]).fails_with(3, &[output, "--output"]);
    }
    assert_eq!(std::fs::read(case.path("taken")).unwrap(), b"a file");
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let case = case();
    let locked = case.path("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::create_dir(locked.join("probe")).is_ok() {
        skipped("this user writes everywhere");
        return;
    }
    case.tidemark(&["run", "--input", "in", "--output", "locked/out"]).fails_with(3, &["locked/out", "--output"]);
}

#[test]
fn files_that_are_there_are_not_overwritten() {
    let case = case();
    let before = std::fs::read(case.path("in/p0.ndjson")).unwrap();
    case.tidemark(&["generate", "--out", "in", "--events", "5"]).fails_with(2, &["p0.ndjson", "exists"]);
    assert_eq!(std::fs::read(case.path("in/p0.ndjson")).unwrap(), before);
    case.tidemark(&["generate", "--out", "in", "--events", "5", "--force"]).well();
    assert_ne!(std::fs::read(case.path("in/p0.ndjson")).unwrap(), before);
}
