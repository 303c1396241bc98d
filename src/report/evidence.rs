//! Evidence as lines, and as an object for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::numbers::{counted, grouped};
use crate::evidence::{Check, Evidence, Outcome, Point};

/// One line for each check, and one for each finding below it.
pub fn text(evidence: &Evidence) -> String {
    let mut text = format!("tables below {}, {}\n\n", evidence.output, as_of(evidence));
    for check in &evidence.checks {
        let _ = writeln!(text, "{}  {:<24} {}: {}", check.outcome.as_str(), check.name, check.claim, check.figures);
        for finding in &check.findings {
            let _ = writeln!(text, "        {finding}");
        }
    }
    let _ = writeln!(text, "\n{}", verdict(evidence));
    text
}

/// As of when.
pub(super) fn as_of(evidence: &Evidence) -> String {
    match evidence.epoch {
        Some(epoch) => format!("as of epoch {}", grouped(epoch)),
        None if evidence.failed() > 0 => "without an epoch that all tables hold".to_owned(),
        None => "nothing published yet".to_owned(),
    }
}

/// The outcome of all checks in one sentence.
pub(super) fn verdict(evidence: &Evidence) -> String {
    let number = |outcome| counted(evidence.count(outcome) as u64, "check");
    let skipped = match evidence.count(Outcome::Skipped) {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    match evidence.failed() {
        0 => format!("{} passed{skipped}", number(Outcome::Passed)),
        n => format!("{} FAILED, {} passed{skipped}", counted(n as u64, "check"), evidence.count(Outcome::Passed)),
    }
}

/// The same as an object.
pub fn json(evidence: &Evidence) -> String {
    let check = |check: &Check| {
        json!({
            "name": check.name, "claim": check.claim, "outcome": check.outcome.as_str().to_lowercase(),
            "figures": check.figures, "findings": check.findings,
        })
    };
    let point = |p: &Point| {
        let numbers = [p.first, p.last, p.received, p.accepted, p.rejected, p.duplicates, p.retained_ids];
        let [first, last, received, accepted, rejected, duplicates, retained] =
            numbers.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        json!({
            "first_epoch": first, "last_epoch": last, "received": received, "accepted": accepted,
            "rejected": rejected, "duplicates": duplicates, "retained_ids": retained,
        })
    };
    let tables = evidence.tables.iter().map(
        |table| json!({"name": table.name, "version": table.version, "held": table.held, "commits": table.commits}),
    );
    let all = json!({
        "passed": evidence.failed() == 0, "output": evidence.output, "epoch": evidence.epoch,
        "tables": tables.collect::<Vec<Value>>(),
        "checks": evidence.checks.iter().map(check).collect::<Vec<Value>>(),
        "epochs": evidence.series.0.iter().map(point).collect::<Vec<Value>>(),
    });
    format!("{all:#}\n")
}
