//! `monitoring/stream_health`: one row for each epoch.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::{EpochSummary, Tally};
use tidemark_delta::{Expires, Expiry, TableSpec};

use super::Table;
use super::columns::{appended, long, long_array, text, text_array, time, time_array};

/// Tells the present time; the only clock that a table reads, and only for `processing_time_ms`.
pub type Clock = fn() -> Micros;

/// The health of the stream.
pub struct StreamHealth {
    /// Where `processing_time_ms` comes from.
    pub now: Clock,
}

impl StreamHealth {
    /// The columns whose sums are those of run_manifest: received, accepted, duplicates, rejected.
    pub const COUNTS: [&str; 4] = ["events_received", "events_valid", "duplicate_events", "events_rejected"];

    /// Lets rows go of epochs that have been closed for as long as that.
    pub(super) fn expiry(after: Duration) -> Expiry {
        let what = Expires::Rows { summed: Self::COUNTS.map(ToOwned::to_owned).into() };
        Expiry { column: "batch_end".to_owned(), after, what }
    }
}

impl Table for StreamHealth {
    type Row = EpochSummary;

    fn spec() -> TableSpec {
        let fields = vec![
            long("batch_id", "the epoch"),
            time("batch_start", "opening time of the epoch"),
            time("batch_end", "closing time of the epoch"),
            long("events_received", "events_valid + duplicate_events + events_rejected"),
            long("events_valid", "accepted events"),
            long("events_rejected", "events rejected by any rule"),
            long("duplicate_events", "identical repetitions of accepted events"),
            long("late_events", "events rejected by R200"),
            text("rejected_by_reason", "a JSON object from reason to count, without zeros"),
            long("processing_time_ms", "from the closing of the epoch until its row was ready"),
            long("lag_seconds", "closing time minus the greatest event_time of the epoch"),
            time("watermark", "watermark of the epoch; null as long as there is none").with_nullable(true),
            long("retained_ids", "ids remembered after the epoch"),
            text("status", "ok, or what is degraded"),
        ];
        let comment = "What became of the events of each epoch";
        let spec = appended("monitoring/stream_health", comment, "batch_id", fields);
        TableSpec { bounded: vec!["batch_end".to_owned()], ..spec }
    }

    fn epoch_of(row: &EpochSummary, _: Epoch) -> Epoch {
        row.mark.epoch
    }

    fn batch(&mut self, rows: Vec<EpochSummary>, _: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let now = (self.now)();
        let tallies = || rows.iter().map(|row| &row.tally);
        let watermarks: Vec<Option<i64>> = tallies().map(|t| t.watermark.map(|w| w.0)).collect();
        let columns = vec![
            long_array(rows.iter().map(|row| row.mark.epoch))?,
            time_array(rows.iter().map(|row| row.mark.opened)),
            time_array(rows.iter().map(|row| row.mark.closed)),
            long_array(tallies().map(|t| t.received))?,
            long_array(tallies().map(|t| t.accepted))?,
            long_array(tallies().map(Tally::rejected_total))?,
            long_array(tallies().map(|t| t.duplicates))?,
            long_array(tallies().map(|t| t.rejected_for(Reason::LateEvent)))?,
            text_array(tallies().map(by_reason)),
            long_array(rows.iter().map(|row| microseconds_between(row.mark.closed, now) / 1_000))?,
            long_array(rows.iter().map(lag_seconds))?,
            Arc::new(TimestampMicrosecondArray::from(watermarks).with_timezone("UTC")),
            long_array(tallies().map(|t| t.retained_ids))?,
            text_array(rows.iter().map(status)),
        ];
        RecordBatch::try_new(Self::spec().schema, columns).map(Some)
    }
}

fn microseconds_between(earlier: Micros, later: Micros) -> u64 {
    u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(0)
}

/// How far the newest event time lies behind the closing of the epoch, in whole seconds.
fn lag_seconds(row: &EpochSummary) -> u64 {
    row.tally.newest.map_or(0, |newest| microseconds_between(newest, row.mark.closed) / 1_000_000)
}

/// What is degraded, as far as the events alone tell.
fn status(row: &EpochSummary) -> String {
    match row.mark.missing {
        0 => "ok".to_owned(),
        missing => format!("degraded: {missing} events are missing in the source"),
    }
}

/// A JSON object from reason to count, in the order of the rules, without those that are zero.
fn by_reason(tally: &Tally) -> String {
    let counts = Reason::ALL.iter().map(|reason| (reason, tally.rejected_for(*reason))).filter(|(_, n)| *n > 0);
    let members: Vec<String> = counts.map(|(reason, n)| format!("\"{reason}\":{n}")).collect();
    format!("{{{}}}", members.join(","))
}
