//! What is in the quarantine: counts by rule, or single events.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::{RejectedRow, Selection, rows};
use crate::report::numbers::{grouped, instant};
use crate::report::reader::{Reader, longs, newest, texts};
use crate::report::terminal::printable;
use crate::runtime::RunError;
use crate::sink::tables::{RejectedEvents, Table as _};

/// Characters of a payload that are shown.
const PAYLOAD_CHARS: usize = 60;

/// Characters of a payload in JSON.
const JSON_PAYLOAD_CHARS: usize = 200;

/// Characters of ids, names and details that are shown.
const TEXT_CHARS: usize = 64;

/// Rejected events of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The rule.
    pub reason: String,
    /// How many.
    pub events: u64,
    /// The first epoch with one.
    pub first_epoch: u64,
    /// The last epoch with one.
    pub last_epoch: u64,
    /// When that was closed; microseconds since 1970.
    pub last_rejected_us: i64,
}

/// Counts by rule, in the order of the rules.
///
/// # Errors
///
/// When the table is missing or cannot be read.
pub(crate) fn counts(reader: &Reader, selection: &Selection) -> Result<Vec<Count>, RunError> {
    let name = RejectedEvents::spec().name;
    let scan = newest(&name, &["rejection_reason", "epoch", "rejected_at"], selection.predicate());
    let found = reader.fold(&scan, BTreeMap::<String, Count>::new, |found, batch| {
        let (reasons, epochs, times) =
            (texts(batch, "rejection_reason"), longs(batch, "epoch"), longs(batch, "rejected_at"));
        for row in 0..batch.num_rows() {
            let (reason, epoch, at) = (reasons.at(row), epochs.whole(row), times.at(row));
            if let Some(count) = found.get_mut(reason) {
                count.events += 1;
                count.first_epoch = count.first_epoch.min(epoch);
                count.last_epoch = count.last_epoch.max(epoch);
                count.last_rejected_us = count.last_rejected_us.max(at);
            } else {
                let reason = reason.to_owned();
                let first = Count { reason, events: 1, first_epoch: epoch, last_epoch: epoch, last_rejected_us: at };
                found.insert(first.reason.clone(), first);
            }
        }
    })?;
    Ok(found.into_values().collect())
}

/// The counts, for a terminal or as JSON.
///
/// # Errors
///
/// As for [`counts`].
pub(crate) fn print_counts(reader: &Reader, selection: &Selection, json: bool) -> Result<String, RunError> {
    let counts = counts(reader, selection)?;
    if json {
        return Ok(json_line(&counts));
    }
    if counts.is_empty() {
        return Ok("no rejected events\n".to_owned());
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["reason", "events", "first epoch", "last epoch", "last rejected"]);
    for count in &counts {
        table.add_row([
            count.reason.clone(),
            grouped(count.events),
            grouped(count.first_epoch),
            grouped(count.last_epoch),
            instant(count.last_rejected_us),
        ]);
    }
    for column in 1..=3 {
        table.column_mut(column).into_iter().for_each(|column| {
            column.set_cell_alignment(CellAlignment::Right);
        });
    }
    let all = counts.iter().map(|count| count.events).sum();
    Ok(format!("{table}\n{} rejected events in all; single ones with --reason or --limit\n", grouped(all)))
}

/// Single events, for a terminal or as JSON.
///
/// # Errors
///
/// When the table is missing or cannot be read.
pub(crate) fn print_rows(reader: &Reader, selection: &Selection, limit: u64, json: bool) -> Result<String, RunError> {
    let chars = if json { JSON_PAYLOAD_CHARS } else { PAYLOAD_CHARS + 1 };
    let rows = rows(reader, selection, limit, Some(chars))?;
    if json {
        return Ok(json_line(&rows));
    }
    let mut text = String::new();
    for row in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(row));
    }
    let all: u64 = counts(reader, selection)?.iter().map(|count| count.events).sum();
    let _ = writeln!(text, "{} of {} rejected events", grouped(rows.len() as u64), grouped(all));
    Ok(text)
}

/// An event on two lines.
fn line(row: &RejectedRow) -> String {
    let partition = printable(&row.partition, TEXT_CHARS);
    let detail = row.detail.as_deref().map_or(String::new(), |detail| format!(": {}", printable(detail, 160)));
    let id = row.event_id.as_deref().map_or("no event_id".to_owned(), |id| printable(id, TEXT_CHARS));
    let encoding = if row.encoding == "utf-8" { String::new() } else { format!(" ({})", row.encoding) };
    format!(
        "epoch {} {partition}:{} {}{detail}\n    {id} {}{encoding}",
        row.epoch,
        row.offset,
        row.reason,
        printable(&row.payload, PAYLOAD_CHARS)
    )
}

/// A value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    // Only a map with keys that are no texts could fail.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}
