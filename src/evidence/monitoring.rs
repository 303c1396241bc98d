//! The monitoring tables: what came in is accounted for, epoch by epoch and reason by reason.

use std::collections::BTreeMap;

use tidemark_dataflows::reason::Reason;
use tidemark_delta::Error;

use super::check::Check;
use super::cut::{CURATED, HEALTH, MANIFEST, REJECTED};
use super::read::{Figures, Reader, Versions};
use super::series::Series;

/// A checkpoint as of some epoch, and what it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpointed {
    pub(super) epoch: u64,
    pub(super) received: u64,
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
}

/// The monitoring tables at one cut.
#[derive(Clone, Debug)]
pub(super) struct Monitoring {
    epoch: u64,
    health: Figures,
    /// Rejected events by reason, as stream_health has them.
    reasons: Figures,
    /// Rows of the quarantine by reason.
    rejected: BTreeMap<String, i128>,
    /// Epochs whose rejected rows are not as many as stream_health says.
    differing: Figures,
    manifest: Figures,
    /// Rows and amounts of the curated events, and epochs that differ.
    curated: Option<Figures>,
    pub(super) series: Series,
}

fn health_sql(epoch: u64, checkpoint: Checkpointed) -> String {
    let up_to = checkpoint.epoch;
    let part = |column: &str| format!("sum(case when batch_id <= {up_to} then {column} else 0 end)");
    format!(
        "select count(*) as rows, count(distinct batch_id) as epochs, min(batch_id) as first, max(batch_id) as last, \
         sum(case when batch_id > {epoch} then 1 else 0 end) as beyond, \
         sum(case when events_received <> events_valid + duplicate_events + events_rejected then 1 else 0 end) as unbalanced, \
         min(case when events_received <> events_valid + duplicate_events + events_rejected then batch_id end) as first_unbalanced, \
         sum(events_received) as received, sum(events_valid) as accepted, sum(duplicate_events) as duplicates, \
         sum(events_rejected) as rejected, sum(late_events) as late, {} as cp_received, {} as cp_accepted, \
         {} as cp_duplicates, {} as cp_rejected from stream_health",
        part("events_received"),
        part("events_valid"),
        part("duplicate_events"),
        part("events_rejected"),
    )
}

/// Column of a reason.
fn column(reason: Reason) -> String {
    format!("r{}", reason as u8)
}

/// Takes the counts out of the JSON text: members are numbers, without white space, in a fixed order.
fn reasons_sql() -> String {
    let columns = || Reason::ALL.into_iter().map(column);
    let one = |reason: Reason| {
        let column = column(reason);
        format!(
            "coalesce(try_cast(split_part(split_part(replace(rejected_by_reason, '}}', ','), '\"{reason}\":', 2), ',', 1) \
             as bigint), 0) as {column}"
        )
    };
    let parts: Vec<String> = Reason::ALL.into_iter().map(one).collect();
    let sums: Vec<String> = columns().map(|column| format!("sum({column}) as {column}")).collect();
    let all = columns().collect::<Vec<_>>().join(" + ");
    let late = column(Reason::LateEvent);
    format!(
        "select {}, sum(case when {all} <> events_rejected or {late} <> late_events then 1 else 0 end) as differing, \
         min(case when {all} <> events_rejected or {late} <> late_events then batch_id end) as first_differing \
         from (select batch_id, events_rejected, late_events, {} from stream_health)",
        sums.join(", "),
        parts.join(", ")
    )
}

const BY_REASON_SQL: &str = "select rejection_reason, count(*) from rejected_events group by rejection_reason";

const BY_EPOCH_SQL: &str = "select count(*) as differing, min(e) as first from (select e, sum(h) as h, sum(r) as r from \
    (select batch_id as e, events_rejected as h, 0 as r from stream_health \
     union all select epoch as e, 0 as h, 1 as r from rejected_events) group by e) where h <> r";

const MANIFEST_SQL: &str = "select count(*) as rows, sum(batches_processed) as epochs, \
    sum(total_events_received) as received, sum(total_events_valid) as accepted, \
    sum(total_events_rejected) as rejected, sum(total_duplicate_events) as duplicates from run_manifest";

const CURATED_SQL: &str = "select count(*) as rows, \
    sum(case when event_type = 'deposit_completed' then amount end) as deposits, \
    sum(case when event_type = 'withdrawal_completed' then amount end) as withdrawals from transaction_events";

const CURATED_BY_EPOCH_SQL: &str = "select count(*) as differing, min(e) as first from (select e, sum(h) as h, sum(r) as r \
    from (select batch_id as e, events_valid as h, 0 as r from stream_health \
     union all select epoch as e, 0 as h, 1 as r from transaction_events) group by e) where h <> r";

impl Monitoring {
    pub(super) fn read(
        reader: &Reader,
        versions: &Versions,
        epoch: u64,
        checkpoint: Checkpointed,
    ) -> Result<Monitoring, Error> {
        let curated = versions.contains_key(CURATED).then(|| {
            let mut figures = reader.figures(versions, &[CURATED], CURATED_SQL)?;
            figures.extend(reader.figures(versions, &[CURATED, HEALTH], CURATED_BY_EPOCH_SQL)?);
            Ok::<_, Error>(figures)
        });
        Ok(Monitoring {
            epoch,
            health: reader.figures(versions, &[HEALTH], &health_sql(epoch, checkpoint))?,
            reasons: reader.figures(versions, &[HEALTH], &reasons_sql())?,
            rejected: reader.counts(versions, &[REJECTED], BY_REASON_SQL)?,
            differing: reader.figures(versions, &[HEALTH, REJECTED], BY_EPOCH_SQL)?,
            manifest: reader.figures(versions, &[MANIFEST], MANIFEST_SQL)?,
            curated: curated.transpose()?,
            series: Series::read(reader, versions, epoch)?,
        })
    }

