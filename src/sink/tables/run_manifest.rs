//! `monitoring/run_manifest`: one row about the pipeline as a whole.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::tally::{EpochSummary, Tally};
use tidemark_delta::TableSpec;

use super::Table;
use super::columns::{long, long_array, merged, text, text_array, time, time_array};

/// What the manifest says in words.
#[derive(Clone, Debug)]
pub struct ManifestText {
    /// Where the tables are.
    pub output_path: String,
    /// Where the events come from.
    pub source: String,
    /// Deduplication key, watermark delay and retention.
    pub dedup_scope: String,
}

/// Everything from the first epoch on.
#[derive(Clone, Debug, Default)]
pub struct SoFar {
    /// When the first epoch was opened.
    pub stream_start: Option<Micros>,
    /// Number of epochs.
    pub epochs: u64,
    /// What became of their events.
    pub sum: Tally,
}

impl SoFar {
    /// What a checkpoint says.
    pub fn of(counters: &Counters) -> SoFar {
        SoFar { stream_start: counters.stream_start_us.map(Micros), epochs: counters.epochs, sum: counters.tally() }
    }
}

/// The manifest of the run.
pub struct RunManifest {
    text: ManifestText,
    first_worker: bool,
    so_far: SoFar,
}

impl RunManifest {
    /// The manifest of a pipeline that has seen `so_far`. Only the first worker writes it.
    pub fn new(text: ManifestText, first_worker: bool, so_far: SoFar) -> Self {
        RunManifest { text, first_worker, so_far }
    }

    /// The row as it stands, once there has been an epoch.
    ///
    /// # Errors
    ///
    /// As for [`Table::batch`].
    pub fn row(&self, updated: Micros) -> Result<Option<RecordBatch>, ArrowError> {
        self.so_far.stream_start.map(|start| self.one_row(start, updated)).transpose()
    }

    fn one_row(&self, start: Micros, updated: Micros) -> Result<RecordBatch, ArrowError> {
        let SoFar { epochs, sum, .. } = &self.so_far;
        let counts = [*epochs, sum.received, sum.accepted, sum.rejected_total(), sum.duplicates];
        let mut columns = vec![time_array([start].into_iter()), time_array([updated].into_iter())];
        for count in counts {
            columns.push(long_array([count].into_iter())?);
        }
        for words in [&self.text.output_path, &self.text.source, &self.text.dedup_scope] {
            columns.push(text_array([words].into_iter()));
        }
        RecordBatch::try_new(Self::spec().schema, columns)
    }
}

impl Table for RunManifest {
    type Row = EpochSummary;

    fn spec() -> TableSpec {
        let fields = vec![
            time("stream_start", "opening time of epoch 1"),
            time("last_updated", "closing time of the newest epoch"),
            long("batches_processed", "number of epochs"),
            long("total_events_received", "sum over all epochs"),
            long("total_events_valid", "accepted events of all epochs"),
            long("total_events_rejected", "rejected events of all epochs"),
            long("total_duplicate_events", "identical repetitions in all epochs"),
            text("output_path", "where the tables are"),
            text("source", "where the events come from"),
            text("dedup_scope", "deduplication key, watermark delay and retention in words"),
        ];
        // The one value that never changes while a pipeline lives, and so the key of its one row.
        merged("monitoring/run_manifest", "The pipeline as a whole", &["dedup_scope"], fields)
    }

    fn epoch_of(row: &EpochSummary, _: Epoch) -> Epoch {
        row.mark.epoch
    }

    fn batch(&mut self, rows: Vec<EpochSummary>, _: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        let mut newest = None;
        for EpochSummary { mark, tally, .. } in rows {
            self.so_far.stream_start.get_or_insert(mark.opened);
            self.so_far.epochs += 1;
            self.so_far.sum.add(&tally);
            newest = newest.max(Some(mark.closed));
        }
        newest.map_or(Ok(None), |updated| self.row(updated))
    }

    fn initial(&mut self, opened: Micros) -> Result<Option<RecordBatch>, ArrowError> {
        self.first_worker.then(|| self.one_row(opened, opened)).transpose()
    }
}
