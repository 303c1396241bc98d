//! One picture of the pipeline, from what is measured.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::reason::Reason;

use super::answers::{
    Channel, Checkpoints, Contract, Events, Everything, Graph, HeldBack, NetFlow, Partition, Quarantine, Rates, Read,
    Readiness, RejectedEvent, Restore, Rule, Service, StageOf, Status, Table, Tables, Times, User,
};
use super::board::Board;
use super::sampler::behind;
use crate::health::Condition;
use crate::runtime::{RunStatus, clock};
use crate::telemetry::{Decided, NEWEST_REFUSED, Refused, Stage, TableMeter, WholeFigures};

/// Partitions that are shown one by one.
const PARTITIONS: usize = 64;

/// A stage that has been behind for so long is stuck, and so is one that has for so many triggers.
const STUCK: (Duration, u32) = (Duration::from_secs(10), 4);

/// The same for a checkpoint that is wanted, whose work may take longer.
const STUCK_CHECKPOINT: Duration = Duration::from_secs(60);

/// Everything that is shown.
pub(super) fn of(board: &Board) -> Everything {
    let decided = board.vitals().map(decided).unwrap_or_default();
    Everything {
        status: status(board, &decided),
        graph: graph(board),
        contract: contract(&decided),
        quarantine: board.vitals().map(quarantine).unwrap_or_default(),
        tables: board.vitals().map(tables).unwrap_or_default(),
        checkpoints: checkpoints(board),
        newest: board.sampler().newest(),
    }
}

/// What was decided since the pipeline was begun.
pub(super) fn decided(vitals: &RunStatus) -> Decided {
    vitals.telemetry.since_begun()
}

