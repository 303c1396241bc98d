//! Tables that are lost or damaged, object by object: the next start goes on rightly, or is refused at once by the object's
//! name; and what `evidence` says of each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::crash::job::{Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Gone,
    Emptied,
    CutShort,
    CutAtALine,
    OneBit,
    Zeroed,
    AnOlderOne,
    OfAnotherPipeline,
}

const HARMS: [Harm; 8] = [
    Harm::Gone,
    Harm::Emptied,
    Harm::CutShort,
    Harm::CutAtALine,
    Harm::OneBit,
    Harm::Zeroed,
    Harm::AnOlderOne,
    Harm::OfAnotherPipeline,
];

/// The tables whose objects are harmed: one that is merged, one that is appended to.
const TABLES: [&str; 2] = ["metrics/user_metrics", "monitoring/stream_health"];

/// The part of a name that says what an object is: its last ending, or all of it.
fn kind(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split_once('.').map_or(name, |(_, kind)| kind.rsplit_once('.').map_or(kind, |(_, last)| last))
}

/// Does it; false where there is nothing to do.
fn harm(folder: &Path, other: &Path, name: &str, harm: Harm) -> bool {
    let path = folder.join(name);
    let mut content = fs::read(&path).unwrap();
    let before = content.clone();
    let middle = content.len() / 2;
    let alike = |folder: &Path| {
        let all = objects(folder).into_iter().filter(|found| kind(found) == kind(name) && found != name);
        all.filter(|found| found.starts_with("_delta_log") == name.starts_with("_delta_log")).collect::<Vec<_>>()
    };
    match harm {
        Harm::Gone => return fs::remove_file(path).is_ok(),
        Harm::Emptied => content.clear(),
        Harm::CutShort => content.truncate(content.len() * 2 / 3),
        Harm::CutAtALine => match content[..content.len().saturating_sub(1)].iter().rposition(|byte| *byte == b'\n') {
            Some(end) if name.ends_with(".json") => content.truncate(end + 1),
            _ => return false,
        },
        Harm::OneBit => content[middle] ^= 1,
        Harm::Zeroed => content[middle - middle.min(32)..].iter_mut().take(64).for_each(|byte| *byte = 0),
        Harm::AnOlderOne => match alike(folder).into_iter().take_while(|found| found.as_str() < name).last() {
            Some(older) => content = fs::read(folder.join(older)).unwrap(),
            None => return false,
        },
        Harm::OfAnotherPipeline => {
            let same = other.join(name);
            let found = same.is_file().then_some(same).or_else(|| alike(other).first().map(|name| other.join(name)));
            match found {
                Some(found) => content = fs::read(found).unwrap(),
                None => return false,
            }
        }
    }
    fs::write(path, &content).unwrap();
    content != before
}

/// The objects of a table, in the order of their names.
fn objects(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for path in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Several log checkpoints, and work to do after a kill.
fn killed(seed: u64) -> Job {
    let job = Job::new(&eventful(seed, &[160, 120]), Rules::epochs_of(8), "--set sink.log_checkpoint_every=3");
    job.kill_at(1, &Stop { place: "group-published", passed: 4 });
    job
}

#[test]
fn a_damaged_table_is_gone_on_with_rightly_or_refused_by_name() {
    let (job, other) = (killed(71), killed(72));
    let names = |table: &str| objects(&job.output().join(table));
    let all = TABLES.iter().flat_map(|table| names(table).into_iter().map(move |name| (*table, name)));
    let cases: Vec<(&str, String, Harm)> =
        all.flat_map(|(table, name)| HARMS.map(|harm| (table, name.clone(), harm))).collect();
    let told = Mutex::new(Vec::new());
    side_by_side(&cases, |(table, name, how)| {
        let damaged = job.copy();
        let folder = |job: &Job| -> PathBuf { job.output().join(table) };
        if !harm(&folder(&damaged), &folder(&other), name, *how) {
            return;
        }
        let evidence = damaged.case.tidemark(&["evidence", "--output", "out", "--json"]);
        assert!([0, 1].contains(&evidence.code()), "{table} {name} {how:?}: {}", evidence.stderr);
        assert!(evidence.stdout.contains("cut.epoch"), "{table} {name} {how:?}: {}", evidence.stdout);
        let began = Instant::now();
        let ended = damaged.start(1, "", "").ended();
        let (took, status) = (began.elapsed(), ended.code());
        told.lock().unwrap().push(format!("{table}/{name} {how:?}: run {status}, evidence {}", evidence.code()));
        match status {
            // What the run does not read may be damaged still: evidence has said so.
            0 if evidence.code() == 0 => drop(damaged.check()),
            0 => {}
            5 => {
                assert!(took < Duration::from_secs(5), "{table} {name} {how:?}: {took:?}");
                let object = name.rsplit('/').next().unwrap();
                let said = ended.stderr.contains(table)
                    && (ended.stderr.contains(object) || ended.stderr.contains("belongs to another pipeline"));
                assert!(said, "{table} {name} {how:?}: {}", ended.stderr);
                assert_eq!(evidence.code(), 1, "{table} {name} {how:?}: {}", evidence.stdout);
            }
            _ => panic!("{table} {name} {how:?}: {status} {}", ended.stderr),
        }
        // Told once, without floods.
        let loud = ended.stderr.lines().filter(|line| !line.contains(" DEBUG ") && !line.contains(" INFO ")).count();
        assert!(loud < 20, "{table} {name} {how:?}: {}", ended.stderr);
    });
    let told = told.into_inner().unwrap();
    let refused = told.iter().filter(|line| line.contains("run 5")).count();
    assert!(told.len() > 100 && refused > 25, "{} of {}", refused, told.len());
    if std::env::var_os("SHOW_DAMAGE").is_some() {
        println!("{}", told.join("\n"));
    }
}
