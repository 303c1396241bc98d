//! What is stored and lost or damaged, object by object: the next start goes on rightly, or is refused at once by the object's
//! name; and what `evidence` says of each. Tables that `evidence` passes are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::crash::job::{Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::Ended;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Gone,
    Emptied,
    CutShort,
    CutAtALine,
    OneBit,
    Zeroed,
    AnOlderOne,
    OfAnotherKind,
    OfAnotherPipeline,
    /// Of a format that a later version of the program writes.
    Newer,
}

const HARMS: [Harm; 10] = [
    Harm::Gone,
    Harm::Emptied,
    Harm::CutShort,
    Harm::CutAtALine,
    Harm::OneBit,
    Harm::Zeroed,
    Harm::AnOlderOne,
    Harm::OfAnotherKind,
    Harm::OfAnotherPipeline,
    Harm::Newer,
];

/// Where objects are harmed: a table that is merged, one that is appended to, and all that is kept for a restart.
const PLACES: [&str; 3] = ["metrics/user_metrics", "monitoring/stream_health", STATE];
const STATE: &str = "_tidemark";

/// What an object is, by its folder and the last ending of its name.
fn kind(name: &str) -> (&str, &str) {
    let (folder, file) = name.split_once('/').unwrap_or(("", name));
    (folder, if file.contains('.') { file.rsplit('.').next().unwrap_or(file) } else { "" })
}

/// Does it; false where there is nothing to do.
fn harm(folder: &Path, other: &Path, name: &str, harm: Harm) -> bool {
    let path = folder.join(name);
    let mut content = fs::read(&path).unwrap();
    let before = content.clone();
    let middle = content.len() / 2;
    let alike = |folder: &Path| objects(folder).into_iter().filter(|found| kind(found) == kind(name) && found != name);
    let found = match harm {
        Harm::Gone => return fs::remove_file(path).is_ok(),
        Harm::AnOlderOne => {
            alike(folder).take_while(|found| found.as_str() < name).last().map(|older| folder.join(older))
        }
        Harm::OfAnotherKind => objects(folder).iter().find(|found| kind(found) != kind(name)).map(|it| folder.join(it)),
        Harm::OfAnotherPipeline => {
            let same = Some(other.join(name)).filter(|same| same.is_file());
            same.or_else(|| alike(other).next().map(|name| other.join(name)))
        }
        _ => Some(path.clone()),
    };
    match harm {
        Harm::Emptied => content.clear(),
        Harm::CutShort => content.truncate(content.len() * 2 / 3),
        Harm::CutAtALine => match content[..content.len().saturating_sub(1)].iter().rposition(|byte| *byte == b'\n') {
            Some(end) if name.ends_with(".json") => content.truncate(end + 1),
            _ => return false,
        },
        Harm::OneBit => content[middle] ^= 1,
        Harm::Zeroed => content[middle - middle.min(32)..].iter_mut().take(64).for_each(|byte| *byte = 0),
        Harm::Newer if folder.ends_with(STATE) => content[8] = u8::MAX,
        Harm::Newer => return false,
        _ => match found {
            Some(found) => content = fs::read(found).unwrap(),
            None => return false,
        },
    }
    fs::write(path, &content).unwrap();
    content != before
}

