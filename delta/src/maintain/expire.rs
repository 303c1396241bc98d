//! Expiry: what an append table does not keep for ever goes in a commit of its own, by rewriting the files that hold it. The
//! bytes go when vacuum deletes those files.
//!
//! Time is cut into slices, so that a file is rewritten once: rows of one slice expire together, and compaction keeps
//! slices apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::kernels::cmp::lt;
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter, sum};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use chrono::{DateTime, SecondsFormat};
use deltalake::{DeltaResult, DeltaTableError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::log::{Changes, LiveFile, Operation};
use crate::spec::{Expires, Expiry};
use crate::txn::{Kind, Stamp};
use crate::writer::TableWriter;

/// Slices that the time until expiry is cut into.
const SLICES: i64 = 24;

/// Bytes of files that are rewritten at once, at most; one file where it has more.
const LOT_BYTES: u64 = 16 << 20;

/// Rows of a table that have expired, and are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// The greatest epoch that was among them.
    pub epoch: i64,
    /// How many they were.
    pub rows: u64,
    /// Sums over them, by column.
    pub sums: BTreeMap<String, i64>,
}

impl Expired {
    /// The table property that holds it, as JSON.
    const PROPERTY: &str = "tidemark.expired";

    /// What a table's metadata says has expired.
    pub(crate) fn of(metadata: &Value) -> Option<Expired> {
        serde_json::from_str(metadata["configuration"][Self::PROPERTY].as_str()?).ok()
    }

    /// Takes rows in.
    fn add(&mut self, rows: &RecordBatch, epoch: &str, summed: &[String]) {
        let longs = |name: &str| rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        self.rows += rows.num_rows() as u64;
        self.epoch = longs(epoch).and_then(arrow::compute::max).map_or(self.epoch, |epoch| epoch.max(self.epoch));
        for name in summed {
            let more = longs(name).and_then(sum).unwrap_or_default();
            let sum = self.sums.entry(name.clone()).or_default();
            *sum = sum.saturating_add(more);
        }
    }
}

impl Expiry {
    fn slice_ms(&self) -> i64 {
        (i64::try_from(self.after.as_millis()).unwrap_or(i64::MAX) / SLICES).max(1)
    }

    /// Rows from before this instant have expired: the end of a slice, in milliseconds since 1970.
    fn cutoff_ms(&self, now: SystemTime) -> i64 {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(self.after);
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        since - since % self.slice_ms()
    }

    /// The instant of its oldest row, in milliseconds; none where the log does not say.
    fn oldest_ms(&self, file: &LiveFile) -> Option<i64> {
        let text = file.statistics["minValues"][&self.column].as_str()?;
        DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis())
    }

    /// Whether nothing of the file can expire any more.
    fn is_over(&self, file: &LiveFile) -> bool {
        let Expires::Values { marked, word, .. } = &self.what else { return false };
        ["minValues", "maxValues"].iter().all(|bound| file.statistics[*bound][marked] == word.as_str())
    }

    fn is_due(&self, file: &LiveFile, cutoff_ms: i64) -> bool {
        !self.is_over(file) && self.oldest_ms(file).is_none_or(|oldest| oldest < cutoff_ms)
    }

    /// What files that may become one have in common; none for a file that stays alone.
    pub(super) fn slice(&self, file: &LiveFile) -> Option<i64> {
        let slice = || Some(self.oldest_ms(file)?.div_euclid(self.slice_ms()));
        if self.is_over(file) { Some(i64::MIN) } else { slice() }
    }

    /// The rows as they are once they have expired, if they stay.
    fn expired(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        let Expires::Values { columns, marked, word } = &self.what else { return Ok(None) };
        let (schema, count) = (rows.schema(), rows.num_rows());
        let all = |text: &str| Arc::new(StringArray::from(vec![text; count])) as ArrayRef;
        let arrays = schema.fields().iter().zip(rows.columns()).map(|(field, array)| match field.name() {
            name if name == marked => all(word),
            name if !columns.contains(name) => Arc::clone(array),
            _ if field.is_nullable() => new_null_array(field.data_type(), count),
            _ => all(""),
        });
        RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).map(Some)
    }

    /// Which rows have expired.
    fn are_old(&self, rows: &RecordBatch, cutoff_ms: i64) -> Result<BooleanArray, ArrowError> {
        let column = rows.column_by_name(&self.column);
        let column = column.ok_or_else(|| ArrowError::SchemaError(format!("no column {}", self.column)))?;
        let cutoff = TimestampMicrosecondArray::from(vec![cutoff_ms.saturating_mul(1_000)]).with_timezone("UTC");
        // A row without an instant, which only somebody else can have written, is never old.
        let old = lt(column, &Scalar::new(cutoff))?;
        Ok(if old.null_count() > 0 { prep_null_mask_filter(&old) } else { old })
    }

    fn operation(&self, name: &'static str, cutoff_ms: i64, figures: [(&str, u64); 4]) -> Operation {
        let cutoff = DateTime::from_timestamp_millis(cutoff_ms).unwrap_or_default();
        let cutoff = cutoff.to_rfc3339_opts(SecondsFormat::Millis, true);
        let predicate = json!([format!("({} < TIMESTAMP '{cutoff}')", self.column)]).to_string();
        let metrics = figures.iter().map(|(name, figure)| ((*name).to_owned(), (*figure).into()));
        Operation { name, parameters: json!({ "predicate": predicate }), metrics: Value::Object(metrics.collect()) }
    }
}

