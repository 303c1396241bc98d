//! Checkpoints that earlier versions of the program have left behind: each must still be gone on from.
//!
//! A folder below `tests/golden` holds the input, and the output of a run that was killed after it had committed an epoch
//! to the tables and before the checkpoint of that epoch was there. It is never written anew: a change of the format
//! needs another folder, and this one stays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::oracle::{Partition, Rules, check};
use crate::program::Case;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_checkpoint_of_format_version_1_is_gone_on_from() {
    let case = Case::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-v1"), case.root());
    let partitions = Partition::of_directory(&case.path("in"));
    let manifests = || fs::read_dir(case.path("out/_tidemark/manifests/0000000001")).unwrap().count();
    assert_eq!(manifests(), 1, "it was restored from something");
    // That version kept every payload.
    let capped = ["run", "--input", "in", "--output", "out", "--epoch-events", "9", "--max-quarantine-bytes", "1KiB"];
    case.tidemark(&capped).fails_with(5, &["quarantine.max_bytes_per_epoch was not set, now 1 KiB"]);
    for workers in ["3", "1"] {
        let ended = case.run("out", &["--epoch-events", "9", "--workers", workers]);
        assert!(ended.stderr.contains("checkpoint read"), "{}", ended.stderr);
        check(&case.path("out"), &partitions, Rules::epochs_of(9));
    }
}

/// Everything below a folder, by name and content.
fn content(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            content(&path, found);
        } else if path.file_name().unwrap() != "lock" {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn a_checkpoint_of_a_later_format_version_is_refused_and_left_as_it_was() {
    let case = Case::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-v1"), case.root());
    let (mut objects, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    content(&case.path("out/_tidemark"), &mut objects);
    for (object, mut bytes) in objects {
        // The version stands behind the first eight bytes; whoever knows a later one alone knows what comes behind it.
        bytes[8] += 1;
        bytes.truncate(bytes.len() - 1);
        fs::write(object, bytes).unwrap();
    }
    content(&case.path("out"), &mut before);
    let run = ["run", "--input", "in", "--output", "out", "--epoch-events", "9"];
    case.tidemark(&run).fails_with(5, &["format version 2", "knows version 1 only", "or a newer one"]);
    content(&case.path("out"), &mut after);
    assert!(before == after, "it was left as it was");
}
