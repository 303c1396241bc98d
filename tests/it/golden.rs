//! Checkpoints that earlier versions of the program have left behind: each must still be gone on from.
//!
//! A folder below `tests/golden` holds the input, and the output of a run that was killed after it had committed an epoch
//! to the tables and before the checkpoint of that epoch was there. It is never written anew: a change of the format
//! needs another folder, and this one stays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::oracle::{Partition, Rules, Taken, check_cuts};
use crate::program::Case;
use crate::tables::{MANIFEST, Tables};

fn golden(name: &str) -> Case {
    Case::copy_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name))
}

fn sound(case: &Case) {
    case.tidemark(&["evidence", "--output", "out"]).well();
    case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
}

/// The epochs of the older rule: so many events of each file, and a watermark that waits for none.
fn cuts_of_before(partitions: &[Partition], events: usize) -> Vec<Taken> {
    let epochs = partitions.iter().map(|p| p.bodies.len().div_ceil(events)).max().unwrap_or(0);
    let count = |p: &Partition, epoch: usize| p.bodies.len().saturating_sub(epoch * events).min(events);
    let counts = |epoch| partitions.iter().map(|p| count(p, epoch)).collect();
    (0..epochs).map(|epoch| Taken { counts: counts(epoch), behind: None }).collect()
}

#[test]
fn files_that_format_version_1_has_cut_to_their_end_are_computed_by_its_rule() {
    let case = golden("checkpoint-v1");
    let partitions = Partition::of_directory(&case.path("in"));
    let manifests = || fs::read_dir(case.path("out/_tidemark/manifests/0000000001")).unwrap().count();
    assert_eq!(manifests(), 1, "it was restored from something");
    // That version kept every payload.
    let capped = ["run", "--input", "in", "--output", "out", "--epoch-events", "9", "--max-quarantine-bytes", "1KiB"];
    case.tidemark(&capped).fails_with(5, &["quarantine.max_bytes_per_epoch was not set, now 1 KiB"]);
    for workers in ["3", "1"] {
        let ended = case.run("out", &["--epoch-events", "9", "--workers", workers]);
        assert!(ended.stderr.contains("checkpoint read"), "{}", ended.stderr);
        check_cuts(&case.path("out"), &partitions, &cuts_of_before(&partitions, 9), Rules::epochs_of(9));
    }
}

#[test]
fn files_that_format_version_1_has_read_half_way_are_refused_and_left_as_they_were() {
    let case = golden("checkpoint-v1-half");
    let (mut before, mut after) = (Vec::new(), Vec::new());
    content(&case.path("out"), &mut before);
    let run = ["run", "--input", "in", "--output", "out", "--epoch-events", "9"];
    case.tidemark(&run).fails_with(5, &["half-way", "in the order of event time", "another --output"]);
    content(&case.path("out"), &mut after);
    assert!(before == after, "the version that began it can still finish it");
}

#[test]
fn files_that_come_after_those_of_format_version_1_are_read_by_the_new_rule() {
    let case = golden("checkpoint-v1-ended");
    let run = |workers: &str| case.run("out", &["--epoch-events", "9", "--workers", workers]);
    assert!(run("2").stderr.contains("nothing to do"));
    sound(&case);
    let lines = fs::read_to_string(case.path("in/p0.ndjson")).unwrap();
    // A month later: the watermark has passed everything before.
    let later = lines.replace("2025-03", "2025-04").replace("\"event_id\": \"", "\"event_id\": \"q");
    case.file("in/q.ndjson", later);
    run("1");
    let tables = Tables::read(&case.path("out"));
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [120]);
    sound(&case);
}

#[test]
fn a_live_pipeline_of_format_version_1_goes_on_under_the_new_rule() {
    let case = golden("checkpoint-v1-live");
    let stream = "run --output out --set generator.events=400 --rate 100 --set generator.partitions=2 --trigger 200ms";
    for (workers, witnesses) in [("2", "3"), ("1", "3")] {
        let more = ["--workers", workers, "--witnesses", witnesses];
        let ended = case.tidemark(&stream.split_whitespace().chain(more).collect::<Vec<_>>()).well();
        assert!(ended.stderr.contains("checkpoint read"), "{}", ended.stderr);
        assert_eq!(Tables::read(&case.path("out")).wholes(&MANIFEST, "total_events_received"), [400]);
        sound(&case);
    }
    // From now on it is fixed.
    let other = stream.split_whitespace().chain(["--witnesses", "4"]).collect::<Vec<_>>();
    case.tidemark(&other).fails_with(5, &["watermark.witnesses was 3, now 4"]);
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
    let case = golden("checkpoint-v1");
    let (mut objects, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    content(&case.path("out/_tidemark"), &mut objects);
    for (object, mut bytes) in objects {
        // The version stands behind the first eight bytes; whoever knows a later one alone knows what comes behind it.
        bytes[8] = 3;
        bytes.truncate(bytes.len() - 1);
        fs::write(object, bytes).unwrap();
    }
    content(&case.path("out"), &mut before);
    let run = ["run", "--input", "in", "--output", "out", "--epoch-events", "9"];
    case.tidemark(&run).fails_with(5, &["format version 3", "knows versions 1 to 2 only", "or a newer one"]);
    content(&case.path("out"), &mut after);
    assert!(before == after, "it was left as it was");
}
