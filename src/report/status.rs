//! A running instance at a glance, for a terminal: what the console shows, in lines.

use std::fmt::Write;
use std::time::Duration;

use super::checkpoint::table;
use super::numbers::{counted, grouped, rate};
use super::terminal::printable;
use crate::config::units::{format_duration, format_size};
use crate::http::answers::{Checkpoints, Everything, HeldBack, RejectedEvent, StageOf, Status, Tables, Times};

/// Rejected events that are shown.
const REJECTED: usize = 5;

/// Users that are shown.
const USERS: usize = 5;

/// Characters of a line of foreign text.
const SHOWN: usize = 100;

/// Everything as text.
pub fn text(all: &Everything) -> String {
    let Everything { status, graph, contract, quarantine, tables, checkpoints, .. } = all;
    let mut text = head(status);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{}", stages(&graph.stages, graph.stuck_at.as_deref()));
    text += &time(&status.time);
    text += &kept(checkpoints);
    text += &metrics(tables);
    let broken = contract.rules.iter().filter(|rule| rule.rejected > 0);
    let rows: Vec<[String; 2]> = broken.map(|rule| [grouped(rule.rejected), rule.name.clone()]).collect();
    if !rows.is_empty() {
        let _ = writeln!(text, "\n{}", table(["rejected", "rule"], rows, 1));
    }
    for event in quarantine.events.iter().take(REJECTED) {
        text += &rejected(event);
    }
    for service in status.services.iter().filter(|service| !service.healthy) {
        let reason = printable(service.reason.as_deref().unwrap_or_default(), SHOWN);
        let _ = writeln!(text, "\n{} fails for {}: {reason}", service.name, seconds(service.since_seconds));
    }
    text
}

fn seconds(seconds: f64) -> String {
    let rounded = if seconds < 1.0 { (seconds * 1e3).round() / 1e3 } else { seconds.round() };
    Duration::try_from_secs_f64(rounded.max(0.0)).map_or_else(|_| "-".to_owned(), format_duration)
}

fn per_second(number: f64) -> String {
    #[allow(clippy::cast_sign_loss, reason = "it is not negative")]
    let whole = if number.is_finite() { number.max(0.0).round() as u64 } else { 0 };
    rate(whole, Duration::from_secs(1))
}

fn head(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "NOT READY" };
    let mut text = format!(
        "{}: {}, {ready}, up {}\n{} -> {}\n",
        printable(&status.pipeline, SHOWN),
        status.state,
        seconds(status.uptime_seconds.floor()),
        printable(&status.source, SHOWN),
        printable(&status.output, SHOWN),
    );
    for reason in &status.reasons {
        let _ = writeln!(text, "  {}", printable(reason, 2 * SHOWN));
    }
    let events = &status.events;
    let _ = writeln!(
        text,
        "{} read; {} received = {} accepted + {} duplicates + {} rejected",
        per_second(status.rates.read_per_second),
        grouped(events.received),
        grouped(events.accepted),
        grouped(events.duplicates),
        grouped(events.rejected),
    );
    if let (Some(events), Some(behind)) = (status.read.lag_events, status.read.lag_seconds) {
        let _ = writeln!(text, "lag {}, {behind} s", counted(events, "event"));
    }
    text
}

fn stages(stages: &[StageOf], stuck: Option<&str>) -> String {
    let row = |stage: &StageOf| {
        let waiting = match stage.waiting_seconds >= 1.0 && stage.behind > 0 {
            true => format!("for {}", seconds(stage.waiting_seconds)),
            false => String::new(),
        };
        let mark = if Some(stage.name.as_str()) == stuck { " STUCK" } else { "" };
        [grouped(stage.epoch), grouped(stage.behind), per_second(stage.per_second), stage.name.clone() + mark, waiting]
    };
    table(["epoch", "behind", "passing", "stage", "waiting"], stages.iter().map(row), 2).to_string()
}

fn time(time: &Times) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    format!(
        "newest event {}, watermark {} (delay {})\n{}remembered {} of {} expected ids, {}; next forgotten at {}\n",
        or_none(&time.newest_event_time),
        or_none(&time.watermark),
        seconds(time.watermark_delay_seconds),
        time.held_back.as_ref().map_or(String::new(), held_back),
        grouped(time.remembered_ids),
        grouped(time.expected_ids),
        mebibytes(time.index_bytes),
        or_none(&time.next_expiry),
    )
}

