//! Merged tables that others have changed, written anew from the state.
//!
//! The newest checkpoint says what all rows were as of its epoch, and what was published since then says the rest. So from
//! the publication on that met the change, what is published is also kept here, until a checkpoint reaches as far.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::metrics::{ByChannel, Metric, Row, Totals, Visit, each};
use tidemark_delta::{Shape, TableSpec};

use super::coalesce::coalesce;
use super::tables::{ManifestText, MetricTable, NetFlow, RunManifest, SoFar, Table};
use crate::checkpoint::restore::StoredTotals;

/// All that merged tables are made of, as of an epoch.
#[derive(Debug, Default)]
pub struct State {
    /// The epoch.
    pub epoch: Epoch,
    /// Totals of each metric.
    pub totals: StoredTotals,
    /// Sums over all epochs.
    pub counters: Counters,
}

/// Where a state comes from: the newest one that is kept, if there is any.
pub type Source = Box<dyn Fn() -> Result<Option<State>, tidemark_checkpoint::Error> + Send>;

/// What a writer needs to write merged tables anew.
pub struct Repair {
    /// The newest state that is kept.
    pub state: Source,
    /// What `run_manifest` says in words.
    pub manifest: ManifestText,
}

impl State {
    /// All rows of a merged table, changed at that time; `None` for tables of another kind.
    fn rows(&self, table: &str, manifest: &ManifestText, at: Micros) -> Result<Option<RecordBatch>, ArrowError> {
        let mark = EpochMark { epoch: self.epoch, opened: at, closed: at, missing: 0, waits: false };
        if table == NetFlow::spec().name {
            let mut totals = Totals::NONE;
            self.totals.of::<ByChannel>().for_each(|(_, of_channel)| totals.add(&of_channel));
            return NetFlow { first_worker: true }.batch(vec![Row { key: (), epoch: self.epoch, totals }], &mark);
        }
        if table == RunManifest::spec().name {
            return RunManifest::new(manifest.clone(), true, SoFar::of(&self.counters)).row(at);
        }
        let mut rows = MetricRows { state: self, table, mark, rows: Ok(None) };
        each(&mut rows);
        rows.rows
    }
}

/// All rows of the metric that has a table of that name.
struct MetricRows<'a> {
    state: &'a State,
    table: &'a str,
    mark: EpochMark,
    rows: Result<Option<RecordBatch>, ArrowError>,
}

impl Visit for MetricRows<'_> {
    fn metric<M: Metric>(&mut self) {
        if self.table != M::TABLE.0 {
            return;
        }
        let counted = self.state.totals.of::<M>().filter(|(_, totals)| totals.count() > 0);
        let rows = counted.map(|(key, totals)| Row { key, epoch: self.state.epoch, totals }).collect();
        let rows = MetricTable::<M>::default().batch(rows, &self.mark);
        // What has no rows is written anew as well, without any.
        let or_none =
            |rows: Option<RecordBatch>| rows.unwrap_or_else(|| RecordBatch::new_empty(MetricTable::<M>::spec().schema));
        self.rows = rows.map(|rows| Some(or_none(rows)));
    }
}

/// What was published since a change of others was met.
#[derive(Default)]
pub(super) struct Kept {
    /// The epoch that all tables held before; none while there is nothing to repair.
    since: Option<Epoch>,
    /// The rows of each publication since then, of each table.
    published: BTreeMap<Epoch, Vec<Option<RecordBatch>>>,
}

impl Kept {
    /// Whether anything waits for a state of the epoch that this returns, or of a later one.
    pub(super) fn since(&self) -> Option<Epoch> {
        self.since
    }

    /// A change was met by a publication after that epoch, or at the start.
    pub(super) fn met_after(&mut self, epoch: Epoch) {
        self.since.get_or_insert(epoch);
    }

    /// Keeps a publication, if anything waits.
    pub(super) fn keep(&mut self, specs: &[TableSpec], epoch: Epoch, rows: &[Option<RecordBatch>]) {
        if self.since.is_some() {
            let merged = |spec: &TableSpec| matches!(spec.shape, Shape::Keyed { .. });
            let rows = specs.iter().zip(rows).map(|(spec, rows)| rows.clone().filter(|_| merged(spec)));
            self.published.insert(epoch, rows.collect());
        }
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        *self = Kept::default();
    }

    /// All rows of the table of that index, as of the last publication.
    pub(super) fn whole(
        &self,
        repair: &Repair,
        state: &State,
        (index, spec): (usize, &TableSpec),
        at: Micros,
    ) -> Result<Option<RecordBatch>, ArrowError> {
        let base = state.rows(&spec.name, &repair.manifest, at)?;
        let later = self.published.range(state.epoch + 1..).filter_map(|(_, rows)| rows.get(index)?.clone());
        coalesce(spec, &base.into_iter().chain(later).collect::<Vec<_>>())
    }
}

/// The column that says when a row of a merged table was last changed.
pub(super) fn changed_at(table: &str) -> &'static str {
    if table == RunManifest::spec().name { "last_updated" } else { "updated_at" }
}
