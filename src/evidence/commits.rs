//! What the commits of the tables say of themselves.

use tidemark_delta::{Commit, Kind};

use super::check::Check;
use super::cut::Cut;
use crate::report::numbers::counted;

/// Checks the commits of all tables. `pipeline` is the name that the checkpoint has; without one, all must agree.
pub(super) fn check(cut: &Cut, pipeline: Option<&str>) -> Vec<Check> {
    let mut first = cut.logs.iter().flat_map(|log| log.commits.iter().flatten()).filter_map(|c| c.pipeline.as_deref());
    let pipeline = pipeline.or_else(|| first.next());
    let mut found = Found::default();
    for log in &cut.logs {
        let mut last: Option<&Commit> = None;
        for commit in log.commits.iter().flatten() {
            if commit.kind.is_none() && log.settled() >= Some(commit.version) {
                found.settle(log.name, commit);
                continue;
            }
            found.look_at(log.name, commit, last, pipeline);
            // A commit of somebody else leaves the transactions of the table as they are.
            last = Some(commit).filter(|commit| commit.fence_txn.is_some()).or(last);
        }
    }
    for log in &cut.logs {
        let all = || log.commits.iter().flatten();
        let carried = all().rfind(|commit| commit.kind.is_some()).and_then(|commit| commit.foreign.as_ref());
        let is_told =
            |version| all().any(|commit| commit.kind.is_none() && commit.changes_rows && commit.version == version);
        let untold = carried.filter(|changes| log.settled() < Some(changes.version) && !is_told(changes.version));
        found.unmarked.extend(untold.map(|changes| format!("{}: {changes}", log.name)));
    }
    let Found { commits, publications, others, settled, falls, stalls, unmarked } = found;
    let tables = counted(cut.logs.len() as u64, "table");
    let all = format!("{} in {tables}", counted(commits, "commit"));
    vec![
        Check::of("commits.never_fall", "the epoch and the generation of a table never fall", &all, falls),
        Check::of(
            "commits.grow",
            "the epoch of a table grows with each publication, and with nothing else",
            counted(publications, "publication"),
            stalls,
        ),
        Check::of(
            "commits.marked",
            "every commit that changes rows is a publication, or lets go what is not kept for ever; every one of the pipeline carries the transactions that it names",
            format!(
                "{all}, {others} for creation, take-over, maintenance and expiry{}",
                if settled.is_empty() { String::new() } else { format!("; settled: {}", settled.join(", ")) }
            ),
            unmarked,
        ),
    ]
}

#[derive(Default)]
struct Found {
    commits: u64,
    publications: u64,
    others: u64,
    /// Changes of others that were accepted, or undone.
    settled: Vec<String>,
    falls: Vec<String>,
    stalls: Vec<String>,
    unmarked: Vec<String>,
}

impl Found {
    fn settle(&mut self, table: &str, commit: &Commit) {
        self.commits += 1;
        if commit.changes_rows {
            let operation = commit.operation.as_deref().unwrap_or("unknown");
            self.settled.push(format!("{operation} of {table} in version {}", commit.version));
        }
    }

    fn look_at(&mut self, table: &str, commit: &Commit, before: Option<&Commit>, pipeline: Option<&str>) {
        let at = |what: String| format!("{table} version {}: {what}", commit.version);
        self.commits += 1;
        let Some(kind) = commit.kind else {
            if commit.changes_rows {
                let [operation, engine] =
                    [&commit.operation, &commit.engine].map(|told| told.as_deref().unwrap_or("unknown").to_owned());
                self.unmarked.push(at(format!("somebody else has changed rows: {operation} by {engine}")));
            }
            return;
        };
        let (epoch, held) = (commit.epoch_txn, before.and_then(|before| before.epoch_txn));
        if before.is_some() && epoch < held {
            self.falls.push(at(format!("epoch {} after {}", in_words(epoch), in_words(held))));
        }
        let (fence, fenced) = (commit.fence_txn, before.and_then(|before| before.fence_txn));
        if before.is_some() && fence < fenced {
            self.falls.push(at(format!("generation {} after {}", in_words(fence), in_words(fenced))));
        }
        if kind == Kind::Publish {
            self.publications += 1
        } else {
            self.others += 1
        }
        let moves = before.is_some() && epoch != held;
        match kind {
            Kind::Publish if epoch.is_none() || before.is_some() && epoch <= held => {
                self.stalls.push(at(format!("published epoch {} after {}", in_words(epoch), in_words(held))));
            }
            Kind::Create if commit.version > 0 => self.unmarked.push(at("a creation that is not the first".to_owned())),
            Kind::Fence if before.is_some() && fence <= fenced => {
                self.stalls.push(at(format!("take-over by generation {} of {}", in_words(fence), in_words(fenced))));
            }
            Kind::Create | Kind::Fence | Kind::Maintenance | Kind::Repair | Kind::Expire if moves => {
                self.stalls.push(at(format!("{} changed the epoch to {}", kind.as_str(), in_words(epoch))));
            }
            Kind::Create | Kind::Fence | Kind::Maintenance if commit.changes_rows => {
                self.unmarked.push(at(format!("{} changed rows", kind.as_str())));
            }
            _ => {}
        }
        if commit.epoch != epoch || commit.generation != fence || fence.is_none() {
            self.unmarked.push(at("its metadata and its transactions differ".to_owned()));
        }
        if commit.pipeline.as_deref() != pipeline {
            self.unmarked.push(at(format!("it is of pipeline {:?}", commit.pipeline.as_deref().unwrap_or_default())));
        }
    }
}

fn in_words(version: Option<i64>) -> String {
    version.map_or("none".to_owned(), |version| version.to_string())
}
