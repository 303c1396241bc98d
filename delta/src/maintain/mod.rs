//! Keeping a table's files in order, between publications: never at the same time as one, and by this writer alone.
//!
//! The library's own OPTIMIZE is not used (two at once double all rows, and it knows nothing of our transactions), nor does
//! its VACUUM delete anything here. Checkpoints are made by the library after every n-th commit.

mod compact;
mod leftovers;
mod vacuum;

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use deltalake::checkpoints::cleanup_expired_logs_for;
use deltalake::{DeltaResult, DeltaTableError};

use crate::Error;
use crate::txn::{Kind, Stamp};
use crate::writer::TableWriter;

/// When what was done last.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    cleaned: Option<SystemTime>,
}

/// What a call of [`TableWriter::maintain`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// Data files that were rewritten into larger ones.
    pub files_compacted: usize,
    /// Expired data files that were deleted.
    pub data_files_deleted: usize,
    /// Expired log files that were deleted.
    pub log_files_deleted: usize,
    /// Temporary files of killed processes that were deleted.
    pub leftovers_deleted: usize,
}

impl TableWriter {
    /// Does what is due: rewrites many small files into one, and, every [`clean_every`](crate::Policy::clean_every), deletes
    /// what has outlived its retention as of `now`. Rows never change. Call it after each publication; when nothing is
    /// due it costs nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing was lost, the next call tries again. [`Error::Fenced`] and
    /// [`Error::StateMismatch`] as for a publication.
    pub async fn maintain(&mut self, now: SystemTime) -> Result<Maintained, Error> {
        let mut done = Maintained::default();
        match self.compact().await {
            Ok(files) => done.files_compacted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        let waited = self.schedule.cleaned.map(|cleaned| now.duration_since(cleaned).unwrap_or_default());
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
        // A snapshot that followed thousands of commits rests on all of them; a fresh one rests on a checkpoint.
        self.reload().await?;
        match self.vacuum(now, retention).await {
            Ok(files) => done.data_files_deleted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        match self.expire_log(expired(self.lake.policy.log_retention)).await {
            Ok(files) => done.log_files_deleted = files,
            Err(failure) => return Err(self.lease_after(failure).await),
        }
        if done.log_files_deleted > 0 {
            // The snapshot may rest on files that are gone.
            self.reload().await?;
        }
        let leftovers = leftovers::delete(self.table.log_store().root_url(), expired(retention));
        done.leftovers_deleted = leftovers.map_err(|failure| Error::unavailable(&self.spec.name, 1, failure))?;
        Ok(())
    }

    /// The library keeps the newest checkpoint that is older than every entry within the retention, so even a writer that
    /// was paused in here for days deletes nothing that is needed.
    async fn expire_log(&self, expired: SystemTime) -> DeltaResult<usize> {
        let millis = DateTime::<Utc>::from(expired).timestamp_millis();
        cleanup_expired_logs_for(self.version(), self.table.log_store().as_ref(), millis, None).await
    }

    /// The stamp of a commit that changes no row.
    fn maintenance(&self) -> Stamp {
        Stamp { kind: Kind::Maintenance, epoch: self.epoch, watermark: None }
    }

    /// After a failure the newest state of the log is our snapshot again, if the table is still ours.
    async fn lease_after(&mut self, failure: DeltaTableError) -> Error {
        match self.reload().await {
            Err(error) if !error.is_retryable() => error,
            _ => Error::unavailable(&self.spec.name, 1, failure),
        }
    }
}
