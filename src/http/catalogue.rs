//! Every metric, once: its name, unit, meaning and labels, and where its values come from.
//!
//! `/metrics` is made of this table, and so are `docs/metrics.md` and the test that looks for the names that alert rules and
//! dashboards use. Counters count since the process was started, replayed epochs included; what they were before stands in
//! the tables.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidemark_dataflows::event::Micros;
use tidemark_dataflows::reason::Reason;

use super::board::Board;
use super::picture::{decided, lag_of};
use crate::runtime::RunStatus;
use crate::telemetry::{Counted, Held, PublicationMeter, Stage, TableMeter};

/// Partitions with labels of their own: more would be more than a monitoring system likes.
const PARTITIONS: usize = 128;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// The unit of a metric, which its name ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things that the name says.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A value with its labels.
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// A value.
pub(super) enum Value {
    Count(u64),
    Seconds(f64),
    Gauge(f64),
    Histogram(Counted),
}

/// A metric.
pub struct Metric {
    /// Its name, without unit and `_total`.
    pub(super) stem: &'static str,
    /// Its unit.
    pub(super) unit: Unit,
    /// Its kind.
    pub(super) kind: Kind,
    /// Names of its labels.
    labels: &'static [&'static str],
    /// What it says.
    pub(super) help: &'static str,
    read: fn(&Source<'_>, &mut Vec<Sample>),
}

/// What values are taken from.
pub(super) struct Source<'a> {
    pub(super) board: &'a Board,
    pub(super) vitals: Option<&'a RunStatus>,
}

impl Metric {
    /// The name as it is told.
    pub fn name(&self) -> String {
        let unit = match self.unit {
            Unit::None => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.stem)
    }

    /// Names of its labels.
    pub fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    /// Its values at the moment.
    pub(super) fn samples(&self, source: &Source<'_>) -> Vec<Sample> {
        let mut samples = Vec::new();
        (self.read)(source, &mut samples);
        samples
    }
}

fn plain(to: &mut Vec<Sample>, value: Value) {
    to.push(Sample { labels: Vec::new(), value });
}

fn labelled(to: &mut Vec<Sample>, label: &'static str, name: impl Into<String>, value: Value) {
    to.push(Sample { labels: vec![(label, name.into())], value });
}

/// A metric of a running pipeline.
macro_rules! of_vitals {
    ($of:expr) => {
        |source, to| {
            if let Some(vitals) = source.vitals {
                let of: fn(&RunStatus, &Board, &mut Vec<Sample>) = $of;
                of(vitals, source.board, to);
            }
        }
    };
}

