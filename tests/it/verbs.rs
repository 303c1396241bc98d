//! The verbs that print: each says something that is true.

use serde_json::Value;

use crate::program::{Case, Ended, finish, tidemark};
use crate::tables::{ALWAYS, CURATED};

fn print(args: &[&str]) -> Ended {
    let ended = Case::new().tidemark(args).well();
    assert_eq!(ended.stderr, "");
    ended
}

#[test]
fn config_show_tells_where_each_value_comes_from() {
    let case = Case::new();
    case.file("c.toml", "[generator]\nusers = 9\nrate = 1\n[epochs]\ntrigger = \"2s\"\n");
    let show = |format: &str| {
        let args = ["config", "show", "--config", "c.toml", "--rate", "3", "--format", format];
        let mut command = tidemark(case.root(), args);
        let command = command.env("TIDEMARK__GENERATOR__USERS", "7").env("TIDEMARK__GENERATOR__RATE", "2");
        finish(command, b"").well().stdout
    };
    let json: Value = serde_json::from_str(&show("json")).unwrap();
    let wanted = [
        ("generator.rate", "3", "--rate"),
        ("generator.users", "7", "TIDEMARK__GENERATOR__USERS"),
        ("epochs.trigger", "2s", "c.toml:5:1"),
        ("generator.seed", "42", "default"),
    ];
    for (key, value, origin) in wanted {
        let entry = json.get(key).unwrap_or_else(|| panic!("no {key} in {json}"));
        let text = entry.to_string();
        assert!(text.contains(value) && text.contains(origin), "{key}: {text}");
    }
    assert!(show("human").lines().any(|line| line.contains("generator.users") && line.contains('7')));
    // As TOML it is a configuration that says the same.
    case.file("again.toml", show("toml"));
    let again = case.tidemark(&["config", "show", "--config", "again.toml", "--format", "json"]).well();
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    for (key, value, _) in wanted {
        assert!(again[key].to_string().contains(value), "{key}: {}", again[key]);
    }
}

#[test]
fn validate_counts_settings() {
    let valid = print(&["validate", "--rate", "5", "--trigger", "3s"]).stdout;
    assert!(valid.contains("valid") && valid.contains("2 not at their default"), "{valid}");
    Case::new().tidemark(&["validate", "--trigger", "1ns"]).fails_with(2, &["epochs.trigger", "1ns", "10ms"]);
}

#[test]
fn schema_tables_has_every_column_of_the_specification() {
    let json: Value = serde_json::from_str(&print(&["schema", "tables", "--format", "json"]).stdout).unwrap();
    let tables = json.as_array().unwrap();
    assert_eq!(tables.len(), 7);
    let human = print(&["schema", "tables"]).stdout;
    for shape in ALWAYS.iter().chain([&CURATED]) {
        let table = tables.iter().find(|table| table["name"] == shape.name).unwrap();
        let columns = table["columns"].as_array().unwrap();
        let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names, shape.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{}", shape.name);
        assert!(human.contains(shape.name) && names.iter().all(|name| human.contains(name)), "{human}");
    }
}

#[test]
fn schema_config_knows_every_setting() {
    let schema: Value = serde_json::from_str(&print(&["schema", "config"]).stdout).unwrap();
    let shown = print(&["config", "show", "--format", "json"]).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(shown.as_object().unwrap().len() > 20);
    for key in shown.as_object().unwrap().keys() {
        let (section, name) = key.split_once('.').unwrap();
        assert!(schema["properties"][section]["properties"].get(name).is_some(), "{key}");
    }
}

#[test]
fn graph_draws_sources_and_tables() {
    let mermaid = print(&["graph"]).stdout;
    assert!(mermaid.starts_with("flowchart") || mermaid.starts_with("graph"), "{mermaid}");
    let dot = print(&["graph", "--format", "dot"]).stdout;
    assert!(dot.trim_start().starts_with("digraph") && dot.trim_end().ends_with('}'), "{dot}");
    for shape in ALWAYS.iter().chain([&CURATED]) {
        assert!(mermaid.contains(shape.name) && dot.contains(shape.name), "{}", shape.name);
    }
}

#[test]
fn completions_parse_in_bash() {
    let script = print(&["completions", "bash"]).stdout;
    assert!(script.contains("--watermark-delay") && script.contains("complete -F"), "{script}");
    let parsed = finish(std::process::Command::new("bash").arg("-n"), script.as_bytes());
    assert_eq!((parsed.code(), parsed.stderr.as_str()), (0, ""));
}

#[test]
fn the_manual_has_pages() {
    let page = print(&["man"]).stdout;
    assert!(page.contains(".TH tidemark 1") && page.contains(".SH NAME"), "{page}");
    assert!(page.contains(concat!("\nv", env!("CARGO_PKG_VERSION"), "\n")) && !page.contains("rustc"), "{page}");
    let case = Case::new();
    case.tidemark(&["man", "--out", "pages"]).well();
    let run = std::fs::read_to_string(case.path("pages/tidemark-run.1")).unwrap();
    assert!(run.contains("epoch\\-events"), "{run}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = print(&["--help"]).stdout;
    for verb in [
        "run",
        "generate",
        "validate",
        "evidence",
        "status",
        "checkpoint",
        "config",
        "schema",
        "graph",
        "completions",
        "man",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb}: {help}");
    }
    assert!(help.contains("Exit status") && help.contains("128+n"), "{help}");
    let version = print(&["--version"]).stdout;
    let facts: Vec<(&str, &str)> = version.lines().skip(1).map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(version.lines().next(), Some(concat!("tidemark ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(
        facts.iter().map(|fact| fact.0).collect::<Vec<_>>(),
        ["commit", "target", "profile", "features", "rustc"]
    );
    assert!(facts.iter().all(|fact| !fact.1.is_empty()), "{version}");
    for (feature, on) in [("broker", cfg!(feature = "broker")), ("traces", cfg!(feature = "traces"))] {
        assert_eq!(facts[3].1.split(", ").any(|name| name == feature), on, "{version}");
    }
    // The short one is for reports and scripts: one line, version and commit.
    let short = concat!("tidemark ", env!("CARGO_PKG_VERSION"));
    assert_eq!(print(&["-V"]).stdout, format!("{short} ({})\n", facts[0].1));
}

#[test]
fn run_prints_the_metrics_at_its_end() {
    let case = Case::of(&[vec![crate::data::Event::new("a", 0).amount("1234567.8").line()]]);
    let ended = case.run("out", &[]);
    for word in ["1,234,567.80", "ann", "web", "deposit_completed", "accepted 1"] {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
}

#[test]
fn the_log_is_json_when_asked_for() {
    let case = Case::of(&[vec![crate::data::Event::new("a", 0).line()]]);
    let ended = case.run("out", &["--set", "log.format=json"]);
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["level"] == "INFO" && line["message"].is_string()));
}
