//! The newest rejected events of earlier runs, for the console of one that goes on.

use tidemark_dataflows::event::{Epoch, Micros};

use super::whole;
use crate::report::reader::{Reader, longs, texts};
use crate::runtime::RunError;
use crate::sink::tables::{RejectedEvents, Table as _};
use crate::telemetry::Refused;

/// Characters of a payload that are read: more than are shown of it.
const PAYLOAD_CHARS: usize = 800;

/// Numbers of epochs that are looked through, one after the other, until enough are found. Files that lie before need not
/// be opened, so a large table costs no more than its end.
const LOOKS: [Epoch; 3] = [64, 4_096, Epoch::MAX];

/// The newest rejected events up to an epoch, newest first, with their payloads masked.
///
/// # Errors
///
/// When the table is missing or cannot be read.
pub(crate) fn newest(reader: &Reader, up_to: Epoch, limit: usize) -> Result<Vec<Refused>, RunError> {
    for epochs in LOOKS {
        let first = up_to.saturating_sub(epochs);
        let found = between(reader, first, up_to, limit)?;
        if found.len() >= limit || first == 0 {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn between(reader: &Reader, after: Epoch, up_to: Epoch, limit: usize) -> Result<Vec<Refused>, RunError> {
    let sql = format!(
        "select epoch, source_offset, rejected_at, source_partition, rejection_reason, event_id, payload_encoding, \
         left(raw_payload, {PAYLOAD_CHARS}) from rejected_events where epoch > {after} and epoch <= {up_to} \
         order by epoch desc, source_partition desc, source_offset desc limit {limit}"
    );
    let mut found = Vec::new();
    for batch in reader.rows(&RejectedEvents::spec().name, &sql)? {
        let number = |column| longs(&batch, column).map(|values| values.into_iter().map(whole));
        let text = |column| texts(&batch, column).map(Vec::into_iter);
        let known = |column| text(column).map(|values| values.map(Option::unwrap_or_default));
        let times = longs(&batch, 2)?.into_iter().map(|at| Micros(at.unwrap_or_default()));
        let places = number(0)?.zip(number(1)?).zip(times).zip(known(3)?);
        let contents = known(4)?.zip(text(5)?).zip(known(6)?.zip(known(7)?));
        found.extend(places.zip(contents).map(|((((epoch, offset), at), partition), contents)| {
            let ((reason, event_id), (encoding, payload)) = contents;
            Refused::masked(event_id.as_deref(), reason, (&encoding, &payload), (partition, offset), epoch, at)
        }));
    }
    Ok(found)
}