/// The rows of some files, those that have expired apart from the others.
#[derive(Default)]
struct Parted {
    old: Vec<RecordBatch>,
    young: Vec<RecordBatch>,
}

fn rows_in(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

impl TableWriter {
    /// Lets go what has expired as of `now`, from as many files as are rewritten at once; tells of how many rows, and whether
    /// there is more.
    pub(super) async fn expire(&mut self, now: SystemTime) -> DeltaResult<(u64, bool)> {
        let Some(expiry) = self.spec.expiry.clone() else { return Ok((0, false)) };
        let cutoff_ms = expiry.cutoff_ms(now);
        if self.schedule.expired_ms >= Some(cutoff_ms) {
            return Ok((0, false));
        }
        let mut due: Vec<LiveFile> = self.log.files().filter(|file| expiry.is_due(file, cutoff_ms)).cloned().collect();
        due.sort_by_key(|file| expiry.oldest_ms(file));
        let most = self.lake.policy.target_file_bytes.min(LOT_BYTES);
        let mut bytes = due.first().map_or(0, |file| file.bytes);
        let lot = due.iter().skip(1).position(|file| {
            bytes += file.bytes;
            bytes > most
        });
        let all = lot.is_none();
        due.truncate(lot.map_or(due.len(), |too_many| too_many + 1));
        let rows = if due.is_empty() { 0 } else { self.rewrite_expired(&expiry, cutoff_ms, due).await? };
        if all {
            self.schedule.expired_ms = Some(cutoff_ms);
        }
        Ok((rows, !all))
    }

    async fn rewrite_expired(&mut self, expiry: &Expiry, cutoff_ms: i64, files: Vec<LiveFile>) -> DeltaResult<u64> {
        let Parted { old, young } = self.part(expiry, cutoff_ms, &files).await?;
        let (expired, copied) = (rows_in(&old), rows_in(&young));
        let mut metadata = None;
        if let (Expires::Rows { summed }, Some(epoch)) = (&expiry.what, self.spec.shape.epoch()) {
            let mut gone = Expired::of(&self.log.metadata).unwrap_or_default();
            old.iter().for_each(|rows| gone.add(rows, epoch, summed));
            let mut changed = self.log.metadata.clone();
            changed["configuration"][Expired::PROPERTY] = serde_json::to_string(&gone)?.into();
            metadata = Some(changed).filter(|_| expired > 0);
        }
        let stay = old.iter().filter_map(|rows| expiry.expired(rows).transpose()).collect::<Result<Vec<_>, _>>()?;
        let mut added = Vec::new();
        for rows in [stay, young].into_iter().filter(|rows| rows_in(rows) > 0) {
            added.push(self.file_writer().write(&rows).await?);
        }
        let (name, rows) = match &expiry.what {
            Expires::Rows { .. } => ("DELETE", "numDeletedRows"),
            Expires::Values { .. } => ("UPDATE", "numUpdatedRows"),
        };
        // Files that the log said too little of have it said now.
        let name = if expired > 0 { name } else { "OPTIMIZE" };
        let (removed, files_added) = (files.len() as u64, added.len() as u64);
        let figures =
            [("numRemovedFiles", removed), ("numAddedFiles", files_added), (rows, expired), ("numCopiedRows", copied)];
        let stamp = Stamp { kind: Kind::Expire, epoch: self.epoch, watermark: None };
        let changes = Changes { added, removed: files, rows: expired > 0, metadata, ..Changes::default() };
        self.commit(stamp, expiry.operation(name, cutoff_ms, figures), changes).await?;
        Ok(expired)
    }

    async fn part(&self, expiry: &Expiry, cutoff_ms: i64, files: &[LiveFile]) -> DeltaResult<Parted> {
        let mut parted = Parted::default();
        for file in files {
            let rows = self.read_file(file).await?;
            if file.rows().is_some_and(|told| told != rows_in(&rows)) {
                return Err(DeltaTableError::generic(format!("{} has another number of rows than told", file.path)));
            }
            for batch in rows {
                let old = expiry.are_old(&batch, cutoff_ms)?;
                parted.old.push(filter_record_batch(&batch, &old)?);
                parted.young.push(filter_record_batch(&batch, &not(&old)?)?);
            }
        }
        Ok(parted)
    }
}
