//! The inbox: each replay is there once, behind the ones before it, whoever else appends or prunes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt;
use std::sync::{Arc, Barrier, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemark_checkpoint::Error;
use tidemark_checkpoint::inbox::{Appended, Batch, Inbox, MAX_EVENTS};
use tidemark_dataflows::event::Micros;
use tidemark_store::{Patience, Store};

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path(), Patience::default()).unwrap();
    (folder, store)
}

fn bodies(batch: &Batch) -> Vec<Vec<u8>> {
    batch.bodies().map(|range| batch.bytes[range.start as usize..range.end as usize].to_vec()).collect()
}

fn first(appended: Appended) -> u64 {
    match appended {
        Appended::Now(replay) => replay.first,
        Appended::Before(_) => panic!("{appended:?}"),
    }
}

#[test]
fn what_is_put_there_is_read_again_at_any_offset() {
    let (_folder, store) = store();
    let mut inbox = Inbox::new(store);
    assert!(inbox.read(0).unwrap().is_none());
    assert_eq!(first(inbox.append("a", &[&b"one"[..], b"", b"\xff\n"], Micros(7)).unwrap()), 0);
    assert_eq!(first(inbox.append("b", &["two"], Micros(8)).unwrap()), 3);
    for offset in [2, 0, 1] {
        let batch = inbox.read(offset).unwrap().unwrap();
        assert_eq!((batch.replay.first, batch.replay.put_us), (0, 7));
        assert_eq!(bodies(&batch), [&b"one"[..], b"", b"\xff\n"]);
    }
    assert_eq!(bodies(&inbox.read(3).unwrap().unwrap()), [b"two"]);
    assert!(inbox.read(4).unwrap().is_none());
    assert!(matches!(inbox.read(5), Err(Error::Missing { .. })));
    assert_eq!(inbox.batches().unwrap().len(), 2);
}

#[test]
fn a_repetition_under_the_same_id_does_nothing_also_when_its_object_is_gone() {
    let (_folder, store) = store();
    let inbox = Inbox::new(store.clone());
    let Appended::Now(replay) = inbox.append("a", &["one", "two"], Micros(1)).unwrap() else { panic!() };
    inbox.append("b", &["three"], Micros(2)).unwrap();
    assert_eq!(inbox.append("a", &["other"], Micros(3)).unwrap(), Appended::Before(replay.clone()));
    store.delete(&[store.list("inbox").unwrap().remove(0).name]).unwrap();
    assert_eq!(inbox.append("a", &["other"], Micros(3)).unwrap(), Appended::Before(replay));
    assert_eq!(first(inbox.append("c", &["four"], Micros(4)).unwrap()), 3);
    assert!(matches!(Inbox::new(store.clone()).read(1), Err(Error::Missing { .. })));
    // A gap in the middle is no end.
    store.delete(&[store.list("inbox").unwrap().remove(0).name]).unwrap();
    assert!(matches!(Inbox::new(store).read(2), Err(Error::Missing { .. })));
}

#[test]
fn replays_at_once_all_find_a_place() {
    let (_folder, store) = store();
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (inbox, barrier) = (Inbox::new(store.clone()), &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..10u8 {
                    inbox.append(&format!("{thread}-{round}"), &[[thread, round], [0, 0]], Micros(0)).unwrap();
                }
            });
        }
    });
    let mut inbox = Inbox::new(store);
    let mut found = Vec::new();
    while let Some(batch) = inbox.read(found.len() as u64 * 2).unwrap() {
        found.push(bodies(&batch)[0].clone());
    }
    assert!(inbox.read(81).is_err());
    found.sort();
    let all: Vec<Vec<u8>> = (0..4).flat_map(|thread| (0..10).map(move |round| vec![thread, round])).collect();
    assert_eq!(found, all);
}

