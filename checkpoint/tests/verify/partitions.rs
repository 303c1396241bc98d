//! What is whole and wrong about partitions, their numbers and their event times.

use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::journal::{self, Journal};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Adoption, Change, Cut, Cuts, EventTimes, Joined, Manifest, PartitionTimes, Record};
use tidemark_store::Store;

use crate::{cut, findings, go_on, go_on_after, golden, manifest, name};

/// A sound checkpoint of format 2: a manifest of epoch 6, one of epoch 7, and the cuts after them.
fn sound() -> (tempfile::TempDir, Store) {
    let (folder, store) = golden();
    let (past, Journal { mut cuts, mut manifests }) = go_on(&store);
    let old = &past.manifests[0].manifest;
    cuts.append(vec![cut(6, &[(0, 45, 9), (1, 45, 9)], &[0, 1], vec![])]).unwrap();
    manifests.publish(manifest(old, 6, &[54, 54, 0], 10)).unwrap();
    cuts.append(vec![cut(7, &[(0, 54, 9), (2, 0, 1)], &[1], vec![])]).unwrap();
    manifests.publish(manifest(old, 7, &[63, 54, 1], 20)).unwrap();
    let joined =
        vec![Joined { partition: name(3), index: 3, from: 0 }, Joined { partition: name(4), index: 4, from: 0 }];
    cuts.append(vec![cut(8, &[(3, 0, 1), (4, 0, 2)], &[1, 3], joined)]).unwrap();
    cuts.append(vec![cut(9, &[(3, 1, 1)], &[1], vec![])]).unwrap();
    assert_eq!(findings(&store), [] as [&str; 0]);
    (folder, store)
}

/// What is found once an object says something else.
fn after<R: Record>(object: &str, change: impl FnOnce(&mut R)) -> Vec<String> {
    let (_folder, store) = sound();
    let mut record = R::of_object(object, &store.read(object).unwrap().unwrap()).unwrap();
    change(&mut record);
    store.replace(object, record.to_object(object).unwrap()).unwrap();
    findings(&store)
}

#[track_caller]
fn cut_is_found(epoch: u64, change: impl FnOnce(&mut Cut), what: &str) {
    let name = names::cuts(2, epoch);
    let found = after(&name, |cuts: &mut Cuts| change(&mut cuts.cuts[0]));
    let wanted = format!("cuts {name}: epoch {epoch} {what}");
    assert!(found.iter().any(|finding| finding.starts_with(&wanted)), "{found:#?}");
}

/// Of the newest manifest, so that no other one names it.
#[track_caller]
fn manifest_is_found(change: impl FnOnce(&mut Manifest), about: &str, what: &str) {
    let name = names::manifest(2, 4);
    let found = after(&name, change);
    let wanted = format!("{about} {name}: {what}");
    assert!(found.iter().any(|finding| finding.starts_with(&wanted)), "{found:#?}");
}

#[test]
fn partitions_are_behind_in_order_once_and_known() {
    let behind = |cut: &mut Cut, indexes: &[u32]| cut.behind = crate::cut(0, &[], indexes, vec![]).behind;
    cut_is_found(8, |cut| behind(cut, &[3, 1]), "names partitions that were behind out of order");
    cut_is_found(8, |cut| behind(cut, &[1, 1]), "names partitions that were behind out of order");
    cut_is_found(8, |cut| behind(cut, &[1, 5]), "says that partition 5 was behind, which is not there");
    cut_is_found(8, |cut| behind(cut, &[2]), "says that partition 2 was behind, for which nothing waits");
    cut_is_found(9, |cut| cut.behind = None, "does not say which partitions were behind");
}

#[test]
fn partitions_join_behind_those_that_are_there_and_keep_their_numbers() {
    let wrong = "as partition 3, which does not follow on those before";
    cut_is_found(8, |cut| cut.joined.truncate(1), "takes events of p4.ndjson as partition 4, which it is not");
    cut_is_found(8, |cut| cut.joined.swap(0, 1), "lets p4.ndjson join as partition 4, which does not follow");
    cut_is_found(8, |cut| cut.joined[0].partition = name(1), &format!("lets p1.ndjson join {wrong}"));
    cut_is_found(8, |cut| cut.joined[1].index = 3, &format!("lets p4.ndjson join {wrong}"));
    cut_is_found(9, |cut| cut.ranges[0].index = 4, "takes events of p3.ndjson as partition 4, which it is not");
    // One that joins where a manifest has named it before is the same.
    let same = |cuts: &mut Cuts| cuts.cuts[0].joined.insert(0, Joined { partition: name(2), index: 2, from: 1 });
    assert_eq!(after(&names::cuts(2, 8), same), [] as [&str; 0]);
}

#[test]
fn positions_are_those_of_all_partitions_and_never_fall() {
    let positions = "positions";
    manifest_is_found(|manifest| manifest.positions.swap(0, 1), positions, "it lists partition 1 in the place of");
    manifest_is_found(|manifest| manifest.positions.truncate(2), positions, "it does not list partition 2, replay");
    manifest_is_found(|manifest| manifest.positions[1].partition = name(7), positions, "partition 1 is p7.ndjson, and");
    manifest_is_found(|manifest| manifest.positions[1].next = 50, positions, "it is at offset 50 of partition p1");
    manifest_is_found(|manifest| manifest.positions[1].ended = true, positions, "it says that partition 1 had ended");
    let name = names::manifest(2, 4);
    assert_eq!(after(&name, |manifest: &mut Manifest| manifest.positions[0].ended = true), [] as [&str; 0]);
}

