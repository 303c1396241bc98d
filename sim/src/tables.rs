//! The model of the tables and of their writer: what `tidemark-delta` does, with rows in memory.
//!
//! A table has a version, an epoch and a fence. A commit carries both, and is made for the version after the one that its
//! writer knows or not at all. Rows of merged tables are absolute, so a repetition changes nothing; rows of the others are
//! appended, without those of epochs that the table holds.

use tidemark_dataflows::event::{Epoch, EventId, Position};
use tidemark_dataflows::metrics::{AllTotals, Totals};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::EpochSummary;

use crate::durable::{Commit, Reply, Request, TABLES};
use crate::orders::Order;
use crate::port::ask;

/// What a commit changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The row of M1.
    pub(crate) net_flow: Option<Totals>,
    /// Rows of metrics.
    pub(crate) totals: AllTotals,
    /// Rows of accepted events.
    pub(crate) accepted: Vec<(Epoch, Position, EventId)>,
    /// Rows of rejected events.
    pub(crate) rejected: Vec<(Epoch, Position, Reason)>,
    /// Rows of epochs.
    pub(crate) health: Vec<EpochSummary>,
}

impl Change {
    /// Adds the rows of a later epoch.
    pub(crate) fn add(&mut self, later: Change) {
        self.net_flow = later.net_flow.or(self.net_flow);
        self.totals.extend(later.totals);
        self.accepted.extend(later.accepted);
        self.rejected.extend(later.rejected);
        self.health.extend(later.health);
    }

    /// What of it belongs to a table.
    pub(crate) fn of_table(&self, table: usize) -> Change {
        let all = self.clone();
        match table {
            0 => Change { net_flow: all.net_flow, ..Change::default() },
            1 | 2 => {
                let totals = all.totals.into_iter().filter(|((metric, _), _)| *metric == TABLES[table]);
                Change { totals: totals.collect(), ..Change::default() }
            }
            3 => Change { accepted: all.accepted, ..Change::default() },
            4 => Change { rejected: all.rejected, ..Change::default() },
            5 => Change { health: all.health, ..Change::default() },
            _ => Change::default(),
        }
    }

    /// The same without appended rows of epochs up to that one.
    fn after(mut self, epoch: Epoch) -> Change {
        self.accepted.retain(|(of, ..)| *of > epoch);
        self.rejected.retain(|(of, ..)| *of > epoch);
        self.health.retain(|summary| summary.mark.epoch > epoch);
        self
    }
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Number of commits.
    pub(crate) version: u64,
    /// The greatest generation that has taken it over.
    pub(crate) fence: u64,
    /// The epoch that it holds.
    pub(crate) epoch: Epoch,
    /// Its rows.
    pub(crate) rows: Change,
}

impl Table {
    /// Makes a commit.
    pub(crate) fn apply(&mut self, commit: &Commit) {
        self.version += 1;
        (self.fence, self.epoch) = (commit.fence, commit.epoch);
        self.rows.add(commit.change.clone());
    }
}

/// Why a writer does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A later generation has taken over.
    Fenced,
    /// The store does not answer.
    Unavailable,
    /// The table is not what it was.
    Mismatch(String),
}

/// Attempts before a writer gives up.
const ATTEMPTS: usize = 5;

/// The writer of one table.
#[derive(Clone, Debug)]
pub(crate) struct TableWriter {
    table: usize,
    generation: u64,
    stranger: bool,
    order: Order,
    version: u64,
    fence: u64,
    /// The epoch that the table held when it was last looked at.
    pub(crate) epoch: Epoch,
    attempted: Epoch,
}

impl TableWriter {
    /// Opens a table, and fences off every writer of an earlier generation.
    pub(crate) fn open(table: usize, generation: u64, order: Order) -> Result<TableWriter, Refusal> {
        TableWriter::open_as(table, generation, order, false)
    }

    /// The same for a start with the checkpoint of another pipeline.
    pub(crate) fn open_as(table: usize, generation: u64, order: Order, stranger: bool) -> Result<TableWriter, Refusal> {
        for _ in 0..ATTEMPTS {
            let Reply::Held(version, fence, epoch) = ask(Request::Load(table)) else { continue };
            let mut writer = TableWriter { table, generation, stranger, order, version, fence, epoch, attempted: 0 };
            if order == Order::NoFence {
                return Ok(writer);
            }
            if fence > generation {
                return Err(Refusal::Fenced);
            }
            if fence == generation || writer.commit(epoch, generation, Change::default()) {
                writer.fence = generation;
                return Ok(writer);
            }
        }
        Err(Refusal::Unavailable)
    }

    /// Brings the table to an epoch in exactly one commit. One that it holds is skipped.
    pub(crate) fn publish(&mut self, epoch: Epoch, change: &Change) -> Result<(), Refusal> {
        if self.epoch >= epoch {
            return Ok(());
        }
        self.attempted = self.attempted.max(epoch);
        for _ in 0..ATTEMPTS {
            let change = change.clone().after(self.epoch);
            if self.commit(epoch, self.fence, change) {
                self.epoch = epoch;
                return Ok(());
            }
            // Whatever the reply was: the log decides.
            self.reload()?;
            if self.epoch >= epoch {
                return Ok(());
            }
        }
        Err(Refusal::Unavailable)
    }

    fn commit(&mut self, epoch: Epoch, fence: u64, change: Change) -> bool {
        let TableWriter { table, version: base, generation, stranger, .. } = *self;
        let done = matches!(
            ask(Request::Commit(Commit { table, base, generation, stranger, fence, epoch, change })),
            Reply::Done
        );
        self.version += u64::from(done);
        done
    }

    fn reload(&mut self) -> Result<(), Refusal> {
        let Reply::Held(version, fence, epoch) = ask(Request::Load(self.table)) else { return Ok(()) };
        if self.order != Order::NoFence && fence != self.generation {
            let lost = || Refusal::Mismatch("a table has lost our generation".to_owned());
            return Err(if fence > self.generation { Refusal::Fenced } else { lost() });
        }
        if epoch < self.epoch {
            return Err(Refusal::Mismatch(format!("epoch fell from {} to {epoch}", self.epoch)));
        }
        if epoch > self.epoch.max(self.attempted) {
            return Err(Refusal::Fenced);
        }
        (self.version, self.epoch) = (version, epoch);
        Ok(())
    }
}