#[test]
fn a_place_that_was_taken_passed_and_pruned_is_not_mistaken_for_the_end() {
    let (_folder, store) = store();
    let inbox = Inbox::new(store.clone());
    inbox.append("a", &["one"], Micros(1)).unwrap();
    inbox.append("b", &["two"], Micros(1)).unwrap();
    inbox.append("c", &["three"], Micros(1)).unwrap();
    // Somebody saw "a" alone, was stopped, and writes now; "b" has been read and pruned.
    let listed = store.list("inbox").unwrap();
    let stale = store.read(&listed[0].name).unwrap().unwrap();
    store.delete(&[listed[0].name.clone(), listed[1].name.clone()]).unwrap();
    store.create(&listed[1].name, stale).unwrap();
    assert_eq!(first(inbox.append("d", &["four"], Micros(1)).unwrap()), 3);
    let mut reader = Inbox::new(store);
    assert_eq!(bodies(&reader.read(2).unwrap().unwrap()), [b"three"]);
}

/// What others write, and what they delete.
type Meanwhile = (Vec<(Key, bytes::Bytes)>, Vec<Key>);

/// A store in memory in which, right before the next write, others append and prune.
#[derive(Debug)]
struct Overtaken {
    memory: InMemory,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("overtaken")
    }
}

#[async_trait]
impl ObjectStore for Overtaken {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        let (written, deleted) = meanwhile.unwrap_or_default();
        for (key, object) in written {
            self.memory.put(&key, object.into()).await?;
        }
        for key in deleted {
            self.memory.delete(&key).await?;
        }
        self.memory.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(&self, at: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(at, opts).await
    }
    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.memory.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.memory.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

#[test]
fn who_is_stopped_between_look_and_write_goes_behind_those_who_were_not() {
    // "a", "b" and "c", as others leave them behind.
    let (_folder, others) = store();
    ["a", "b", "c"].into_iter().for_each(|id| drop(Inbox::new(others.clone()).append(id, &[id], Micros(1)).unwrap()));
    let objects: Vec<(Key, bytes::Bytes)> = others
        .list("inbox")
        .unwrap()
        .into_iter()
        .map(|object| {
            let bytes = others.read(&object.name).unwrap().unwrap();
            (Key::from(object.name), bytes)
        })
        .collect();
    let (a, b) = (objects[0].clone(), objects[1].0.clone());
    let overtaken = Arc::new(Overtaken { memory: InMemory::new(), meanwhile: Mutex::new(Some((vec![a], Vec::new()))) });
    let store = Store::new(overtaken.clone(), "", Patience::default());
    let inbox = Inbox::new(store.clone());
    // The place was taken: the next one is.
    assert_eq!(first(inbox.append("x", &["x"], Micros(2)).unwrap()), 1);
    store.delete(&[store.list("inbox").unwrap().remove(1).name]).unwrap();
    // "b" and "c" come, and "b" is read and pruned: its place is free again.
    *overtaken.meanwhile.lock().unwrap() = Some((objects[1..].to_vec(), vec![b]));
    assert_eq!(first(inbox.append("y", &["y"], Micros(3)).unwrap()), 3);
    assert_eq!(bodies(&Inbox::new(store).read(3).unwrap().unwrap()), [b"y"]);
}

#[test]
fn what_does_not_fit_or_is_damaged_is_refused() {
    let (_folder, store) = store();
    let inbox = Inbox::new(store.clone());
    let none: [&str; 0] = [];
    assert!(inbox.append("a", &none, Micros(1)).is_err());
    assert!(inbox.append("a", &vec![""; MAX_EVENTS + 1], Micros(1)).is_err());
    assert!(inbox.append("a", &[vec![0; 65 << 20]], Micros(1)).is_err());
    assert!(store.list("inbox").unwrap().is_empty());
    inbox.append("a", &["one", "two"], Micros(1)).unwrap();
    let name = store.list("inbox").unwrap().remove(0).name;
    let object = store.read(&name).unwrap().unwrap();
    for cut in [10, 30, object.len() - 1] {
        store.replace(&name, object.slice(..cut)).unwrap();
        assert!(matches!(Inbox::new(store.clone()).read(0), Err(Error::Damaged { .. })));
        assert!(matches!(inbox.append("b", &["x"], Micros(1)), Err(Error::Damaged { .. })));
    }
}
