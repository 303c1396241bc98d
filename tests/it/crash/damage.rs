//! Stored state that is lost or damaged, object by object: the next start goes on rightly or refuses, and never gives
//! wrong numbers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::crash::job::{Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::tables::Tables;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Lost,
    OneBit,
    CutShort,
}

impl Damage {
    fn apply(self, path: &Path) {
        let mut content = fs::read(path).unwrap();
        match self {
            Damage::Lost => return fs::remove_file(path).unwrap(),
            Damage::OneBit => {
                let middle = content.len() / 2;
                content[middle] ^= 4;
            }
            Damage::CutShort => content.truncate(content.len() * 2 / 3),
        }
        fs::write(path, content).unwrap();
    }
}

/// Objects of the checkpoint, relative to its folder, in order; none that the kill left unfinished (`#`).
fn objects(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for path in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") && !path.to_string_lossy().contains('#') {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn lost_and_damaged_objects_never_give_wrong_numbers() {
    let job = Job::new(&eventful(51, &[120, 90]), Rules::epochs_of(30), "");
    job.kill_at(2, &Stop { place: "before-manifest", passed: 2 });
    let before = Tables::read(&job.output());
    let objects = objects(&job.output().join("_tidemark"));
    let kinds = ["generations", "adoptions", "cuts", "manifests", "runs"];
    assert!(kinds.iter().all(|kind| objects.iter().any(|object| object.starts_with(kind))), "{objects:?}");
    let damages = [Damage::Lost, Damage::OneBit, Damage::CutShort];
    let cases: Vec<(PathBuf, Damage)> = objects
        .into_iter()
        .enumerate()
        .flat_map(|(i, o)| [(o.clone(), damages[i % 3]), (o, damages[(i + 1) % 3])])
        .collect();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    side_by_side(&cases, |(object, damage)| {
        let job = job.copy();
        damage.apply(&job.output().join("_tidemark").join(object));
        let ended = job.start(1, "", "").ended();
        match ended.code() {
            0 => drop(job.check()),
            5 => {
                assert!(ended.stderr.contains("error: ") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
                Tables::read(&job.output()).assert_equals(&before);
                refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            other => panic!("status {other}: {}", ended.stderr),
        }
    });
    // Some of it cannot be done without, and some can.
    let refused = refused.into_inner();
    assert!(refused > 0 && refused < cases.len(), "{refused} of {} refused", cases.len());
}