/// An instant as text.
fn instant(at: Micros) -> String {
    DateTime::from_timestamp_micros(at.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Pence as pounds, to the penny.
fn pounds(pence: i128) -> String {
    let sign = if pence < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", pence.unsigned_abs() / 100, pence.unsigned_abs() % 100)
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// Seconds from one instant to another; less than 0 where that one was before.
fn between(from: Micros, to: Micros) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e6
}

fn events(decided: &Decided) -> Events {
    Events {
        received: decided.received,
        accepted: decided.accepted,
        duplicates: decided.duplicates,
        rejected: decided.rejected_total(),
        missing: decided.missing,
    }
}

fn status(board: &Board, decided: &Decided) -> Status {
    let (facts, vitals) = (&board.facts, board.vitals());
    let Readiness { ready, reasons } = readiness(board);
    // One after the other: both are behind the same lock.
    let rates = board.sampler().rates();
    let usage = board.sampler().usage();
    let (partitions, partition_count) = vitals.map(partitions).unwrap_or_default();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pipeline: facts.pipeline.clone(),
        source: vitals.map(|vitals| vitals.source.clone()).unwrap_or_default(),
        output: vitals.map(|vitals| vitals.output.clone()).unwrap_or_default(),
        process: facts.process,
        processes: facts.processes,
        workers: facts.workers,
        started: instant(Micros(facts.started_us)),
        uptime_seconds: facts.started.elapsed().as_secs_f64(),
        state: board.state().to_owned(),
        ready,
        reasons,
        time: times(board, decided),
        events: events(decided),
        rates,
        read: vitals.map(read).unwrap_or_default(),
        partitions,
        partition_count,
        services: vitals.map(|vitals| services(board, vitals)).unwrap_or_default(),
        usage,
    }
}

fn times(board: &Board, decided: &Decided) -> Times {
    let facts = &board.facts;
    let meters = || board.vitals().and_then(|vitals| vitals.telemetry.index.get()).into_iter().flatten();
    let next_expiry = meters().filter_map(|meter| meter.expires_at()).min();
    Times {
        now: instant(clock::now()),
        newest_event_time: decided.newest.map(instant),
        watermark: decided.watermark.map(instant),
        watermark_delay_seconds: facts.watermark_delay.as_secs_f64(),
        held_back: board.vitals().and_then(held_back),
        retention_seconds: facts.retention.as_secs_f64(),
        event_time_lag_seconds: lag_of(decided),
        remembered_ids: decided.remembered_ids,
        expected_ids: facts.expected_ids,
        index_bytes: meters().map(|meter| meter.bytes.load(Relaxed)).sum(),
        next_expiry: next_expiry.map(instant),
        next_expiry_in_seconds: next_expiry.zip(decided.watermark).map(|(next, now)| between(now, next)),
    }
}

/// What holds the watermark back, as of the newest epoch.
fn held_back(vitals: &RunStatus) -> Option<HeldBack> {
    let held = vitals.telemetry.held_back.get()?;
    Some(HeldBack {
        partition: vitals.telemetry.partitions.name(held.partition),
        event_time: held.time.map(instant),
        behind_seconds: held.behind_us.map(seconds),
        since: instant(held.since),
        since_seconds: between(held.since, clock::now()).max(0.0),
    })
}

/// How far event time lay behind the closing of the newest epoch.
pub(super) fn lag_of(decided: &Decided) -> Option<f64> {
    decided.newest_in_epoch.zip(decided.closed).map(|(newest, closed)| between(newest, closed).max(0.0))
}

fn read(vitals: &RunStatus) -> Read {
    let lag = vitals.partitions.lag();
    Read {
        events: vitals.counters.events.load(Relaxed),
        bytes: vitals.counters.bytes.load(Relaxed),
        total_bytes: vitals.total_bytes,
        lag_events: lag.map(|lag| lag.events),
        lag_seconds: lag.map(|lag| lag.seconds),
    }
}

fn partitions(vitals: &RunStatus) -> (Vec<Partition>, usize) {
    let statuses = vitals.partitions.all();
    let known: BTreeMap<&str, _> = statuses.iter().map(|status| (status.id(), status)).collect();
    let meters = vitals.telemetry.partitions.all();
    let shown = meters.iter().take(PARTITIONS).map(|meter| {
        let status = known.get(meter.name.as_str());
        let lag = status.map(|status| status.lag());
        Partition {
            name: meter.name.clone(),
            next_offset: meter.next.load(Relaxed),
            lag_events: lag.map(|lag| lag.events),
            lag_seconds: lag.map(|lag| lag.seconds),
            reconnects: status.map(|status| status.reconnects.load(Relaxed)),
        }
    });
    (shown.collect(), meters.len())
}

fn services(board: &Board, vitals: &RunStatus) -> Vec<Service> {
    let mut conditions = vitals.health.conditions();
    let tables = vitals.telemetry.tables.get().into_iter().flatten();
    let names = ["the tables".to_owned()].into_iter().chain(tables.map(|table| format!("table {}", table.name)));
    let mut services: Vec<Service> = names
        .map(|name| {
            let condition = conditions.remove(&name);
            service(name, condition.as_ref(), board.facts.started.elapsed())
        })
        .collect();
    services.extend(conditions.into_iter().map(|(name, condition)| service(name, Some(&condition), Duration::ZERO)));
    services
}

fn service(name: String, condition: Option<&Condition>, up: Duration) -> Service {
    let reason = condition.and_then(|condition| condition.failing.clone());
    let since = condition.map_or(up, |condition| condition.since.elapsed());
    let failures = condition.map_or(0, |condition| condition.times);
    Service { name, healthy: reason.is_none(), reason, since_seconds: since.as_secs_f64(), failures }
}

/// Whether the process does its work, and why not.
pub(super) fn readiness(board: &Board) -> Readiness {
    let mut reasons = Vec::new();
    match board.state() {
        "starting" => reasons.push("starting: source, tables and checkpoint are being opened".to_owned()),
        "stopping" => reasons.push("stopping: what was begun is being published".to_owned()),
        _ => {}
    }
    if let Some(vitals) = board.vitals() {
        reasons.extend(vitals.health.failing().into_iter().map(|(place, why)| format!("{place}: {why}")));
        if let Some(stage) = stuck(board, vitals) {
            reasons.push(format!("epochs wait: no epoch is {stage}"));
        }
    }
    Readiness { ready: reasons.is_empty(), reasons }
}

/// The stage that epochs wait for although it has not moved for a while.
fn stuck(board: &Board, vitals: &RunStatus) -> Option<&'static str> {
    let sampler = board.sampler();
    let stages = vitals.telemetry.stages.read();
    let waiting = |stage: Stage, epoch: u64| match stage {
        // Between two checkpoints nobody waits for one.
        Stage::Checkpointed => {
            let since = vitals.telemetry.checkpoints.wanted_since(epoch);
            since.map_or(0.0, |since| between(since, clock::now()))
        }
        _ => sampler.waiting(stage, epoch).as_secs_f64(),
    };
    let patience = |stage: Stage| match stage {
        Stage::Checkpointed => STUCK_CHECKPOINT,
        _ => STUCK.0.max(board.facts.trigger * STUCK.1),
    };
    let is_stuck = |(stage, epoch): &&(Stage, u64)| waiting(*stage, *epoch) > patience(*stage).as_secs_f64();
    stages.iter().find(is_stuck).map(|(stage, _)| stage.as_str())
}

fn graph(board: &Board) -> Graph {
    let Some(vitals) = board.vitals() else { return Graph::default() };
    let stuck_at = stuck(board, vitals).map(str::to_owned);
    let sampler = board.sampler();
    let rates = sampler.rates();
    let stages = vitals.telemetry.stages.read();
    let befores = stages.iter().take(1).chain(stages.iter());
    let shown = stages.iter().zip(befores).map(|((stage, epoch), (_, before))| StageOf {
        name: stage.as_str().to_owned(),
        epoch: *epoch,
        behind: behind(*stage, *epoch, *before),
        waiting_seconds: sampler.waiting(*stage, *epoch).as_secs_f64(),
        per_second: rate_of(*stage, &rates),
    });
    let of = |wanted: Stage| vitals.telemetry.stages.of(wanted);
    let in_flight = of(Stage::Cut).saturating_sub(of(Stage::Published));
    Graph { stages: shown.collect(), stuck_at, in_flight }
}

