//! The consistent cut: the newest epoch that all tables hold, and the version of each table that belongs to it.
//!
//! It follows from what commits say of themselves, and nothing else.

use std::collections::BTreeSet;

use tidemark_delta::{Commit, Error, ForeignChanges, Kind};

use super::check::Check;
use super::read::Versions;
use crate::report::numbers::{counted, grouped};
use crate::report::reader::Reader;

pub(super) const NET_FLOW: &str = "metrics/net_flow";
pub(super) const USERS: &str = "metrics/user_metrics";
pub(super) const CHANNELS: &str = "metrics/channel_distribution";
pub(super) const CURATED: &str = "curated/transaction_events";
pub(super) const REJECTED: &str = "monitoring/rejected_events";
pub(super) const HEALTH: &str = "monitoring/stream_health";
pub(super) const MANIFEST: &str = "monitoring/run_manifest";

/// A table and its commits.
#[derive(Debug)]
pub(super) struct Log {
    /// Path of the table.
    pub(super) name: &'static str,
    /// Its commits, oldest first; or why they cannot be read.
    pub(super) commits: Result<Vec<Commit>, Error>,
    /// Changes of others that somebody has accepted.
    pub(super) accepted: Vec<ForeignChanges>,
}

impl Log {
    fn commits(&self) -> &[Commit] {
        self.commits.as_deref().unwrap_or_default()
    }

    /// The greatest epoch that it holds.
    pub(super) fn held(&self) -> Option<i64> {
        self.commits().iter().filter_map(|commit| commit.epoch).max()
    }

    /// Its newest version; none where its commits cannot be read.
    pub(super) fn newest(&self) -> Option<u64> {
        self.commits().last().map(|commit| commit.version)
    }

    /// The version up to which changes of others are settled: accepted, or undone.
    pub(super) fn settled(&self) -> Option<u64> {
        let undone =
            self.commits().iter().filter(|commit| commit.kind == Some(Kind::Repair)).map(|commit| commit.version);
        self.accepted.iter().map(|changes| changes.version).chain(undone).max()
    }

    fn epochs(&self) -> BTreeSet<i64> {
        self.commits().iter().filter_map(|commit| commit.epoch).collect()
    }

    /// The last version before the table holds a later epoch: with whatever else was committed in between.
    fn version_at(&self, epoch: i64) -> Option<u64> {
        let first = self.commits().iter().position(|commit| commit.epoch == Some(epoch))?;
        let belonging = self.commits().iter().skip(first).take_while(|commit| commit.epoch.is_none_or(|e| e <= epoch));
        belonging.last().map(|commit| commit.version)
    }
}

/// The tables at one instant.
#[derive(Debug)]
pub(super) struct Cut {
    /// The newest epoch that all tables hold, if there is one.
    pub(super) epoch: Option<u64>,
    /// The version of each table that belongs to it.
    pub(super) versions: Versions,
    /// The commits of all tables.
    pub(super) logs: Vec<Log>,
}

impl Cut {
    /// Reads the commits of all tables. An instance may be at work meanwhile.
    pub(super) fn find(reader: &Reader) -> Cut {
        let curated = reader.exists(CURATED);
        let mut tables = vec![NET_FLOW, USERS, CHANNELS, REJECTED, HEALTH, MANIFEST];
        tables.extend(curated.then_some(CURATED));
        let log = |name| Log { name, commits: reader.history(name), accepted: reader.accepted_changes(name) };
        let logs: Vec<Log> = tables.into_iter().map(log).collect();
        let common = logs.iter().map(Log::epochs).reduce(|common, epochs| &common & &epochs).unwrap_or_default();
        let newest = common.last().copied();
        let at = |epoch| logs.iter().filter_map(|log| Some((log.name, log.version_at(epoch)?))).collect();
        let versions = newest.map(at).unwrap_or_default();
        Cut { epoch: newest.and_then(|epoch| u64::try_from(epoch).ok()), versions, logs }
    }

