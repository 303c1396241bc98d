//! The tables of an output, with the columns that the specification gives them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use arrow::array::RecordBatch;
use serde_json::Value;
use tidemark_delta::{Location, Predicate, Scan, exists};

use crate::cells::{Cell, Row, rows};

/// Path of a table, its columns with their types (`?`: nullable), and what orders its rows.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, &'static str)],
    order: &'static [&'static str],
}

pub(crate) const NET_FLOW: Shape = Shape {
    name: "metrics/net_flow",
    columns: &[
        ("id", "int"),
        ("total_deposits", "money"),
        ("total_withdrawals", "money"),
        ("net_flow", "money"),
        ("deposit_count", "long"),
        ("withdrawal_count", "long"),
        ("avg_deposit", "double"),
        ("avg_withdrawal", "double"),
        ("deposit_to_withdrawal_ratio", "double"),
        ("updated_at", "time"),
    ],
    order: &["id"],
};

pub(crate) const USER_METRICS: Shape = Shape {
    name: "metrics/user_metrics",
    columns: &[
        ("user_id", "text"),
        ("total_deposits", "money"),
        ("total_withdrawals", "money"),
        ("deposit_count", "long"),
        ("withdrawal_count", "long"),
        ("first_seen", "time"),
        ("last_seen", "time"),
        ("updated_at", "time"),
    ],
    order: &["user_id"],
};

pub(crate) const CHANNELS: Shape = Shape {
    name: "metrics/channel_distribution",
    columns: &[
        ("channel", "text"),
        ("event_type", "text"),
        ("event_count", "long"),
        ("total_amount", "money"),
        ("updated_at", "time"),
    ],
    order: &["channel", "event_type"],
};

pub(crate) const CURATED: Shape = Shape {
    name: "curated/transaction_events",
    columns: &[
        ("event_id", "text"),
        ("user_id", "text"),
        ("event_time", "time"),
        ("ingest_time", "time"),
        ("event_type", "text"),
        ("amount", "amount"),
        ("currency", "text"),
        ("channel", "text"),
        ("epoch", "long"),
        ("source_partition", "text"),
        ("source_offset", "long"),
    ],
    order: &["epoch", "source_partition", "source_offset"],
};

pub(crate) const REJECTED: Shape = Shape {
    name: "monitoring/rejected_events",
    columns: &[
        ("event_id", "text?"),
        ("raw_payload", "text"),
        ("payload_encoding", "text"),
        ("rejection_reason", "text"),
        ("detail", "text?"),
        ("source_partition", "text"),
        ("source_offset", "long"),
        ("epoch", "long"),
        ("rejected_at", "time"),
    ],
    order: &["epoch", "source_partition", "source_offset"],
};

pub(crate) const HEALTH: Shape = Shape {
    name: "monitoring/stream_health",
    columns: &[
        ("batch_id", "long"),
        ("batch_start", "time"),
        ("batch_end", "time"),
        ("events_received", "long"),
        ("events_valid", "long"),
        ("events_rejected", "long"),
        ("duplicate_events", "long"),
        ("late_events", "long"),
        ("rejected_by_reason", "text"),
        ("processing_time_ms", "long"),
        ("lag_seconds", "long"),
        ("watermark", "time?"),
        ("retained_ids", "long"),
        ("status", "text"),
    ],
    order: &["batch_id"],
};

pub(crate) const MANIFEST: Shape = Shape {
    name: "monitoring/run_manifest",
    columns: &[
        ("stream_start", "time"),
        ("last_updated", "time"),
        ("batches_processed", "long"),
        ("total_events_received", "long"),
        ("total_events_valid", "long"),
        ("total_events_rejected", "long"),
        ("total_duplicate_events", "long"),
        ("output_path", "text"),
        ("source", "text"),
        ("dedup_scope", "text"),
    ],
    order: &["stream_start"],
};

/// The tables that are always there.
pub(crate) const ALWAYS: [Shape; 6] = [NET_FLOW, USER_METRICS, CHANNELS, REJECTED, HEALTH, MANIFEST];

/// What a commit says of itself.
pub(crate) fn told(info: &Value) -> Value {
    serde_json::from_str(info["userMetadata"].as_str().unwrap()).unwrap()
}

/// Every table of an output, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tables(BTreeMap<&'static str, Vec<Row>>);

async fn read(location: &Location, shape: &Shape) -> Vec<Row> {
    let columns: Vec<&str> = shape.columns.iter().map(|(name, _)| *name).collect();
    let scan = Scan { table: shape.name, version: None, columns: &columns, predicate: Predicate::default() };
    let take = |all: &mut Vec<Row>, batch: &RecordBatch| all.extend(rows(batch, shape.columns));
    let mut all = scan.fold(location, Vec::new, take).await.unwrap();
    let order: Vec<usize> =
        shape.order.iter().map(|name| columns.iter().position(|column| column == name).unwrap()).collect();
    all.sort_by(|one, other| order.iter().map(|at| &one[*at]).cmp(order.iter().map(|at| &other[*at])));
    all
}

