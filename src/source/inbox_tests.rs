//! The inbox beside a source: nothing of it shows while it is empty, and it ends when there is nothing left to wait for.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Cursor;
use std::time::Duration;

use tidemark_checkpoint::inbox::{Appended, Inbox};
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use tidemark_store::{Patience, Store};

use super::{FileSource, GeneratorOptions, GeneratorSource, Pacing, Pull, ReadAhead, Source, WithInbox};
use crate::source::EventGenerator;

const FILE: PartitionId = PartitionId(0);
const REPLAY: PartitionId = PartitionId(1);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path(), Patience::default()).unwrap();
    (folder, store)
}

fn bounded(store: &Store, lines: &str) -> WithInbox {
    let stream = Box::new(Cursor::new(lines.to_owned().into_bytes()));
    let files = FileSource::from_stream("stdin", stream, ReadAhead::default());
    WithInbox::new(Box::new(files), Inbox::new(store.clone())).unwrap()
}

fn put(store: &Store, id: &str, bodies: &[&str]) -> Appended {
    Inbox::new(store.clone()).append(id, bodies, Micros(1)).unwrap()
}

/// Pulls until there is an answer.
fn pulled(source: &mut WithInbox, partition: PartitionId, from: u64, now: i64) -> Option<Vec<String>> {
    loop {
        match source.pull(partition, Offset(from), 2, Micros(now)).unwrap() {
            Pull::Pending => std::thread::park_timeout(Duration::from_millis(1)),
            Pull::End => return None,
            Pull::Block(block) => {
                assert_eq!((block.partition, block.first_offset), (partition, Offset(from)));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                return Some(block.iter().map(|body| text(body.bytes)).collect());
            }
        }
    }
}

#[test]
fn an_empty_inbox_ends_with_the_source() {
    let (_folder, store) = store();
    let mut source = bounded(&store, "a\nb\n");
    let names: Vec<&str> = source.partitions().iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["stdin", "replay"]);
    assert_eq!(source.identity(), bounded(&store, "a\n").inner_identity());
    for _ in 0..5 {
        assert!(matches!(source.pull(REPLAY, Offset(0), 9, Micros(0)).unwrap(), Pull::Pending));
    }
    assert_eq!(pulled(&mut source, FILE, 0, 0).unwrap(), ["a", "b"]);
    assert_eq!(pulled(&mut source, FILE, 2, 0), None);
    assert_eq!(pulled(&mut source, REPLAY, 0, 0), None);
}

#[test]
fn what_is_put_there_before_the_end_is_taken_in_the_order_of_offsets() {
    let (_folder, store) = store();
    put(&store, "one", &["r0", "r1", "r2"]);
    let mut source = bounded(&store, "a\n");
    assert_eq!(pulled(&mut source, REPLAY, 0, 0).unwrap(), ["r0", "r1"]);
    put(&store, "two", &["r3"]);
    assert_eq!(pulled(&mut source, FILE, 0, 0).unwrap(), ["a"]);
    assert_eq!(pulled(&mut source, FILE, 1, 0), None);
    assert_eq!(pulled(&mut source, REPLAY, 2, 0).unwrap(), ["r2"]);
    assert_eq!(pulled(&mut source, REPLAY, 3, 0).unwrap(), ["r3"]);
    assert_eq!(pulled(&mut source, REPLAY, 4, 0), None);
}

#[test]
fn reading_goes_on_at_any_offset_and_what_was_cut_must_be_there() {
    let (_folder, store) = store();
    put(&store, "one", &["r0", "r1", "r2"]);
    let mut source = bounded(&store, "a\n");
    source.resume(Position { partition: REPLAY, offset: Offset(1) }, None).unwrap();
    assert_eq!(pulled(&mut source, REPLAY, 1, i64::MAX).unwrap(), ["r1", "r2"]);
    let mut source = bounded(&store, "a\n");
    let lost = loop {
        match source.pull(REPLAY, Offset(3), 9, Micros(i64::MAX)) {
            Ok(Pull::Pending) => std::thread::park_timeout(Duration::from_millis(1)),
            other => break other.unwrap_err(),
        }
    };
    assert!(lost.to_string().contains("event 3 of the inbox"), "{lost}");
}

#[test]
fn the_inbox_of_a_live_source_never_ends() {
    let (_folder, store) = store();
    let options = GeneratorOptions { partitions: 1, ..GeneratorOptions::default() };
    let generator = GeneratorSource::new(EventGenerator::new(options).unwrap(), Pacing::Live);
    let mut source = WithInbox::new(Box::new(generator), Inbox::new(store.clone())).unwrap();
    for _ in 0..5 {
        assert!(matches!(source.pull(REPLAY, Offset(0), 9, Micros(0)).unwrap(), Pull::Pending));
        std::thread::park_timeout(Duration::from_millis(2));
    }
    put(&store, "one", &["r0"]);
    assert_eq!(pulled(&mut source, REPLAY, 0, 0).unwrap(), ["r0"]);
}

impl WithInbox {
    fn inner_identity(&self) -> super::SourceIdentity {
        self.inner.identity()
    }
}
