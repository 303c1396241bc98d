//! The quarantine as somebody sees it who looks for rejected events, or wants to feed them once more.

pub mod list;
pub(crate) mod newest;
pub mod replay;

use arrow::array::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tidemark_dataflows::event::Epoch;
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Predicate;

use crate::report::least::Least;
use crate::report::reader::{Longs, Reader, Texts, longs, newest, texts};
use crate::runtime::RunError;
use crate::sink::tables::{OMITTED, RejectedEvents, Table as _, was_cut};

/// Which rejected events are meant: those to which everything that is given applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Any of these rules; empty: whichever.
    pub reasons: Vec<Reason>,
    /// From this epoch on.
    pub from_epoch: Option<u64>,
    /// Up to and with this epoch.
    pub to_epoch: Option<u64>,
    /// Any of these partitions; empty: whichever.
    pub partitions: Vec<String>,
    /// Any of these offsets; empty: whichever.
    pub offsets: Vec<u64>,
    /// With this `event_id`.
    pub event_id: Option<String>,
}

impl Selection {
    /// The same as a condition on the table.
    fn predicate(&self) -> Predicate {
        let long = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut all = Predicate::default();
        if !self.reasons.is_empty() {
            all = all.text_in("rejection_reason", self.reasons.iter().map(|reason| reason.as_str()));
        }
        if !self.partitions.is_empty() {
            all = all.text_in("source_partition", &self.partitions);
        }
        if !self.offsets.is_empty() {
            all = all.long_in("source_offset", self.offsets.iter().copied().map(long));
        }
        if let Some(id) = &self.event_id {
            all = all.text_in("event_id", [id]);
        }
        if self.from_epoch.is_some() || self.to_epoch.is_some() {
            all = all.between("epoch", long(self.from_epoch.unwrap_or(0))..=long(self.to_epoch.unwrap_or(Epoch::MAX)));
        }
        all
    }
}

/// A row of the quarantine. The order is that of epoch, partition and offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RejectedRow {
    /// The epoch that it came in.
    pub epoch: u64,
    /// The partition.
    pub partition: String,
    /// Its place there.
    pub offset: u64,
    /// The rule.
    pub reason: String,
    /// What was wrong.
    pub detail: Option<String>,
    /// Its id, where it has one.
    pub event_id: Option<String>,
    /// `utf-8`, `base64` or `omitted`.
    pub encoding: String,
    /// The body as it is kept.
    pub payload: String,
    /// When its epoch was closed.
    #[serde(skip)]
    pub rejected_us: i64,
}

/// Why an event cannot be fed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unplayable {
    /// Its body was longer than what is kept of it.
    Cut,
    /// Its body was not kept.
    Omitted,
    /// What is kept cannot be decoded.
    Undecodable,
}

impl Unplayable {
    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Unplayable::Cut => "only the start of its payload was kept",
            Unplayable::Omitted => "its payload was not kept",
            Unplayable::Undecodable => "its payload is in no known encoding",
        }
    }
}

impl RejectedRow {
    fn place(&self) -> (u64, &str, u64) {
        (self.epoch, &self.partition, self.offset)
    }

    /// The body as it came.
    ///
    /// # Errors
    ///
    /// When not all of it is there.
    pub fn body(&self) -> Result<Vec<u8>, Unplayable> {
        let body = match self.encoding.as_str() {
            "utf-8" => self.payload.clone().into_bytes(),
            "base64" => STANDARD.decode(&self.payload).map_err(|_| Unplayable::Undecodable)?,
            OMITTED => return Err(Unplayable::Omitted),
            _ => return Err(Unplayable::Undecodable),
        };
        if was_cut(&body, self.detail.as_deref()) { Err(Unplayable::Cut) } else { Ok(body) }
    }
}

/// The selected rows in the order of epoch, partition and offset, at most `limit`. Of each payload the first
/// `payload_chars` characters are read.
///
/// # Errors
///
/// When the table is missing or cannot be read.
pub(crate) fn rows(
    reader: &Reader,
    selection: &Selection,
    limit: u64,
    payload_chars: Option<usize>,
) -> Result<Vec<RejectedRow>, RunError> {
    let start = || Least::<RejectedRow>::new(usize::try_from(limit).unwrap_or(usize::MAX));
    let least = each(reader, selection, start, |least, batch, row| {
        if least.admits(|greatest| batch.place(row) < greatest.place()) {
            least.offer(batch.row(row, payload_chars));
        }
    })?;
    Ok(least.ascending())
}

/// Folds the selected rows.
fn each<T>(
    reader: &Reader,
    selection: &Selection,
    start: impl Fn() -> T,
    mut step: impl FnMut(&mut T, &Batch, usize),
) -> Result<T, RunError> {
    let name = RejectedEvents::spec().name;
    Ok(reader.fold(&newest(&name, &COLUMNS, selection.predicate()), start, |value, batch| {
        let (rows, batch) = (batch.num_rows(), Batch::of(batch));
        (0..rows).for_each(|row| step(value, &batch, row));
    })?)
}

const COLUMNS: [&str; 9] = [
    "epoch",
    "source_partition",
    "source_offset",
    "rejection_reason",
    "detail",
    "event_id",
    "payload_encoding",
    "raw_payload",
    "rejected_at",
];

/// Columns of some rows.
struct Batch {
    epoch: Longs,
    partition: Texts,
    offset: Longs,
    reason: Texts,
    detail: Texts,
    event_id: Texts,
    encoding: Texts,
    payload: Texts,
    rejected_at: Longs,
}

impl Batch {
    fn of(batch: &RecordBatch) -> Batch {
        let (longs, texts) = (|name| longs(batch, name), |name| texts(batch, name));
        Batch {
            epoch: longs("epoch"),
            partition: texts("source_partition"),
            offset: longs("source_offset"),
            reason: texts("rejection_reason"),
            detail: texts("detail"),
            event_id: texts("event_id"),
            encoding: texts("payload_encoding"),
            payload: texts("raw_payload"),
            rejected_at: longs("rejected_at"),
        }
    }

    fn place(&self, row: usize) -> (u64, &str, u64) {
        (self.epoch.whole(row), self.partition.at(row), self.offset.whole(row))
    }

    fn row(&self, row: usize, payload_chars: Option<usize>) -> RejectedRow {
        let payload = self.payload.at(row);
        let end = payload_chars.and_then(|chars| payload.char_indices().nth(chars)).map_or(payload.len(), |(at, _)| at);
        RejectedRow {
            epoch: self.epoch.whole(row),
            partition: self.partition.at(row).to_owned(),
            offset: self.offset.whole(row),
            reason: self.reason.at(row).to_owned(),
            detail: self.detail.owned(row),
            event_id: self.event_id.owned(row),
            encoding: self.encoding.at(row).to_owned(),
            payload: payload.get(..end).unwrap_or_default().to_owned(),
            rejected_us: self.rejected_at.at(row),
        }
    }
}
