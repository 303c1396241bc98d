//! Damaged checkpoints: whatever is damaged, the next start gives the right tables or is refused. Never anything else.

use std::fs;
use std::path::Path;
use std::process::Command;

use tidemark::exit::ExitStatus;
use tidemark_checkpoint::names;

use crate::data::Random;
use crate::faults::all;
use crate::faulty::{Fault, Faulty, Plan};
use crate::inside::Pipeline;

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Deleted,
    CutOff,
    Emptied,
    Flipped,
    OfAnotherKind,
    OfAnotherName,
    Newer,
}

const HARMS: [Harm; 7] =
    [Harm::Deleted, Harm::CutOff, Harm::Emptied, Harm::Flipped, Harm::OfAnotherKind, Harm::OfAnotherName, Harm::Newer];

/// The objects of a checkpoint, by name.
fn objects(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if !entry.ends_with("lock") {
                found.push(entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn folder_of(name: &str) -> &str {
    name.split('/').next().unwrap()
}

/// Does it. Returns whether there was anything to do.
fn damage(folder: &Path, name: &str, harm: Harm, random: &mut Random) -> bool {
    let path = folder.join(name);
    let mut bytes = fs::read(&path).unwrap();
    let others: Vec<String> = objects(folder).into_iter().filter(|other| other != name).collect();
    let alike = |other: &&String| folder_of(other) == folder_of(name);
    match harm {
        Harm::Deleted => return fs::remove_file(path).is_ok(),
        Harm::CutOff => bytes.truncate(1 + random.below(bytes.len() - 1)),
        Harm::Emptied => bytes.clear(),
        Harm::Flipped => {
            // Not in the version: that has a case of its own.
            let at = [random.below(8), 10 + random.below(bytes.len() - 10)][random.below(2)];
            bytes[at] ^= 1 << random.below(8);
        }
        Harm::Newer => bytes[8] = 2,
        Harm::OfAnotherKind | Harm::OfAnotherName => {
            let wanted = |other: &&String| alike(other) == (harm == Harm::OfAnotherName);
            let others: Vec<&String> = others.iter().filter(wanted).collect();
            if others.is_empty() {
                return false;
            }
            bytes = fs::read(folder.join(others[random.below(others.len())])).unwrap();
        }
    }
    fs::write(path, bytes).unwrap();
    true
}

/// Two runs that their store ended, one after the other; so there are two generations, and work to do.
fn interrupted() -> Pipeline {
    let pipeline = Pipeline::new(77, &[160, 120], 20);
    for requests in [56, 60] {
        let plan = Plan::ever_after(Fault::Denied, requests);
        let store = Faulty::new(&pipeline.checkpoint(), None, plan);
        pipeline.run_badly(Some(&store), None, ExitStatus::Unavailable, &["403 Forbidden"]);
    }
    let found = objects(&pipeline.checkpoint());
    let of = |folder: &str| found.iter().filter(|name| folder_of(name) == folder).count();
    let counts = [names::GENERATIONS, names::ADOPTIONS, names::CUTS, names::MANIFESTS, names::RUNS].map(of);
    assert!(counts.iter().all(|count| *count >= 2), "{found:?}");
    pipeline
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

#[test]
fn a_damaged_checkpoint_gives_right_tables_or_is_refused() {
    let origin = interrupted();
    let found = objects(&origin.checkpoint());
    let cases: Vec<(&str, Harm)> = found.iter().flat_map(|name| HARMS.map(|harm| (name.as_str(), harm))).collect();
    let (count, ended) = (cases.len(), std::sync::Mutex::new([0, 0]));
    all((0..count).collect(), |index| {
        let (name, harm) = cases[index];
        let mut random = Random(index as u64);
        // Two or three harms for each record; of runs, which all come to the same check, fewer. A newer version always:
        // how many records there are, and so which are drawn, is up to the threads.
        let each = if folder_of(name) == names::RUNS { 10 } else { 3 };
        if harm != Harm::Newer && index % each != 0 {
            return;
        }
        let pipeline = origin.moved(copy);
        if !damage(&pipeline.checkpoint(), name, harm, &mut random) {
            return;
        }
        match pipeline.run(None, None) {
            Ok(_) => {
                pipeline.check();
                ended.lock().unwrap()[0] += 1;
            }
            Err(error) => {
                assert_eq!(error.status(), ExitStatus::Corrupt, "{harm:?} {name}: {error}");
                let text = error.to_string();
                let named = text.contains(name)
                    || text.contains("the cut of epoch")
                    || text.contains(&pipeline.checkpoint().display().to_string());
                assert!(named, "{harm:?} {name}: {text}");
                assert!(harm != Harm::Newer || text.contains("version 2"), "{name}: {text}");
                ended.lock().unwrap()[1] += 1;
            }
        }
    });
    let [well, refused] = ended.into_inner().unwrap();
    // Most damage is to what can be passed over.
    assert!(well > 10 && refused > 0, "{well} ended well, {refused} were refused");
}
