//! `monitoring/rejected_events`: the quarantine, one row for each rejected event.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidemark_dataflows::block::MAX_KEPT_BYTES;
use tidemark_dataflows::decode::Rejected;
use tidemark_dataflows::event::{Epoch, EpochMark};
use tidemark_delta::{Expires, Expiry, TableSpec};

use super::columns::{appended, long, long_array, text, text_array, time, time_array};
use super::transaction_events::partition_name;
use super::{PartitionNames, Table};

/// What `payload_encoding` says where a payload is left out.
pub const OMITTED: &str = "omitted";

/// The quarantine.
pub struct RejectedEvents {
    /// What `source_partition` says.
    pub partitions: PartitionNames,
}

impl RejectedEvents {
    /// Lets payloads go that are as old as that. Details quote them, so they go as well.
    pub(super) fn expiry(after: Duration) -> Expiry {
        let columns = vec!["raw_payload".to_owned(), "detail".to_owned()];
        let what = Expires::Values { columns, marked: "payload_encoding".to_owned(), word: OMITTED.to_owned() };
        Expiry { column: "rejected_at".to_owned(), after, what }
    }
}

impl Table for RejectedEvents {
    type Row = Rejected;

    fn spec() -> TableSpec {
        let fields = vec![
            text("event_id", "null where the body leaves no id to tell").with_nullable(true),
            text("raw_payload", "the body, cut after 64 KiB"),
            text(
                "payload_encoding",
                "utf-8, base64 where the bytes are no UTF-8, omitted where the payload was left out",
            ),
            text("rejection_reason", "the first rule that failed"),
            text("detail", "what exactly was wrong").with_nullable(true),
            text("source_partition", "file or partition that it came from"),
            long("source_offset", "its place there: index from 0, or sequence number of an event hub"),
            long("epoch", "the epoch it came in"),
            time("rejected_at", "closing time of that epoch"),
        ];
        let spec = appended("monitoring/rejected_events", "Every rejected event with its reason", "epoch", fields);
        TableSpec { bounded: vec!["rejected_at".to_owned(), "payload_encoding".to_owned()], ..spec }
    }

    fn epoch_of(row: &Rejected, _: Epoch) -> Epoch {
        row.epoch
    }

    fn batch(&mut self, mut rows: Vec<Rejected>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable_by_key(|row| row.at);
        let (payloads, encodings): (Vec<String>, Vec<&str>) = rows.iter().map(readable).unzip();
        let names = self.partitions.all();
        let optional = |values: Vec<Option<String>>| Arc::new(StringArray::from(values));
        let columns = vec![
            optional(rows.iter().map(|row| row.event_id.clone()).collect()),
            text_array(payloads.iter()),
            text_array(encodings.iter()),
            text_array(rows.iter().map(|row| row.reason.as_str())),
            optional(rows.iter().map(detail).collect()),
            text_array(rows.iter().map(|row| partition_name(&names, row.at.partition))),
            long_array(rows.iter().map(|row| row.at.offset.0))?,
            long_array(rows.iter().map(|row| row.epoch))?,
            time_array(rows.iter().map(|_| mark.closed)),
        ];
        RecordBatch::try_new(Self::spec().schema, columns).map(Some)
    }
}

/// The kept bytes as text, and how they became text. A cut in the middle of a character drops the rest of it.
fn readable(row: &Rejected) -> (String, &'static str) {
    let Some(payload) = &row.payload else { return (String::new(), OMITTED) };
    let cut = (payload.len() as u64) < row.whole_len;
    match std::str::from_utf8(payload) {
        Ok(text) => (text.to_owned(), "utf-8"),
        Err(e) if cut && e.error_len().is_none() => {
            (String::from_utf8_lossy(&payload[..e.valid_up_to()]).into_owned(), "utf-8")
        }
        Err(_) => (STANDARD.encode(payload), "base64"),
    }
}

/// Whether a row of the table holds the start of a body only, from the bytes that it holds and its detail.
pub fn was_cut(payload: &[u8], detail: Option<&str>) -> bool {
    // A character that the cut went through is dropped. Details quote a part of a short body only, so none can pass for
    // one of a body that was cut.
    let full = payload.len() + char::MAX.len_utf8() > MAX_KEPT_BYTES;
    full && detail.is_some_and(|detail| detail.ends_with(&kept(MAX_KEPT_BYTES)))
}

fn kept(bytes: usize) -> String {
    format!(" bytes in all, the first {bytes} kept")
}

/// What was wrong, and how long the body was when not all of it is kept.
fn detail(row: &Rejected) -> Option<String> {
    let whole = row.whole_len;
    let length = match &row.payload {
        None => Some(format!("{whole} bytes in all, none kept")),
        Some(payload) => ((payload.len() as u64) < whole).then(|| format!("{whole}{}", kept(payload.len()))),
    };
    match (row.detail.clone(), length) {
        (Some(detail), Some(length)) => Some(format!("{detail}; {length}")),
        (detail, length) => detail.or(length),
    }
}