const fn counter(stem: &'static str, help: &'static str, read: fn(&Source<'_>, &mut Vec<Sample>)) -> Metric {
    Metric { stem, unit: Unit::None, kind: Kind::Counter, labels: &[], help, read }
}

const fn gauge(stem: &'static str, help: &'static str, read: fn(&Source<'_>, &mut Vec<Sample>)) -> Metric {
    Metric { stem, unit: Unit::None, kind: Kind::Gauge, labels: &[], help, read }
}

const fn histogram(stem: &'static str, help: &'static str, read: fn(&Source<'_>, &mut Vec<Sample>)) -> Metric {
    Metric { stem, unit: Unit::Seconds, kind: Kind::Histogram, labels: &[], help, read }
}

impl Metric {
    const fn by(mut self, labels: &'static [&'static str]) -> Metric {
        self.labels = labels;
        self
    }

    const fn bytes(mut self) -> Metric {
        self.unit = Unit::Bytes;
        self
    }

    const fn seconds(mut self) -> Metric {
        self.unit = Unit::Seconds;
        self
    }
}

/// Seconds since 1970.
fn unix(at: Micros) -> Value {
    Value::Gauge(at.0 as f64 / 1e6)
}

fn seconds_of(took: Duration) -> Value {
    Value::Gauge(took.as_secs_f64())
}

fn by_table(vitals: &RunStatus, to: &mut Vec<Sample>, value: fn(&TableMeter) -> Value) {
    for table in vitals.telemetry.tables.get().into_iter().flatten() {
        labelled(to, "table", &table.name, value(table));
    }
}

fn held_back(vitals: &RunStatus, to: &mut Vec<Sample>, value: fn(&Held) -> Option<f64>) {
    let Some(held) = vitals.telemetry.held_back.get() else { return };
    let (name, value) = (vitals.telemetry.partitions.name(held.partition), value(&held).map(Value::Gauge));
    value.into_iter().for_each(|value| labelled(to, "partition", name.clone(), value));
}

/// Where several were needed the newest one counts.
fn publication(vitals: &RunStatus, to: &mut Vec<Sample>, value: fn(&PublicationMeter) -> Option<Value>) {
    to.extend(value(&vitals.telemetry.publications).map(|value| Sample { labels: Vec::new(), value }));
}

/// Every metric, in the order in which it is told.
pub const METRICS: &[Metric] = &[
    gauge("tidemark_build_info", "Always 1; its label says which version runs.", |_, to| {
        labelled(to, "version", env!("CARGO_PKG_VERSION"), Value::Gauge(1.0));
    })
    .by(&["version"]),
    gauge("tidemark_ready", "1 while the process does its work, else 0; /readyz says why.", |source, to| {
        plain(to, Value::Gauge(f64::from(u8::from(source.board.readiness().ready))));
    }),
    gauge(
        "tidemark_service_healthy",
        "1 while a table, a store or a partition can be reached, else 0. Stores and partitions are told of from their first \
         failure on.",
        |source, to| {
            for service in &source.board.everything().status.services {
                let healthy = Value::Gauge(f64::from(u8::from(service.healthy)));
                labelled(to, "service", &service.name, healthy);
            }
        },
    )
    .by(&["service"]),
    counter(
        "tidemark_source_events",
        "Events that this process has read.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.counters.events.load(Relaxed)))),
    ),
    counter(
        "tidemark_source",
        "Bytes of event bodies that this process has read.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.counters.bytes.load(Relaxed)))),
    )
    .bytes(),
    gauge(
        "tidemark_partition_next_offset",
        "The offset after the last one of a partition that was cut; of the first 128 partitions.",
        of_vitals!(|vitals, _, to| {
            for meter in vitals.telemetry.partitions.all().iter().take(PARTITIONS) {
                labelled(to, "partition", &meter.name, Value::Gauge(meter.next.load(Relaxed) as f64));
            }
        }),
    )
    .by(&["partition"]),
    gauge(
        "tidemark_partition_lag_events",
        "Events that wait in a partition, where the source knows.",
        of_vitals!(|vitals, _, to| {
            for status in vitals.partitions.all().iter().take(PARTITIONS) {
                labelled(to, "partition", status.id(), Value::Gauge(status.lag().events as f64));
            }
        }),
    )
    .by(&["partition"]),
    gauge(
        "tidemark_partition_lag",
        "Between the arrivals of the newest event of a partition and of the last that was read, where the source knows.",
        of_vitals!(|vitals, _, to| {
            for status in vitals.partitions.all().iter().take(PARTITIONS) {
                labelled(to, "partition", status.id(), Value::Gauge(status.lag().seconds as f64));
            }
        }),
    )
    .by(&["partition"])
    .seconds(),
    counter(
        "tidemark_partition_reconnects",
        "Connections to a partition that were opened anew after a fault.",
        of_vitals!(|vitals, _, to| {
            for status in vitals.partitions.all().iter().take(PARTITIONS) {
                labelled(to, "partition", status.id(), Value::Count(status.reconnects.load(Relaxed)));
            }
        }),
    )
    .by(&["partition"]),
    counter(
        "tidemark_received_events",
        "Events in epochs that are decided: the sum of tidemark_events_total.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.telemetry.outcomes.read().received))),
    ),
    counter(
        "tidemark_events",
        "Decided events by what became of them: accepted, duplicate or rejected.",
        of_vitals!(|vitals, _, to| {
            let decided = vitals.telemetry.outcomes.read();
            labelled(to, "outcome", "accepted", Value::Count(decided.accepted));
            labelled(to, "outcome", "duplicate", Value::Count(decided.duplicates));
            labelled(to, "outcome", "rejected", Value::Count(decided.rejected_total()));
        }),
    )
    .by(&["outcome"]),
    counter(
        "tidemark_rejected_events",
        "Rejected events by the rule that they broke.",
        of_vitals!(|vitals, _, to| {
            let decided = vitals.telemetry.outcomes.read();
            for (reason, count) in Reason::ALL.into_iter().zip(decided.rejected) {
                labelled(to, "reason", reason.as_str(), Value::Count(count));
            }
        }),
    )
    .by(&["reason"]),
    counter(
        "tidemark_omitted_payloads",
        "Rejected events whose payload was left out by quarantine.max_bytes_per_epoch; of published epochs.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.telemetry.omitted_payloads.load(Relaxed)))),
    ),
    counter(
        "tidemark_lost_spans",
        "Spans that no collector has got: it did not take them, or did not take them in time. Nothing else depends on them.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.telemetry.stages.follower.lost()))),
    ),
    counter(
        "tidemark_missing_events",
        "Events that were missing in the source.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.telemetry.outcomes.read().missing))),
    ),
    counter(
        "tidemark_epochs",
        "Epochs that are decided.",
        of_vitals!(|vitals, _, to| plain(to, Value::Count(vitals.telemetry.outcomes.read().epochs))),
    ),
    gauge(
        "tidemark_epoch",
        "The newest epoch that each stage has finished: opened, cut, decoded, distinct, aggregated, delivered, published, \
         checkpointed. Where one stays behind the one before it, there the pipeline is stuck.",
        of_vitals!(|vitals, _, to| {
            for (stage, epoch) in vitals.telemetry.stages.read() {
                labelled(to, "stage", stage.as_str(), Value::Gauge(epoch as f64));
            }
        }),
    )
    .by(&["stage"]),
    gauge(
        "tidemark_epochs_in_flight",
        "Epochs that were cut and that readers do not see yet.",
        of_vitals!(|vitals, _, to| {
            let of = |stage| vitals.telemetry.stages.of(stage);
            plain(to, Value::Gauge(of(Stage::Cut).saturating_sub(of(Stage::Published)) as f64));
        }),
    ),
    gauge(
        "tidemark_watermark_timestamp",
        "The watermark, in seconds since 1970.",
        of_vitals!(|vitals, _, to| decided(vitals).watermark.into_iter().for_each(|at| plain(to, unix(at)))),
    )
    .seconds(),
    gauge(
        "tidemark_watermark_held_back",
        "How far the partition that holds the watermark back is behind the greatest event time, where its time is known.",
        of_vitals!(|vitals, _, to| held_back(vitals, to, |held| held.behind_us.map(|us| us as f64 / 1e6))),
    )
    .by(&["partition"])
    .seconds(),
    gauge(
        "tidemark_watermark_held_back_since_timestamp",
        "Since when the same partition has held the watermark back, in seconds since 1970. None where nothing does.",
        of_vitals!(|vitals, _, to| held_back(vitals, to, |held| Some(held.since.0 as f64 / 1e6))),
    )
    .by(&["partition"])
    .seconds(),
    gauge(
        "tidemark_newest_event_timestamp",
        "The greatest event time so far, in seconds since 1970.",
        of_vitals!(|vitals, _, to| decided(vitals).newest.into_iter().for_each(|at| plain(to, unix(at)))),
    )
    .seconds(),
    gauge(
        "tidemark_event_time_lag",
        "How far the newest event time of the newest epoch lay behind the closing of that epoch.",
        of_vitals!(|vitals, _, to| {
            lag_of(&decided(vitals)).into_iter().for_each(|lag| plain(to, Value::Gauge(lag)));
        }),
    )
    .seconds(),
    gauge(
        "tidemark_remembered_ids",
        "Ids that are remembered, in all processes.",
        of_vitals!(|vitals, _, to| plain(to, Value::Gauge(decided(vitals).remembered_ids as f64))),
    ),
    gauge(
        "tidemark_expected_ids",
        "Ids that room was made for at the start: dedup.expected_ids.",
        |source, to| plain(to, Value::Gauge(source.board.facts.expected_ids as f64)),
    ),
    gauge(
        "tidemark_index",
        "Memory of the index of ids in this process.",
        of_vitals!(|vitals, _, to| {
            let bytes = vitals.telemetry.index.get().into_iter().flatten().map(|meter| meter.bytes.load(Relaxed));
            plain(to, Value::Gauge(bytes.sum::<u64>() as f64));
        }),
    )
    .bytes(),
    gauge(
        "tidemark_next_expiry_timestamp",
        "The watermark at which this process forgets ids next, in seconds since 1970.",
        of_vitals!(|vitals, _, to| {
            let meters = vitals.telemetry.index.get().into_iter().flatten();
            meters.filter_map(|meter| meter.expires_at()).min().into_iter().for_each(|at| plain(to, unix(at)));
        }),
    )
    .seconds(),
    histogram(
        "tidemark_publication_duration",
        "How long publications took: a commit to each table.",
        of_vitals!(|vitals, _, to| publication(vitals, to, |meter| Some(Value::Histogram(meter.took.read())))),
    ),
    histogram(
        "tidemark_publication_latency",
        "From the closing of an epoch until readers see it in every table; of the newest epoch of each publication.",
        of_vitals!(|vitals, _, to| publication(vitals, to, |meter| Some(Value::Histogram(meter.latency.read())))),
    ),
    gauge(
        "tidemark_publication_timestamp",
        "When the newest publication was there, in seconds since 1970.",
        of_vitals!(|vitals, _, to| publication(vitals, to, |meter| meter.last.get().map(unix))),
    )
    .seconds(),
    histogram(
        "tidemark_commit_duration",
        "How long commits to each table took.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Histogram(table.took.read()))),
    )
    .by(&["table"]),
    counter(
        "tidemark_commit_failures",
        "Attempts to commit to a table that failed. Nothing is lost by it: they are made again.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Count(table.failures.load(Relaxed)))),
    )
    .by(&["table"]),
    gauge(
        "tidemark_foreign_changes",
        "Commits of others that have changed rows of a table, until they are settled.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Gauge(table.foreign.load(Relaxed) as f64))),
    )
    .by(&["table"]),
    counter(
        "tidemark_foreign_commits",
        "Commits of others that have changed rows of a table, as this process has met them.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Count(table.foreign_total.load(Relaxed)))),
    )
    .by(&["table"]),
    counter(
        "tidemark_committed_rows",
        "Rows written to each table.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Count(table.rows.load(Relaxed)))),
    )
    .by(&["table"]),
    gauge(
        "tidemark_table_version",
        "The newest version of each table.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Gauge(table.version.load(Relaxed) as f64))),
    )
    .by(&["table"]),
    gauge(
        "tidemark_table_epoch",
        "The newest epoch in each table.",
        of_vitals!(|vitals, _, to| by_table(vitals, to, |table| Value::Gauge(table.epoch.load(Relaxed) as f64))),
    )
    .by(&["table"]),
    histogram(
        "tidemark_checkpoint_duration",
        "How long checkpoints took once every part of them was there.",
        of_vitals!(|vitals, _, to| plain(to, Value::Histogram(vitals.telemetry.checkpoints.took.read()))),
    ),
    gauge(
        "tidemark_checkpoint_timestamp",
        "When the newest checkpoint was written, in seconds since 1970.",
        of_vitals!(|vitals, _, to| {
            vitals.telemetry.checkpoints.written.get().into_iter().for_each(|at| plain(to, unix(at)));
        }),
    )
    .seconds(),
    gauge("tidemark_checkpoint_interval", "Shortest time between two checkpoints: checkpoint.interval.", |source, to| {
        plain(to, seconds_of(source.board.facts.checkpoint_interval));
    })
    .seconds(),
    gauge(
        "tidemark_checkpoint",
        "Size of the newest checkpoint.",
        of_vitals!(|vitals, _, to| {
            plain(to, Value::Gauge(vitals.telemetry.checkpoints.bytes.load(Relaxed) as f64));
        }),
    )
    .bytes(),
    gauge(
        "tidemark_restore_duration",
        "How long reading the checkpoint took that this process went on from.",
        of_vitals!(|vitals, _, to| {
            vitals.telemetry.restore.get().into_iter().for_each(|restore| plain(to, seconds_of(restore.took)));
        }),
    )
    .seconds(),
    counter("tidemark_http_requests", "Requests that this server answered, by class of status.", |source, to| {
        for (class, count) in source.board.asked.answered.iter().enumerate().skip(2) {
            labelled(to, "status", format!("{class}xx"), Value::Count(count.load(Relaxed)));
        }
    })
    .by(&["status"]),
    counter("tidemark_http_connections_turned_away", "Connections that were too many for this server.", |source, to| {
        plain(to, Value::Count(source.board.asked.turned_away.load(Relaxed)));
    }),
    counter("process_cpu", "Processor time of this process.", |source, to| {
        let spent = source.board.sampler().usage().cpu_seconds;
        spent.into_iter().for_each(|spent| plain(to, Value::Seconds(spent)));
    })
    .seconds(),
    gauge("process_resident_memory", "Memory of this process.", |source, to| {
        let bytes = source.board.sampler().usage().resident_bytes;
        bytes.into_iter().for_each(|bytes| plain(to, Value::Gauge(bytes as f64)));
    })
    .bytes(),
    gauge("process_start_time", "When this process was started, in seconds since 1970.", |source, to| {
        plain(to, unix(Micros(source.board.facts.started_us)));
    })
    .seconds(),
];

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
