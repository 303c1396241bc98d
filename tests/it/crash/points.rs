//! Every place at which a kill could matter, by name: killed there, restarted with another number of workers, finished.

use crate::crash::job::{Job, Stop, side_by_side};
use crate::data::eventful;
use crate::oracle::Rules;

/// Places that a start comes to once, or once for each table, before it reads an event.
const AT_START: [&str; 5] = ["generation-claimed", "table-opened", "tables-fenced", "adopted", "replayed"];

/// Places that a run comes to for every epoch, table, run or checkpoint, with how often it passes them here before it
/// stops at a later one: in the middle of a publication or checkpoint that is not the first.
const AGAIN: [(&str, usize); 15] = [
    ("before-cut", 2),
    ("cut-written", 2),
    ("cut-announced", 2),
    ("before-table", 2),
    ("table-committed", 8),
    ("group-published", 2),
    ("maintained", 2),
    ("before-run", 4),
    ("run-written", 4),
    ("runs-merged", 1),
    ("before-manifest", 1),
    ("manifest-published", 1),
    ("pruning", 1),
    ("pruned", 1),
    ("checkpoint-asked", 1),
];

/// Comes once, at the end.
const AT_END: &str = "source-ended";

fn places() -> Vec<&'static str> {
    AT_START.into_iter().chain(AGAIN.map(|(place, _)| place)).chain([AT_END]).collect()
}

/// Kills, each with the number of workers of the program that is killed.
type Kills = Vec<(Stop, usize)>;

/// Two files of so many epochs; the watermark passes, ids are forgotten, and all kinds of rejections occur.
fn job(epochs: usize) -> Job {
    let hour_us = crate::data::HOUR_US;
    let rules = Rules { watermark_delay_us: 2 * hour_us, dedup_retention_us: 3 * hour_us, ..Rules::epochs_of(24) };
    Job::new(&eventful(17, &[12 * epochs, 12 * epochs - 29]), rules, "--set sink.compact_after_files=2")
}

/// As few as let the program come to these places: a publication may take two epochs, and a checkpoint two publications.
fn epochs_for(kills: &Kills) -> usize {
    let needed = kills.iter().map(|(stop, _)| match stop.place {
        "runs-merged" => 12 + 12 * stop.passed,
        _ if stop.passed == 0 => 2,
        _ => 6,
    });
    1 + needed.sum::<usize>().max(3)
}

fn survives(kills: &Kills) {
    let job = job(epochs_for(kills));
    kills.iter().for_each(|(stop, workers)| job.kill_at(*workers, stop));
    let last = kills.last().map_or(1, |(_, workers)| *workers);
    job.finish(if last == 1 { 2 } else { 1 });
    job.check();
}

#[test]
fn a_kill_at_the_first_arrival_at_each_place() {
    let cases: Vec<Kills> =
        places().into_iter().flat_map(|place| [1, 2].map(|workers| vec![(Stop::first(place), workers)])).collect();
    side_by_side(&cases, survives);
}

#[test]
fn a_kill_at_a_later_arrival_at_each_place() {
    let tables = ("table-opened", 3);
    let stops = AGAIN.into_iter().chain([tables]).map(|(place, passed)| Stop { place, passed });
    let cases: Vec<Kills> = stops.flat_map(|stop| [1, 2].map(|workers| vec![(stop, workers)])).collect();
    side_by_side(&cases, survives);
}

#[test]
fn a_kill_at_each_place_of_a_restarted_run() {
    // What is found at the restart: a cut without effects, half a publication, a publication without a manifest.
    let before = [("cut-written", 2), ("table-committed", 8), ("before-manifest", 1)];
    let before = before.map(|(place, passed)| Stop { place, passed });
    let mut cases = Vec::new();
    for (index, place) in places().into_iter().enumerate() {
        let workers = 1 + index % 2;
        cases.push(vec![(before[index % before.len()], 3 - workers), (Stop::first(place), workers)]);
    }
    side_by_side(&cases, |kills: &Kills| survives(kills));
}

#[test]
fn kills_in_a_row() {
    // Nothing but the start comes again after the end of the source.
    let places: Vec<&str> = places().into_iter().filter(|place| *place != AT_END).collect();
    let kill = |at: usize| (Stop::first(places[at % places.len()]), 1 + at % 3);
    let chain =
        |at: usize| vec![kill(at), kill(at + 7), kill(at + 13), (Stop::first(AT_END), 2), kill(at % AT_START.len())];
    let cases: Vec<Kills> = (0..places.len()).step_by(2).map(chain).collect();
    side_by_side(&cases, |kills: &Kills| survives(kills));
}