    /// `accepted` is the count of M1.
    pub(super) fn checks(&self, accepted: i128, amounts: [i128; 2]) -> Vec<Check> {
        let h = |name: &str| self.health.get(name);
        let parts = format!(
            "received {} = accepted {} + duplicates {} + rejected {}",
            h("received"),
            h("accepted"),
            h("duplicates"),
            h("rejected")
        );
        let unbalanced = (h("unbalanced") > 0)
            .then(|| format!("{} epochs do not add up, the first is epoch {}", h("unbalanced"), h("first_unbalanced")));
        let epoch = i128::from(self.epoch);
        let whole = h("rows") == epoch && h("epochs") == epoch && h("last") == epoch && h("first") == epoch.min(1);
        let mut checks = vec![
            Check::that(
                "health.accepted",
                "the accepted events of stream_health are the count of M1",
                format!("{} / {accepted}", h("accepted")),
                h("accepted") == accepted,
            ),
            Check::of(
                "health.balance",
                "received = accepted + duplicates + rejected in each epoch",
                format!("{} epochs, {parts}", h("epochs")),
                unbalanced.into_iter().collect(),
            ),
            Check::that(
                "health.epochs",
                "stream_health has each epoch once, without a gap",
                format!(
                    "{} rows of {} epochs, {} to {}, at epoch {epoch}",
                    h("rows"),
                    h("epochs"),
                    h("first"),
                    h("last")
                ),
                whole,
            ),
            self.reasons(),
            self.by_epoch(),
            self.manifest(),
        ];
        checks.push(self.curated(accepted, amounts));
        checks
    }

    fn reasons(&self) -> Check {
        let mut findings = Vec::new();
        if self.reasons.get("differing") > 0 {
            let (n, first) = (self.reasons.get("differing"), self.reasons.get("first_differing"));
            findings.push(format!(
                "in {n} epochs the reasons do not add up to the rejected and late, first in epoch {first}"
            ));
        }
        let mut unknown = self.rejected.clone();
        for reason in Reason::ALL {
            let (rows, counted) = (unknown.remove(reason.as_str()).unwrap_or(0), self.reasons.get(&column(reason)));
            if rows != counted {
                findings.push(format!("{reason}: {rows} rows, {counted} counted"));
            }
        }
        findings.extend(unknown.into_iter().map(|(reason, rows)| format!("{reason}: {rows} rows, and no such rule")));
        let (rows, reasons): (i128, usize) = (self.rejected.values().sum(), self.rejected.len());
        let counted: i128 = Reason::ALL.into_iter().map(|reason| self.reasons.get(&column(reason))).sum();
        let figures = format!("{rows} rows for {reasons} reasons / {counted} counted");
        Check::of("rejected.reasons", "rejected rows equal the counts by reason of stream_health", figures, findings)
    }

    fn by_epoch(&self) -> Check {
        differing("rejected.epochs", "rejected rows equal the counts of stream_health in each epoch", &self.differing)
    }

    fn manifest(&self) -> Check {
        let (m, h) = (|name: &str| self.manifest.get(name), |name: &str| self.health.get(name));
        let sums = ["received", "accepted", "duplicates", "rejected"];
        let figures =
            format!("{} row, {} epochs, received {} / {}", m("rows"), m("epochs"), m("received"), h("received"));
        let holds = m("rows") == 1 && m("epochs") == h("rows") && sums.iter().all(|name| m(name) == h(name));
        Check::that("manifest.sums", "run_manifest has one row, and it sums up stream_health", figures, holds)
    }

    fn curated(&self, accepted: i128, amounts: [i128; 2]) -> Check {
        const NAME: &str = "curated.events";
        const CLAIM: &str =
            "every accepted event stands in curated/transaction_events once, in its epoch, with its amount";
        let Some(curated) = &self.curated else { return Check::skipped(NAME, CLAIM, "the table is not written") };
        let found = ["deposits", "withdrawals"].map(|name| curated.get(name));
        let mut check = differing(NAME, CLAIM, curated);
        if curated.get("rows") != accepted || found != amounts {
            check = Check::that(NAME, CLAIM, "", false);
        }
        let [deposits, withdrawals] = found.map(crate::report::numbers::pounds);
        check.figures =
            format!("{} rows / {accepted}, deposits {deposits}, withdrawals {withdrawals}", curated.get("rows"));
        check
    }

    /// The counts of a checkpoint are those of stream_health up to its epoch.
    pub(super) fn checkpointed(&self, checkpoint: Checkpointed) -> Check {
        const NAME: &str = "checkpoint.tables_count";
        const CLAIM: &str = "a checkpoint counts what stream_health sums up to its epoch";
        if checkpoint.epoch == 0 || checkpoint.epoch > self.epoch {
            return Check::skipped(NAME, CLAIM, "there is no checkpoint of an epoch that all tables hold");
        }
        let Checkpointed { epoch, received, accepted, duplicates, rejected } = checkpoint;
        let counted = [received, accepted, duplicates, rejected].map(i128::from);
        let summed = ["cp_received", "cp_accepted", "cp_duplicates", "cp_rejected"].map(|name| self.health.get(name));
        let figures = format!("at epoch {epoch}: received, accepted, duplicates, rejected {counted:?} / {summed:?}");
        Check::that(NAME, CLAIM, figures, counted == summed)
    }
}

fn differing(name: &'static str, claim: &'static str, figures: &Figures) -> Check {
    let (n, first) = (figures.get("differing"), figures.get("first"));
    let findings = (n > 0).then(|| format!("{n} epochs differ, the first is epoch {first}"));
    Check::of(name, claim, format!("{n} epochs differ"), findings.into_iter().collect())
}
