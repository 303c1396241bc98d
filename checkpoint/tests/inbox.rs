//! The inbox: each replay is there once, behind the ones before it, whoever else appends or prunes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Barrier;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::inbox::{Appended, Batch, Inbox, MAX_EVENTS};
use tidemark_checkpoint::store::{Patience, Store};
use tidemark_dataflows::event::Micros;

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
