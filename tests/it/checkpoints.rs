//! `checkpoint list`, `show` and `verify`: what they say of sound checkpoints, and that they see each kind of damage.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;
use tidemark_checkpoint::inspect::Stored;
use tidemark_checkpoint::records::{Adoption, Manifest, Record, Seal};
use tidemark_store::{Patience, Store};

use crate::program::{Case, Ended, Running, tidemark};

/// Starts a generator at a rate with many epochs and checkpoints.
pub(crate) fn start(case: &Case, failpoints: &str) -> Running {
    start_with(case, failpoints, &[])
}

/// The same, with more arguments.
pub(crate) fn start_with(case: &Case, failpoints: &str, more: &[&str]) -> Running {
    let args = "run --output out --seed 7 --users 40 --curated --rate 2000 --trigger 50ms --workers 2 \
                --checkpoint-interval 100ms --set log.level=warn,tidemark=debug,deltalake_core=error";
    let mut command = tidemark(case.root(), args.split_whitespace().chain(more.iter().copied()));
    Running::start(command.env("FAILPOINTS", failpoints).stdin(Stdio::null()))
}

/// A pipeline of three generations. The second and the third were killed after several epochs without a checkpoint.
pub(crate) fn killed() -> Case {
    let case = Case::new();
    let places = [
        "pruned=2*off->return",
        "manifest-published=2*off->return;group-published=8*off->return",
        "before-manifest=2*off->return;group-published=9*off->return",
    ];
    for (place, stopped) in places.iter().zip(["pruned", "group-published", "group-published"]) {
        let mut running = start(&case, place);
        running.await_line(&format!("stopped at {stopped}"));
        running.signal("KILL");
        drop(running);
    }
    case
}

static KILLED: LazyLock<Case> = LazyLock::new(killed);

/// Copies a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

/// A copy of the killed pipeline, to be damaged.
fn copied() -> Case {
    let case = Case::new();
    copy(&KILLED.path("out"), &case.path("out"));
    case
}

fn verify(case: &Case) -> Ended {
    case.tidemark(&["checkpoint", "verify", "--output", "out"])
}

/// What `verify --json` says: the subjects that are not sound, and the objects named.
fn unsound(case: &Case) -> Vec<(String, String)> {
    let ended = case.tidemark(&["checkpoint", "verify", "--output", "out", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code() == 0, report["sound"].as_bool().unwrap()), (ended.code() == 0, ended.code() == 0));
    assert!(ended.code() <= 1, "{}", ended.stderr);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |subject: &Value| {
        let about = text(&subject["about"]);
        let findings = subject["findings"].as_array().unwrap().clone();
        findings.into_iter().map(move |finding| (about.clone(), text(&finding["object"]))).collect::<Vec<_>>()
    };
    report["subjects"].as_array().unwrap().iter().flat_map(of).collect()
}

pub(crate) fn folder(case: &Case) -> PathBuf {
    case.path("out/_tidemark")
}

pub(crate) fn stored(case: &Case) -> Stored {
    let store = Store::existing(&folder(case), Patience::default()).unwrap().unwrap();
    Stored::read(&store).unwrap()
}

/// The newest adoption, and the newest manifest with its name.
pub(crate) fn newest(case: &Case) -> (Adoption, String, Manifest) {
    let stored = stored(case);
    let adoption = stored.newest_adoption().unwrap().clone();
    let own = stored.manifests_of(adoption.generation).rfind(|object| object.written().is_some());
    let found = own.map(|object| (object.name.clone(), object.written().unwrap().clone()));
    let (name, manifest) = found.expect("the newest generation has written a manifest");
    (adoption, name, manifest)
}