/// What holds the watermark back.
fn held_back(held: &HeldBack) -> String {
    let partition = printable(&held.partition, SHOWN);
    let come = match (&held.event_time, held.behind_seconds) {
        (Some(at), Some(behind)) => format!("it has come to {at}, {} behind", seconds(behind)),
        _ => "it is not known how far it has come".to_owned(),
    };
    format!("  held back by partition {partition} for {}: {come}\n", seconds(held.since_seconds.floor()))
}

/// Whole mebibytes, or bytes where that would say nothing.
fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format_size(bytes) } else { format!("{} MiB", grouped(bytes >> 20)) }
}

fn kept(kept: &Checkpoints) -> String {
    match (&kept.written, kept.age_seconds) {
        (Some(_), Some(age)) => format!(
            "checkpoint of epoch {}, {} old, {} in {}\n",
            grouped(kept.epoch),
            seconds(age),
            mebibytes(kept.bytes),
            counted(kept.runs, "run"),
        ),
        _ if kept.enabled => "no checkpoint yet\n".to_owned(),
        _ => "no checkpoint is kept\n".to_owned(),
    }
}

fn metrics(tables: &Tables) -> String {
    let net = &tables.net_flow;
    let mut text = format!(
        "\nas of epoch {}: net flow {} = {} in {} - {} in {}\n",
        grouped(tables.epoch),
        net.net_flow,
        net.total_deposits,
        counted(net.deposit_count, "deposit"),
        net.total_withdrawals,
        counted(net.withdrawal_count, "withdrawal"),
    );
    let channels = tables
        .channels
        .iter()
        .map(|row| [grouped(row.event_count), row.total_amount.clone(), format!("{} {}", row.channel, row.event_type)]);
    let _ = writeln!(text, "{}", table(["events", "amount", "channel"], channels, 1));
    let users = tables.top_users.iter().take(USERS).map(|user| {
        let count = user.deposit_count + user.withdrawal_count;
        let name = printable(&user.user_id, SHOWN);
        [grouped(count), user.total_deposits.clone(), user.total_withdrawals.clone(), name]
    });
    let _ = writeln!(text, "{}", table(["events", "deposits", "withdrawals", "user"], users, 1));
    let commits = tables.tables.iter().map(|table| {
        let last = table.last_commit_seconds.map_or("-".to_owned(), seconds);
        [grouped(table.version), grouped(table.epoch), last, grouped(table.failures), table.name.clone()]
    });
    let _ = writeln!(text, "{}", table(["version", "epoch", "last commit", "failed", "table"], commits, 1));
    text
}

fn rejected(event: &RejectedEvent) -> String {
    format!(
        "{} {} {}:{} {}\n",
        event.at,
        event.reason,
        printable(&event.partition, SHOWN),
        event.offset,
        printable(&event.masked_payload, SHOWN)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answers::{Quarantine, Service};

    #[test]
    fn what_is_wrong_is_told_and_steers_no_terminal() {
        let mut all = Everything::default();
        all.status.reasons = vec!["table a: \u{1b}[2J".to_owned()];
        let failing = Some("disk full".to_owned());
        let service =
            Service { name: "table a".to_owned(), reason: failing, since_seconds: 61.2, ..Service::default() };
        all.status.services = vec![service];
        all.graph.stages =
            vec![StageOf { name: "published".to_owned(), behind: 3, waiting_seconds: 60.0, ..StageOf::default() }];
        all.graph.stuck_at = Some("published".to_owned());
        let since_seconds = 7_200.5;
        let held = HeldBack { partition: "daily/\u{1b}7".to_owned(), since_seconds, ..HeldBack::default() };
        all.status.time.held_back = Some(held);
        let event = RejectedEvent { masked_payload: "x\u{202e}".to_owned(), ..RejectedEvent::default() };
        all.quarantine = Quarantine { events: vec![event] };
        let text = text(&all);
        for told in [
            "NOT READY",
            "table a: \\u{1b}[2J",
            "published STUCK",
            "for 1m",
            "table a fails for 1m 1s: disk full",
            "held back by partition daily/\\u{1b}7 for 2h: it is not known how far",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
}
