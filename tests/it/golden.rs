//! Checkpoints that earlier versions of the program have left behind: each must still be gone on from.
//!
//! A folder below `tests/golden` holds the input, and the output of a run that was killed after it had committed an epoch
//! to the tables and before the checkpoint of that epoch was there. It is never written anew: a change of the format
//! needs another folder, and this one stays.

use std::fs;
use std::path::Path;

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