/// Changes one byte in the middle of an object.
pub(crate) fn flip(case: &Case, name: &str) {
    let path = folder(case).join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

pub(crate) fn remove(case: &Case, name: &str) {
    std::fs::remove_file(folder(case).join(name)).unwrap();
}

/// Puts a sound object with other contents in the place of one.
pub(crate) fn forge<T: Record>(case: &Case, name: &str, change: impl FnOnce(&mut T)) {
    let path = folder(case).join(name);
    let mut record = T::of_object(name, &Bytes::from(std::fs::read(&path).unwrap())).unwrap();
    change(&mut record);
    std::fs::write(&path, record.to_object(name).unwrap()).unwrap();
}

#[test]
fn a_killed_pipeline_is_sound_and_so_is_it_after_it_went_on() {
    let sound = verify(&KILLED).well();
    assert!(
        sound.stdout.contains("the checkpoint is sound") && sound.stdout.contains("3 generations"),
        "{}",
        sound.stdout
    );
    let case = copied();
    let mut running = start(&case, "");
    running.await_line("published");
    running.signal("INT");
    running.ended().well();
    let sound = verify(&case).well();
    assert!(sound.stdout.contains("4 generations") && sound.stdout.contains("3 ends"), "{}", sound.stdout);
}

#[test]
fn verification_writes_nothing() {
    let case = copied();
    let names = || {
        let all =
            std::process::Command::new("find").arg(case.path("out")).args(["-printf", "%p %s %T@\n"]).output().unwrap();
        String::from_utf8(all.stdout).unwrap()
    };
    let before = names();
    verify(&case).well();
    case.tidemark(&["checkpoint", "list", "--output", "out"]).well();
    case.tidemark(&["checkpoint", "show", "--output", "out"]).well();
    case.tidemark(&["evidence", "--output", "out"]).well();
    assert_eq!(names(), before);
}

#[test]
fn a_running_pipeline_is_always_sound() {
    let case = Case::new();
    let mut running = start(&case, "");
    running.await_line("published");
    for _ in 0..12 {
        verify(&case).well();
    }
    assert!(running.is_running());
    running.signal("INT");
    running.ended().well();
    let ended = verify(&case).well();
    assert!(!ended.stdout.contains(" 1 manifest,"), "nothing was pruned: {}", ended.stdout);
}

#[test]
fn a_missing_checkpoint_is_told() {
    let case = Case::new();
    for verb in ["list", "show", "verify"] {
        case.tidemark(&["checkpoint", verb, "--output", "nowhere"]).fails_with(3, &["nowhere", "no checkpoint"]);
    }
    assert!(!case.path("nowhere").exists());
    case.tidemark(&["checkpoint", "verify", "--checkpoint", "elsewhere"]).fails_with(3, &["elsewhere"]);
}

#[test]
fn show_has_every_cut_and_no_key() {
    let (adoption, name, manifest) = newest(&KILLED);
    let shown = KILLED.tidemark(&["checkpoint", "show", "--output", "out", "--json"]).well().stdout;
    for key in adoption.identity.id_key.iter().chain(&adoption.identity.index_key) {
        assert!(!shown.contains(&key.to_string()), "{shown}");
    }
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["manifest"]["object"], name.as_str());
    assert_eq!(shown["manifest"]["counters"]["received"], manifest.counters.received);
    let cuts = shown["cuts"].as_array().unwrap();
    assert_eq!(shown["cuts_from_epoch"], cuts[0]["epoch"]);
    let epochs: Vec<u64> = cuts.iter().map(|cut| cut["epoch"].as_u64().unwrap()).collect();
    assert!(
        epochs.windows(2).all(|pair| pair[0] + 1 == pair[1]) && *epochs.last().unwrap() > manifest.epoch,
        "{epochs:?}"
    );
    assert_eq!(shown["last_cut"], *epochs.last().unwrap());
    // From the state of the manifest, the cuts after it lead on without a gap.
    let mut at: Vec<u64> = manifest.positions.iter().map(|position| position.next).collect();
    for cut in cuts.iter().filter(|cut| cut["epoch"].as_u64().unwrap() > manifest.epoch) {
        assert!(cut["opened_us"].as_i64().unwrap() <= cut["closed_us"].as_i64().unwrap());
        for range in cut["ranges"].as_array().unwrap() {
            let index = usize::try_from(range["index"].as_u64().unwrap()).unwrap();
            assert_eq!(
                (range["partition"].as_str(), range["from"].as_u64()),
                (Some(index.to_string().as_str()), Some(at[index]))
            );
            at[index] = range["to"].as_u64().unwrap();
        }
    }
    let text = KILLED.tidemark(&["checkpoint", "show", "--output", "out"]).well().stdout;
    assert!(text.contains("keys (masked)") && text.contains(&format!("cuts of epochs {} to", epochs[0])), "{text}");
}

#[test]
fn one_manifest_can_be_shown() {
    let manifest = newest(&KILLED).2;
    let previous = manifest.previous.unwrap().epoch.to_string();
    let shown = KILLED.tidemark(&["checkpoint", "show", "--output", "out", "--json", "--epoch", &previous]).well();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["manifest"]["epoch"].to_string(), previous);
    let args = ["checkpoint", "show", "--output", "out", "--epoch", "999999"];
    KILLED.tidemark(&args).fails_with(2, &["999999", &previous]);
}

