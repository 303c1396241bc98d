//! The newest rejected events of earlier runs, for the console of one that goes on.

use std::cmp::Reverse;

use tidemark_dataflows::event::{Epoch, Micros};

use super::{RejectedRow, Selection, each};
use crate::report::least::Least;
use crate::report::reader::Reader;
use crate::runtime::RunError;
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
    let epochs = Selection { from_epoch: Some(after + 1), to_epoch: Some(up_to), ..Selection::default() };
    let start = || Least::<Reverse<RejectedRow>>::new(limit);
    let newest = each(reader, &epochs, start, |newest, batch, row| {
        if newest.admits(|Reverse(oldest)| batch.place(row) > oldest.place()) {
            newest.offer(Reverse(batch.row(row, Some(PAYLOAD_CHARS))));
        }
    })?;
    Ok(newest.ascending().into_iter().map(|Reverse(row)| masked(row)).collect())
}

fn masked(row: RejectedRow) -> Refused {
    let RejectedRow { epoch, partition, offset, reason, event_id, encoding, payload, rejected_us, .. } = row;
    let (contents, place) = ((encoding.as_str(), payload.as_str()), (partition, offset));
    Refused::masked(event_id.as_deref(), reason, contents, place, epoch, Micros(rejected_us))
}
