//! Deleting data files that no version within the retention needs.
//!
//! The library's dry run names the files; then a commit with both transactions proves that the snapshot behind the list
//! was the newest and the table still ours; only then are they deleted. So a writer that is paused at any point, and woken
//! after a take-over, deletes nothing that lives: what is dead in the newest version never lives again, and what was
//! untracked for a whole retention is nobody's work in progress.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use deltalake::logstore::object_store::{Error as StoreError, path::Path};
use deltalake::operations::vacuum::{Clock, VacuumMode};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError, ObjectStore};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::log::{Changes, Operation};
use crate::writer::TableWriter;

/// The instant at which maintenance began.
#[derive(Debug)]
struct Fixed(DateTime<Utc>);

impl Clock for Fixed {
    fn current_timestamp_millis(&self) -> i64 {
        self.0.timestamp_millis()
    }
}

impl TableWriter {
    /// Deletes what died, or was orphaned, before `now - retention`, and returns how many files that were. `table` has just
    /// been read.
    pub(super) async fn vacuum(
        &mut self,
        table: &DeltaTable,
        now: SystemTime,
        retention: Duration,
    ) -> DeltaResult<usize> {
        let retention = chrono::Duration::from_std(retention).map_err(DeltaTableError::generic)?;
        let (_, plan) = table
            .clone()
            .vacuum()
            // Lite leaves behind what the log has forgotten, which after a checkpoint is most of it.
            .with_mode(VacuumMode::Full)
            .with_clock(Arc::new(Fixed(now.into())))
            .with_retention_period(retention)
            .with_enforce_retention_duration(false)
            .with_dry_run(true)
            .await?;
        if plan.files_deleted.is_empty() {
            return Ok(0);
        }
        let millis = retention.num_milliseconds();
        let retained = json!({ "retentionCheckEnabled": "false", "specifiedRetentionMillis": millis.to_string() });
        let start = Operation {
            name: "VACUUM START",
            parameters: retained,
            metrics: json!({ "numFilesToDelete": plan.files_deleted.len() }),
        };
        self.commit(self.maintenance(), start, Changes::default()).await?;
        let deleted = delete(table.object_store(), plan.files_deleted).await?;
        let end = Operation {
            name: "VACUUM END",
            parameters: json!({ "status": "COMPLETED" }),
            metrics: json!({ "numDeletedFiles": deleted }),
        };
        self.commit(self.maintenance(), end, Changes::default()).await?;
        Ok(deleted)
    }
}

async fn delete(store: Arc<dyn ObjectStore>, files: Vec<String>) -> DeltaResult<usize> {
    let paths: Vec<_> = files.iter().map(|file| Path::parse(file).map_err(StoreError::from)).collect();
    let deletions = store.delete_stream(stream::iter(paths).boxed());
    let gone = deletions.map(|deletion| match deletion {
        Err(StoreError::NotFound { .. }) => Ok(0),
        other => other.map(|_| 1),
    });
    Ok(gone.try_fold(0, |sum, one| async move { Ok(sum + one) }).await?)
}
