//! Which files inputs stand for, and what they are called.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::heads_tests::pipe;
use super::tests::{names, open, write};
use crate::source::{Source, SourceErrorKind};

fn folder(files: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for file in files {
        write(&directory, file, b"{}\n");
    }
    directory
}

fn path(directory: &TempDir, below: &str) -> String {
    directory.path().join(below).to_str().unwrap().trim_end_matches('/').to_owned()
}

#[test]
fn folders_are_read_with_all_below_and_names_begin_below_what_was_named() {
    let directory = folder(&[
        "dt=2/part-0.ndjson",
        "dt=1/part-0.ndjson",
        "dt=1/hour=3/a.jsonl.gz",
        "dt=1/b.NDJSON.ZST",
        "_delta_log/c.ndjson",
        "_SUCCESS",
        ".hidden/d.ndjson",
        "dt=1/.e.ndjson",
        "dt=1/_f.ndjson",
        "notes.txt",
        "g.gz",
        "h.json",
    ]);
    let whole = open(&[&path(&directory, "")]).unwrap();
    let expected = ["dt=1/hour=3/a.jsonl.gz", "dt=1/b.NDJSON.ZST", "dt=1/part-0.ndjson", "dt=2/part-0.ndjson"];
    assert_eq!(names(&whole), expected);
    assert_eq!(names(&open(&[&path(&directory, "dt=2")]).unwrap()), ["part-0.ndjson"]);
    assert_eq!(names(&open(&[&path(&directory, "dt=*/part-?.ndjson")]).unwrap()), &expected[2..]);
    // A folder that matches stands for what is in it.
    assert_eq!(names(&open(&[&path(&directory, "dt=*")]).unwrap()), expected);
    assert_eq!(names(&open(&[&path(&directory, "*")]).unwrap()).len(), expected.len() + 4);
    assert_eq!(names(&open(&[&path(&directory, "**/part-0.ndjson")]).unwrap()), &expected[2..]);
    assert_eq!(names(&open(&[&path(&directory, "dt=?/../dt=1/hour*/**")]).unwrap()).len(), 1);
    assert_eq!(names(&open(&[&path(&directory, "dt=1/*=*")]).unwrap()), ["hour=3/a.jsonl.gz"]);
    assert_eq!(names(&open(&[&path(&directory, "./dt=1/*/*.gz")]).unwrap()), ["hour=3/a.jsonl.gz"]);
    assert_eq!(names(&open(&[&path(&directory, "_delta_log/c.ndjson")]).unwrap()), ["c.ndjson"]);
    assert_eq!(names(&open(&[&path(&directory, "_delta_log")]).unwrap()), ["c.ndjson"]);
    // Named in several ways, it is read once, by its longest name.
    let ways = ["dt=1", "", "dt=1/part-0.ndjson"].map(|below| path(&directory, below));
    assert_eq!(names(&open(&ways.each_ref().map(String::as_str)).unwrap()), expected);
}

#[test]
fn two_files_of_one_name_are_refused() {
    let directory = folder(&["a/x.ndjson", "b/x.ndjson", "replay"]);
    for (one, other) in [("a", "b"), ("b/x.ndjson", "a"), ("a/*", "b/*")] {
        let error = open(&[&path(&directory, one), &path(&directory, other)]).err().unwrap();
        assert_eq!(error.kind(), SourceErrorKind::Usage);
        for named in ["a/x.ndjson", "b/x.ndjson"] {
            assert!(error.to_string().contains(&path(&directory, named)), "{error}");
        }
    }
    let error = open(&[&path(&directory, "replay")]).err().unwrap();
    assert_eq!(error.kind(), SourceErrorKind::Usage);
}

#[test]
fn links_lead_into_no_circle_and_hide_no_name() {
    let directory = folder(&["data/dt=2/a.ndjson", "elsewhere/b.ndjson"]);
    let link = |to: &str, from: &str| symlink(directory.path().join(to), directory.path().join(from)).unwrap();
    link("data", "data/dt=2/again");
    link("data/dt=2", "data/current");
    link("data/dt=2/a.ndjson", "data/latest.ndjson");
    assert_eq!(names(&open(&[&path(&directory, "data")]).unwrap()), ["dt=2/a.ndjson"]);
    assert_eq!(names(&open(&[&path(&directory, "data/current")]).unwrap()), ["a.ndjson"]);
    // Whoever puts a link there need not be allowed to read what it leads to.
    link("elsewhere", "data/more");
    link("elsewhere/b.ndjson", "data/dt=2/b.ndjson");
    for input in ["data", "data/*", "data/**", "data/**/*.ndjson", "data/*/*.ndjson", "data/../data/d*/**/a.ndjson"] {
        assert_eq!(names(&open(&[&path(&directory, input)]).unwrap()).len(), 1, "{input}");
    }
    assert_eq!(names(&open(&[&path(&directory, "data/more")]).unwrap()), ["b.ndjson"]);
    link("nowhere", "data/broken.ndjson");
    assert_eq!(open(&[&path(&directory, "data")]).err().unwrap().kind(), SourceErrorKind::Unavailable);
}

#[test]
fn pipes_that_are_found_are_passed_over() {
    let directory = folder(&["a.ndjson"]);
    pipe(&directory.path().join("b.ndjson"));
    for input in ["", "*.ndjson"] {
        assert_eq!(names(&open(&[&path(&directory, input)]).unwrap()), ["a.ndjson"]);
    }
    let named = open(&[&path(&directory, "b.ndjson")]).unwrap();
    assert_eq!((names(&named), named.total_bytes()), (vec!["b.ndjson"], None));
}
