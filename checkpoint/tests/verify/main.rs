//! What an earlier version of the program has left can be read, checked and gone on from; and what is whole and wrong about
//! partitions is found.

#![allow(clippy::unwrap_used, clippy::panic)]

mod partitions;

use std::fs;
use std::path::Path;

use tidemark_checkpoint::envelope::{self, Kind};
use tidemark_checkpoint::journal::{self, Bid, Journal, Past};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{
    Behind, Claimant, Counters, Cut, EventTimes, Joined, Manifest, PartitionTimes, Position, Range,
};
use tidemark_checkpoint::verify::verify;
use tidemark_store::{Patience, Store};

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

/// A copy of the checkpoint of format 1: two files, four epochs in the manifest, five cut. It is kept without the manifest
/// before.
fn golden() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint-v1/out/_tidemark");
    copy(&stored, folder.path());
    let store = Store::local(folder.path(), Patience::default()).unwrap();
    (folder, store)
}

fn findings(store: &Store) -> Vec<String> {
    let report = verify(store, |_| true).unwrap().unwrap();
    report.findings.iter().map(|finding| format!("{} {finding}", finding.about.as_str())).collect()
}

fn version(store: &Store, kind: Kind, folder: &str) -> Vec<u16> {
    let objects = store.list(folder).unwrap().into_iter().map(|object| object.name);
    let read = objects.filter_map(|name| envelope::open(kind, &name, &store.read(&name).unwrap().unwrap()).ok());
    read.map(|(version, _)| version).collect()
}

/// The next generation goes on from what is there.
fn go_on(store: &Store) -> (Past, Journal) {
    go_on_after(store, |_| {})
}

/// The same, with something changed on purpose.
fn go_on_after(store: &Store, change: impl FnOnce(&mut Past)) -> (Past, Journal) {
    let by = Claimant { host: "h".to_owned(), pid: 1, started_us: 0, program: "t".to_owned() };
    let claimed = journal::claim(store, &Bid::unlocked(&by, 1)).unwrap();
    let mut past = claimed.read().unwrap().unwrap();
    change(&mut past);
    let newest = past.manifests.first().map(|found| &found.link);
    let journal = claimed.adopt(past.identity.clone(), Some(&past), newest).unwrap();
    (past, journal)
}

/// The next epoch: of each file, number and offset of its next event, so many events.
fn cut(epoch: u64, events: &[(u32, u64, u64)], behind: &[u32], joined: Vec<Joined>) -> Cut {
    let range = |(index, from, count): &(u32, u64, u64)| {
        let (partition, index, from) = (name(*index), *index, *from);
        Range { partition, index, from, to: from + count, digest: None }
    };
    let behind = behind.iter().map(|index| Behind { index: *index, head_us: Some(7) }).collect();
    let (opened_us, closed_us) = (1_795_398_313_000_000, 1_795_398_314_000_000);
    Cut { epoch, opened_us, closed_us, ranges: events.iter().map(range).collect(), behind: Some(behind), joined }
}

fn name(index: u32) -> String {
    if index == 2 { "replay".to_owned() } else { format!("p{index}.ndjson") }
}

/// The state of an old manifest with the positions of a later epoch, nothing more accepted.
fn manifest(old: &Manifest, epoch: u64, next: &[u64], watermark_us: i64) -> Manifest {
    let position = |(index, next): (u32, &u64)| Position {
        partition: name(index),
        index,
        next: *next,
        digest: None,
        ended: false,
    };
    let received = next.iter().sum::<u64>();
    let counters = &old.counters;
    let duplicates = counters.duplicates + received - counters.received;
    let newest = counters.newest_event_time_us.unwrap();
    let partitions = [0, 1].map(|index| PartitionTimes { index, newest_us: vec![newest - 5, newest] });
    let newest_us = vec![newest, newest];
    Manifest {
        epoch,
        positions: (0..).zip(next).map(position).collect(),
        counters: Counters { epochs: epoch, received, duplicates, ..counters.clone() },
        event_times: Some(EventTimes { watermark_us: Some(watermark_us), newest_us, partitions: partitions.into() }),
        ..old.clone()
    }
}