/// Opening and closing time of an epoch, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) opened: i64,
    pub(crate) closed: i64,
}

impl Tables {
    /// Reads them. There must be the curated table exactly where there is its directory.
    pub(crate) fn read(output: &Path) -> Tables {
        Tables::at(&Location::parse(output.to_str().unwrap(), HashMap::new()).unwrap())
    }

    /// Reads them wherever they lie.
    pub(crate) fn at(location: &Location) -> Tables {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let curated = runtime.block_on(exists(location, CURATED.name)).unwrap().then_some(CURATED);
        let read = |shape: Shape| (shape.name, runtime.block_on(read(location, &shape)));
        Tables(ALWAYS.into_iter().chain(curated).map(read).collect())
    }

    /// Tables that were computed.
    pub(crate) fn of(tables: impl IntoIterator<Item = (&'static str, Vec<Row>)>) -> Tables {
        Tables(tables.into_iter().collect())
    }

    pub(crate) fn has(&self, shape: &Shape) -> bool {
        self.0.contains_key(shape.name)
    }

    pub(crate) fn rows(&self, shape: &Shape) -> &[Row] {
        self.0.get(shape.name).unwrap_or_else(|| panic!("no table {}", shape.name))
    }

    /// One column, in the order of the rows.
    pub(crate) fn column(&self, shape: &Shape, name: &str) -> Vec<Cell> {
        let index = shape.columns.iter().position(|(column, _)| *column == name).unwrap();
        self.rows(shape).iter().map(|row| row[index].clone()).collect()
    }

    /// The same of whole numbers.
    pub(crate) fn wholes(&self, shape: &Shape, name: &str) -> Vec<i128> {
        let whole = |cell| if let Cell::Whole(value) = cell { value } else { panic!("{name} is {cell:?}") };
        self.column(shape, name).into_iter().map(whole).collect()
    }

    /// The same of texts.
    pub(crate) fn texts(&self, shape: &Shape, name: &str) -> Vec<String> {
        let text = |cell| if let Cell::Text(value) = cell { value } else { panic!("{name} is {cell:?}") };
        self.column(shape, name).into_iter().map(text).collect()
    }

    /// When each epoch was opened and closed, as the health of the stream says; epoch 1 comes first.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let times = |name| self.wholes(&HEALTH, name).into_iter().map(|us| i64::try_from(us).unwrap());
        times("batch_start").zip(times("batch_end")).map(|(opened, closed)| Mark { opened, closed }).collect()
    }

    /// Leaves out what may differ between two runs over the same epochs: times of the clock become the number of the
    /// epoch that closed then, or disappear.
    pub(crate) fn without_times(mut self) -> Tables {
        let epochs: HashMap<Cell, i64> = (1..).zip(self.marks()).map(|(e, mark)| (mark.closed.into(), e)).collect();
        self.clear(&HEALTH, &["batch_start", "batch_end", "processing_time_ms", "lag_seconds"]);
        self.clear(&MANIFEST, &["stream_start", "last_updated", "output_path", "source"]);
        for shape in [&NET_FLOW, &USER_METRICS, &CHANNELS, &REJECTED] {
            for row in self.0.get_mut(shape.name).unwrap() {
                let last = row.last_mut().unwrap();
                *last = epochs.get(last).copied().into();
            }
        }
        self
    }

    /// Leaves out what the specification leaves free, which is compared in other ways.
    pub(crate) fn without_free_columns(mut self) -> Tables {
        let free: [(&Shape, &[&str]); 3] = [
            (&REJECTED, &["detail"]),
            (&HEALTH, &["processing_time_ms"]),
            (&MANIFEST, &["output_path", "source", "dedup_scope"]),
        ];
        free.into_iter().for_each(|(shape, columns)| self.clear(shape, columns));
        self
    }

    fn clear(&mut self, shape: &Shape, columns: &[&str]) {
        let table = self.0.get_mut(shape.name).unwrap();
        for (index, _) in shape.columns.iter().enumerate().filter(|(_, (name, _))| columns.contains(name)) {
            table.iter_mut().for_each(|row| row[index] = Cell::Null);
        }
    }

    /// The three metrics alone.
    pub(crate) fn metrics(mut self) -> Tables {
        self.0.retain(|name, _| name.starts_with("metrics/"));
        self
    }

    /// Fails with the first differences of each table.
    pub(crate) fn assert_equals(&self, expected: &Tables) {
        let mut differences = Vec::new();
        assert_eq!(self.0.keys().collect::<Vec<_>>(), expected.0.keys().collect::<Vec<_>>());
        for (name, wanted) in &expected.0 {
            let got = &self.0[name];
            if got.len() != wanted.len() {
                differences.push(format!("{name}: {} rows, expected {}", got.len(), wanted.len()));
            }
            let different = got.iter().zip(wanted).filter(|(got, wanted)| got != wanted).take(3);
            differences.extend(different.map(|(got, wanted)| format!("{name}:\n   got {got:?}\n  want {wanted:?}")));
        }
        assert!(differences.is_empty(), "tables differ:\n{}", differences.join("\n"));
    }
}
