//! The end of a run: the three metrics, read back from the tables that were just written.

use std::cmp::Reverse;
use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use tidemark_dataflows::reason::Reason;

use super::numbers::{counted, grouped, pounds, rate};
use super::reader::Reader;
use super::terminal::printable;
use crate::config::Config;
use crate::runtime::{Outcome, RunError};
use crate::sink::tables::{ChannelDistribution, NetFlow, Table as _, UserMetrics};
use crate::storage::Stores;

/// Users shown of M2.
const TOP_USERS: usize = 5;

/// The summary of a run that has ended, which wrote to the configured output, or to stores of its own. `rejected` is how many
/// events broke each rule since the first start, in the order of [`Reason::ALL`].
///
/// # Errors
///
/// When the tables cannot be read back.
pub fn of(
    config: &Config,
    outcome: &Outcome,
    rejected: [u64; Reason::COUNT],
    stores: Stores,
) -> Result<String, RunError> {
    let place = match stores.are_dry() {
        true => "a dry run: nothing was written, and nothing below the output was read".to_owned(),
        false => format!("tables below {}", config.output.path.display()),
    };
    let reader = Reader::with(config, stores)?;
    let mut text = String::new();
    let progress = &outcome.progress;
    let since = match outcome.resumed_after {
        0 => String::new(),
        epoch => {
            format!("went on after epoch {epoch}; since the first start: received {}, ", grouped(progress.received))
        }
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} in {:.2} s ({}), {} in {}\n{since}accepted {}, duplicates {}, rejected {}{}\n{place}\n",
        counted(outcome.events, "event"),
        outcome.took.as_secs_f64(),
        rate(outcome.events, outcome.took),
        counted(progress.epoch.saturating_sub(outcome.resumed_after), "epoch"),
        counted(progress.publications, "publication"),
        grouped(progress.accepted),
        grouped(progress.duplicates),
        grouped(progress.rejected),
        by_reason(rejected),
    );
    for (title, table, sql) in [
        ("M1 net flow", NetFlow::spec().name, NET_FLOW.to_owned()),
        ("M2 users with the most events", UserMetrics::spec().name, format!("{USERS} limit {TOP_USERS}")),
        ("M3 channels", ChannelDistribution::spec().name, CHANNELS.to_owned()),
    ] {
        let rows = reader.rows(&table, &sql)?;
        let none = rows.iter().all(|batch| batch.num_rows() == 0);
        let picture = if none { "no rows".to_owned() } else { picture(&rows).to_string() };
        let _ = writeln!(text, "{title}\n{picture}\n");
    }
    Ok(text)
}

/// The rules that were broken, the one that was broken most first; nothing where there are none.
fn by_reason(rejected: [u64; Reason::COUNT]) -> String {
    let mut broken: Vec<(u64, Reason)> =
        rejected.into_iter().zip(Reason::ALL).filter(|(count, _)| *count > 0).collect();
    broken.sort_by_key(|(count, _)| Reverse(*count));
    let named: Vec<String> = broken.iter().map(|(count, reason)| format!("{} {reason}", grouped(*count))).collect();
    if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
}

const NET_FLOW: &str = "select total_deposits as deposits, total_withdrawals as withdrawals, net_flow, \
     deposit_count, withdrawal_count from net_flow";

const USERS: &str = "select user_id, total_deposits as deposits, total_withdrawals as withdrawals, deposit_count, \
     withdrawal_count from user_metrics order by deposit_count + withdrawal_count desc, user_id";

const CHANNELS: &str = "select channel, event_type, event_count, total_amount as amount from channel_distribution \
     order by channel, event_type";

/// Characters of a text that are shown.
const TEXT_CHARS: usize = 64;

fn picture(batches: &[RecordBatch]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if let Some(batch) = batches.first() {
        let schema = batch.schema();
        table.set_header(schema.fields().iter().map(|field| field.name().replace('_', " ")));
        for (i, field) in schema.fields().iter().enumerate() {
            if let Some(column) = table.column_mut(i).filter(|_| field.data_type().is_numeric()) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for batch in batches {
        for row in 0..batch.num_rows() {
            table.add_row(batch.columns().iter().map(|column| cell(column, row)));
        }
    }
    table
}

fn cell(column: &dyn Array, row: usize) -> String {
    if let Some(money) = column.as_primitive_opt::<Decimal128Type>() {
        pounds(money.value(row))
    } else if let Some(counts) = column.as_primitive_opt::<Int64Type>() {
        grouped(counts.value(row).unsigned_abs())
    } else if let Some(texts) = column.as_string_opt::<i32>() {
        printable(texts.value(row), TEXT_CHARS)
    } else if let Some(texts) = column.as_string_view_opt() {
        printable(texts.value(row), TEXT_CHARS)
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_named_by_the_rule_that_was_broken_most() {
        let mut rejected = [0; Reason::COUNT];
        assert_eq!(by_reason(rejected), "");
        rejected[Reason::MalformedEvent as usize] = 3;
        rejected[Reason::LateEvent as usize] = 16_000;
        assert_eq!(by_reason(rejected), ": 16,000 R200_late_event, 3 R000_malformed_event");
    }
}
