//! Where things lie: any path will do, others may not read it, and what is no file does not hold anything up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::data::eventful;
use crate::program::{Case, Running, finish, tidemark};

fn case() -> Case {
    Case::of(&eventful(91, &[40]))
}

#[test]
fn any_path_is_an_output_to_every_verb() {
    let case = case();
    fs::create_dir(case.path("here")).unwrap();
    let within = case.path("here");
    let names =
        ["../x", "a%20b", "a\\b", "a\tb\nc", "é x", "x#y", "q?z=1", "[a]", "new/../y", "~", "a:b", "{x}", "%", "a%2Fb"];
    for output in names {
        let verb = |args: &[&str]| finish(&mut tidemark(&within, args.iter().chain(&["--output", output])), b"");
        verb(&["run", "--input", "../in"]).well();
        assert!(within.join(output).join("metrics/net_flow/_delta_log").is_dir(), "{output:?}");
        verb(&["run", "--input", "../in"]).well();
        verb(&["evidence"]).well();
        verb(&["quarantine", "list"]).well();
        verb(&["explain", "e1"]);
        verb(&["checkpoint", "verify"]).well();
        verb(&["validate", "--online", "--source", "file", "--input", "../in"]).well();
    }
    assert!(!Path::new("/metrics").exists());
}

/// The greatest rights of others, and of the group, to anything below a folder.
fn rights(folder: &Path) -> (u32, u32) {
    let mut folders = vec![folder.to_owned()];
    let (mut group, mut others) = (0, 0);
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode();
            (group, others) = (group | mode >> 3 & 7, others | mode & 7);
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    (group, others)
}

#[test]
fn others_may_not_read_what_is_written_unless_asked_otherwise() {
    let case = case();
    for (readers, group, others) in [("", 0, 0), ("owner", 0, 0), ("group", 5, 0), ("umask", 5, 5)] {
        let output = format!("of-{readers}");
        let set = format!("output.readable_by={readers}");
        let mut args = vec!["run", "--input", "in", "--output", &output];
        args.extend(["--set", &set].iter().filter(|_| !readers.is_empty()));
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 022; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tidemark")])
            .args(args)
            .current_dir(case.root());
        assert!(command.output().unwrap().status.success());
        assert_eq!(rights(&case.path(&output)), (group, others), "{readers:?}");
    }
}

#[test]
fn what_is_no_file_holds_nothing_up() {
    let case = case();
    let made = Command::new("mkfifo").arg(case.path("in/z.ndjson")).status().unwrap();
    assert!(made.success());
    let ended = case.tidemark(&["run", "--input", "in", "--output", "out"]);
    assert!(ended.code() == 0 && ended.stderr.contains("z.ndjson"), "{}", ended.stderr);
    let looked = case.tidemark(&["validate", "--online", "--source", "file", "--input", "in", "--output", "out"]);
    assert_eq!(looked.code(), 0, "{}", looked.stderr);
    // Named itself it is read, and nobody writes: the first signal ends that.
    let mut running =
        Running::start(&mut tidemark(case.root(), ["run", "--input", "in/z.ndjson", "--output", "other"]));
    running.await_line(" running");
    running.signal("TERM");
    let begun = std::time::Instant::now();
    running.ended().well();
    assert!(begun.elapsed() < Duration::from_secs(10));
}
