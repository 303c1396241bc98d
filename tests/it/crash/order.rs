//! The order of durable effects: a cut before anything that follows from it, a checkpoint after all of it. A kill at a
//! random instant would seldom meet the moment in which a wrong order shows; here that moment lasts for seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::crash::job::{EAGER, Job};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::tables::{ALWAYS, told};

/// Runs three epochs, and pauses once at a place.
fn paused_at(place: &str) -> Job {
    let job = Job::new(&eventful(61, &[45, 40]), Rules::epochs_of(30), "");
    let ended = job.start(2, EAGER, &format!("{place}=1*return(4000)->off")).ended().well();
    assert!(ended.stderr.contains(&format!("stopped at {place}")), "{}", ended.stderr);
    job.check();
    job
}

/// Files in a folder, in order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn written(file: &Path) -> SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}

/// The publications of a table: the epoch that each brought it to, and when.
fn publications(job: &Job, table: &str) -> Vec<(i64, SystemTime)> {
    let commits = files(&job.output().join(table).join("_delta_log")).into_iter();
    let epoch = |commit: &PathBuf| {
        let text = fs::read_to_string(commit).unwrap();
        let actions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let info = actions.filter_map(|action| action.get("commitInfo").cloned()).next().unwrap();
        told(&info)["epoch"].as_i64()
    };
    let commits = commits.filter(|commit| commit.extension().is_some_and(|extension| extension == "json"));
    commits.filter_map(|commit| epoch(&commit).map(|epoch| (epoch, written(&commit)))).collect()
}

#[test]
fn an_epoch_has_no_effect_before_its_cut_is_durable() {
    let job = paused_at("before-cut");
    let first = files(&job.output().join("_tidemark/cuts/0000000001")).remove(0);
    for shape in &ALWAYS {
        let published = publications(&job, shape.name);
        assert!(written(&first) <= published[0].1, "{} was published before the first epoch was cut", shape.name);
    }
}

#[test]
fn a_checkpoint_comes_after_the_tables_that_it_vouches_for() {
    let job = paused_at("table-committed");
    let first = files(&job.output().join("_tidemark/manifests/0000000001")).remove(0);
    for shape in &ALWAYS {
        let published = publications(&job, shape.name);
        assert!(published[0].1 <= written(&first), "a checkpoint vouches for {} too early", shape.name);
    }
}
