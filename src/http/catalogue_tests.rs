//! What holds for every metric.

use super::*;
use std::collections::BTreeSet;

#[test]
fn names_are_used_once_and_say_what_they_count() {
    let names: BTreeSet<String> = METRICS.iter().map(Metric::name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        let name = metric.name();
        let ours = name.starts_with("tidemark_") || name.starts_with("process_");
        assert!(ours && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() > 15, "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
    }
}
