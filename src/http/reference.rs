//! The catalogue of metrics as a page of documentation.

use std::fmt::Write as _;

use super::catalogue::{Kind, METRICS};

const INTRODUCTION: &str = "# Metrics

<!-- Written by `tidemark schema metrics --format markdown`. Change src/http/catalogue.rs. -->

What `/metrics` tells, in the format of OpenMetrics. Counters count since the process was started, replayed epochs
included: what the pipeline has counted since it was begun stands in its tables. With several processes, process 0 tells of
the pipeline as a whole; the others tell of what they read and of their memory.

A histogram also has `_bucket`, `_sum` and `_count`.

| metric | kind | labels | meaning |
|---|---|---|---|
";

/// The metrics as a page of documentation.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let (name, labels) = (metric.name(), labels.join(", "));
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} |", metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::markdown;

    /// Run with `TIDEMARK_BLESS=1` to write the page anew.
    #[test]
    fn the_page_in_docs_is_the_one_made_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("TIDEMARK_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, markdown(), "run the test again with TIDEMARK_BLESS=1");
    }
}
