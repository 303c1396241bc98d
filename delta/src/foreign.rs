//! What others have done to the rows of a table: noticed where our commit meets theirs, reported once, and kept in the log, in
//! each commit of ours, until somebody has settled it.

use std::collections::BTreeMap;
use std::fmt;

use deltalake::{DeltaResult, DeltaTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::lake::Lake;
use crate::log::LiveFile;
use crate::read::{Back, Commit, commits_back_from};
use crate::spec::Shape;

/// What is done about changes of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnForeignChanges {
    /// They are reported, and stay.
    #[default]
    Report,
    /// Nothing is written any more.
    Refuse,
    /// They are reported until the caller has [written the table anew](crate::TableWriter::write_anew).
    Repair,
}

impl OnForeignChanges {
    /// What follows, and what can be done, in words.
    pub fn remedy(self, shape: &Shape) -> &'static str {
        match (self, shape) {
            (OnForeignChanges::Report, Shape::Keyed { .. }) => {
                "run once with sink.foreign_changes = repair to undo it, or start with --accept-changes to keep it"
            }
            (OnForeignChanges::Refuse, Shape::Keyed { .. }) => {
                "nothing more is written: start with sink.foreign_changes = repair to undo it, or with --accept-changes to \
                 keep it"
            }
            (OnForeignChanges::Repair, Shape::Keyed { .. }) => "the table is written anew with the next checkpoint",
            (OnForeignChanges::Report | OnForeignChanges::Repair, Shape::Append { .. }) => {
                "what is gone of it is not written again: start with --accept-changes once it is as you want it"
            }
            (OnForeignChanges::Refuse, Shape::Append { .. }) => {
                "nothing more is written: start with --accept-changes to keep it"
            }
        }
    }
}

/// Commits of others that have changed rows of a table, and that nobody has settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignChanges {
    /// How many.
    pub commits: u64,
    /// Version of the newest one.
    pub version: u64,
    /// What that one is called.
    pub operation: String,
    /// The program that made it.
    pub engine: String,
    /// Rows that it has changed, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Of an append table, the first and the last epoch whose rows they may have changed, as far as files tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<(i64, i64)>,
}

impl ForeignChanges {
    /// The table property that holds those that were accepted, as a JSON list.
    pub(crate) const ACCEPTED: &str = "tidemark.acceptedChanges";

