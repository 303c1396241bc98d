//! The end of a run: the three metrics, read back from the tables that were just written.

use std::cmp::Reverse;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Predicate;

use super::least::Least;
use super::numbers::{counted, grouped, pounds, rate};
use super::reader::{Reader, longs, money, newest, texts};
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
    for (title, table) in [
        ("M1 net flow", net_flow(&reader)?),
        ("M2 users with the most events", users(&reader)?),
        ("M3 channels", channels(&reader)?),
    ] {
        let picture = if table.row_count() == 0 { "no rows".to_owned() } else { table.to_string() };
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

fn net_flow(reader: &Reader) -> Result<Table, RunError> {
    let columns = ["total_deposits", "total_withdrawals", "net_flow", "deposit_count", "withdrawal_count"];
    let name = NetFlow::spec().name;
    let rows = reader.fold(&newest(&name, &columns, Predicate::default()), Vec::new, |rows, batch| {
        let [deposits, withdrawals, net_flow] =
            ["total_deposits", "total_withdrawals", "net_flow"].map(|name| money(batch, name));
        let counts = ["deposit_count", "withdrawal_count"].map(|name| longs(batch, name));
        for row in 0..batch.num_rows() {
            let [deposits, withdrawals, net_flow] = [&deposits, &withdrawals, &net_flow].map(|m| pounds(m.at(row)));
            let [deposit_count, withdrawal_count] = counts.each_ref().map(|count| grouped(count.whole(row)));
            rows.push([deposits, withdrawals, net_flow, deposit_count, withdrawal_count]);
        }
    })?;
    Ok(picture(["deposits", "withdrawals", "net flow", "deposit count", "withdrawal count"], 0, rows))
}

fn users(reader: &Reader) -> Result<Table, RunError> {
    let columns = ["user_id", "total_deposits", "total_withdrawals", "deposit_count", "withdrawal_count"];
    let name = UserMetrics::spec().name;
    let start = || Least::new(TOP_USERS);
    let least = reader.fold(&newest(&name, &columns, Predicate::default()), start, |least, batch| {
        let users = texts(batch, "user_id");
        let amounts = ["total_deposits", "total_withdrawals"].map(|name| money(batch, name));
        let counts = ["deposit_count", "withdrawal_count"].map(|name| longs(batch, name));
        for row in 0..batch.num_rows() {
            let counts = counts.each_ref().map(|count| count.whole(row));
            let most_events = Reverse(counts[0].saturating_add(counts[1]));
            let user = users.at(row);
            if least.admits(|(events, other, ..): &(_, String, _, _)| (*events, other.as_str()) > (most_events, user)) {
                least.offer((most_events, user.to_owned(), amounts.each_ref().map(|amount| amount.at(row)), counts));
            }
        }
    })?;
    let rows = least.ascending().into_iter().map(|(_, user, amounts, counts)| {
        let ([deposits, withdrawals], [deposit_count, withdrawal_count]) = (amounts.map(pounds), counts.map(grouped));
        [printable(&user, TEXT_CHARS), deposits, withdrawals, deposit_count, withdrawal_count]
    });
    Ok(picture(["user id", "deposits", "withdrawals", "deposit count", "withdrawal count"], 1, rows))
}

fn channels(reader: &Reader) -> Result<Table, RunError> {
    let columns = ["channel", "event_type", "event_count", "total_amount"];
    let name = ChannelDistribution::spec().name;
    let mut rows = reader.fold(&newest(&name, &columns, Predicate::default()), Vec::new, |rows, batch| {
        let [channels, types] = ["channel", "event_type"].map(|name| texts(batch, name));
        let (counts, amounts) = (longs(batch, "event_count"), money(batch, "total_amount"));
        for row in 0..batch.num_rows() {
            let [channel, kind] = [&channels, &types].map(|texts| printable(texts.at(row), TEXT_CHARS));
            rows.push([channel, kind, grouped(counts.whole(row)), pounds(amounts.at(row))]);
        }
    })?;
    rows.sort_unstable();
    Ok(picture(["channel", "event type", "event count", "amount"], 2, rows))
}

/// Characters of a text that are shown.
const TEXT_CHARS: usize = 64;

/// A table with numbers on the right: every column but the first `texts`.
fn picture<const N: usize>(head: [&str; N], texts: usize, rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(head).add_rows(rows);
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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
