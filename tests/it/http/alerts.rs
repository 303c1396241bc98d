//! Alert rules and dashboard speak of metrics that there are, and each alert has its section in the runbook.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tidemark::http::catalogue::{METRICS, Metric};

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name)).unwrap()
}

/// Words that begin like our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("tidemark_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    let with_parts = |metric: &Metric| ["", "_bucket", "_sum", "_count"].map(|part| metric.name() + part);
    METRICS.iter().flat_map(with_parts).collect()
}

#[test]
fn rules_and_dashboard_use_metrics_that_there_are() {
    let (rules, dashboard) = (page("alerts.yaml"), page("dashboard.json"));
    let known = known();
    for (page, least) in [(&rules, 12), (&dashboard, 20), (&page("runbook.md"), 5)] {
        let named = named(page);
        let unknown: Vec<&String> = named.difference(&known).collect();
        assert!(unknown.is_empty() && named.len() >= least, "{unknown:?} of {named:?}");
    }
    // Labels that a rule compares with are those that the metric has.
    for (metric, label) in
        [("tidemark_events", "outcome"), ("tidemark_rejected_events", "reason"), ("tidemark_epoch", "stage")]
    {
        let found = METRICS.iter().find(|one| one.name().trim_end_matches("_total") == metric).unwrap();
        assert_eq!(found.labels(), [label], "{metric}");
    }
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["targets"].as_array().is_some_and(|targets| !targets.is_empty())));
}

#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let (rules, runbook) = (page("alerts.yaml"), page("runbook.md"));
    let after = |prefix: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(prefix)).map(|rest| rest.trim().to_owned()).collect()
    };
    let alerts = after("- alert:");
    let links = after("runbook_url:");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(alerts.len() > 10);
    assert_eq!(alerts, sections, "in the same order");
    assert_eq!(links, alerts.iter().map(|alert| format!("runbook.md#{}", alert.to_lowercase())).collect::<Vec<_>>());
}
