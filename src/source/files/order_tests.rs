//! Files that come, grow and go between two runs keep their numbers.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;

use tempfile::TempDir;
use tidemark_checkpoint::inbox::Inbox;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_store::{Patience, Store};

use super::heads_tests::{ask, payment};
use super::tests::{lines, names, pull, write};
use super::{FileOptions, FileSource};
use crate::source::{Pull, Share, Source, SourceErrorKind, Standing, WithInbox};

fn folder(directory: &TempDir) -> FileSource {
    let options = FileOptions { ordered: true, ..FileOptions::default() };
    FileSource::open(&[directory.path().to_str().unwrap().to_owned()], options).unwrap()
}

fn known(names: &[(&str, bool)]) -> Vec<(String, bool)> {
    names.iter().map(|(name, ended)| ((*name).to_owned(), *ended)).collect()
}

#[test]
fn known_files_keep_their_numbers_and_new_ones_come_behind() {
    let directory = TempDir::new().unwrap();
    for name in ["d.ndjson", "b.ndjson", "a.ndjson", "c.ndjson"] {
        write(&directory, name, &lines(3));
    }
    let mut source = folder(&directory);
    source.order(&[]).unwrap();
    assert_eq!(names(&source), ["a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson"]);
    source.order(&known(&[("c.ndjson", false), ("gone.ndjson", true), ("b.ndjson", true)])).unwrap();
    assert_eq!(names(&source), ["c.ndjson", "gone.ndjson", "b.ndjson", "a.ndjson", "d.ndjson"]);
    assert_eq!(source.partitions()[1].path, None);
    // What is gone has ended where it was left, and holds up nobody.
    let at = Position { partition: PartitionId(1), offset: Offset(7) };
    source.resume(at, None).unwrap();
    assert_eq!(ask(&mut source, 1, 7, 0), Standing::CaughtUp);
    assert!(pull(&mut source, 1, 7, 1).is_none());
    assert_eq!(pull(&mut source, 4, 0, 9).unwrap().partition, PartitionId(4));
    assert!(source.order(&[]).is_err(), "reading has begun");
}

#[test]
fn a_file_that_was_begun_has_to_be_there() {
    let directory = TempDir::new().unwrap();
    write(&directory, "a.ndjson", &lines(3));
    let error = folder(&directory).order(&known(&[("a.ndjson", true), ("b.ndjson", false)])).unwrap_err();
    assert_eq!((error.kind(), error.input()), (SourceErrorKind::Changed, "b.ndjson"));
}

#[test]
fn inputs_that_are_gone_are_missed_only_where_something_of_them_is_left() {
    let directory = TempDir::new().unwrap();
    let (folder, file) = (directory.path().to_str().unwrap().to_owned(), write(&directory, "b.txt", &lines(3)));
    let missing = format!("{folder}/a.txt");
    let source = |inputs: [&String; 2]| {
        let options = FileOptions { ordered: true, ..FileOptions::default() };
        FileSource::open(&inputs.map(String::clone), options).unwrap()
    };
    for (earlier, kind) in [
        (&[("a.txt", true), ("b.txt", false)][..], None),
        (&[("a.txt", false)], Some(SourceErrorKind::Changed)),
        (&[("b.txt", false)], Some(SourceErrorKind::Unavailable)),
        (&[], Some(SourceErrorKind::Unavailable)),
    ] {
        let ordered = source([&missing, &file]).order(&known(earlier));
        assert_eq!(ordered.err().map(|error| error.kind()), kind, "{earlier:?}");
    }
    // The folder holds nothing that it stands for.
    assert_eq!(source([&folder, &file]).order(&[]).unwrap_err().kind(), SourceErrorKind::Usage);
    source([&folder, &file]).order(&known(&[("a.ndjson", true)])).unwrap();
    assert!(FileSource::open(&[folder], FileOptions::default()).is_err());
}

