//! Durations, sizes and limits that a deployment may choose: table properties, maintenance. It does nothing itself.

use std::time::Duration;

use crate::Error;
use crate::foreign::OnForeignChanges;

/// Readers and writers in flight must outlive no retention shorter than this.
pub const RETENTION_MIN: Duration = Duration::from_secs(3_600);

/// How the tables of a pipeline are kept. `Default` is fit for production.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Commits between two checkpoints of a table's log (20 to 100 is sensible; the more, the longer opening takes).
    pub checkpoint_interval_commits: u64,
    /// How long data files live on after the commit that removed them: the reach of time travel. At least [`RETENTION_MIN`].
    pub retention: Duration,
    /// How long log entries live on: the reach of the history. At least [`RETENTION_MIN`].
    pub log_retention: Duration,
    /// Least time between two runs of vacuum and log clean-up. Both list directories.
    pub clean_every: Duration,
    /// Small files that a table may gather before they are rewritten into one. At least 2.
    pub compact_after_files: usize,
    /// A file of this size is never rewritten by compaction again.
    pub target_file_bytes: u64,
    /// Rows that a file of a keyed table holds at most; above, MERGE splits it by ranges of the key. An epoch rewrites the
    /// files that can hold its keys: large files make few of them, small ones spare a large table when few keys change.
    pub merged_file_rows: usize,
    /// What is done about changes of others to rows.
    pub foreign_changes: OnForeignChanges,
    /// Whether those that an opening finds are taken as they are.
    pub accept_changes: bool,
    /// Allows retentions below [`RETENTION_MIN`]. For tests: a reader may find its files gone.
    pub allow_short_retention: bool,
    /// Syncs every file on a local disk, and its directory, before it counts as written: safe against a power failure too,
    /// at several `fsync`s a commit. Without effect on object stores, which always do, and on a store that the caller made.
    pub sync: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            checkpoint_interval_commits: 50,
            retention: RETENTION_MIN,
            log_retention: RETENTION_MIN,
            clean_every: Duration::from_secs(600),
            compact_after_files: 64,
            target_file_bytes: 64 << 20,
            merged_file_rows: 1 << 18,
            foreign_changes: OnForeignChanges::Report,
            accept_changes: false,
            allow_short_retention: false,
            sync: false,
        }
    }
}

impl Policy {
    /// Refuses what would endanger readers or make no progress.
    ///
    /// # Errors
    /// [`Error::Bug`]: configuration is checked before it comes here.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::bug("*", what));
        if !self.allow_short_retention && self.retention.min(self.log_retention) < RETENTION_MIN {
            return refuse("retention and log_retention must be at least one hour");
        }
        if self.checkpoint_interval_commits == 0 {
            return refuse("checkpoint_interval_commits must be at least 1");
        }
        if self.merged_file_rows == 0 {
            return refuse("merged_file_rows must be at least 1");
        }
        if self.compact_after_files < 2 {
            return refuse("compact_after_files must be at least 2");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_retention_needs_to_be_asked_for() {
        let short = Policy { retention: Duration::from_secs(3_599), ..Policy::default() };
        assert!(short.validate().is_err());
        assert!(Policy { allow_short_retention: true, ..short }.validate().is_ok());
        assert!(Policy::default().validate().is_ok());
    }
}
