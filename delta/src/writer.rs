//! The writer of one table: it publishes epochs, exactly once each, whatever a commit's reply says.
//!
//! What the writer knows of the log is its lease. A commit is made for the version after it or not at all, so a commit of
//! anyone else in between makes ours fail, and then the log decides (see [`TableWriter::reload`]).
//! Opening is in `open`, rows are written by `merge` and `append`, files are kept by `maintain`.

use std::collections::BTreeSet;

use arrow::record_batch::RecordBatch;
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use tracing::warn;

use crate::files::Resident;
use crate::fits::Terms;
use crate::foreign::{ForeignChanges, Found};
use crate::lake::Lake;
use crate::log::{Changes, Log, Operation};
use crate::maintain::Schedule;
use crate::spec::{Shape, TableSpec};
use crate::txn::{Held, Kind, Stamp};
use crate::{Error, append, merge};

/// The only writer of a table, as long as its generation is the greatest.
///
/// A call that failed, or whose future was dropped, may have taken effect, or may take effect later: a request can still be on
/// its way. The next call finds out, and one version holds one commit, so nothing is done twice.
#[derive(Debug)]
pub struct TableWriter {
    pub(crate) lake: Lake,
    pub(crate) spec: TableSpec,
    pub(crate) terms: Terms,
    pub(crate) log: Log,
    pub(crate) epoch: Option<i64>,
    /// The greatest epoch that was ever tried. The table may come to hold it at any time.
    pub(crate) attempted: Option<i64>,
    pub(crate) resident: Resident,
    pub(crate) schedule: Schedule,
}

/// What became of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A commit was made and acknowledged.
    Committed,
    /// A commit was made, though its reply said otherwise.
    Recovered,
    /// The table held the epoch already; nothing was done.
    Skipped,
}

/// A publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Version of the table that holds the epoch.
    pub version: u64,
    /// How it came to be.
    pub outcome: Outcome,
}

/// An epoch on its way into the table.
struct Publication {
    epoch: i64,
    watermark: Option<i64>,
    /// Checked; of a keyed table, in the order of the keys.
    rows: Option<RecordBatch>,
}

impl TableWriter {
    /// The specification that the table was opened with.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// The greatest epoch that the table holds.
    pub fn committed_epoch(&self) -> Option<u64> {
        self.epoch.and_then(|epoch| u64::try_from(epoch).ok())
    }

    /// The version of the table that this writer made or found last.
    pub fn version(&self) -> u64 {
        self.log.version
    }

    /// What others have changed, as far as it was met, and nobody has settled.
    pub fn foreign_changes(&self) -> Option<&ForeignChanges> {
        self.log.foreign.as_ref()
    }

