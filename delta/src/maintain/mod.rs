//! Keeping a table's files in order, between publications: never at the same time as one, and by this writer alone.
//!
//! The library's VACUUM names files, and deletes none here. Checkpoints of the log are made here too, and not within every n-th
//! commit: readers would wait for that commit until its checkpoint is made, ten times as long as for any other.

mod compact;
mod expire;
mod vacuum;

use std::collections::BTreeSet;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use deltalake::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use deltalake::{DeltaResult, DeltaTableError};
use tidemark_store::clean_unfinished;

pub use self::expire::Expired;
use crate::Error;
use crate::damage::LogCheckpoint;
use crate::txn::{Kind, Stamp};
use crate::writer::TableWriter;

/// When what was done last.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    cleaned: Option<SystemTime>,
    /// Up to when, in milliseconds since 1970, everything has expired.
    expired_ms: Option<i64>,
    /// The version of the last checkpoint, as far as it is known.
    checkpointed: u64,
}

impl Schedule {
    /// For a table that is opened at `version`: checkpoints are taken to have been made at every multiple of `interval`.
    pub(crate) fn at(version: u64, interval: u64) -> Self {
        Schedule { cleaned: None, expired_ms: None, checkpointed: version - version % interval.max(1) }
    }
}

/// What a call of [`TableWriter::maintain`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// Data files that were rewritten into larger ones.
    pub files_compacted: usize,
    /// Rows that have expired, as a whole or some values of them.
    pub rows_expired: u64,
    /// Whether there is more of that, for the next call.
    pub more_expired: bool,
    /// Data files that no version within the retention needs, and that were deleted.
    pub data_files_deleted: usize,
    /// Expired log files that were deleted.
    pub log_files_deleted: usize,
    /// Temporary files of killed processes that were deleted.
    pub leftovers_deleted: usize,
}

impl TableWriter {
    /// Commits since the last checkpoint of the log.
    pub fn commits_since_checkpoint(&self) -> u64 {
        self.version().saturating_sub(self.schedule.checkpointed)
    }

    /// Writes a checkpoint of the log, from which readers start, if the
    /// [interval](crate::Policy::checkpoint_interval_commits) has passed since the last one; tells whether it did. It takes
    /// as long as several commits, so several tables should not do it at once: a table that is not `in_turn` waits until
    /// the interval has passed twice.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing was lost, the next call tries again. [`Error::StateMismatch`] for a damaged log.
    pub async fn checkpoint_log(&mut self, in_turn: bool) -> Result<bool, Error> {
        let interval = self.lake.policy.checkpoint_interval_commits;
        if self.commits_since_checkpoint() < if in_turn { interval } else { interval.saturating_mul(2) } {
            return Ok(false);
        }
        self.write_log_checkpoint(&BTreeSet::new()).await.map(|()| true)
    }

    /// Writes a checkpoint of the log as of the version that we know, from a log without the `passed_over` files.
    pub(crate) async fn write_log_checkpoint(&mut self, passed_over: &BTreeSet<String>) -> Result<(), Error> {
        let unavailable = |failure| Error::unavailable(&self.spec.name, failure);
        let table = match self.load(passed_over, Some(self.version())).await {
            Err(Error::Unavailable { source, .. }) => return Err(self.lease_after(*source).await),
            loaded => loaded?,
        };
        // Two ways to know the live files: where they differ, one of them is wrong, and nobody should build on it.
        if !self.log.agrees_with(&table).map_err(unavailable)? {
            return Err(Error::bug(
                &self.spec.name,
                format!("the files of version {} are not as counted", self.version()),
            ));
        }
        create_checkpoint(&table, None).await.map_err(unavailable)?;
        self.schedule.checkpointed = self.version();
        let store = self.log.store.object_store(None);
        self.log.checkpoint = LogCheckpoint::made(store.as_ref(), self.version()).await.map_err(unavailable)?;
        Ok(())
    }

    /// Does what is due: lets go what has [expired](crate::Expiry), rewrites many small files into one, and, every
    /// [`clean_every`](crate::Policy::clean_every), deletes what has outlived its retention as of `now`. Other rows never
    /// change. Call it after each publication, and now and then where there is none; when nothing is due it costs nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing was lost, the next call tries again. [`Error::Fenced`] and
    /// [`Error::StateMismatch`] as for a publication.
    pub async fn maintain(&mut self, now: SystemTime) -> Result<Maintained, Error> {
        let mut done = Maintained::default();
        self.know().await?.map_err(|failure| Error::unavailable(&self.spec.name, failure))?;
        match self.expire(now).await {
            Ok((rows, more)) => (done.rows_expired, done.more_expired) = (rows, more),
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        match self.compact().await {
            Ok(files) => done.files_compacted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        // A clock that was set back says nothing of how long ago it was.
        let waited = self.schedule.cleaned.and_then(|cleaned| now.duration_since(cleaned).ok());
        if waited.is_some_and(|waited| waited < self.lake.policy.clean_every) {
            return Ok(done);
        }
        self.clean(now, &mut done).await?;
        self.schedule.cleaned = Some(now);
        Ok(done)
    }

    /// All cut-offs come from `now`, which was fixed before anything is listed: a pause in between makes them earlier.
    async fn clean(&mut self, now: SystemTime, done: &mut Maintained) -> Result<(), Error> {
        let expired = |retention| now.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let retention = self.lake.policy.retention;
        let table = self.reload().await?;
        match self.vacuum(&table, now, retention).await {
            Ok(files) => done.data_files_deleted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        match self.expire_log(expired(self.lake.policy.log_retention)).await {
            Ok(files) => done.log_files_deleted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        let directory = self.lake.location.directory(&self.spec.name);
        let leftovers = directory.map_or(Ok(0), |directory| clean_unfinished(&directory, expired(retention)));
        done.leftovers_deleted = leftovers.map_err(|failure| Error::unavailable(&self.spec.name, failure.into()))?;
        Ok(())
    }

    /// The library keeps the newest checkpoint that is older than every entry within the retention, so even a writer that
    /// was paused in here for days deletes nothing that is needed.
    async fn expire_log(&self, expired: SystemTime) -> DeltaResult<usize> {
        let millis = DateTime::<Utc>::from(expired).timestamp_millis();
        cleanup_expired_logs_for(self.version(), self.log.store.as_ref(), millis, None).await
    }

    /// The stamp of a commit that changes no row.
    fn maintenance(&self) -> Stamp {
        Stamp { kind: Kind::Maintenance, epoch: self.epoch, watermark: None }
    }

    /// After a failure what the log says counts again, if the table is still ours.
    async fn lease_after(&mut self, failure: DeltaTableError) -> Error {
        match self.reload().await {
            Err(error) if !error.is_retryable() => error,
            _ => Error::unavailable(&self.spec.name, failure),
        }
    }
}
