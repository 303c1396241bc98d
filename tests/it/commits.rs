//! What the logs of the tables say, read as plain JSON: one commit for each table and publication, and what it names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::data::eventful;
use crate::oracle::{Partition, Rules, check};
use crate::program::Case;
use crate::tables::{ALWAYS, CURATED, HEALTH, Shape, Tables, told};

/// The commits of a table, each with its actions.
pub(crate) fn log(output: &Path, shape: &Shape) -> Vec<Vec<Value>> {
    let directory = output.join(shape.name).join("_delta_log");
    let version = |n: usize| directory.join(format!("{n:020}.json"));
    let commits: Vec<Vec<Value>> = (0..)
        .map_while(|n| std::fs::read_to_string(version(n)).ok())
        .map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
        .collect();
    let files = directory.read_dir().unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.ends_with(".json") && name.starts_with('0')
    });
    assert_eq!(files.count(), commits.len(), "the versions of {} have a gap", shape.name);
    commits
}

fn actions<'a>(commit: &'a [Value], kind: &str) -> Vec<&'a Value> {
    commit.iter().filter_map(|action| action.get(kind)).collect()
}

/// Application transactions of a commit: application to version.
fn transactions(commit: &[Value]) -> BTreeMap<String, i64> {
    let version = |txn: &Value| (txn["appId"].as_str().unwrap().to_owned(), txn["version"].as_i64().unwrap());
    let all = actions(commit, "txn");
    let by_app: BTreeMap<String, i64> = all.iter().map(|txn| version(txn)).collect();
    assert_eq!(by_app.len(), all.len(), "an application twice in {all:?}");
    by_app
}

fn info(commit: &[Value]) -> &Value {
    let infos = actions(commit, "commitInfo");
    assert_eq!(infos.len(), 1);
    infos[0]
}

/// Checks the log of one table, and returns the epochs and watermarks of its publications.
fn publications(output: &Path, shape: &Shape, pipeline: &str) -> Vec<(i64, Option<i64>)> {
    let mut published = Vec::new();
    for (version, commit) in log(output, shape).iter().enumerate() {
        let (info, transactions) = (told(info(commit)), transactions(commit));
        assert_eq!(info["pipeline"], pipeline);
        assert_eq!(info["generation"], transactions[&format!("{pipeline}/fence")]);
        let epoch = transactions.get(&format!("{pipeline}/epoch")).copied();
        assert_eq!(info.get("epoch").and_then(Value::as_i64), epoch, "{info}");
        match info["kind"].as_str().unwrap() {
            "create" => assert_eq!((version, epoch), (0, None)),
            "publish" => published.push((epoch.unwrap(), info.get("watermark").and_then(Value::as_i64))),
            other => panic!("a commit for {other} in a short run"),
        }
    }
    let epochs: Vec<i64> = published.iter().map(|(epoch, _)| *epoch).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{}: {epochs:?}", shape.name);
    published
}

#[test]
fn every_publication_is_one_commit_to_every_table() {
    let case = Case::of(&eventful(21, &[400, 300]));
    let args = "--epoch-events 40 --curated --set sink.publish_interval=0ms --set epochs.max_in_flight=2 \
                --set pipeline.name=pay-1";
    case.run("out", &args.split_whitespace().collect::<Vec<_>>());
    let output = case.path("out");
    let tables = check(&output, &Partition::of_directory(&case.path("in")), Rules::epochs_of(40));
    let expected = publications(&output, &HEALTH, "pay-1");
    assert!(expected.len() >= 4, "{expected:?}");
    for shape in ALWAYS.iter().chain([&CURATED]) {
        assert_eq!(publications(&output, shape, "pay-1"), expected, "{}", shape.name);
    }
    assert_eq!(usize::try_from(expected.last().unwrap().0).unwrap(), tables.marks().len());
    // The watermark of a publication is that of its newest epoch.
    let watermarks = tables.column(&HEALTH, "watermark");
    for (epoch, watermark) in expected {
        let index = usize::try_from(epoch).unwrap() - 1;
        assert_eq!(crate::cells::Cell::from(watermark), watermarks[index], "epoch {epoch}");
    }
}

