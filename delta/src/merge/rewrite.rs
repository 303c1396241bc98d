//! The rewriting: the files that can hold a key of the rows are replaced by files with the rows in them.

use std::cmp::Ordering;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use deltalake::{DeltaResult, DeltaTableError};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::keys::Keys;
use super::plan;
use crate::files::FileWriter;
use crate::log::{Changes, LiveFile, Operation};
use crate::txn::Stamp;
use crate::writer::TableWriter;

/// Bytes of rows that stay in memory for the next MERGE, for each table: about a million users.
const RESIDENT_BYTES_MAX: usize = 128 << 20;

/// What a MERGE did, for the commit's metadata.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    inserted: usize,
    updated: usize,
    copied: usize,
}

/// Groups of files that are merged and written at the same time. Each takes memory for a file's rows, twice.
const AT_ONCE: usize = 2;

/// Inserts or replaces the rows, in one commit. They come [`sorted`](super::sorted), so no two of them share a key.
pub(crate) async fn merge(
    writer: &mut TableWriter,
    key: &[String],
    rows: &RecordBatch,
    stamp: Stamp,
) -> DeltaResult<()> {
    let begun = Instant::now();
    let column = key.first().map_or("", String::as_str);
    let files = writer.log.files().map(|file| (file.clone(), plan::bounds(file, column))).collect();
    let (mut changes, mut groups) = (Changes { rows: true, ..Changes::default() }, Vec::new());
    for (group, range) in plan::deal(plan::groups(files), rows, column).into_iter().filter(|(_, rows)| !rows.is_empty())
    {
        changes.removed.extend(group.files.iter().cloned());
        groups.push((group, rows.slice(range.start, range.len())));
    }
    let reader = &*writer;
    let rewritten = stream::iter(groups).map(|(group, new)| async move {
        let mut batches = Vec::new();
        for file in &group.files {
            batches.extend(reader.read_file(file).await?);
        }
        batches.push(new);
        let group = Rewrite { batches, key: key.to_vec(), file_rows: reader.lake.policy.merged_file_rows };
        let files = reader.file_writer();
        // On a thread of its own: encoding is what a MERGE of many rows spends its time on.
        tokio::spawn(group.write(files)).await.map_err(|error| DeltaTableError::generic(error.to_string()))?
    });
    let rewritten: Vec<Rewritten> = rewritten.buffered(AT_ONCE).try_collect().await?;
    let (mut counts, mut written) = (Counts::default(), Vec::new());
    for (added, of_group) in rewritten {
        counts.add(&of_group);
        for (file, rows) in added {
            written.push((file.path.clone(), rows));
            changes.added.push(file);
        }
    }
    let metrics = counts.metrics(rows.num_rows(), &changes, begun);
    writer.commit(stamp, Operation { name: "MERGE", parameters: parameters(key), metrics }, changes).await?;
    let TableWriter { log, resident, .. } = writer;
    resident.replace(written, |path| log.is_live(path), RESIDENT_BYTES_MAX);
    Ok(())
}

/// The files that replace a group, each with its rows, and what was done to them.
type Rewritten = (Vec<(LiveFile, RecordBatch)>, Counts);

/// A group of files that is replaced.
struct Rewrite {
    /// The rows of its files, and behind them the new rows, sorted.
    batches: Vec<RecordBatch>,
    key: Vec<String>,
    /// Most rows of a file.
    file_rows: usize,
}

impl Rewrite {
    async fn write(self, files: FileWriter) -> DeltaResult<Rewritten> {
        let mut counts = Counts::default();
        let order = merged(&self.batches, &self.key, &mut counts)?;
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut added = Vec::new();
        for part in order.chunks(part_rows(order.len(), self.file_rows)) {
            let part = interleave_record_batch(&batches, part)?;
            let file = files.write(std::slice::from_ref(&part)).await?;
            added.push((file, part));
        }
        Ok((added, counts))
    }
}