    /// Those that a table's metadata says were accepted.
    pub(crate) fn accepted_in(metadata: &Value) -> Vec<ForeignChanges> {
        let text = metadata["configuration"][Self::ACCEPTED].as_str().unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Lake {
    /// Refuses a table that others have changed, where the policy says so.
    ///
    /// # Errors
    /// [`Error::StateMismatch`] then.
    pub(crate) fn refuse_foreign(
        &self,
        table: &str,
        shape: &Shape,
        changes: Option<&ForeignChanges>,
    ) -> Result<(), Error> {
        match changes.filter(|_| self.policy.foreign_changes == OnForeignChanges::Refuse) {
            Some(changes) => {
                Err(Error::mismatch(table, format!("{changes}; {}", OnForeignChanges::Refuse.remedy(shape))))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for ForeignChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "somebody else has changed rows of it: {} by {} in version {}",
            self.operation, self.engine, self.version
        )?;
        if let Some(rows) = self.rows {
            write!(f, ", {rows} row(s)")?;
        }
        if let Some((first, last)) = self.epochs {
            write!(f, ", of epochs {first} to {last}")?;
        }
        match self.commits {
            0 | 1 => Ok(()),
            commits => write!(f, ", and {} commit(s) before it", commits - 1),
        }
    }
}

/// What the newest commits of a table say of others.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Commits of others that change rows, the oldest first.
    pub(crate) commits: Vec<Commit>,
    /// What our last commit before them says is not settled.
    left: Option<ForeignChanges>,
    /// The version up to which log entries after our last commit are gone.
    gone: Option<u64>,
}

impl Found {
    /// Looks back from the version of `table` to the last commit of `pipeline`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) async fn since_ours(table: &DeltaTable, newest: u64, pipeline: &str) -> DeltaResult<Found> {
        let ours = |commit: &Commit| commit.pipeline.as_deref() == Some(pipeline);
        let mut back = commits_back_from(table, newest, None, ours).await?;
        let left = back.last.take().and_then(|ours| ours.foreign);
        // A table of another pipeline has no commit of ours, and is refused for that.
        back.gap &= !back.commits.iter().any(|commit| commit.pipeline.is_some());
        Ok(Found::of(back, newest, left))
    }

    /// Looks back from the version of `table` to one that is known, of which this is left.
    ///
    /// # Errors
    /// As for [`Found::since_ours`].
    pub(crate) async fn since(
        table: &DeltaTable,
        newest: u64,
        known: u64,
        left: Option<ForeignChanges>,
    ) -> DeltaResult<Found> {
        Ok(Found::of(commits_back_from(table, newest, Some(known), |_| false).await?, newest, left))
    }

    fn of(back: Back, newest: u64, left: Option<ForeignChanges>) -> Found {
        let gone = back.commits.last().map_or(newest, |oldest| oldest.version.saturating_sub(1));
        let commits = back.commits.into_iter().rev().filter(|commit| commit.kind.is_none()).collect();
        Found { gone: back.gap.then_some(gone), left, commits }
    }

    /// The version before the first commit of others, if what they did cannot be told without the files of then: those of an
    /// append table hold epochs, and one that says that it changes no rows may have others than before all the same.
    pub(crate) fn needs_files_of(&self) -> Option<u64> {
        let first = self.commits.iter().find(|commit| !commit.files_removed.is_empty())?;
        first.version.checked_sub(1)
    }

    /// Keeps commits alone that change rows. `files` are those that the table had before, with their statistics, if they are
    /// known. One that removes what is no part of the table removes no row: so two rewrites of the same files, of which one
    /// does not see the other, leave rows twice.
    pub(crate) fn that_change_rows(mut self, files: Option<&BTreeMap<String, Value>>) -> Found {
        let (known, mut files) = (files.is_some(), files.cloned().unwrap_or_default());
        self.commits.retain(|commit| {
            let rows = |statistics: &Value| statistics["numRecords"].as_u64();
            let mut removed =
                |path: &String| files.remove(path).map_or(known.then_some(0), |statistics| rows(&statistics));
            let removed = commit.files_removed.iter().map(&mut removed).sum::<Option<u64>>();
            let added = commit.files_added.iter().map(|(_, statistics)| rows(statistics)).sum::<Option<u64>>();
            files.extend(commit.files_added.iter().cloned());
            commit.changes_rows || removed.zip(added).is_some_and(|(removed, added)| removed != added)
        });
        self
    }

    /// All of it in one. `files` are those that the table had before, and `epoch` is the column that holds the epochs of an
    /// append table.
    pub(crate) fn together(&self, files: &BTreeMap<String, Value>, epoch: Option<&str>) -> Option<ForeignChanges> {
        let newest = self.commits.last();
        let epochs = epoch.and_then(|epoch| self.epochs(files, epoch));
        let unknown = self.gone.map(|version| ForeignChanges {
            commits: 1,
            version,
            operation: "unknown".to_owned(),
            engine: "unknown: its log entry is gone".to_owned(),
            rows: None,
            epochs: None,
        });
        let left = unknown.as_ref().or(self.left.as_ref());
        let Some(newest) = newest else { return left.cloned() };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        Some(ForeignChanges {
            commits: left.map_or(0, |left| left.commits) + self.commits.len() as u64,
            version: newest.version,
            operation: text(&newest.operation),
            engine: text(&newest.engine),
            rows: newest.rows_affected,
            epochs: span(left.and_then(|left| left.epochs).into_iter().chain(epochs)),
        })
    }

    /// The epochs of the files that came and went.
    fn epochs(&self, files: &BTreeMap<String, Value>, epoch: &str) -> Option<(i64, i64)> {
        let bounds = |statistics: &Value| {
            let bound = |which: &str| statistics[which][epoch].as_i64();
            bound("minValues").zip(bound("maxValues"))
        };
        let removed = |path: &String| files.get(path).cloned();
        let gone = self.commits.iter().flat_map(|commit| &commit.files_removed).filter_map(removed);
        let came = self.commits.iter().flat_map(|commit| &commit.files_added).map(|(_, statistics)| statistics.clone());
        span(gone.chain(came).filter_map(|statistics| bounds(&statistics)))
    }

    /// Says of each commit what it was: once, since the next commit of ours comes after it.
    pub(crate) fn report(
        &self,
        table: &str,
        shape: &Shape,
        policy: OnForeignChanges,
        together: Option<&ForeignChanges>,
    ) {
        let remedy = policy.remedy(shape);
        if let Some(version) = self.gone {
            tracing::warn!(
                table,
                version,
                "log entries since our last commit are gone: rows may have changed; {remedy}"
            );
        }
        let epochs = together.and_then(|together| together.epochs);
        for commit in &self.commits {
            let (operation, engine) = (commit.operation.as_deref(), commit.engine.as_deref());
            tracing::warn!(
                table,
                version = commit.version,
                operation = operation.unwrap_or("unknown"),
                engine = engine.unwrap_or("unknown"),
                rows = commit.rows_affected,
                epochs = epochs.map(|(first, last)| format!("{first} to {last}")),
                "somebody else has changed rows of this table: {remedy}"
            );
        }
    }
}

/// The files of a table with their statistics.
///
/// # Errors
/// When they make no sense.
pub(crate) fn files_of(table: &DeltaTable) -> DeltaResult<BTreeMap<String, Value>> {
    let data = table.snapshot()?.log_data();
    data.iter().map(|file| LiveFile::of(&file).map(|file| (file.path, file.statistics))).collect()
}

fn span(ranges: impl Iterator<Item = (i64, i64)>) -> Option<(i64, i64)> {
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}
