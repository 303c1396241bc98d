//! Others change rows of our tables, with Python's `deltalake`: that is said once, stays until it is settled, is refused, undone
//! or accepted, as asked for; and what changes no rows is nobody's business.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cells::Row;
use crate::checkpoints::start_with;
use crate::data::eventful;
use crate::program::{Case, Ended, finish};
use crate::python::python;
use crate::tables::{CHANNELS, HEALTH, MANIFEST, NET_FLOW, REJECTED, Shape, Tables, USER_METRICS};

/// A stranger's expression over the table `t`, as often as it takes beside a pipeline that commits as well. It must leave at
/// once: the library's threads sometimes abort an orderly exit.
fn stranger(python: &Path, case: &Case, shape: &Shape, expression: &str) {
    let table = case.path("out").join(shape.name);
    let script = format!(
        "import os, sys\nfrom deltalake import DeltaTable, write_deltalake\nfor _ in range(200):\n t = DeltaTable({:?})\n \
         try:\n  {expression}\n  os._exit(0)\n except Exception as e:\n  print(e, file=sys.stderr, flush=True)\nos._exit(1)",
        table.to_str().unwrap()
    );
    let ended = finish(Command::new(python).args(["-c", &script]), b"");
    assert_eq!(ended.code(), 0, "{expression} on {}: {}", shape.name, ended.stderr);
}

/// Operations that change rows, as the log names them.
const CHANGES: [(&str, &Shape, &str); 9] = [
    ("DELETE", &USER_METRICS, "t.delete('deposit_count > 0')"),
    ("DELETE", &NET_FLOW, "t.delete()"),
    ("UPDATE", &CHANNELS, "t.update(updates={'event_count': 'event_count + 1'}, predicate=\"channel = 'api'\")"),
    ("WRITE", &USER_METRICS, "write_deltalake(t, t.to_pyarrow_table().slice(0, 3), mode='append')"),
    ("WRITE", &USER_METRICS, "write_deltalake(t, t.to_pyarrow_table().slice(0, 3), mode='overwrite')"),
    ("RESTORE", &USER_METRICS, "t.restore(1)"),
    ("UPDATE", &MANIFEST, "t.update(updates={'total_events_received': '7'})"),
    (
        "MERGE",
        &CHANNELS,
        "t.merge(t.to_pyarrow_table(), 't.channel = s.channel', source_alias='s', target_alias='t')\
         .when_matched_delete(predicate=\"s.channel = 'web' AND t.event_type = s.event_type\").execute()",
    ),
    ("UPDATE", &USER_METRICS, "t.update(updates={'user_id': \"'somebody'\"}, predicate='deposit_count > 1')"),
];

/// What changes no rows.
const SILENT: [(&Shape, &str); 7] = [
    (&HEALTH, "t.optimize.compact()"),
    (&USER_METRICS, "t.optimize.z_order(['user_id'])"),
    (&REJECTED, "t.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)"),
    (&USER_METRICS, "t.alter.set_table_description('mine')"),
    (&USER_METRICS, "t.alter.set_table_properties({'owner': 'me'}, raise_if_not_exists=False)"),
    (&CHANNELS, "t.alter.set_column_metadata('channel', {'comment': 'mine'})"),
    (&HEALTH, "t.create_checkpoint()"),
];

fn told(case: &Case) -> Case {
    // Each epoch in a commit of its own, however busy the machine is.
    let apart = ["--set", "sink.publish_interval=0s", "--set", "epochs.max_in_flight=1"];
    case.run("out", &[&["--epoch-events", "60"][..], &apart].concat());
    case.copy()
}

fn run(case: &Case, args: &[&str]) -> Ended {
    case.tidemark(&[&["run", "--input", "in", "--output", "out", "--epoch-events", "60"], args].concat())
}

/// The status of `evidence`, and the checks that fail, or name what was accepted.
fn evidence(case: &Case) -> (i32, Vec<Value>) {
    let ended = case.tidemark(&["evidence", "--output", "out", "--json"]);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let of_interest = |check: &&Value| {
        check["outcome"] == "failed" || check["figures"].as_str().is_some_and(|figures| figures.contains("accepted: "))
    };
    (ended.code(), found["checks"].as_array().unwrap().iter().filter(of_interest).cloned().collect())
}

/// Rows of merged tables without the time of their last change, which a repair is.
fn values(case: &Case) -> Vec<Vec<Row>> {
    let tables = Tables::read(&case.path("out"));
    let without_last = |row: &Row| row[..row.len() - 1].to_vec();
    let metrics =
        [&NET_FLOW, &USER_METRICS, &CHANNELS].map(|shape| tables.rows(shape).iter().map(without_last).collect());
    let manifest = tables.rows(&MANIFEST).iter().map(|row| row[2..].to_vec()).collect();
    metrics.into_iter().chain([manifest]).collect()
}