/// Rows of each file: as few files as can be, and equal ones, so they are at least half full.
pub(super) fn part_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The rows of a table with new rows in it, in the order of their keys: which batch, and which row there. The last batch holds
/// the new rows, sorted; the others hold the table's, which are sorted if we wrote them.
fn merged(batches: &[RecordBatch], key: &[String], counts: &mut Counts) -> Result<Vec<(usize, usize)>, ArrowError> {
    let keys = batches.iter().map(|batch| Keys::of(batch, key)).collect::<Result<Vec<_>, _>>()?;
    let Some((new, old)) = keys.split_last() else {
        return Ok(vec![]);
    };
    let compare = |a: &(usize, usize), b: &(usize, usize)| match (old.get(a.0), old.get(b.0)) {
        (Some(left), Some(right)) => left.compare(a.1, right, b.1),
        _ => Ordering::Equal,
    };
    let mut stored: Vec<(usize, usize)> =
        old.iter().enumerate().flat_map(|(batch, keys)| (0..keys.len()).map(move |row| (batch, row))).collect();
    if !stored.is_sorted_by(|a, b| compare(a, b).is_le()) {
        stored.sort_by(compare);
    }
    let mut order = Vec::with_capacity(stored.len() + new.len());
    let (mut next, mut next_is_stored) = (0, false);
    for (batch, row) in stored {
        let Some(keys) = old.get(batch) else {
            continue;
        };
        let at = loop {
            let comparison = if next < new.len() { new.compare(next, keys, row) } else { Ordering::Greater };
            if comparison != Ordering::Less {
                break comparison;
            }
            // A new row that took the place of a stored one is there already.
            if !std::mem::take(&mut next_is_stored) {
                order.push((old.len(), next));
                counts.inserted += 1;
            }
            next += 1;
        };
        if at == Ordering::Equal {
            order.push((old.len(), next));
            counts.updated += 1;
            next_is_stored = true;
        } else {
            order.push((batch, row));
            counts.copied += 1;
        }
    }
    let rest = next + usize::from(next_is_stored)..new.len();
    counts.inserted += rest.len();
    order.extend(rest.map(|row| (old.len(), row)));
    Ok(order)
}

/// How the commit names itself: as other engines name a MERGE of the same kind.
fn parameters(key: &[String]) -> Value {
    let same_key: Vec<String> = key.iter().map(|name| format!("target.{name} = source.{name}")).collect();
    json!({
        "predicate": same_key.join(" AND "),
        "matchedPredicates": r#"[{"actionType":"update"}]"#,
        "notMatchedPredicates": r#"[{"actionType":"insert"}]"#,
        "notMatchedBySourcePredicates": "[]",
    })
}

impl Counts {
    fn add(&mut self, rows: &Counts) {
        self.inserted += rows.inserted;
        self.updated += rows.updated;
        self.copied += rows.copied;
    }

    /// By the names that Spark uses.
    fn metrics(&self, source_rows: usize, changes: &Changes, begun: Instant) -> Value {
        json!({
            "numSourceRows": source_rows,
            "numTargetRowsInserted": self.inserted,
            "numTargetRowsUpdated": self.updated,
            "numTargetRowsCopied": self.copied,
            "numTargetRowsDeleted": 0,
            "numOutputRows": self.inserted + self.updated + self.copied,
            "numTargetFilesAdded": changes.added.len(),
            "numTargetFilesRemoved": changes.removed.len(),
            "executionTimeMs": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("key", text), ("value", number)]).unwrap()
    }

    fn merge(batches: &[&[(&str, i64)]]) -> (Vec<(String, i64)>, Counts) {
        let batches: Vec<RecordBatch> = batches.iter().map(|rows| batch(rows)).collect();
        let mut counts = Counts::default();
        let order = merged(&batches, &["key".to_owned()], &mut counts).unwrap();
        let all = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &order).unwrap();
        let (keys, values) = (all.column(0).as_string::<i32>(), all.column(1).as_primitive::<Int64Type>());
        let rows = (0..all.num_rows()).map(|row| (keys.value(row).to_owned(), values.value(row)));
        (rows.collect(), counts)
    }

    fn rows(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
        rows.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    }

    #[test]
    fn new_rows_replace_stored_ones_or_find_their_place() {
        let (all, counts) = merge(&[&[("b", 1), ("d", 2)], &[("f", 3)], &[("a", 10), ("d", 20), ("e", 30), ("g", 40)]]);
        assert_eq!(all, rows(&[("a", 10), ("b", 1), ("d", 20), ("e", 30), ("f", 3), ("g", 40)]));
        assert_eq!((counts.inserted, counts.updated, counts.copied), (3, 1, 2));
    }

    #[test]
    fn stored_rows_may_come_in_any_order_and_repeat_a_key() {
        let (all, counts) = merge(&[&[("d", 2), ("b", 1)], &[("d", 3), ("a", 4)], &[("d", 9), ("e", 8)]]);
        assert_eq!(all, rows(&[("a", 4), ("b", 1), ("d", 9), ("d", 9), ("e", 8)]));
        assert_eq!((counts.inserted, counts.updated, counts.copied), (1, 2, 2));
    }

    #[test]
    fn an_empty_table_takes_all_rows() {
        let (all, counts) = merge(&[&[("a", 1), ("b", 2)]]);
        assert_eq!(all, rows(&[("a", 1), ("b", 2)]));
        assert_eq!((counts.inserted, counts.updated, counts.copied), (2, 0, 0));
    }

    #[test]
    fn parts_are_at_most_full_and_at_least_half() {
        for most in [1, 2, 7, 100] {
            for rows in 1..1_000 {
                let each = part_rows(rows, most);
                assert!(each <= most, "{rows} rows in parts of {each}, {most} at most");
                assert!(rows <= most || 2 * each >= most, "{rows} rows in parts of {each}, {most} at most");
            }
        }
    }
}
