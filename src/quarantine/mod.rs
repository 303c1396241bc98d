//! The quarantine as somebody sees it who looks for rejected events, or wants to feed them once more.

pub mod list;
pub(crate) mod newest;
pub mod replay;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tidemark_dataflows::reason::Reason;

use crate::report::reader::{Reader, literal, longs, texts};
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
    fn condition(&self) -> String {
        let mut all = vec!["true".to_owned()];
        let mut any = |column: &str, values: Vec<String>| {
            if !values.is_empty() {
                all.push(format!("{column} in ({})", values.join(", ")));
            }
        };
        any("rejection_reason", self.reasons.iter().map(|reason| literal(reason.as_str())).collect());
        any("source_partition", self.partitions.iter().map(|name| literal(name)).collect());
        any("source_offset", self.offsets.iter().map(u64::to_string).collect());
        any("event_id", self.event_id.iter().map(|id| literal(id)).collect());
        all.extend(self.from_epoch.map(|epoch| format!("epoch >= {epoch}")));
        all.extend(self.to_epoch.map(|epoch| format!("epoch <= {epoch}")));
        all.join(" and ")
    }
}

/// A row of the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    let payload = payload_chars.map_or("raw_payload".to_owned(), |chars| format!("left(raw_payload, {chars})"));
    let sql = format!(
        "select epoch, source_partition, source_offset, rejection_reason, detail, event_id, payload_encoding, \
         {payload} from rejected_events where {} order by epoch, source_partition, source_offset limit {limit}",
        selection.condition()
    );
    let mut found = Vec::new();
    for batch in reader.rows(&RejectedEvents::spec().name, &sql)? {
        let number = |column| longs(&batch, column).map(|values| values.into_iter().map(whole));
        let text = |column| texts(&batch, column).map(Vec::into_iter);
        let known = |column| text(column).map(|values| values.map(Option::unwrap_or_default));
        let places = number(0)?.zip(known(1)?).zip(number(2)?);
        let reasons = known(3)?.zip(text(4)?).zip(text(5)?);
        let payloads = known(6)?.zip(known(7)?);
        found.extend(places.zip(reasons).zip(payloads).map(|((place, why), (encoding, payload))| {
            let ((epoch, partition), offset) = place;
            let ((reason, detail), event_id) = why;
            RejectedRow { epoch, partition, offset, reason, detail, event_id, encoding, payload }
        }));
    }
    Ok(found)
}

/// A count or number of the tables: never null, never negative.
pub(crate) fn whole(value: Option<i64>) -> u64 {
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
}