    /// An error other than a missing or damaged table.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        let at = self.logs.iter().position(|log| log.commits.as_ref().is_err_and(|error| !error.is_damage()))?;
        self.logs.swap_remove(at).commits.err()
    }

    /// Whether there is no table at all.
    pub(super) fn is_nothing(&self) -> bool {
        self.logs.iter().all(|log| log.commits.is_err())
    }

    /// Whether a file was gone, or made no sense, when the commits were read.
    pub(super) fn is_torn(&self) -> bool {
        self.logs.iter().any(|log| log.commits.is_err())
    }

    /// Whether nothing was ever published to any table: some may not be there yet.
    pub(super) fn is_unpublished(&self) -> bool {
        self.logs.iter().all(|log| log.held().is_none())
    }

    /// Whether the first publication has not come to all tables yet, and nothing after it to any.
    fn is_beginning(&self) -> bool {
        let first = || self.logs.iter().all(|log| log.commits.is_ok() && log.epochs().len() <= 1);
        self.is_unpublished() || first() && self.logs.iter().any(|log| log.held().is_none())
    }

    /// Lets a check of what tables hold pass, where it fails because of changes of others that were accepted: it names them.
    pub(super) fn accept(&self, check: &mut Check) {
        let tables = tables_of(check.name);
        let involved = self.logs.iter().filter(|log| tables.contains(&log.name));
        let accepted =
            involved.flat_map(|log| log.accepted.iter().map(move |changes| format!("{}: {changes}", log.name)));
        let accepted: Vec<String> = accepted.collect();
        if !accepted.is_empty() {
            check.accept(&accepted.join("; "));
        }
    }

    /// Whether there is such an epoch.
    pub(super) fn check(&self) -> Check {
        const NAME: &str = "cut.epoch";
        const CLAIM: &str = "there is an epoch that all tables hold";
        let missing = self.logs.iter().filter_map(|log| Some((log.name, log.commits.as_ref().err()?)));
        let findings: Vec<String> = missing.map(|(name, error)| format!("{name}: {error}")).collect();
        let held =
            |log: &Log| format!("{} {}", log.name, log.held().map_or("none".to_owned(), |held| held.to_string()));
        let tables = counted(self.logs.len() as u64, "table");
        match self.epoch {
            Some(epoch) => Check::of(NAME, CLAIM, format!("epoch {} in {tables}", grouped(epoch)), findings),
            None if self.is_beginning() => Check::skipped(NAME, CLAIM, "nothing is published to all tables yet"),
            None => {
                let figures =
                    format!("{tables}, newest epochs: {}", self.logs.iter().map(held).collect::<Vec<_>>().join(", "));
                let mut check = Check::of(NAME, CLAIM, figures, findings);
                check.outcome = super::check::Outcome::Failed;
                check
            }
        }
    }
}

/// The tables whose rows a check looks at.
fn tables_of(check: &str) -> &'static [&'static str] {
    let (group, rest) = check.split_once('.').unwrap_or((check, ""));
    match group {
        "m1" => &[NET_FLOW],
        "m2" => &[USERS],
        "m3" => &[CHANNELS],
        "cut" if rest != "epoch" => &[NET_FLOW, USERS, CHANNELS],
        "curated" => &[CURATED, NET_FLOW, HEALTH],
        "health" => &[HEALTH, NET_FLOW],
        "rejected" => &[REJECTED, HEALTH],
        "manifest" => &[MANIFEST, HEALTH],
        "watermark" => &[HEALTH, CURATED, REJECTED],
        _ if check == "checkpoint.tables_count" => &[HEALTH, NET_FLOW],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tables::{
        ChannelDistribution, NetFlow, RejectedEvents, RunManifest, StreamHealth, Table as _, TransactionEvents,
        UserMetrics,
    };

    #[test]
    fn the_names_are_those_of_the_tables() {
        let specs = [
            NetFlow::spec(),
            UserMetrics::spec(),
            ChannelDistribution::spec(),
            TransactionEvents::spec(),
            RejectedEvents::spec(),
            StreamHealth::spec(),
            RunManifest::spec(),
        ];
        let names = [NET_FLOW, USERS, CHANNELS, CURATED, REJECTED, HEALTH, MANIFEST];
        assert_eq!(specs.map(|spec| spec.name), names);
    }
}