#[test]
fn list_has_manifests_and_generations() {
    let list = KILLED.tidemark(&["checkpoint", "list", "--output", "out", "--json"]).well().stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    let manifest = newest(&KILLED).2;
    let last = list["manifests"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["epoch"], manifest.epoch);
    assert_eq!(last["bytes"], manifest.runs().map(|run| run.bytes).sum::<u64>());
    let generations = list["generations"].as_array().unwrap();
    assert_eq!(generations.len(), 3);
    assert!(generations.iter().all(|g| g["claimed_by"]["pid"].is_u64() && g["adopted"]["last_cut"].is_u64()), "{list}");
    let text = KILLED.tidemark(&["checkpoint", "list", "--output", "out"]).well().stdout;
    assert!(text.contains("from the beginning") && text.contains("after epoch"), "{text}");
}

/// Damages a copy and returns what `verify` says of it.
fn after(damage: impl FnOnce(&Case)) -> Vec<(String, String)> {
    let case = copied();
    damage(&case);
    unsound(&case)
}

fn names(about: &str, object: &str) -> (String, String) {
    (about.to_owned(), object.to_owned())
}

#[test]
fn damaged_and_missing_objects_are_named() {
    let (adoption, name, manifest) = newest(&KILLED);
    let previous = tidemark_checkpoint::names::linked(manifest.previous.as_ref().unwrap());
    let run = &manifest.metrics["users"].last().unwrap().name;
    let adopted = tidemark_checkpoint::names::adoption(adoption.generation - 1);
    let seal = tidemark_checkpoint::names::cuts(adoption.generation - 1, adoption.last_cut + 1);
    let claim = tidemark_checkpoint::names::claim(adoption.generation);
    assert!(after(|_| {}).is_empty());
    assert!(after(|case| flip(case, &name)).contains(&names("chain", &name)));
    assert!(after(|case| flip(case, &previous)).contains(&names("chain", &previous)));
    assert!(after(|case| remove(case, &previous)).contains(&names("chain", &name)));
    assert_eq!(after(|case| flip(case, run)), [names("runs", run)]);
    assert_eq!(after(|case| remove(case, run)), [names("runs", run)]);
    assert_eq!(after(|case| flip(case, &adopted)), [names("generations", &adopted)]);
    assert_eq!(after(|case| remove(case, &claim)), [names("generations", &claim)]);
    assert_eq!(after(|case| flip(case, &claim)), [names("generations", &claim)]);
    assert_eq!(after(|case| remove(case, &seal)), [names("seals", &seal)]);
    assert_eq!(after(|case| flip(case, &seal)), [names("seals", &seal)]);
    let own = |case: &Case| stored(case).cuts_of(adoption.generation).map(|cuts| cuts.name.clone()).collect::<Vec<_>>();
    let own = own(&KILLED);
    let needed = own.iter().rev().nth(1).unwrap();
    let missing = after(|case| remove(case, needed));
    assert!(missing.contains(&names("cuts", &tidemark_checkpoint::names::cuts_of(adoption.generation))), "{missing:?}");
    assert!(after(|case| flip(case, needed)).contains(&names("cuts", needed)));
}

#[test]
fn what_is_whole_and_wrong_is_found_too() {
    let (adoption, name, manifest) = newest(&KILLED);
    let forged = |change: fn(&mut Manifest)| after(|case| forge(case, &name, change));
    assert!(forged(|manifest| manifest.positions[0].next += 1).contains(&names("positions", &name)));
    let counted = forged(|manifest| {
        manifest.counters.accepted += 1;
        manifest.counters.received += 1;
        manifest.positions[0].next += 1;
    });
    assert!(counted.contains(&names("positions", &name)), "{counted:?}");
    assert_eq!(forged(|manifest| manifest.counters.duplicates += 1), [names("counts", &name)]);
    let swapped = forged(|manifest| {
        manifest.counters.accepted -= 1;
        manifest.counters.duplicates += 1;
    });
    assert_eq!(swapped, [names("counts", &name)]);
    assert_eq!(forged(|manifest| manifest.counters.epochs += 1), [names("counts", &name)]);
    assert_eq!(forged(|manifest| manifest.lineage += 1), [names("chain", &name)]);
    assert_eq!(forged(|manifest| manifest.metrics.get_mut("users").unwrap()[0].rows += 1)[0].0, "runs");
    let adopted = tidemark_checkpoint::names::adoption(adoption.generation);
    let fork = after(|case| forge(case, &adopted, |adoption: &mut Adoption| adoption.identity.lineage += 1));
    assert!(fork.contains(&names("generations", &adopted)), "{fork:?}");
    let seal = tidemark_checkpoint::names::cuts(adoption.generation - 1, adoption.last_cut + 1);
    assert_eq!(after(|case| forge(case, &seal, |seal: &mut Seal| seal.by = 1)), [names("seals", &seal)]);
    assert_eq!(manifest.generation, adoption.generation);
}
