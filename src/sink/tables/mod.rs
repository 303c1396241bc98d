//! The output tables: one file each, with the schema and how rows become a record batch.
//!
//! The meaning of every column is in `docs/tables.md`. A batch always has exactly the schema of its table; the Delta
//! writer refuses anything else.

mod columns;
mod metric;
mod net_flow;
mod rejected_events;
mod run_manifest;
mod stream_health;
mod transaction_events;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::metrics::{ByChannel, ByUser, Metric, Visit, each};
use tidemark_delta::TableSpec;

pub use metric::MetricTable;
pub use net_flow::NetFlow;
pub use rejected_events::{OMITTED, RejectedEvents, was_cut};
pub use run_manifest::{ManifestText, RunManifest, SoFar};
pub use stream_health::{Clock, StreamHealth};
pub use transaction_events::TransactionEvents;

/// Names of the partitions of the source, by number. Some may join later; one has its name before its first event comes.
#[derive(Clone, Debug, Default)]
pub struct PartitionNames(Arc<RwLock<Vec<String>>>);

impl PartitionNames {
    /// The names of the first partitions.
    pub fn new(names: impl Iterator<Item = String>) -> PartitionNames {
        PartitionNames(Arc::new(RwLock::new(names.collect())))
    }

    /// Adds the name of the next one.
    pub fn add(&self, name: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    /// The names so far.
    pub fn all(&self) -> RwLockReadGuard<'_, Vec<String>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the rows of one table come about, on one worker.
pub trait Table: 'static {
    /// What the dataflow hands over.
    type Row: 'static;

    /// Path, schema, key and constraints.
    fn spec() -> TableSpec;

    /// The epoch of a row that came in a message of epoch `message`; one message may carry rows of several epochs.
    fn epoch_of(row: &Self::Row, message: Epoch) -> Epoch;

    /// The rows of one closed epoch, in any order, as a batch; `None` when the epoch changes nothing.
    ///
    /// Called once for each epoch in order, rows or none.
    ///
    /// # Errors
    ///
    /// When a value does not fit its column, which would be a bug.
    fn batch(&mut self, rows: Vec<Self::Row>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError>;

    /// The table as it stands before the first epoch, as far as it is never empty. Asked for with epoch 1.
    ///
    /// # Errors
    ///
    /// As for [`Table::batch`].
    fn initial(&mut self, _opened: Micros) -> Result<Option<RecordBatch>, ArrowError> {
        Ok(None)
    }
}

/// What is not kept for ever, and for how long from the closing of its epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Payloads of rejected events.
    pub payloads: Option<Duration>,
    /// Rows of stream_health.
    pub health: Option<Duration>,
}

impl Keep {
    /// The specifications of tables of which some keep less.
    pub fn of(self, mut specs: Vec<TableSpec>) -> Vec<TableSpec> {
        let expiries = [
            (RejectedEvents::spec().name, self.payloads.map(RejectedEvents::expiry)),
            (StreamHealth::spec().name, self.health.map(StreamHealth::expiry)),
        ];
        for (name, expiry) in expiries {
            specs.iter_mut().filter(|spec| spec.name == name).for_each(|spec| spec.expiry.clone_from(&expiry));
        }
        specs
    }
}

/// The table of M2.
pub type UserMetrics = MetricTable<ByUser>;

/// The table of M3.
pub type ChannelDistribution = MetricTable<ByChannel>;

/// Every table that a pipeline writes, in the order of the documentation.
pub fn specs(curated: bool) -> Vec<TableSpec> {
    struct Specs(Vec<TableSpec>);
    impl Visit for Specs {
        fn metric<M: Metric>(&mut self) {
            self.0.push(MetricTable::<M>::spec());
        }
    }
    let mut specs = Specs(vec![NetFlow::spec()]);
    each(&mut specs);
    specs.0.extend(curated.then(TransactionEvents::spec));
    specs.0.extend([RejectedEvents::spec(), StreamHealth::spec(), RunManifest::spec()]);
    specs.0
}
