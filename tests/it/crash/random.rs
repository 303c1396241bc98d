//! Kills at random instants, few enough for every run of the tests. The example `torture` does the same for longer.

use crate::crash::storm::{Phase, Plan, Report, storm};

fn survives(plan: &Plan) {
    let report: Report = storm(plan, |_| {});
    assert_eq!(report.killed(), plan.kills);
    assert!(report.kills.get(&Phase::Running).is_some_and(|kills| *kills * 3 >= plan.kills), "{report}");
    assert!(report.after_progress * 3 >= plan.kills, "{report}");
    assert!(report.looks >= 2 && report.generations > 1, "{report}");
}

#[test]
fn files_survive_kills_at_random_instants() {
    survives(&Plan { kills: 13, seed: 1, workers: vec![1, 2, 3], epoch_events: 20, files: 3, events: 0 });
}

#[test]
fn standard_input_survives_kills_at_random_instants() {
    survives(&Plan { kills: 12, seed: 2, workers: vec![1, 2], epoch_events: 60, files: 0, events: 0 });
}