#[test]
fn event_times_are_those_of_partitions_and_the_watermark_never_falls() {
    #[track_caller]
    fn found(change: impl FnOnce(&mut EventTimes), what: &str) {
        manifest_is_found(|manifest| change(manifest.event_times.as_mut().unwrap()), "positions", what);
    }
    found(|times| times.watermark_us = Some(9), "its watermark is before that of the manifest before it");
    found(|times| times.watermark_us = None, "its watermark is before that of the manifest before it");
    found(|times| times.partitions.swap(0, 1), "its event times are not in the order of partitions");
    found(|times| times.partitions[1].index = 3, "it keeps event times of partition 3, which is not there");
    found(|times| times.partitions[1].index = 2, "it keeps event times of partition 2, whose events take no part");
    found(|times| times.newest_us.clear(), "it keeps event times of partition 0, after the newest of all");
    found(|times| times.newest_us[1] += 1, "it keeps an event time after the newest that it counts");
    manifest_is_found(|manifest| manifest.event_times = None, "positions", "it has no event times");
    let none = |manifest: &mut Manifest| {
        let partitions = vec![PartitionTimes { index: 1, newest_us: vec![] }];
        manifest.event_times = Some(EventTimes { watermark_us: Some(10), newest_us: vec![], partitions });
    };
    assert_eq!(after(&names::manifest(2, 4), none), [] as [&str; 0], "they count anew after a change of witnesses");
}

fn change(epoch: u64) -> Change {
    let (before, after) = (Some("1 day".to_owned()), Some("2 days".to_owned()));
    Change { epoch, setting: "dedup.watermark_delay".to_owned(), before, after }
}

/// Nothing accepts a change yet; where one stands is settled.
#[test]
fn an_accepted_change_of_a_setting_leads_from_one_identity_to_the_next_and_stands_in_manifests() {
    let (_folder, store) = sound();
    let (past, Journal { mut manifests, .. }) = go_on_after(&store, |past| {
        past.changes.push(change(past.last_cut + 1));
        past.identity.settings.insert("dedup.watermark_delay".to_owned(), "2 days".to_owned());
    });
    let next = manifest(&past.manifests[0].manifest, 8, &[63, 54, 1, 1, 2], 20);
    let link = manifests.publish(next).unwrap();
    let stored = journal::manifest_of(&store, &link).unwrap().manifest;
    assert_eq!(stored.changes, [change(10)]);
    assert_eq!(findings(&store), [] as [&str; 0]);
    // The next generation has it too.
    let (past, _) = go_on(&store);
    assert_eq!(past.changes, [change(10)]);
    assert_eq!(findings(&store), [] as [&str; 0]);

    let adopted = names::adoption(3);
    let forged = |change: fn(&mut Adoption)| {
        let object = store.read(&adopted).unwrap().unwrap();
        let mut adoption = Adoption::of_object(&adopted, &object).unwrap();
        change(&mut adoption);
        store.replace(&adopted, adoption.to_object(&adopted).unwrap()).unwrap();
        let found = findings(&store);
        store.replace(&adopted, object).unwrap();
        found.into_iter().any(|finding| finding.starts_with(&format!("generations {adopted}: its identity is not")))
    };
    assert!(forged(|adoption| adoption.changes.clear()));
    assert!(forged(|adoption| adoption.changes[0].epoch = 9));
    assert!(forged(|adoption| adoption.changes[0].before = None));
    assert!(forged(|adoption| adoption.changes[0].after = None));
    assert!(!forged(|_| {}));
}

/// A later version may name runs by what they hold: readers take the name that stands in the manifest.
#[test]
fn runs_have_any_name_that_a_manifest_gives_them() {
    let (_folder, store) = golden();
    let (past, Journal { mut cuts, mut manifests }) = go_on(&store);
    let old = &past.manifests[0].manifest;
    let object = store.read(&old.metrics["users"][0].name).unwrap().unwrap();
    let (by_hash, by_word) = (format!("runs/{}", Digest::of_object(&object)), "runs/2/merged/anew");
    store.create(&by_hash, object.clone()).unwrap();
    store.create(by_word, object).unwrap();
    for (epoch, at) in [(6, 45), (7, 54), (8, 63)] {
        cuts.append(vec![cut(epoch, &[(0, at, 9)], &[1], vec![])]).unwrap();
        let mut next = manifest(old, epoch, &[at + 9, 45, 0], 10);
        next.metrics.get_mut("users").unwrap()[0].name = if epoch < 8 { by_hash.clone() } else { by_word.to_owned() };
        manifests.publish(next).unwrap();
        manifests.prune(2, Vec::new()).unwrap();
        assert_eq!(findings(&store), [] as [&str; 0]);
        assert!(store.read(&by_hash).unwrap().is_some());
    }
    // It goes with the last manifest that names it.
    let mut next = manifest(old, 9, &[72, 45, 0], 10);
    next.metrics.get_mut("users").unwrap()[0].name = by_word.to_owned();
    cuts.append(vec![cut(9, &[], &[1], vec![])]).unwrap();
    manifests.publish(next).unwrap();
    manifests.prune(2, Vec::new()).unwrap();
    assert!(store.read(&by_hash).unwrap().is_none());
    assert_eq!(findings(&store), [] as [&str; 0]);
}
