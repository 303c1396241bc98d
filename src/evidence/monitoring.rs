//! The monitoring tables: what came in is accounted for, epoch by epoch and reason by reason.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tidemark_dataflows::event::{Epoch, EventType};
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Error;

use super::check::Check;
use super::cut::{CURATED, HEALTH, MANIFEST, REJECTED};
use super::health::{Counts, Differing, Health};
use super::metrics::Totals;
use super::read::Tables;
use crate::report::numbers::{counted, pounds};
use crate::report::reader::{longs, money, texts};
use crate::sink::tables::{RejectedEvents, RunManifest, Table as _, TransactionEvents};

/// A checkpoint as of some epoch, and what it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpointed {
    pub(super) epoch: Epoch,
    pub(super) counts: Counts,
}

/// The quarantine, counted.
#[derive(Clone, Debug, Default)]
struct Rejected {
    by_reason: BTreeMap<String, u64>,
    by_epoch: BTreeMap<Epoch, u64>,
    /// The epoch up to which stream_health has no rows any more, nor reasons with them.
    unreasoned: Epoch,
}

impl Rejected {
    fn take(&mut self, batch: &RecordBatch) {
        let (epochs, reasons) = (longs(batch, "epoch"), texts(batch, "rejection_reason"));
        for row in 0..batch.num_rows() {
            *self.by_epoch.entry(epochs.whole(row)).or_default() += 1;
            if epochs.whole(row) <= self.unreasoned {
                continue;
            }
            let reason = reasons.at(row);
            match self.by_reason.get_mut(reason) {
                Some(rows) => *rows += 1,
                None => drop(self.by_reason.insert(reason.to_owned(), 1)),
            }
        }
    }
}

/// The rows of run_manifest, which should be one.
#[derive(Clone, Debug, Default)]
struct Manifest {
    rows: u64,
    epochs: i128,
    counts: Counts,
}

impl Manifest {
    fn take(&mut self, batch: &RecordBatch) {
        let epochs = longs(batch, "batches_processed");
        let counts = Counts::of(
            batch,
            ["total_events_received", "total_events_valid", "total_duplicate_events", "total_events_rejected"],
        );
        for row in 0..batch.num_rows() {
            self.rows += 1;
            self.epochs += i128::from(epochs.at(row));
            self.counts += counts(row);
        }
    }
}

/// The curated events, counted.
#[derive(Clone, Debug, Default)]
struct Curated {
    rows: u64,
    /// Deposits and withdrawals.
    amounts: [i128; 2],
    by_epoch: BTreeMap<Epoch, u64>,
}

impl Curated {
    fn take(&mut self, batch: &RecordBatch) {
        let (epochs, types, amounts) = (longs(batch, "epoch"), texts(batch, "event_type"), money(batch, "amount"));
        for row in 0..batch.num_rows() {
            self.rows += 1;
            *self.by_epoch.entry(epochs.whole(row)).or_default() += 1;
            let of_type = EventType::ALL.iter().zip(&mut self.amounts);
            for (_, sum) in of_type.filter(|(known, _)| known.as_str() == types.at(row)) {
                *sum = sum.saturating_add(amounts.at(row));
            }
        }
    }
}

/// The monitoring tables at one cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Monitoring {
    epoch: Epoch,
    pub(super) health: Health,
    rejected: Rejected,
    manifest: Manifest,
    curated: Option<Curated>,
    /// Rows with a null where there may be none, of each table.
    nulls: Vec<(&'static str, u64)>,
}

impl Monitoring {
    pub(super) fn read(tables: Tables<'_>, epoch: Epoch) -> Result<Monitoring, Error> {
        let health = Health::read(tables)?;
        let rejected = || Rejected { unreasoned: health.expired.epoch, ..Rejected::default() };
        let (rejected, in_rejected) = tables.every(&RejectedEvents::spec(), rejected, Rejected::take)?;
        let (manifest, in_manifest) = tables.every(&RunManifest::spec(), Manifest::default, Manifest::take)?;
        let mut nulls = vec![(HEALTH, health.nulls), (REJECTED, in_rejected), (MANIFEST, in_manifest)];
        let mut curated = None;
        if tables.versions.contains_key(CURATED) {
            let (rows, in_curated) = tables.every(&TransactionEvents::spec(), Curated::default, Curated::take)?;
            curated = Some(rows);
            nulls.push((CURATED, in_curated));
        }
        Ok(Monitoring { epoch, health, rejected, manifest, curated, nulls })
    }

    /// What the tables hold that is no value of theirs.
    pub(super) fn nulls(&self) -> Vec<String> {
        let some = self.nulls.iter().filter(|(_, rows)| *rows > 0);
        some.map(|(name, rows)| format!("{name}: {} with a null where none may be", counted(*rows, "row"))).collect()
    }

