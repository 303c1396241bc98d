//! The file source through its public face.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc;

use proptest::prelude::*;
use tempfile::TempDir;
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use super::{FileSource, ReadAhead};
use crate::source::{MAX_BLOCK_EVENTS, Pull, Source, SourceError, SourceErrorKind, source_bytes};

pub(super) const SMALL: ReadAhead = ReadAhead { block_bytes: 64, blocks: 2, total_bytes: 256 };

pub(super) fn open(inputs: &[&str]) -> Result<FileSource, SourceError> {
    let inputs: Vec<String> = inputs.iter().map(|&input| input.to_owned()).collect();
    FileSource::open(&inputs, SMALL)
}

pub(super) fn write(directory: &TempDir, name: &str, content: &[u8]) -> String {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Asks until there is an answer.
pub(super) fn pull(source: &mut FileSource, partition: u32, from: u64, max_events: usize) -> Option<Block> {
    loop {
        match source.pull(PartitionId(partition), Offset(from), max_events, Micros(5)).unwrap() {
            Pull::Block(block) => return Some(block),
            Pull::End => return None,
            Pull::Pending => {}
        }
    }
}

fn error(source: &mut FileSource, from: u64) -> SourceError {
    loop {
        match source.pull(PartitionId(0), Offset(from), 1, Micros(0)) {
            Err(error) => return error,
            Ok(Pull::Pending) => {}
            Ok(other) => panic!("{other:?}"),
        }
    }
}

pub(super) fn names(source: &FileSource) -> Vec<&str> {
    source.partitions().iter().map(|partition| partition.name.as_str()).collect()
}

pub(super) fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|line| format!("{{\"line\": {line}}}\n").into_bytes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn events_do_not_depend_on_blocks(
        counts in proptest::collection::vec(0_usize..60, 1..5),
        limits in proptest::collection::vec(1_usize..25, 1..8),
        block_bytes in 1_usize..200,
        blocks in 1_usize..4,
        total_bytes in 0_usize..2000,
    ) {
        let directory = TempDir::new().unwrap();
        for (file, &count) in counts.iter().enumerate() {
            write(&directory, &format!("f{file}.jsonl"), &lines(count));
        }
        let input = directory.path().to_str().unwrap().to_owned();
        let mut source = FileSource::open(&[input], ReadAhead { block_bytes, blocks, total_bytes }).unwrap();
        let mut next = vec![0_u64; counts.len()];
        let mut ended = vec![false; counts.len()];
        let mut limits = limits.iter().cycle();
        // Partitions take turns, as epochs do.
        while ended.contains(&false) {
            for file in 0..counts.len() {
                let limit = *limits.next().unwrap();
                let Some(block) = pull(&mut source, file as u32, next[file], limit) else {
                    ended[file] = true;
                    continue;
                };
                prop_assert!(!block.is_empty() && block.len() <= limit);
                prop_assert_eq!(&block.arrival, &Arrival::Opening(Micros(5)));
                for body in block.iter() {
                    prop_assert_eq!(body.at.offset.0, next[file]);
                    prop_assert_eq!(body.at.partition.0 as usize, file);
                    let expected = format!("{{\"line\": {}}}", next[file]);
                    prop_assert_eq!(body.bytes, expected.as_bytes());
                    next[file] += 1;
                }
            }
        }
        prop_assert_eq!(next, counts.iter().map(|&count| count as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_replay_starts_anywhere_but_never_goes_back() {
    let directory = TempDir::new().unwrap();
    let mut source = open(&[&write(&directory, "a.ndjson", &lines(100))]).unwrap();
    let block = pull(&mut source, 0, 61, 2).unwrap();
    assert_eq!((block.first_offset, block.len()), (Offset(61), 2));
    assert_eq!(block.at_offset(Offset(62)).unwrap().bytes, b"{\"line\": 62}");
    assert_eq!(pull(&mut source, 0, 99, 10).unwrap().len(), 1);
    assert!(pull(&mut source, 0, 100, 10).is_none());
    assert_eq!(error(&mut source, 99).kind(), SourceErrorKind::Usage);
    assert_eq!(error(&mut source, 101).kind(), SourceErrorKind::Changed);
}

#[test]
fn pieces_of_a_block_keep_what_is_known_of_long_lines() {
    let long = vec![b'x'; 1_500_000];
    let input = [b"a\n", long.as_slice(), b"\nb\n", long.as_slice(), b"\nc\n"].concat();
    let ahead = ReadAhead { block_bytes: 8 << 20, ..ReadAhead::default() };
    let directory = TempDir::new().unwrap();
    let mut source = FileSource::open(&[write(&directory, "a.ndjson", &input)], ahead).unwrap();
    let mut found = Vec::new();
    for (from, max_events) in [(0, 2), (2, 1), (3, 2)] {
        let block = pull(&mut source, 0, from, max_events).unwrap();
        found.extend(block.iter().map(|body| (body.whole_len, body.bytes.len())));
    }
    assert_eq!(found, [(1, 1), (1_500_000, 65_536), (1, 1), (1_500_000, 65_536), (1, 1)]);
}

#[test]
fn blocks_are_limited_and_add_up_to_the_size() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "a.ndjson", &lines(20_000));
    let mut source = FileSource::open(&[path], ReadAhead::default()).unwrap();
    let (mut next, mut bytes) = (0, 0);
    while let Some(block) = pull(&mut source, 0, next, usize::MAX) {
        assert!(block.len() <= MAX_BLOCK_EVENTS);
        next += block.len() as u64;
        bytes += source_bytes(&block);
    }
    assert_eq!((next, Some(bytes)), (20_000, source.total_bytes()));
}

#[test]
fn partitions_are_ordered_by_name_then_path_and_counted_once() {
    let directory = TempDir::new().unwrap();
    let names_in = ["z/a.ndjson", "b/b.jsonl", "a/b.jsonl", "a/B.ndjson", "a/p10.ndjson", "a/p2.ndjson"];
    let paths: Vec<String> = names_in.iter().map(|name| write(&directory, name, b"{}\n")).collect();
    let folder = directory.path().join("a");
    let mut inputs: Vec<&str> = paths.iter().map(String::as_str).filter(|path| !path.ends_with("b/b.jsonl")).collect();
    let dotted = format!("{}/../a/p2.ndjson", folder.display());
    inputs.extend([folder.to_str().unwrap(), dotted.as_str()]);
    let source = open(&inputs).unwrap();
    assert_eq!(names(&source), ["B.ndjson", "a.ndjson", "b.jsonl", "p10.ndjson", "p2.ndjson"]);
    assert!(source.is_bounded());
    assert_eq!(source.total_bytes(), Some(15));
    // Of one file name, the whole path decides.
    let source = open(&[directory.path().to_str().unwrap()]).unwrap();
    let expected = ["a/B.ndjson", "z/a.ndjson", "a/b.jsonl", "b/b.jsonl", "a/p10.ndjson", "a/p2.ndjson"];
    assert_eq!(names(&source), expected);
}

#[test]
fn patterns_find_files_as_a_shell_does() {
    let directory = TempDir::new().unwrap();
    for name in ["a.json", "b.json", "c[1].json", ".d.json", "deeper/e.json"] {
        write(&directory, name, b"{}\n");
    }
    let input = |pattern: &str| format!("{}/{pattern}", directory.path().display());
    assert_eq!(names(&open(&[&input("*.json")]).unwrap()), ["a.json", "b.json", "c[1].json"]);
    assert_eq!(names(&open(&[&input("**/*.json")]).unwrap()), ["a.json", "b.json", "c[1].json", "deeper/e.json"]);
    assert_eq!(names(&open(&[&input("c[1].json")]).unwrap()), ["c[1].json"]);
    assert_eq!(names(&open(&[&input("[ab].json"), &input("a.json")]).unwrap()), ["a.json", "b.json"]);
}

#[test]
fn wrong_inputs_are_named_with_what_would_be_right() {
    let directory = TempDir::new().unwrap();
    let compressed = write(&directory, "a.ndjson.xz", b"");
    let empty = directory.path().to_str().unwrap();
    let missing = format!("{empty}/none.ndjson");
    let unmatched = format!("{empty}/*.ndjson");
    let bad = format!("{empty}/a[");
    let cases = [
        (vec![], SourceErrorKind::Usage, "no input is given"),
        (vec!["-", "-"], SourceErrorKind::Usage, "given twice"),
        (vec!["-", compressed.as_str()], SourceErrorKind::Usage, "stands alone"),
        (vec![missing.as_str()], SourceErrorKind::Unavailable, "cannot be opened: No such file"),
        (vec![empty], SourceErrorKind::Usage, "no file that ends in .ndjson or .jsonl"),
        (vec![unmatched.as_str()], SourceErrorKind::Usage, "matches no file"),
        (vec![bad.as_str()], SourceErrorKind::Usage, "no glob pattern"),
        (vec![compressed.as_str()], SourceErrorKind::Usage, "compressed"),
    ];
    for (inputs, kind, words) in cases {
        let error = open(&inputs).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().starts_with(inputs.first().unwrap_or(&"--input")), "{error}");
        assert_eq!(error.cause().is_some(), kind == SourceErrorKind::Unavailable);
    }
}

#[test]
fn a_file_that_shrinks_is_no_end() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "a.ndjson", &lines(1000));
    let mut source = open(&[&path]).unwrap();
    assert!(pull(&mut source, 0, 0, 1).is_some());
    fs::write(Path::new(&path), b"").unwrap();
    let mut next = 1;
    let failure = loop {
        match source.pull(PartitionId(0), Offset(next), 100, Micros(0)) {
            Ok(Pull::Block(block)) => next += block.len() as u64,
            Ok(Pull::Pending) => {}
            Ok(Pull::End) => panic!("a lost tail passed for the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(failure.kind(), SourceErrorKind::Changed);
    assert_eq!(error(&mut source, next).to_string(), failure.to_string());
}

#[test]
fn more_files_than_may_be_open_are_read_in_turns() {
    let directory = TempDir::new().unwrap();
    for file in 0..300 {
        write(&directory, &format!("{file:03}.ndjson"), &lines(20));
    }
    let mut source = open(&[directory.path().to_str().unwrap()]).unwrap();
    for from in 0..20 {
        for file in 0..300_u32 {
            let block = pull(&mut source, file, from, 1).unwrap();
            assert_eq!(block.body(0).unwrap().bytes, format!("{{\"line\": {from}}}").as_bytes());
        }
    }
    assert!((0..300).all(|file| pull(&mut source, file, 20, 1).is_none()));
}

/// Blocks until the test feeds it, as a pipe does.
struct Fed(mpsc::Receiver<Vec<u8>>, Vec<u8>);

impl Read for Fed {
    fn read(&mut self, mut into: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.recv().unwrap_or_default();
        }
        let count = into.write(&self.1)?;
        self.1.drain(..count);
        Ok(count)
    }
}

#[test]
fn an_idle_stream_keeps_nobody_waiting() {
    let (feed, fed) = mpsc::channel();
    let mut source = FileSource::from_stream("pipe", Box::new(Fed(fed, Vec::new())), SMALL);
    let idle = source.pull(PartitionId(0), Offset(0), 10, Micros(0)).unwrap();
    assert!(matches!(idle, Pull::Pending));
    feed.send(b"one\ntwo".to_vec()).unwrap();
    assert_eq!(pull(&mut source, 0, 0, 1).unwrap().body(0).unwrap().bytes, b"one");
    drop(feed);
    assert_eq!(pull(&mut source, 0, 1, 1).unwrap().body(0).unwrap().bytes, b"two");
    assert!(pull(&mut source, 0, 2, 1).is_none());
}