#[test]
fn a_run_reads_a_file_to_the_end_that_it_met_and_the_next_one_goes_on() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "a.ndjson", b"");
    let append = |bytes: &[u8]| OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    let (mut next, mut digest) = (0_u64, None);
    let (whole, half) = (payment(1), payment(2));
    for (added, events) in [
        ([&whole[..], b"\n"].concat(), 1),
        (whole.clone(), 1),
        ([b"\n", &half[..40]].concat(), 0),
        (half[40..60].to_vec(), 0),
        (half[60..].to_vec(), 1),
        (b"\n \n".to_vec(), 0),
        ([&whole[..], b"\n", &whole[..], b"\n"].concat(), 2),
    ] {
        append(&added);
        let mut source = folder(&directory);
        source.resume(Position { partition: PartitionId(0), offset: Offset(next) }, digest).unwrap();
        append(b"\nthis is for the next run\n");
        let mut read = 0;
        while let Some(block) = pull(&mut source, 0, next, 1) {
            (read, next) = (read + block.len(), next + block.len() as u64);
        }
        assert_eq!((ask(&mut source, 0, next, 10), read), (Standing::CaughtUp, events));
        digest = source.digest(PartitionId(0));
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() - 26]).unwrap();
    }
}

#[test]
fn every_process_reads_its_own_and_all_call_them_the_same() {
    let directory = TempDir::new().unwrap();
    (0..7).for_each(|file| drop(write(&directory, &format!("{file}.ndjson"), &lines(file))));
    let known = known(&[("5.ndjson", false), ("gone.ndjson", true), ("0.ndjson", true)]);
    let mut read = vec![0; 8];
    for process in 0..3 {
        let options = FileOptions { share: Share { process, processes: 3 }, ordered: true, ..FileOptions::default() };
        let mut source = FileSource::open(&[directory.path().to_str().unwrap().to_owned()], options).unwrap();
        source.order(&known).unwrap();
        assert_eq!(source.partitions().len(), 8);
        let own: Vec<u32> = (0..8).filter(|partition| source.reads(PartitionId(*partition))).collect();
        for partition in own {
            while let Some(block) = pull(&mut source, partition, read[partition as usize], 2) {
                read[partition as usize] += block.len() as u64;
            }
        }
    }
    assert_eq!(read, [5, 0, 0, 1, 2, 3, 4, 6]);
}

#[test]
fn the_inbox_keeps_its_number_too() {
    let directory = TempDir::new().unwrap();
    let store = Store::local(directory.path().join("checkpoint").as_path(), Patience::default()).unwrap();
    Inbox::new(store.clone()).append("one", &["fed again"], Micros(1)).unwrap();
    for name in ["a.ndjson", "b.ndjson", "c.ndjson"] {
        write(&directory, name, format!("{name}\n").as_bytes());
    }
    let read_here = || WithInbox::new(Box::new(folder(&directory)), Inbox::new(store.clone())).unwrap();
    let names = |source: &WithInbox| source.partitions().iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    let mut first = read_here();
    first.order(&[]).unwrap();
    assert_eq!(names(&first), ["a.ndjson", "b.ndjson", "c.ndjson", "replay"]);
    let known = known(&[("b.ndjson", true), ("replay", false), ("gone.ndjson", true)]);
    for mut source in [read_here(), WithInbox::elsewhere(Box::new(folder(&directory)))] {
        source.order(&known).unwrap();
        assert_eq!(names(&source), ["b.ndjson", "replay", "gone.ndjson", "a.ndjson", "c.ndjson"]);
        let before = source.digest(PartitionId(3));
        source.resume(Position { partition: PartitionId(3), offset: Offset(0) }, before).unwrap();
        for (partition, body) in [(4, "c.ndjson"), (0, "b.ndjson"), (3, "a.ndjson"), (1, "fed again")] {
            let partition = PartitionId(partition);
            if !source.reads(partition) {
                assert_eq!(partition, PartitionId(1));
                continue;
            }
            let block = loop {
                if let Pull::Block(block) = source.pull(partition, Offset(0), 9, Micros(0)).unwrap() {
                    break block;
                }
                std::thread::yield_now();
            };
            assert_eq!((block.partition, block.body(0).unwrap().bytes), (partition, body.as_bytes()));
        }
        assert_eq!(ask(&mut source, 1, 0, 0), Standing::CaughtUp);
        assert_eq!(ask(&mut source, 2, 0, 0), Standing::CaughtUp);
        assert!(matches!(source.standing(PartitionId(5), Offset(0), Micros(0)), Ok(Some(Standing::CaughtUp))));
    }
}