    /// `accepted` is what M1 has.
    pub(super) fn checks(&self, accepted: Totals) -> Vec<Check> {
        let (health, sums) = (&self.health, self.health.up_to(Epoch::MAX));
        let Counts { received, accepted: valid, duplicates, rejected } = sums;
        let (count, rows, epochs) = (accepted.count(), health.rows, health.epochs.len() as u64);
        let parts = format!("received {received} = accepted {valid} + duplicates {duplicates} + rejected {rejected}");
        let unbalanced = health
            .unbalanced
            .first()
            .map(|first| format!("{} epochs do not add up, the first is epoch {first}", health.unbalanced.epochs));
        let at = |epoch: Option<&Epoch>| epoch.copied().unwrap_or(0);
        let (first, last) = (at(health.epochs.keys().next()), at(health.epochs.keys().next_back()));
        let (epoch, gone) = (self.epoch, health.expired);
        let left = epoch.saturating_sub(gone.epoch);
        let bounds = if left == 0 { (0, 0) } else { (gone.epoch + 1, epoch) };
        let whole = gone.rows == gone.epoch && rows == left && epochs == left && (first, last) == bounds;
        let without = |figures: String| match gone.epoch {
            0 => figures,
            gone => format!("{figures}; those up to {gone} were kept long enough, and are gone"),
        };
        vec![
            Check::that(
                "health.accepted",
                "the accepted events of stream_health are the count of M1",
                format!("{valid} / {count}"),
                valid == count,
            ),
            Check::of(
                "health.balance",
                "received = accepted + duplicates + rejected in each epoch",
                format!("{epochs} epochs, {parts}"),
                unbalanced.into_iter().collect(),
            ),
            Check::that(
                "health.epochs",
                "stream_health has each epoch once, without a gap",
                without(format!("{rows} rows of {epochs} epochs, {first} to {last}, at epoch {epoch}")),
                whole,
            ),
            self.reasons(),
            differing(
                "rejected.epochs",
                "rejected rows equal the counts of stream_health in each epoch",
                health.differing(&self.rejected.by_epoch, |counts| counts.rejected),
                health.expired.epoch,
            ),
            self.manifest(sums),
            self.curated(accepted),
        ]
    }

    fn reasons(&self) -> Check {
        let mut findings = Vec::new();
        let unreasoned = self.health.unreasoned;
        findings.extend(unreasoned.first().map(|first| {
            let n = unreasoned.epochs;
            format!("in {n} epochs the reasons do not add up to the rejected and late, first in epoch {first}")
        }));
        let by_reason = &self.rejected.by_reason;
        let mut unknown = by_reason.clone();
        for (reason, counted) in Reason::ALL.into_iter().zip(self.health.reasons) {
            let rows = unknown.remove(reason.as_str()).unwrap_or(0);
            if rows != counted {
                findings.push(format!("{reason}: {rows} rows, {counted} counted"));
            }
        }
        findings.extend(unknown.into_iter().map(|(reason, rows)| format!("{reason}: {rows} rows, and no such rule")));
        let (rows, reasons): (u64, usize) = (by_reason.values().sum(), by_reason.len());
        let counted: i128 = self.health.reasons.into_iter().map(i128::from).sum();
        let figures = format!("{rows} rows for {reasons} reasons / {counted} counted");
        Check::of("rejected.reasons", "rejected rows equal the counts by reason of stream_health", figures, findings)
    }

    fn manifest(&self, sums: Counts) -> Check {
        let Manifest { rows, epochs, counts } = &self.manifest;
        let figures = format!("{rows} row, {epochs} epochs, received {} / {}", counts.received, sums.received);
        let holds = *rows == 1
            && *epochs == i128::from(self.health.rows) + i128::from(self.health.expired.rows)
            && *counts == sums;
        Check::that("manifest.sums", "run_manifest has one row, and it sums up stream_health", figures, holds)
    }

    fn curated(&self, accepted: Totals) -> Check {
        const NAME: &str = "curated.events";
        const CLAIM: &str =
            "every accepted event stands in curated/transaction_events once, in its epoch, with its amount";
        let Some(curated) = &self.curated else { return Check::skipped(NAME, CLAIM, "the table is not written") };
        let (rows, count) = (curated.rows, accepted.count());
        let mut check = differing(
            NAME,
            CLAIM,
            self.health.differing(&curated.by_epoch, |counts| counts.accepted),
            self.health.expired.epoch,
        );
        if i128::from(rows) != count || curated.amounts != [accepted.deposits, accepted.withdrawals] {
            check = Check::that(NAME, CLAIM, "", false);
        }
        let [deposits, withdrawals] = curated.amounts.map(pounds);
        check.figures = format!("{rows} rows / {count}, deposits {deposits}, withdrawals {withdrawals}");
        check
    }

    /// The counts of a checkpoint are those of stream_health up to its epoch.
    pub(super) fn checkpointed(&self, checkpoint: Checkpointed) -> Check {
        const NAME: &str = "checkpoint.tables_count";
        const CLAIM: &str = "a checkpoint counts what stream_health sums up to its epoch";
        let Checkpointed { epoch, counts } = checkpoint;
        if epoch == 0 || epoch > self.epoch {
            return Check::skipped(NAME, CLAIM, "there is no checkpoint of an epoch that all tables hold");
        }
        if epoch < self.health.expired.epoch {
            return Check::skipped(
                NAME,
                CLAIM,
                "rows of epochs after the checkpoint were kept long enough, and are gone",
            );
        }
        let summed = self.health.up_to(epoch);
        let [counted, sums] = [counts, summed].map(|c| [c.received, c.accepted, c.duplicates, c.rejected]);
        let figures = format!("at epoch {epoch}: received, accepted, duplicates, rejected {counted:?} / {sums:?}");
        Check::that(NAME, CLAIM, figures, counts == summed)
    }
}

/// Epochs up to `gone` can be compared in all alone.
fn differing(name: &'static str, claim: &'static str, differing: Differing, gone: Epoch) -> Check {
    let n = differing.epochs;
    let findings = differing.first().map(|first| match first {
        first if first <= gone => {
            format!("the epochs up to {gone} differ in all, whose rows in stream_health are gone")
        }
        first => format!("{n} epochs differ, the first is epoch {first}"),
    });
    Check::of(name, claim, format!("{n} epochs differ"), findings.into_iter().collect())
}