#[test]
fn a_publication_without_changes_commits_the_transaction_alone() {
    // Only the first epoch has anything but rejected events.
    let mut lines = eventful(22, &[30]).remove(0);
    lines.extend(vec!["{}".to_owned(); 60]);
    let case = Case::of(&[lines]);
    let each = ["--epoch-events", "30", "--set", "sink.publish_interval=0ms", "--set", "epochs.max_in_flight=1"];
    case.run("out", &each);
    let output = case.path("out");
    let marks = check(&output, &Partition::of_directory(&case.path("in")), Rules::epochs_of(30)).marks();
    assert_eq!(marks.len(), 3);
    for shape in &ALWAYS {
        let log = log(&output, shape);
        let files = actions(log.last().unwrap(), "add").len() + actions(log.last().unwrap(), "remove").len();
        assert_eq!(files == 0, shape.name.starts_with("metrics/"), "{}", shape.name);
        assert_eq!(transactions(log.last().unwrap())["tidemark/epoch"], 3);
    }
}

/// The type of a column in the words of the protocol.
fn delta_type(kind: &str) -> &str {
    match kind.trim_end_matches('?') {
        "int" => "integer",
        "money" => "decimal(38,2)",
        "amount" => "decimal(17,2)",
        "time" => "timestamp",
        "text" => "string",
        other => other,
    }
}

#[test]
fn schemas_and_constraints_stand_in_the_log() {
    let case = Case::of(&eventful(23, &[20]));
    case.run("out", &["--curated"]);
    let output = case.path("out");
    for shape in ALWAYS.iter().chain([&CURATED]) {
        let log = log(&output, shape);
        let metadata = log.iter().flat_map(|commit| actions(commit, "metaData")).next_back().unwrap();
        let schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
        let text = |field: &Value, key: &str| field[key].as_str().unwrap().to_owned();
        let fields = schema["fields"].as_array().unwrap().iter();
        let columns: Vec<_> = fields.map(|f| (text(f, "name"), text(f, "type"), f["nullable"].clone())).collect();
        let expected = shape
            .columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), delta_type(kind).to_owned(), Value::Bool(kind.ends_with('?'))));
        assert_eq!(columns, expected.collect::<Vec<_>>(), "{}", shape.name);
        assert!(!metadata["description"].as_str().unwrap().is_empty());

        let configuration = metadata["configuration"].as_object().unwrap();
        let counts = shape.columns.iter().filter(|(name, kind)| *kind == "long" && name.ends_with("_count"));
        for (name, _) in counts {
            let key = format!("delta.constraints.{name}_not_negative");
            assert_eq!(configuration[&key], format!("{name} >= 0"), "{}", shape.name);
        }
        let protocol = log.iter().flat_map(|commit| actions(commit, "protocol")).next_back().unwrap();
        assert!(protocol["minWriterVersion"].as_i64().unwrap() >= 3, "constraints bind every writer from 3 on");
    }
}

#[test]
fn readers_of_older_versions_see_older_epochs() {
    let case = Case::of(&eventful(24, &[200, 200]));
    // Both files are read side by side.
    let rules = Rules { alignment_us: 1 << 50, ..Rules::epochs_of(100) };
    let each = ["--epoch-events", "100", "--alignment", "3650 days", "--set", "sink.publish_interval=0ms"];
    case.run("out", &[&each[..], &["--set", "epochs.max_in_flight=1"]].concat());
    // Cutting the logs back to a publication gives the tables of a run that ended there.
    let epochs = publications(&case.path("out"), &HEALTH, "tidemark");
    let (version, epoch) = (epochs.len() - 1, usize::try_from(epochs[epochs.len() - 2].0).unwrap());
    for shape in &ALWAYS {
        let last = case.path("out").join(shape.name).join(format!("_delta_log/{:020}.json", version + 1));
        std::fs::remove_file(last).unwrap();
    }
    let mut partitions = Partition::of_directory(&case.path("in"));
    partitions.iter_mut().for_each(|partition| partition.bodies.truncate(50 * epoch));
    let tables: Tables = check(&case.path("out"), &partitions, rules);
    assert_eq!(tables.marks().len(), epoch);
}