fn rate_of(stage: Stage, rates: &Rates) -> f64 {
    match stage {
        Stage::Opened | Stage::Cut => rates.read_per_second,
        Stage::Decoded | Stage::Distinct => rates.decided_per_second,
        Stage::Aggregated => rates.accepted_per_second,
        Stage::Delivered | Stage::Published => rates.rows_per_second,
        Stage::Checkpointed => 0.0,
    }
}

fn contract(decided: &Decided) -> Contract {
    let rule = |(reason, rejected): (Reason, u64)| Rule {
        name: reason.as_str().to_owned(),
        meaning: reason.meaning().to_owned(),
        rejected,
    };
    Contract { events: events(decided), rules: Reason::ALL.into_iter().zip(decided.rejected).map(rule).collect() }
}

fn quarantine(vitals: &RunStatus) -> Quarantine {
    let shown = |refused: &Refused| RejectedEvent {
        at: instant(refused.at),
        reason: refused.reason.clone(),
        event_id: refused.event_id.clone(),
        partition: refused.partition.clone(),
        offset: refused.offset,
        epoch: refused.epoch,
        masked_payload: refused.payload.clone(),
    };
    let figures = vitals.telemetry.shown.get();
    let before = vitals.telemetry.refused_before.get().into_iter().flatten();
    Quarantine { events: figures.refused.iter().rev().chain(before).take(NEWEST_REFUSED).map(shown).collect() }
}

fn tables(vitals: &RunStatus) -> Tables {
    let (figures, publications) = (vitals.telemetry.shown.get(), &vitals.telemetry.publications);
    let WholeFigures { deposits, withdrawals, deposit_count, withdrawal_count } = figures.whole;
    let published = publications.last.get();
    let user = |user: &crate::telemetry::UserFigures| User {
        user_id: user.user_id.clone(),
        total_deposits: pounds(user.totals.deposits),
        total_withdrawals: pounds(user.totals.withdrawals),
        deposit_count: user.totals.deposit_count,
        withdrawal_count: user.totals.withdrawal_count,
    };
    let channels = figures.channels.iter().map(|((channel, event_type), row)| Channel {
        channel: channel.clone(),
        event_type: event_type.clone(),
        event_count: row.count,
        total_amount: pounds(row.amount),
    });
    Tables {
        epoch: figures.epoch,
        publications: publications.took.read().count,
        published: published.map(instant),
        latency_seconds: published.map(|_| seconds(publications.last_latency_us.load(Relaxed))),
        net_flow: NetFlow {
            total_deposits: pounds(deposits),
            total_withdrawals: pounds(withdrawals),
            net_flow: pounds(deposits - withdrawals),
            deposit_count,
            withdrawal_count,
        },
        top_users: figures.users.iter().map(user).collect(),
        channels: channels.collect(),
        tables: vitals.telemetry.tables.get().into_iter().flatten().map(table).collect(),
    }
}

fn table(meter: &TableMeter) -> Table {
    let took = meter.took.read();
    let any = took.count > 0;
    Table {
        name: meter.name.clone(),
        version: meter.version.load(Relaxed),
        epoch: meter.epoch.load(Relaxed),
        commits: took.count,
        last_commit_seconds: any.then(|| seconds(meter.last_us.load(Relaxed))),
        mean_commit_seconds: any.then(|| took.sum / took.count as f64),
        rows: meter.rows.load(Relaxed),
        failures: meter.failures.load(Relaxed),
    }
}

fn checkpoints(board: &Board) -> Checkpoints {
    let mut shown = Checkpoints {
        enabled: board.facts.checkpoints,
        interval_seconds: board.facts.checkpoint_interval.as_secs_f64(),
        ..Checkpoints::default()
    };
    let Some(vitals) = board.vitals() else { return shown };
    let (meter, took) = (&vitals.telemetry.checkpoints, vitals.telemetry.checkpoints.took.read());
    let written = meter.written.get();
    shown.epoch = vitals.telemetry.stages.of(Stage::Checkpointed);
    shown.written = written.map(instant);
    shown.age_seconds = written.map(|at| between(at, clock::now()).max(0.0));
    (shown.bytes, shown.rows, shown.runs) =
        (meter.bytes.load(Relaxed), meter.rows.load(Relaxed), meter.runs.load(Relaxed));
    shown.count = took.count;
    shown.last_seconds = (took.count > 0).then(|| seconds(meter.last_us.load(Relaxed)));
    shown.restore = vitals.telemetry.restore.get().map(|restore| Restore {
        epoch: restore.epoch,
        ids: restore.ids,
        bytes: restore.bytes,
        seconds: restore.took.as_secs_f64(),
        replayed_epochs: restore.replayed,
    });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_to_the_penny() {
        assert_eq!(pounds(-5), "-0.05");
        assert_eq!(pounds(100_000_000_000_000_000_001), "1000000000000000000.01");
    }
}