    /// Brings the table to `epoch` in exactly one commit: with the rows of `batch`, or, where nothing changed, with the
    /// transaction alone. Rows of a keyed table are whole and absolute, so a repetition changes nothing; from an append
    /// table's batch the rows of epochs that the table holds are left out. `watermark` (microseconds) goes into the
    /// commit's metadata.
    ///
    /// An epoch that the table holds is skipped, so tables that hold different epochs are brought to the greatest of them by
    /// the same call to each. After an error that [is retryable](Error::is_retryable), or when the future was dropped, the
    /// same epoch, or a later one that includes it, is to be published again; after any other error than
    /// [`Error::DataCheck`], the writer is of no more use.
    ///
    /// # Errors
    /// [`Error::DataCheck`] for a repeated key or a broken constraint, [`Error::Bug`] for a batch of another schema or with
    /// rows of a later epoch,
    /// [`Error::Fenced`] when another writer has taken over, [`Error::StateMismatch`] when the table was replaced under us,
    /// [`Error::Unavailable`] when storage fails.
    pub async fn publish(
        &mut self,
        epoch: u64,
        watermark: Option<i64>,
        batch: Option<&RecordBatch>,
    ) -> Result<Published, Error> {
        let epoch = i64::try_from(epoch).map_err(|_| Error::bug(&self.spec.name, "epoch out of range"))?;
        if self.epoch >= Some(epoch) {
            return Ok(Published { version: self.version(), outcome: Outcome::Skipped });
        }
        let batch = batch.filter(|batch| batch.num_rows() > 0);
        let rows = batch.map(|batch| self.checked(batch, epoch)).transpose()?;
        self.attempted = self.attempted.max(Some(epoch));
        let publication = Publication { epoch, watermark, rows };
        loop {
            let known = self.version();
            let failure = match self.know().await? {
                Ok(()) if self.epoch >= Some(epoch) => {
                    return Ok(Published { version: self.version(), outcome: Outcome::Recovered });
                }
                Ok(()) => match self.hold_and_publish(&publication).await? {
                    Ok(()) => return Ok(Published { version: self.version(), outcome: Outcome::Committed }),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            if self.settle(&failure, epoch).await? {
                return Ok(Published { version: self.version(), outcome: Outcome::Recovered });
            }
            if self.version() == known {
                return Err(Error::failed(&self.spec.name, failure));
            }
            // Another writer was faster: no failure of storage, and nothing to wait for.
            tracing::debug!(table = self.spec.name, version = self.version(), error = %failure, "the next version was taken");
        }
    }

    /// The rows, once nothing speaks against them. A wrong schema is our bug: it would be cast, and decimals rounded, without
    /// a word.
    fn checked(&self, batch: &RecordBatch, epoch: i64) -> Result<RecordBatch, Error> {
        let (ours, theirs) = (self.spec.schema.fields(), batch.schema_ref().fields());
        let same = ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(a, b)| {
                a.name() == b.name() && a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable()
            });
        if !same {
            return Err(Error::bug(&self.spec.name, format!("batch has columns {theirs:?} instead of {ours:?}")));
        }
        match &self.spec.shape {
            Shape::Keyed { key } => merge::sorted(&self.spec.name, batch, key),
            Shape::Append { epoch: column } => {
                append::check_epochs(&self.spec.name, batch, column, epoch).map(|()| batch.clone())
            }
        }
    }

    /// One attempt. The rows must hold against the constraints that the table has now.
    async fn hold_and_publish(&mut self, publication: &Publication) -> Result<DeltaResult<()>, Error> {
        if let Some(rows) = &publication.rows {
            self.terms.checks.hold(&self.spec.name, rows)?;
        }
        Ok(self.try_publish(publication).await)
    }

    async fn try_publish(&mut self, publication: &Publication) -> DeltaResult<()> {
        let stamp = Stamp { kind: Kind::Publish, epoch: Some(publication.epoch), watermark: publication.watermark };
        match (self.spec.shape.clone(), &publication.rows) {
            (Shape::Keyed { key }, Some(rows)) => merge::merge(self, &key, rows, stamp).await?,
            (Shape::Append { epoch }, Some(rows)) => match append::rows_after(rows, &epoch, self.epoch)? {
                Some(rows) => append::append(self, rows, stamp).await?,
                None => self.commit_transaction(publication.epoch, stamp).await?,
            },
            (_, None) => self.commit_transaction(publication.epoch, stamp).await?,
        }
        self.epoch = Some(publication.epoch);
        Ok(())
    }

    /// A commit in which nothing changes but the epoch.
    async fn commit_transaction(&mut self, epoch: i64, stamp: Stamp) -> DeltaResult<()> {
        let operation = Operation::transaction_only(&self.lake.identity.pipeline, epoch);
        self.commit(stamp, operation, Changes::default()).await
    }

    /// Commits for the version after the one that we know, or fails.
    pub(crate) async fn commit(&mut self, stamp: Stamp, operation: Operation, changes: Changes) -> DeltaResult<()> {
        self.log.commit(&self.lake.identity, stamp, operation, changes).await
    }

    /// Reads the log again where it must be read first; what failed, where it can be tried again.
    pub(crate) async fn know(&mut self) -> Result<DeltaResult<()>, Error> {
        if !self.log.is_stale() {
            return Ok(Ok(()));
        }
        match self.reload().await {
            Ok(_) => Ok(Ok(())),
            Err(Error::Unavailable { source, .. }) => Ok(Err(*source)),
            Err(error) => Err(error),
        }
    }

    /// Finds out whether `epoch` was committed after all. Any failure can follow a durable commit: a lost reply, a failed
    /// checkpoint, a repeated request that meets its own commit.
    async fn settle(&mut self, failure: &DeltaTableError, epoch: i64) -> Result<bool, Error> {
        let name = self.spec.name.clone();
        match self.reload().await {
            Ok(_) if self.epoch >= Some(epoch) => {
                warn!(table = name, epoch, error = %failure, "commit was reported as failed, the log holds it");
                Ok(true)
            }
            Ok(_) => Ok(false),
            // What we know is as old as it was: the next attempt fails on it, if the commit was made, and comes here again.
            Err(error) if error.is_retryable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the log, as of a version or the newest, without the `passed_over` files, and without a checkpoint of it that is not
    /// what we have written.
    ///
    /// # Errors
    /// As for [`Location::load`](crate::Location); [`Error::StateMismatch`] where the table is gone.
    pub(crate) async fn load(&self, passed_over: &BTreeSet<String>, version: Option<u64>) -> Result<DeltaTable, Error> {
        let (location, name) = (&self.lake.location, &self.spec.name);
        let table = location.existing(name)?.ok_or_else(|| Error::mismatch(name, "the table is gone"))?;
        let store = self.log.store.object_store(None);
        let damaged = match &self.log.checkpoint {
            Some(last) => last.damaged(store.as_ref()).await.map_err(|failure| Error::unavailable(name, failure))?,
            None => None,
        };
        let hidden = passed_over | &damaged.unwrap_or_default();
        if hidden.is_empty() {
            return location.load(name, table, version).await.map(|(table, _)| table);
        }
        location.load_without(name, &hidden, version).await
    }

    /// Takes the newest state of the log for ours, once it is known to be ours still: a writer that just reopens could commit
    /// a lower epoch, and would be let through. Returns what the library has read.
    pub(crate) async fn reload(&mut self) -> Result<DeltaTable, Error> {
        self.log.doubt();
        let name = &self.spec.name;
        let gone = || Error::mismatch(name, "the table is gone");
        let asked = Log::now();
        let unavailable = |error| Error::unavailable(name, error);
        let table = match self.load(&BTreeSet::new(), None).await {
            Err(Error::Unavailable { source, .. }) if matches!(*source, DeltaTableError::NotATable(_)) => {
                return Err(gone());
            }
            loaded => loaded?,
        };
        let mut log = Log::of(&table, asked, &self.lake, name).map_err(unavailable)?;
        log.checkpoint = self.log.checkpoint.clone();
        if log.table_id() != self.log.table_id() {
            return Err(Error::mismatch(name, "the table was replaced"));
        }
        let held = Held::read(&table, &self.lake.identity.pipeline).await;
        let held = held.map_err(|failure| Error::failed(name, failure))?;
        let ours = self.lake.identity.generation;
        match held.fence {
            Some(fence) if fence == ours => {}
            Some(fence) if fence > ours => return Err(Error::Fenced { table: name.clone(), held: fence, ours }),
            _ => return Err(Error::mismatch(name, "the table has lost our generation")),
        }
        if held.epoch < self.epoch {
            return Err(Error::mismatch(
                name,
                format!("epoch fell from {} to {}: was it restored?", told(self.epoch), told(held.epoch)),
            ));
        }
        // Only a writer of our own generation can have gone further, and there may be no two.
        if held.epoch > self.epoch.max(self.attempted) {
            return Err(Error::Fenced { table: name.clone(), held: ours, ours });
        }
        let known = self.log.version;
        let found = Found::since(&table, log.version, known, self.log.foreign.clone()).await.map_err(unavailable)?;
        let before = self.log.files().map(|file| (file.path.clone(), file.statistics.clone())).collect();
        let found = found.that_change_rows(Some(&before));
        log.foreign = found.together(&before, self.spec.shape.epoch());
        found.report(name, &self.spec.shape, self.lake.policy.foreign_changes, log.foreign.as_ref());
        self.lake.refuse_foreign(name, &self.spec.shape, log.foreign.as_ref())?;
        self.terms = Terms::of(&self.spec, &log)?;
        self.log = log;
        self.epoch = held.epoch;
        Ok(table)
    }
}

fn told(epoch: Option<i64>) -> String {
    epoch.map_or("none".to_owned(), |epoch| epoch.to_string())
}
