//! The layers together: who wins, and that nothing wrong goes by unreported.

#![allow(clippy::unwrap_used)]
use super::*;
use std::path::Path;
use std::time::Duration;

fn flag(key: &str, value: &str) -> Given {
    Given { key: key.to_owned(), raw: Raw::Word(value.to_owned()), origin: Origin::Flag(format!("--set {key}")) }
}

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

fn write(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("t.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn origin(effective: &Effective, key: &str) -> String {
    effective.iter().find(|(setting, _)| setting.key == key).unwrap().1.origin.to_string()
}

#[test]
fn the_defaults_are_sound_and_complete() {
    let effective = Effective::load(Layers::default()).unwrap();
    assert_eq!(effective.iter().count(), SETTINGS.len());
    let config = &effective.config;
    assert_eq!((config.generator.rate, config.generator.users, config.source.kind), (100, 500, SourceKind::Generate));
    assert_eq!(config.epochs.trigger, Duration::from_secs(1));
    assert_eq!(config.publish_interval(), Duration::from_secs(1));
    assert_eq!(config.epochs.max_bytes_in_flight, 256 << 20);
    assert_eq!(config.generator.start, None);
    assert!(config.runtime.worker_count() >= 1);
}

#[test]
fn each_layer_wins_over_the_one_below_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[epochs]\nevents = 3\n");
    let mut layers = Layers::default();
    let expect = |layers: &Layers, events: u64, from: &str| {
        let effective = Effective::load(layers.clone()).unwrap();
        assert_eq!(effective.config.epochs.events, events, "{from}");
        assert_eq!(origin(&effective, "epochs.events"), from);
    };
    expect(&layers, 100_000, "default");
    layers.verb = Some(("generate", &[("epochs.events", "2")]));
    expect(&layers, 2, "default of generate");
    layers.file = Some(file.clone());
    expect(&layers, 3, &format!("{}:2:1", file.display()));
    layers.environment.push(variable("TIDEMARK__EPOCHS__EVENTS", "4"));
    expect(&layers, 4, "environment variable TIDEMARK__EPOCHS__EVENTS");
    layers.flags.push(flag("epochs.events", "5"));
    expect(&layers, 5, "flag --set epochs.events");
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[generator]\nrate = \"fast\"\n\n[epochs]\ntriger = \"1s\"\n\n[sinks]\n[log]\nlevel = \"inof\"\n";
    let file = write(directory.path(), text);
    let place = file.display();
    let problems = Effective::load(Layers {
        file: Some(file.clone()),
        environment: vec![variable("TIDEMARK__DEDUP__RETENTION", "3 moons"), variable("TIDEMARK__SINK", "1")],
        // A layer above does not make a wrong value right.
        flags: vec![flag("generator.rate", "7"), flag("runtime.workers", "5000")],
        ..Layers::default()
    })
    .unwrap_err();
    let expected = [
        format!(
            "generator.rate = \"fast\" ({place}:2:1): allowed: a whole number from 0 to 100000000"
        ),
        format!("epochs.triger ({place}:5:1): unknown key; did you mean epochs.trigger?"),
        format!("sinks ({place}:7:2): unknown key; `tidemark config show` lists them all"),
        format!("log.level = \"inof\" ({place}:9:1): allowed: {}", kind::Kind::LogFilter.allowed()),
        "dedup.retention = \"3 moons\" (environment variable TIDEMARK__DEDUP__RETENTION): allowed: a duration from 1s to \
         3650 days, or \"\" for the watermark delay"
            .to_owned(),
        "sink (environment variable TIDEMARK__SINK): unknown key; `tidemark config show` lists them all".to_owned(),
        "runtime.workers = \"5000\" (flag --set runtime.workers): allowed: a whole number from 0 to 1024".to_owned(),
    ];
    let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_file_with_wrong_syntax_does_not_hide_problems_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[epochs\n");
    let layers = Layers { file: Some(file), flags: vec![flag("log.format", "xml")], ..Layers::default() };
    let problems = Effective::load(layers).unwrap_err().to_string();
    assert!(problems.contains("t.toml:1:8: not valid TOML"), "{problems}");
    assert!(problems.contains("allowed: human or json"), "{problems}");
}

#[test]
fn publications_are_rarer_in_an_object_store_unless_told() {
    let load = |flags| Effective::load(Layers { flags, ..Layers::default() }).unwrap().config.publish_interval();
    let remote = || flag("output.path", "abfss://lake@acme.dfs.core.windows.net/payments");
    let known = || flag("azure.credential", "azure_cli");
    assert_eq!(load(vec![remote(), known()]), Duration::from_secs(10));
    assert_eq!(load(vec![remote(), known(), flag("sink.publish_interval", "2s")]), Duration::from_secs(2));
    assert_eq!(load(vec![flag("sink.publish_interval", "0s")]), Duration::ZERO);
}

#[test]
fn retention_follows_the_watermark_delay_unless_given() {
    let load = |flags| Effective::load(Layers { flags, ..Layers::default() }).unwrap().config.dedup.retention;
    assert_eq!(load(vec![flag("dedup.watermark_delay", "2h")]), Duration::from_secs(7200));
    assert_eq!(load(vec![flag("dedup.watermark_delay", "2h"), flag("dedup.retention", "5s")]), Duration::from_secs(5));
}

#[test]
fn inputs_in_a_file_give_way_to_a_source_given_above() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[source]\ninputs = [\"events/\"]\n");
    let mut layers = Layers { file: Some(file), ..Layers::default() };
    assert_eq!(Effective::load(layers.clone()).unwrap().config.source.kind, SourceKind::File);
    layers.environment.push(variable("TIDEMARK__SOURCE__KIND", "generate"));
    assert_eq!(Effective::load(layers).unwrap().config.source.kind, SourceKind::Generate);
}