fn warnings(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.contains("WARN") && line.contains("somebody else")).collect()
}

#[test]
fn each_change_of_rows_is_said_once_refused_and_undone() {
    let Some(python) = python("import deltalake") else { return };
    let original = Case::of(&eventful(61, &[300, 200]));
    let original = told(&original);
    let right = values(&original);
    for (operation, shape, expression) in CHANGES {
        let case = original.copy();
        stranger(&python, &case, shape, expression);
        let context = format!("{operation} of {}", shape.name);
        // Two reports: by the first run after it, and from then on in what stands in the log of the table.
        let ended = run(&case, &[]);
        let said = warnings(&ended);
        assert_eq!((ended.code(), said.len()), (0, 1), "{context}: {}", ended.stderr);
        for word in [shape.name, operation, "version=", "engine=", "repair", "--accept-changes"] {
            assert!(said[0].contains(word), "{context}: no {word} in {}", said[0]);
        }
        assert!(warnings(&run(&case, &[])).is_empty(), "{context}: said twice");
        let (status, found) = evidence(&case);
        let text = format!("{found:?}");
        assert_eq!(status, 1, "{context}");
        assert!(text.contains(&format!("somebody else has changed rows: {operation}")), "{context}: {text}");
        let refused = run(&case, &["--set", "sink.foreign_changes=refuse"]);
        refused.fails_with(5, &[shape.name, operation, "sink.foreign_changes = repair"]);
        run(&case, &["--set", "sink.foreign_changes=repair"]);
        assert_eq!(values(&case), right, "{context}: undone");
        assert_eq!(evidence(&case).0, 0, "{context}: {:?}", evidence(&case).1);
        run(&case, &["--set", "sink.foreign_changes=refuse"]).well();
    }
}

#[test]
fn what_changes_no_rows_is_passed_by() {
    let Some(python) = python("import deltalake") else { return };
    let case = told(&Case::of(&eventful(62, &[300, 200])));
    for (shape, expression) in SILENT {
        stranger(&python, &case, shape, expression);
        run(&case, &["--set", "sink.foreign_changes=refuse"]).well();
    }
    assert_eq!(evidence(&case).0, 0);
}

#[test]
fn a_change_can_be_accepted_and_is_named_from_then_on() {
    let Some(python) = python("import deltalake") else { return };
    for (shape, expression) in [
        (&USER_METRICS, "t.delete('deposit_count > 0')"),
        (&REJECTED, "t.delete('epoch < 4')"),
        (&HEALTH, "t.delete('batch_id = 2')"),
    ] {
        let case = told(&Case::of(&eventful(63, &[300, 200])));
        stranger(&python, &case, shape, expression);
        let words = if shape.name == REJECTED.name { "of epochs" } else { "DELETE" };
        run(&case, &["--set", "sink.foreign_changes=refuse"]).fails_with(5, &[shape.name, "DELETE"]);
        let accepted = run(&case, &["--accept-changes", "--set", "sink.foreign_changes=refuse"]);
        assert!(accepted.code() == 0 && accepted.stderr.contains("accepted: "), "{}", accepted.stderr);
        assert!(accepted.stderr.contains(words), "{}", accepted.stderr);
        let (status, found) = evidence(&case);
        assert!(status == 0 && !found.is_empty(), "{}: {found:?}", shape.name);
        run(&case, &["--set", "sink.foreign_changes=refuse"]).well();
        assert_eq!(evidence(&case).0, 0);
    }
}

#[test]
fn a_live_pipeline_writes_anew_what_others_change() {
    let Some(python) = python("import deltalake") else { return };
    let case = Case::new();
    let mut running = start_with(&case, "", &["--set", "sink.foreign_changes=repair"]);
    running.await_line("published");
    for (_, shape, expression) in CHANGES.iter().filter(|(operation, ..)| ["DELETE", "WRITE"].contains(operation)) {
        stranger(&python, &case, shape, expression);
        running.await_line("written anew");
    }
    running.signal("INT");
    assert_eq!(running.ended().code(), 0);
    let (status, found) = evidence(&case);
    assert_eq!(status, 0, "{found:?}");
}

#[test]
fn a_live_pipeline_ends_where_changes_are_refused() {
    let Some(python) = python("import deltalake") else { return };
    let case = Case::new();
    let mut running = start_with(&case, "", &["--set", "sink.foreign_changes=refuse"]);
    running.await_line("published");
    stranger(&python, &case, &CHANNELS, CHANGES[2].2);
    let ended = running.ended();
    assert!(ended.code() == 5 && ended.stderr.contains("UPDATE by"), "{}", ended.stderr);
}
