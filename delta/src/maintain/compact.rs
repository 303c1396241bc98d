//! Compaction: a run of small files becomes one, by a commit that removes and adds and changes no data.
//!
//! Rows keep their order: files are taken in the order of their epochs, and a run has no gaps. What to rewrite follows the
//! rows, not the bytes, since small files are mostly overhead: a file joins a run only if the newer files of the run hold as
//! many rows as it does, so each time a row is rewritten its file at least doubles, and n rows cost O(n log n) in all.
//! Rows that expire at different times stay apart.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use deltalake::{DeltaResult, DeltaTableError};
use serde_json::json;

use crate::log::{Changes, LiveFile, Operation};
use crate::spec::Shape;
use crate::writer::TableWriter;

/// A live file, as the choice of a run sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Live {
    /// Least epoch of its rows.
    epoch: i64,
    rows: u64,
    bytes: u64,
}

impl TableWriter {
    /// Rewrites one run of files if the table has gathered too many, and returns how many they were. MERGE keeps the files of
    /// a keyed table as they should be.
    pub(super) async fn compact(&mut self) -> DeltaResult<usize> {
        let Shape::Append { epoch } = &self.spec.shape else { return Ok(0) };
        let policy = &self.lake.policy;
        if self.spec.expiry.is_none() && self.log.files().len() < policy.compact_after_files {
            return Ok(0);
        }
        // A file of somebody else may have no statistics: it stays as it is.
        let slice = |file: &LiveFile| self.spec.expiry.as_ref().map_or(Some(0), |expiry| expiry.slice(file));
        let mut slices: BTreeMap<i64, Vec<(Live, &LiveFile)>> = BTreeMap::new();
        for file in self.log.files() {
            if let Some((live, slice)) = Live::of(file, epoch).zip(slice(file)) {
                slices.entry(slice).or_default().push((live, file));
            }
        }
        let newest = slices.keys().next_back().copied();
        let run = slices.into_iter().find_map(|(slice, mut files)| {
            files.sort_by_key(|(live, _)| *live);
            let sizes: Vec<Live> = files.iter().map(|(live, _)| *live).collect();
            // To a slice that is not the newest nothing more comes.
            let gathered = if Some(slice) == newest { policy.compact_after_files } else { 2 };
            let run = run_to_rewrite(&sizes, gathered, policy.target_file_bytes)?;
            Some(files.drain(run).map(|(live, file)| (live, file.clone())).collect::<Vec<_>>())
        });
        let Some(files) = run else { return Ok(0) };
        let added = self.rewrite(&files).await?;
        let removed: Vec<LiveFile> = files.iter().map(|(_, file)| file.clone()).collect();
        let operation = Operation {
            name: "OPTIMIZE",
            parameters: json!({ "targetSize": policy.target_file_bytes.to_string() }),
            metrics: json!({ "numRemovedFiles": removed.len(), "numAddedFiles": 1, "numAddedBytes": added.bytes }),
        };
        let changes = Changes { added: vec![added], removed, ..Changes::default() };
        let compacted = changes.removed.len();
        self.commit(self.maintenance(), operation, changes).await?;
        Ok(compacted)
    }

    /// Writes the rows of `files` into a new one. It is an orphan until it is committed.
    async fn rewrite(&self, files: &[(Live, LiveFile)]) -> DeltaResult<LiveFile> {
        let mut rows = Vec::new();
        for (_, file) in files {
            rows.extend(self.read_file(file).await?);
        }
        let expected: u64 = files.iter().map(|(live, _)| live.rows).sum();
        let found: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if u64::try_from(found).ok() != Some(expected) {
            return Err(DeltaTableError::generic(format!("compaction found {found} rows instead of {expected}")));
        }
        self.file_writer().write(&rows).await
    }
}

impl Live {
    fn of(file: &LiveFile, epoch: &str) -> Option<Live> {
        let epoch = file.statistics["minValues"][epoch].as_i64()?;
        Some(Live { epoch, rows: file.rows()?, bytes: file.bytes })
    }
}

/// The newest files that are worth rewriting, if there are `gathered` since the last one that is full.
fn run_to_rewrite(files: &[Live], gathered: usize, full_bytes: u64) -> Option<Range<usize>> {
    let first = files.iter().rposition(|file| file.bytes >= full_bytes).map_or(0, |full| full + 1);
    let small = files.get(first..)?;
    if small.len() < gathered {
        return None;
    }
    let (mut newer, mut start) = (0u64, files.len());
    for (index, file) in small.iter().enumerate().rev() {
        if file.rows <= newer {
            start = first + index;
        }
        newer = newer.saturating_add(file.rows);
    }
    (start < files.len()).then_some(start..files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(epoch: i64, rows: u64) -> Live {
        Live { epoch, rows, bytes: rows }
    }

    #[test]
    fn full_files_and_files_larger_than_all_newer_ones_stay() {
        let files: Vec<Live> = [100, 5, 3, 1, 1, 1].iter().map(|rows| file(0, *rows)).collect();
        assert_eq!(run_to_rewrite(&files, 5, 1_000), Some(1..6));
        assert_eq!(run_to_rewrite(&files, 5, 3), None, "only three files since the last full one");
        assert_eq!(run_to_rewrite(&files, 3, 3), Some(3..6));
        assert_eq!(run_to_rewrite(&files, 7, 1_000), None);
    }

    #[test]
    fn total_cost_is_logarithmic_and_files_stay_few() {
        let (epochs, gathered) = (20_000, 16);
        let (mut files, mut rewritten, mut most) = (Vec::new(), 0, 0);
        for epoch in 0..epochs {
            files.push(file(epoch, 1 + (epoch.unsigned_abs() * 7) % 5));
            most = most.max(files.len());
            if let Some(run) = run_to_rewrite(&files, gathered, u64::MAX) {
                let rows = files.drain(run).map(|file| file.rows).sum();
                rewritten += rows;
                files.push(file(epoch, rows));
            }
        }
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        assert!(most <= gathered, "{most} files");
        let doublings = f64::log2(rows as f64);
        assert!((rewritten as f64) < rows as f64 * doublings, "{rewritten} rows rewritten for {rows}");
    }
}
