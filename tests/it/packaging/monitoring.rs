//! What Prometheus itself says about rules, settings and the dashboard's expressions. Skipped with a word where there is no
//! promtool.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::files::{path, text};
use crate::program::skipped;

/// The one that `.ci/run` has put there, or that of the machine.
fn promtool(args: &[&str]) -> Option<std::process::Output> {
    let ours = path(".venv/bin/promtool");
    let program = if ours.is_file() { ours } else { PathBuf::from("promtool") };
    Command::new(program).args(args).output().ok()
}

fn well(args: &[&str]) {
    let Some(output) = promtool(args) else { return skipped("no promtool") };
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {args:?}: {said}");
}

fn expressions(panels: &[Value]) -> Vec<String> {
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let inner = panels.iter().filter_map(|panel| panel["panels"].as_array()).flat_map(|panels| expressions(panels));
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).chain(inner).collect()
}

#[test]
fn prometheus_takes_the_rules_and_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("alerts.yaml"), text("docs/monitoring/alerts.yaml")).unwrap();
    // A token that is not there is an error for promtool; the real path is that of a container.
    std::fs::write(file("token"), text("packaging/compose/console-token")).unwrap();
    let settings = text("packaging/compose/prometheus.yml");
    let settings = settings.replace("/run/secrets/console-token", file("token").to_str().unwrap());
    std::fs::write(file("prometheus.yml"), settings).unwrap();
    well(&["check", "config", file("prometheus.yml").to_str().unwrap()]);
}

#[test]
fn prometheus_takes_the_expressions_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&text("docs/monitoring/dashboard.json")).unwrap();
    let expressions = expressions(dashboard["panels"].as_array().unwrap());
    assert!(expressions.len() > 20);
    // The variables of the dashboard stand within texts, which Prometheus takes as they are.
    let rules: Vec<Value> =
        expressions.iter().enumerate().map(|(at, expr)| json!({"record": format!("r{at}"), "expr": expr})).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    well(&["check", "rules", file.to_str().unwrap()]);
}

/// A series as promtool reads it.
fn series(name: &str, labels: &str, values: &str) -> Value {
    json!({"series": format!("{name}{{job=\"tidemark\",{labels}}}"), "values": values})
}

/// Has promtool evaluate the rules over an hour of series, and compare the alerts.
fn alerts_are(input: &Value, expected: &Value) {
    let tests = json!({
        "rule_files": [path("docs/monitoring/alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": input, "alert_rule_test": expected}],
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tests.yaml");
    std::fs::write(&file, tests.to_string()).unwrap();
    well(&["test", "rules", file.to_str().unwrap()]);
}

#[test]
fn too_many_rejected_and_late_events_are_told() {
    let fires = |alert: &str, instance: &str, summary: &str| {
        let labels = json!({"job": "tidemark", "instance": instance, "severity": "warning"});
        let link = format!("runbook.md#{}", alert.to_lowercase());
        let expected = json!([{"exp_labels": labels, "exp_annotations": {"summary": summary, "runbook_url": link}}]);
        json!({"eval_time": "55m", "alertname": alert, "exp_alerts": expected})
    };
    let input = json!([
        series("tidemark_received_events_total", "instance=\"a\"", "0+100x60"),
        series("tidemark_received_events_total", "instance=\"b\"", "0+100x60"),
        series("tidemark_events_total", "instance=\"a\",outcome=\"rejected\"", "0+6x60"),
        series("tidemark_events_total", "instance=\"b\",outcome=\"rejected\"", "0+4x60"),
        series("tidemark_rejected_events_total", "instance=\"b\",reason=\"R200_late_event\"", "0+2x60"),
        series("tidemark_rejected_events_total", "instance=\"a\",reason=\"R110_x\"", "0+6x60"),
    ]);
    let expected = json!([
        fires("TidemarkRejectionRate", "a", "more than a twentieth of what comes to a is rejected"),
        fires("TidemarkLateEvents", "b", "more than a hundredth of what comes to b is late"),
    ]);
    alerts_are(&input, &expected);
}

#[test]
fn a_partition_that_holds_the_watermark_back_for_long_is_told() {
    const SINCE: &str = "tidemark_watermark_held_back_since_timestamp_seconds";
    const BEHIND: &str = "tidemark_watermark_held_back_seconds";
    // Far behind; of unknown time; only a little behind; not for long; and where nothing comes.
    let far = "instance=\"far\",partition=\"3\"";
    let unknown = "instance=\"unknown\",partition=\"a b\"";
    let (near, quiet) = ("instance=\"near\",partition=\"1\"", "instance=\"quiet\",partition=\"1\"");
    let input = json!([
        series("tidemark_received_events_total", "instance=\"far\"", "0+100x60"),
        series("tidemark_received_events_total", "instance=\"unknown\"", "0+100x60"),
        series("tidemark_received_events_total", "instance=\"near\"", "0+100x60"),
        series("tidemark_received_events_total", "instance=\"turns\"", "0+100x60"),
        series("tidemark_received_events_total", "instance=\"quiet\"", "0+0x60"),
        series(SINCE, far, "0x60"),
        series(BEHIND, far, "900x60"),
        series(SINCE, unknown, "0x60"),
        series(SINCE, near, "0x60"),
        series(BEHIND, near, "500x60"),
        series(SINCE, "instance=\"turns\",partition=\"1\"", "0x29 1800x30"),
        series(BEHIND, "instance=\"turns\",partition=\"1\"", "900x60"),
        series(SINCE, quiet, "0x60"),
        series(BEHIND, quiet, "900x60"),
    ]);
    let fires = |instance: &str, partition: &str| {
        let labels = json!({"job": "tidemark", "instance": instance, "partition": partition, "severity": "warning"});
        let summary = format!("partition {partition} has held back the watermark of {instance} for 55m 0s");
        let link = "runbook.md#tidemarkwatermarkheldback";
        json!({"exp_labels": labels, "exp_annotations": {"summary": summary, "runbook_url": link}})
    };
    let alerts = json!([fires("far", "3"), fires("unknown", "a b")]);
    let expected = json!([{"eval_time": "55m", "alertname": "TidemarkWatermarkHeldBack", "exp_alerts": alerts}]);
    alerts_are(&input, &expected);
}
