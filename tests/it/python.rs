//! An oracle and two readers that share no code with the program: Python, `deltalake` and DuckDB.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Case, finish, skipped};

const PACKAGES: &str = "import deltalake, duckdb, duckdb_extension_delta, numpy, pyarrow";

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python that has the packages of `tests/workload/requirements.txt` that `imports` names.
pub(crate) fn python(imports: &str) -> Option<PathBuf> {
    let named = std::env::var_os("TIDEMARK_PYTHON").map(PathBuf::from);
    let usual = || vec![repository().join(".venv/bin/python"), PathBuf::from("python3")];
    let candidates = named.map_or_else(usual, |python| vec![python]);
    let able = |python: &PathBuf| Command::new(python).args(["-c", imports]).output().is_ok_and(|o| o.status.success());
    let found = candidates.into_iter().find(able);
    if found.is_none() {
        let remedy = "no Python with the packages of tests/workload/requirements.txt; name one with TIDEMARK_PYTHON";
        assert!(std::env::var_os("CI").is_none(), "{remedy}");
        skipped(remedy);
    }
    found
}

/// Runs a script of the workload, which must end well, and returns what it printed.
fn script(python: &Path, case: &Case, name: &str, args: &[&str]) -> String {
    let path = repository().join("tests/workload").join(name);
    let ended = finish(Command::new(python).current_dir(case.root()).arg(path).args(args), b"");
    assert_eq!(ended.code(), 0, "{name}:\n{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// Generates events, and compares the tables with what the Python oracle expects for each `(epoch size, workers)`.
fn compare(generator: &str, runs: &[(&str, &str)]) {
    let Some(python) = python(PACKAGES) else { return };
    let case = Case::new();
    let args: Vec<&str> = generator.split_whitespace().chain("--out in --segments 1".split_whitespace()).collect();
    script(&python, &case, "gen.py", &args);
    let names = case.path("in").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: Vec<String> = names.filter(|name| name.ends_with(".ndjson")).map(|name| format!("in/{name}")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for (index, (size, workers)) in runs.iter().enumerate() {
        let (expected, output) = (format!("{index}.json"), index.to_string());
        script(&python, &case, "oracle.py", &[&["--out", &expected, "--epoch-events", size], &files[..]].concat());
        case.run(&output, &["--epoch-events", size, "--workers", workers]);
        for reader in ["check.py", "duckdb_read.py"] {
            let said = script(&python, &case, reader, &[&expected, &output]);
            assert!(said.starts_with("equal: "), "{reader}: {said}");
        }
    }
}

#[test]
fn many_events_of_few_users() {
    compare("--events 200000 --users 500", &[("10000", "2"), ("23456", "1")]);
}

#[test]
fn many_users_with_few_events_each() {
    compare("--events 60000 --users 50000 --partitions 3 --seed 8 --dup 0.05", &[("2500", "1"), ("7000", "2")]);
}

#[test]
fn many_late_and_invalid_events() {
    let shares = "--late 0.05 --late-max-hours 60 --invalid 0.1 --dup 0.1 --jitter-min 90 --span-days 12";
    compare(&format!("--events 30000 --users 40 --partitions 5 --seed 3 {shares}"), &[("400", "2")]);
}

#[test]
fn both_readers_see_a_difference() {
    let Some(python) = python(PACKAGES) else { return };
    let case = Case::of(&crate::data::eventful(6, &[200]));
    script(&python, &case, "oracle.py", &["--out", "expected.json", "--epoch-events", "70", "in/p0.ndjson"]);
    case.run("out", &["--epoch-events", "70"]);
    let text = std::fs::read_to_string(case.path("expected.json")).unwrap();
    let mut expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let user = expected["user_metrics"].as_object_mut().unwrap().values_mut().next().unwrap();
    user["last_seen"] = (user["last_seen"].as_i64().unwrap() + 1).into();
    case.file("wrong.json", expected.to_string());
    for reader in ["check.py", "duckdb_read.py"] {
        assert!(script(&python, &case, reader, &["expected.json", "out"]).starts_with("equal: "));
        let path = repository().join("tests/workload").join(reader);
        let ended = finish(Command::new(&python).current_dir(case.root()).arg(path).args(["wrong.json", "out"]), b"");
        assert_eq!(ended.code(), 1, "{reader}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("different") && ended.stdout.contains("user-"), "{}", ended.stdout);
    }
}