/// The objects in a folder, in the order of their names; none that the kill left unfinished.
fn objects(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for path in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") && !path.to_string_lossy().contains("_upload_") {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Several log checkpoints, several manifests, two generations, and work to do after a kill.
fn killed(seed: u64) -> Job {
    let settings = "--set sink.log_checkpoint_every=3 --set sink.sync=false";
    let job = Job::new(&eventful(seed, &[100, 80]), Rules::epochs_of(10), settings);
    job.kill_at(1, &Stop { place: "manifest-published", passed: 1 });
    job.kill_at(1, &Stop { place: "group-published", passed: 1 });
    job
}

#[test]
fn damage_is_gone_on_with_rightly_or_refused_by_name() {
    let (job, other) = (killed(71), killed(72));
    let names = |place: &str| objects(&job.output().join(place));
    for kind in ["adoptions", "cuts", "generations", "manifests", "runs"] {
        assert!(names(STATE).iter().filter(|name| name.starts_with(kind)).count() >= 2, "{kind}: {:?}", names(STATE));
    }
    // All runs come to the same check.
    let names = |place: &str| {
        let names = names(place).into_iter().enumerate();
        names.filter(|(at, name)| !name.starts_with("runs/") || at % 4 == 0).map(|(_, name)| name)
    };
    let all = PLACES.iter().flat_map(|place| names(place).map(move |name| (*place, name)));
    let cases: Vec<(&str, String, Harm)> =
        all.flat_map(|(place, name)| HARMS.map(|harm| (place, name.clone(), harm))).collect();
    let (told, wrong) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    side_by_side(&cases, |(place, name, how)| {
        let damaged = job.copy();
        let folder = |job: &Job| -> PathBuf { job.output().join(place) };
        if !harm(&folder(&damaged), &folder(&other), name, *how) {
            return;
        }
        let context = format!("{place} {name} {how:?}");
        let evidence = damaged.case.tidemark(&["evidence", "--output", "out", "--json"]);
        let began = Instant::now();
        let ended = damaged.start(1, "", "").ended();
        let (took, status) = (began.elapsed(), ended.code());
        let fault = judged(place, name, &evidence, &ended).or_else(|| (took > SOON).then(|| format!("took {took:?}")));
        if fault.is_none() && status == 0 && (*place == STATE || evidence.code() == 0) {
            damaged.check();
        }
        wrong.lock().unwrap().extend(fault.map(|fault| format!("{context}: {fault}")));
        told.lock().unwrap().push(format!("{context}: run {status}, evidence {}", evidence.code()));
    });
    let (told, wrong) = (told.into_inner().unwrap(), wrong.into_inner().unwrap());
    if std::env::var_os("SHOW_DAMAGE").is_some() {
        println!("{}", told.join("\n"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused = told.iter().filter(|line| line.contains("run 5")).count();
    assert!(told.len() > 200 && refused > 50 && refused < told.len(), "{} of {}", refused, told.len());
}

/// What is wrong with how damage was told, and what evidence said of it before.
fn judged(place: &str, name: &str, evidence: &Ended, ended: &Ended) -> Option<String> {
    let checks = evidence.stdout.matches("\"claim\"").count();
    if ![0, 1].contains(&evidence.code()) || checks != CHECKS {
        return Some(format!("evidence {}, {checks} checks: {}{}", evidence.code(), evidence.stdout, evidence.stderr));
    }
    // Told once, without floods.
    let loud = ended.stderr.lines().filter(|line| !line.contains(" DEBUG ") && !line.contains(" INFO ")).count();
    let object = name.rsplit('/').next().unwrap_or(name);
    let whose = ["belongs to another pipeline", "belongs to the pipeline"];
    let said = |words: &str| ended.stderr.contains(words);
    // A table by its name and that of the object. Of objects that follow on one another the last is missed by its folder.
    let named = match place {
        STATE => said(object) || name.split('/').next().is_some_and(said) || whose.into_iter().any(said),
        _ => said(place) && (said(object) || whose.into_iter().any(said)),
    };
    let right = match ended.code() {
        // What the run does not read may be damaged still: evidence has said so.
        0 => true,
        5 => named && evidence.code() == 1,
        _ => false,
    };
    (!right || loud >= 20).then(|| format!("{}, evidence {}: {}", ended.code(), evidence.code(), ended.stderr))
}

/// A refusal comes at once, and not after patience has ended, which is ten minutes. A busy machine takes its time all the same.
const SOON: Duration = Duration::from_secs(60);

/// The checks of `evidence`.
const CHECKS: usize = 35;
