//! `evidence`: it passes whatever a run has gone through, while it runs too, and each check fails on what it is there for.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use tidemark_checkpoint::records::{Cuts, Manifest};
use tidemark_delta::{Identity, Lake, Location, Policy, TableWriter};

use crate::checkpoints::{copy, flip, forge, killed, newest, remove, start, stored};
use crate::data::{Event, HOUR_US, START_US, instant, quoted};
use crate::program::{Case, finish};
use crate::python::python;
use crate::tables::{CHANNELS, CURATED, HEALTH, MANIFEST, NET_FLOW, REJECTED, Shape, USER_METRICS};

static KILLED: LazyLock<Case> = LazyLock::new(|| {
    let case = killed();
    // Brings all tables to one epoch, and ends with a checkpoint.
    let mut running = start(&case, "");
    running.await_line("published");
    running.signal("INT");
    running.ended().well();
    case
});

/// Outcome of each check by its name.
type Outcomes = HashMap<String, String>;

fn evidence(case: &Case, status: i32) -> Outcomes {
    let ended = case.tidemark(&["evidence", "--output", "out", "--json"]);
    assert_eq!(ended.code(), status, "{}{}", ended.stdout, ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(found["passed"].as_bool(), Some(status == 0));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = found["checks"].as_array().unwrap();
    let outcomes: Outcomes = checks.iter().map(|check| (text(&check["name"]), text(&check["outcome"]))).collect();
    assert_eq!(outcomes.len(), checks.len(), "two checks of one name");
    outcomes
}

fn failed(outcomes: &Outcomes) -> Vec<&str> {
    let mut failed: Vec<&str> =
        outcomes.iter().filter(|(_, word)| *word == "failed").map(|(name, _)| name.as_str()).collect();
    failed.sort_unstable();
    failed
}

fn copied() -> Case {
    let case = Case::new();
    copy(&KILLED.path("out"), &case.path("out"));
    case
}

/// Damages a copy, and returns the checks that fail on it.
fn after(damage: impl FnOnce(&Case)) -> Vec<String> {
    let case = copied();
    damage(&case);
    failed(&evidence(&case, 1)).into_iter().map(ToOwned::to_owned).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// Changes rows of a table as another program would: an expression over the table `t`, of rows that a condition admits. It must
/// leave at once: the library's threads sometimes abort an orderly exit.
fn touch(python: &Path, case: &Case, shape: &Shape, expression: &str) {
    let table = case.path("out").join(shape.name);
    let script = format!(
        "import os, sys\nfrom deltalake import DeltaTable\nt = DeltaTable({:?})\nm = {expression}\n\
         os._exit(0 if m.get('num_updated_rows') or m.get('num_deleted_rows') else 1)",
        table.to_str().unwrap()
    );
    let ended = finish(Command::new(python).args(["-c", &script]), b"");
    assert_eq!(ended.code(), 0, "{expression} admits no row of {}: {}", shape.name, ended.stderr);
}

/// Sets columns of the rows that a condition admits.
fn set(python: &Path, case: &Case, shape: &Shape, columns: &[(&str, &str)], condition: &str) {
    let updates: Vec<String> = columns.iter().map(|(column, value)| format!("{column:?}: {value:?}")).collect();
    touch(python, case, shape, &format!("t.update(updates={{{}}}, predicate={condition:?})", updates.join(", ")));
}

#[test]
fn a_run_that_was_killed_and_went_on_passes() {
    let outcomes = evidence(&KILLED, 0);
    assert!(outcomes.values().all(|outcome| outcome == "passed"), "{outcomes:?}");
    assert!(outcomes.len() >= 33);
    let case = Case::of(&crate::data::eventful(51, &[300, 200]));
    case.run("out", &["--epoch-events", "40"]);
    let outcomes = evidence(&case, 0);
    assert_eq!(
        outcomes.iter().filter(|(_, word)| *word == "skipped").map(|(name, _)| name).collect::<Vec<_>>(),
        ["curated.events"]
    );
}

#[test]
fn what_a_kill_leaves_behind_passes() {
    for place in [
        "table-opened=2*off->return",
        "tables-fenced=return",
        "table-committed=9*off->return",
        "adopted=return",
        "before-table=return",
        "pruned=1*off->return",
    ] {
        let case = Case::new();
        let mut running = start(&case, place);
        running.await_line(&format!("stopped at {}", place.split('=').next().unwrap()));
        running.signal("KILL");
        drop(running);
        evidence(&case, 0);
    }
}

#[test]
fn an_input_without_events_passes() {
    let case = Case::of(&[vec![]]);
    case.run("out", &[]);
    evidence(&case, 0);
}

#[test]
fn a_running_pipeline_passes_every_time() {
    let case = Case::new();
    let mut running = start(&case, "");
    running.await_line("published");
    let mut epochs = Vec::new();
    for _ in 0..8 {
        let ended = case.tidemark(&["evidence", "--output", "out", "--json"]).well();
        let found: Value = serde_json::from_str(&ended.stdout).unwrap();
        epochs.push(found["epoch"].as_u64());
    }
    assert!(running.is_running());
    assert!(epochs.is_sorted() && epochs.first() < epochs.last(), "{epochs:?}");
    running.signal("INT");
    running.ended().well();
}

#[test]
fn the_page_is_written_and_needs_nothing_else() {
    let case = copied();
    let text = case.tidemark(&["evidence", "--output", "out", "--html", "e.html"]).well().stdout;
    assert!(text.contains("passed  m1.net_flow") && text.contains("checks passed"), "{text}");
    let page = std::fs::read_to_string(case.path("e.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("remembered ids") && !page.contains("http"), "{page}");
    let unwritable = case.tidemark(&["evidence", "--output", "out", "--html", "nowhere/e.html"]);
    unwritable.fails_with(3, &["nowhere/e.html"]);
}

#[test]
fn an_output_without_tables_is_told() {
    let case = Case::new();
    case.tidemark(&["evidence"]).fails_with(3, &["data", "no tables"]);
    case.tidemark(&["evidence", "--output", "nowhere"]).fails_with(3, &["nowhere", "--output"]);
    assert!(!case.path("data").exists() && !case.path("nowhere").exists());
}

/// A change to the rows of a table, and checks that it must fail besides `commits.marked`.
type Change = (&'static Shape, &'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);

#[test]
fn a_changed_row_fails_its_check() {
    let Some(python) = python("import deltalake") else { return };
    let changes: [Change; 17] = [
        (&NET_FLOW, &[("net_flow", "net_flow + cast(0.01 as decimal(38,2))")], "id = 1", &["m1.net_flow"]),
        (&NET_FLOW, &[("avg_deposit", "-1.0")], "id = 1", &["m1.values"]),
        (&USER_METRICS, &[("user_id", "'somebody'")], "deposit_count > 0", &["m2.one_row_each"]),
        (&USER_METRICS, &[("deposit_count", "0")], "deposit_count > 0", &["cut.counts", "m2.counted"]),
        (
            &USER_METRICS,
            &[("last_seen", "first_seen"), ("first_seen", "last_seen")],
            "first_seen < last_seen",
            &["m2.values"],
        ),
        (
            &USER_METRICS,
            &[("total_deposits", "total_deposits + cast(0.01 as decimal(38,2))")],
            "deposit_count > 0",
            &["cut.amounts"],
        ),
        (&CHANNELS, &[("channel", "'web'")], "channel = 'api'", &["m3.pairs"]),
        (
            &CHANNELS,
            &[("total_amount", "cast(0 as decimal(38,2)) - total_amount")],
            "channel = 'api'",
            &["cut.amounts", "m3.values"],
        ),
        (&CHANNELS, &[("event_count", "event_count + 1")], "channel = 'api'", &["cut.counts"]),
        (
            &HEALTH,
            &[("events_valid", "events_valid + 1"), ("events_received", "events_received + 1")],
            "batch_id = 1",
            &["checkpoint.tables_count", "curated.events", "health.accepted", "manifest.sums"],
        ),
        (
            &HEALTH,
            &[("events_received", "events_received + 1")],
            "batch_id = 1",
            &["checkpoint.tables_count", "health.balance", "manifest.sums"],
        ),
        (&HEALTH, &[("late_events", "late_events + 1")], "batch_id = 1", &["rejected.reasons"]),
        (&HEALTH, &[("rejected_by_reason", "'{}'")], "events_rejected > 0", &["rejected.reasons"]),
        (
            &REJECTED,
            &[("rejection_reason", "'R000_malformed_event'")],
            "rejection_reason <> 'R000_malformed_event'",
            &["rejected.reasons"],
        ),
        (&REJECTED, &[("epoch", "epoch + 1")], "epoch < 5", &["rejected.epochs"]),
        (&MANIFEST, &[("total_events_received", "total_events_received + 1")], "true", &["manifest.sums"]),
        (&CURATED, &[("amount", "amount + cast(0.01 as decimal(17,2))")], "epoch = 1", &["curated.events"]),
    ];
    let mut differences = Vec::new();
    for (shape, columns, condition, checks) in changes {
        let failed = after(|case| set(&python, case, shape, columns, condition));
        let mut wanted = [checks, &["commits.marked"]].concat();
        wanted.sort_unstable();
        if failed != wanted {
            differences.push(format!("{} {columns:?}: failed {failed:?}, expected {wanted:?}", shape.name));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Another program may take its columns for such as admit nulls, and say so in the log.
#[test]
fn a_null_fails_wherever_it_is() {
    let Some(python) = python("import deltalake") else { return };
    let nulls: [(&Shape, &str, &str); 4] = [
        (&NET_FLOW, "avg_deposit", "m1.values"),
        (&USER_METRICS, "updated_at", "m2.values"),
        (&HEALTH, "status", "tables.readable"),
        (&CURATED, "currency", "tables.readable"),
    ];
    for (shape, column, check) in nulls {
        let failed = after(|case| {
            let log = case.path("out").join(shape.name).join("_delta_log");
            let first = log.join(format!("{:020}.json", 0));
            let text = std::fs::read_to_string(&first).unwrap();
            // As a commit of before, which has no digest.
            let text = text.replace(r#"\"digest\""#, r#"\"other\""#);
            std::fs::write(&first, text.replace(r#"\"nullable\":false"#, r#"\"nullable\":true"#)).unwrap();
            set(&python, case, shape, &[(column, "null")], "true");
        });
        assert_eq!(failed, ["commits.marked", check], "{column} of {}", shape.name);
    }
}

#[test]
fn what_others_do_to_files_and_words_alone_passes() {
    let Some(python) = python("import deltalake") else { return };
    let case = copied();
    let table = |shape: &Shape| format!("DeltaTable({:?})", case.path("out").join(shape.name).to_str().unwrap());
    let script = format!(
        "import os\nfrom deltalake import DeltaTable\nn = {}.optimize.compact()['numFilesRemoved']\n\
         {}.alter.set_table_description('mine')\n{}.alter.set_table_properties({{'owner': 'me'}}, raise_if_not_exists=False)\n\
         os._exit(0 if n > 1 else 1)",
        table(&HEALTH),
        table(&USER_METRICS),
        table(&NET_FLOW)
    );
    let ended = finish(Command::new(&python).args(["-c", &script]), b"");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    evidence(&case, 0);
}

#[test]
fn a_missing_row_fails_its_check() {
    let Some(python) = python("import deltalake") else { return };
    let deletions: [(&Shape, &str, &str); 6] = [
        (&NET_FLOW, "true", "m1.one_row"),
        (&USER_METRICS, "deposit_count > 0", "cut.counts"),
        (&CHANNELS, "channel = 'web'", "cut.amounts"),
        (&HEALTH, "batch_id = 3", "health.epochs"),
        (&REJECTED, "source_offset < 200", "rejected.epochs"),
        (&CURATED, "source_offset = 1", "curated.events"),
    ];
    for (shape, condition, check) in deletions {
        let failed = after(|case| touch(&python, case, shape, &format!("t.delete({condition:?})")));
        assert!(failed.contains(&check.to_owned()) && failed.contains(&"commits.marked".to_owned()), "{failed:?}");
    }
}

/// Replaces text in the commits of a table, from the newest back, until it was found.
fn edit_log(case: &Case, shape: &Shape, wanted: &str, change: impl Fn(&str) -> String) {
    let log = case.path("out").join(shape.name).join("_delta_log");
    let mut commits: Vec<_> = log.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    commits.sort();
    let texts = commits.iter().rev().map(|path| (path, std::fs::read_to_string(path).unwrap()));
    let (path, text) = texts.skip(2).find(|(_, text)| text.contains(wanted)).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    std::fs::write(path, changed).unwrap();
}

#[test]
fn a_commit_that_says_something_else_fails() {
    let kind = r#"\"kind\":\"publish\""#;
    let unmarked = after(|case| edit_log(case, &NET_FLOW, kind, |text| text.replace(kind, r#"\"other\":\"publish\""#)));
    assert_eq!(unmarked, ["commits.marked"]);
    let quiet = after(|case| {
        edit_log(case, &NET_FLOW, kind, |text| text.replace(kind, r#"\"kind\":\"maintenance\""#));
    });
    assert_eq!(quiet, ["commits.grow"]);
    let fallen = |text: &str| {
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            if line["txn"]["appId"] == "tidemark/epoch" {
                line["txn"]["version"] = 1.into();
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect::<String>()
    };
    let noticed = after(|case| edit_log(case, &HEALTH, kind, fallen));
    assert!(noticed.contains(&"cut.epoch".to_owned()), "{noticed:?}");
    // Without its digest, as commits of before are.
    let before = |text: &str| fallen(text).replace(r#"\"digest\""#, r#"\"other\""#);
    let fallen = after(|case| edit_log(case, &HEALTH, kind, before));
    assert_eq!(fallen, ["commits.grow", "commits.marked", "commits.never_fall"]);
}

/// Two files of which one is behind the other, without duplicates, and with all checkpoints kept.
static DATED: LazyLock<Case> = LazyLock::new(|| {
    let line = |name: &str, ahead: i64, index: i64| {
        let event = Event::new(&format!("{name}{index}"), 60 * (ahead + index));
        match index {
            100 => event.at(&instant(START_US - 30 * HOUR_US)).line(),
            120 => Event { id: quoted(&format!("{name}119")), ..event }.amount("11").line(),
            130 => event.amount("0").line(),
            _ => event.line(),
        }
    };
    let file = |name: &str, ahead| (0..300).map(|index| line(name, ahead, index)).collect();
    let case = Case::of(&[file("a", 0), file("b", 20)]);
    let kept = ["--checkpoint-interval", "0s", "--set", "checkpoint.keep=1000", "--set", "sink.publish_interval=0s"];
    case.run("out", &[&["--epoch-events", "20", "--curated", "--watermark-delay", "10m"][..], &kept].concat());
    case
});

/// What evidence says of watermarks on a copy of such a pipeline, and the checks that fail on it.
fn dated(status: i32, damage: impl FnOnce(&Case)) -> (String, Vec<String>) {
    let case = Case::new();
    copy(&DATED.path("out"), &case.path("out"));
    damage(&case);
    let ended = case.tidemark(&["evidence", "--output", "out", "--json"]);
    assert_eq!(ended.code(), status, "{}{}", ended.stdout, ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = found["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "watermark.follows").unwrap();
    let failed = checks.iter().filter(|check| check["outcome"] == "failed");
    (check.to_string(), failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn watermarks_are_computed_again_exactly_where_all_times_are_stored() {
    let (said, failed) = dated(0, |_| {});
    assert!(failed.is_empty());
    assert!(said.contains("of 30") && said.contains("exactly; ") && !said.contains("within"), "{said}");
    let epochs: u64 = said.split("to 30 of 30: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(epochs >= 20, "{said}");
    // Of a stream with duplicates, some lie between bounds.
    let case = Case::of(&crate::data::eventful(51, &[300, 200]));
    let kept = ["--checkpoint-interval", "0s", "--set", "checkpoint.keep=1000", "--set", "sink.publish_interval=0s"];
    case.run("out", &[&["--epoch-events", "20", "--curated"][..], &kept].concat());
    let text = case.tidemark(&["evidence", "--output", "out"]).well().stdout;
    let line = text.lines().find(|line| line.contains("watermark.follows")).unwrap();
    assert!(line.starts_with("passed"), "{text}");
    assert!(text.contains("recomputed for epochs ") && text.contains(" compared"), "{text}");
}

#[test]
fn a_watermark_that_does_not_follow_fails() {
    let Some(python) = python("import deltalake") else { return };
    let one_more = [("watermark", "watermark + interval '1 microsecond'")];
    let (said, failed) = dated(1, |case| set(&python, case, &HEALTH, &one_more, "batch_id = 30"));
    assert_eq!(failed, ["watermark.follows", "commits.marked"], "{said}");
    let (said, failed) = dated(1, |case| set(&python, case, &HEALTH, &one_more, "batch_id = 12"));
    assert_eq!(failed, ["watermark.follows", "commits.marked"], "{said}");
    let earlier = [("watermark", "watermark - interval '1 day'")];
    let (said, failed) = dated(1, |case| set(&python, case, &HEALTH, &earlier, "batch_id = 20"));
    assert_eq!(failed, ["health.watermark", "watermark.follows", "commits.marked"], "{said}");
    let (said, failed) = dated(1, |case| set(&python, case, &HEALTH, &[("watermark", "null")], "batch_id = 30"));
    assert_eq!(failed, ["health.watermark", "watermark.follows", "commits.marked"], "{said}");
}

#[test]
fn a_checkpoint_that_says_something_else_of_time_fails() {
    let (_, newest, manifest) = newest(&DATED);
    assert_eq!(manifest.event_times.unwrap().partitions.len(), 2);
    let forged = |change: fn(&mut Manifest)| dated(1, |case| forge(case, &newest, change)).1;
    let later = forged(|manifest| {
        let times = manifest.event_times.as_mut().unwrap();
        times.watermark_us = times.watermark_us.map(|at| at + 1);
    });
    assert_eq!(later, ["watermark.follows"]);
    // Its watermark still follows from its own times, and these are not those of the events.
    let other = forged(|manifest| manifest.event_times.as_mut().unwrap().partitions[0].newest_us[3] -= 1);
    assert_eq!(other, ["watermark.follows"]);
    // Cuts that say of no partition that it was behind.
    let cut = dated(1, |case| {
        let names: Vec<String> = stored(case).cuts_of(1).map(|object| object.name.clone()).collect();
        forge(case, &names[names.len() / 2], |cuts: &mut Cuts| {
            cuts.cuts.iter_mut().for_each(|cut| cut.behind = Some(Vec::new()));
        });
    });
    assert!(cut.1.contains(&"watermark.follows".to_owned()), "{cut:?}");
}

#[test]
fn a_table_that_is_gone_or_unreadable_fails() {
    let gone = after(|case| std::fs::remove_dir_all(case.path("out/metrics/net_flow")).unwrap());
    assert!(gone.contains(&"cut.epoch".to_owned()), "{gone:?}");
    let unreadable = after(|case| {
        for entry in case.path("out/metrics/user_metrics").read_dir().unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|extension| extension == "parquet") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    });
    assert_eq!(unreadable, ["tables.files", "tables.readable"]);
}

#[test]
fn a_table_ahead_of_the_cuts_fails() {
    let ahead = after(|case| {
        let (adoption, _, manifest) = newest(case);
        block_on(async {
            let location = Location::parse(case.path("out").to_str().unwrap(), HashMap::new()).unwrap();
            let generation = i64::try_from(adoption.generation).unwrap();
            let identity = Identity { pipeline: "tidemark".to_owned(), generation, lineage: adoption.identity.lineage };
            let lake = Lake::new(location, identity, Policy::default()).unwrap();
            let specs = tidemark::sink::tables::specs(true);
            let spec = specs.into_iter().find(|spec| spec.name == HEALTH.name).unwrap();
            let mut writer = TableWriter::open_or_create(&lake, spec).await.unwrap();
            writer.publish(manifest.epoch + 1, None, None).await.unwrap();
        });
    });
    assert_eq!(ahead, ["checkpoint.tables"]);
}

#[test]
fn damage_to_a_checkpoint_fails() {
    let (_, name, manifest) = newest(&KILLED);
    let run = &manifest.ids.last().unwrap().name;
    assert_eq!(after(|case| remove(case, run)), ["checkpoint.runs"]);
    assert_eq!(after(|case| flip(case, run)), ["checkpoint.runs"]);
    assert!(after(|case| flip(case, &name)).contains(&"checkpoint.chain".to_owned()));
    let none = after(|case| std::fs::remove_dir_all(case.path("out/_tidemark")).unwrap());
    assert_eq!(none, ["checkpoint.chain"]);
}