#[test]
fn a_checkpoint_of_format_1_is_read_and_sound() {
    let (_folder, store) = golden();
    let past = journal::look(&store).unwrap().unwrap();
    assert!(past.warnings.is_empty() && past.changes.is_empty());
    assert_eq!((past.last_cut, past.cuts.keys().copied().collect::<Vec<_>>()), (5, vec![4, 5]));
    for cut in past.cuts.values() {
        assert_eq!((&cut.behind, cut.joined.len(), cut.events()), (&None, 0, 18));
    }
    let manifest = &past.manifests[0].manifest;
    assert_eq!((manifest.epoch, &manifest.event_times, manifest.inbox()), (4, &None, None));
    assert!(manifest.positions.iter().all(|position| position.next == 36 && !position.ended));
    let (name, before) = (names::manifest(1, 2), names::manifest(1, 1));
    assert_eq!(findings(&store), [format!("chain {name}: its predecessor {before} is missing")]);
}

#[test]
fn a_checkpoint_of_format_1_is_gone_on_from_in_format_2() {
    let (_folder, store) = golden();
    let (past, Journal { mut cuts, mut manifests }) = go_on(&store);
    let old = &past.manifests[0].manifest;
    // The last cut of format 1 is replayed, then come those of format 2; the inbox has its number behind the files, and a
    // file that comes later the one behind it.
    let joined = vec![Joined { partition: name(3), index: 3, from: 0 }];
    cuts.append(vec![cut(6, &[(0, 45, 9), (1, 45, 9)], &[1], vec![])]).unwrap();
    cuts.append(vec![cut(7, &[(1, 54, 9), (2, 0, 4), (3, 0, 1)], &[1, 3], joined)]).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
    manifests.publish(Manifest { event_times: None, ..manifest(old, 5, &[45, 45, 0], 0) }).unwrap();
    manifests.publish(manifest(old, 6, &[54, 54, 0], 10)).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
    manifests.publish(manifest(old, 7, &[54, 63, 4, 1], 10)).unwrap();
    manifests.prune(2, Vec::new()).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
    let past = journal::look(&store).unwrap().unwrap();
    assert_eq!((past.manifests.len(), past.manifests[0].manifest.inbox_position()), (2, 4));
    assert_eq!(version(&store, Kind::Generation, "generations"), [1, 2]);
    assert_eq!(version(&store, Kind::Ids, "runs"), [1; 4]);
    assert_eq!(version(&store, Kind::Cuts, "cuts/0000000002"), [2]);
    // The next generation adopts cuts and manifests of format 2, and runs of format 1.
    let (past, Journal { mut cuts, .. }) = go_on(&store);
    assert_eq!(past.cuts_after(6).unwrap().len(), 1);
    cuts.append(vec![cut(8, &[(3, 1, 1)], &[], vec![])]).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
}

/// Under format 1 partitions stood in the order of the source, wherever one was added.
#[test]
fn partitions_that_moved_under_format_1_are_followed() {
    let (_folder, store) = golden();
    let (past, Journal { mut cuts, mut manifests }) = go_on(&store);
    let old = &past.manifests[0].manifest;
    let of_old = |cut: Cut| Cut { behind: None, ..cut };
    cuts.append(vec![of_old(cut(6, &[(0, 45, 9), (2, 0, 4)], &[], vec![]))]).unwrap();
    manifests.publish(Manifest { event_times: None, ..manifest(old, 6, &[54, 45, 4], 0) }).unwrap();
    // A file is added between the two, and the second file and the inbox stand behind it.
    let mut moved = of_old(cut(7, &[(2, 45, 3), (3, 4, 1), (1, 0, 1)], &[], vec![]));
    for (range, name) in moved.ranges.iter_mut().zip(["p1.ndjson", "replay", "p0a.ndjson"]) {
        name.clone_into(&mut range.partition);
    }
    let mut then = manifest(old, 7, &[54, 1, 48, 5], 0);
    for (position, name) in then.positions.iter_mut().zip(["p0.ndjson", "p0a.ndjson", "p1.ndjson", "replay"]) {
        name.clone_into(&mut position.partition);
    }
    // It was replayed by a program that keeps event times, and the cut after it was not made by that.
    then.event_times = then.event_times.map(|times| EventTimes { partitions: vec![], ..times });
    let last = of_old(cut(8, &[(0, 54, 1)], &[], vec![]));
    cuts.append(vec![moved, last]).unwrap();
    manifests.publish(then).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
    cuts.append(vec![cut(9, &[(0, 55, 1)], &[0, 3], vec![])]).unwrap();
    let found = findings(&store);
    let wanted = "epoch 9 says that partition 3 was behind, for which nothing waits";
    assert!(found.len() == 1 && found[0].ends_with(wanted), "{found:?}");
}
