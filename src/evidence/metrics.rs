//! The three metrics: each by itself, and all against each other.

use tidemark_delta::Error;

use super::check::Check;
use super::cut::{CHANNELS, NET_FLOW, USERS};
use super::read::{Figures, Reader, Versions};
use crate::report::numbers::{counted, pounds};

const NET_FLOW_SQL: &str = "select count(*) as rows, \
    sum(case when id is null or total_deposits is null or total_withdrawals is null or net_flow is null \
        or deposit_count is null or withdrawal_count is null or avg_deposit is null or avg_withdrawal is null \
        or deposit_to_withdrawal_ratio is null or updated_at is null then 1 else 0 end) as nulls, \
    sum(case when total_deposits < 0 or total_withdrawals < 0 or deposit_count < 0 or withdrawal_count < 0 \
        or avg_deposit < 0 or avg_withdrawal < 0 or deposit_to_withdrawal_ratio < 0 then 1 else 0 end) as negative, \
    sum(case when net_flow <> total_deposits - total_withdrawals then 1 else 0 end) as unbalanced, \
    sum(net_flow) as net_flow, sum(total_deposits) as deposits, sum(total_withdrawals) as withdrawals, \
    sum(deposit_count) as deposit_count, sum(withdrawal_count) as withdrawal_count from net_flow";

const USERS_SQL: &str = "select count(*) as rows, count(distinct user_id) as users, \
    sum(case when user_id is null or total_deposits is null or total_withdrawals is null or deposit_count is null \
        or withdrawal_count is null or first_seen is null or last_seen is null or updated_at is null \
        then 1 else 0 end) as nulls, \
    sum(case when total_deposits < 0 or total_withdrawals < 0 or deposit_count < 0 or withdrawal_count < 0 \
        then 1 else 0 end) as negative, \
    sum(case when (total_deposits <> 0) <> (deposit_count <> 0) or (total_withdrawals <> 0) <> (withdrawal_count <> 0) \
        or deposit_count + withdrawal_count = 0 then 1 else 0 end) as uncounted, \
    sum(case when first_seen > last_seen then 1 else 0 end) as backwards, \
    sum(total_deposits) as deposits, sum(total_withdrawals) as withdrawals, \
    sum(deposit_count) as deposit_count, sum(withdrawal_count) as withdrawal_count from user_metrics";

const CHANNELS_SQL: &str = "select count(*) as rows, count(distinct concat(channel, '/', event_type)) as pairs, \
    sum(case when channel is null or event_type is null or event_count is null or total_amount is null \
        or updated_at is null then 1 else 0 end) as nulls, \
    sum(case when event_count < 0 or total_amount < 0 then 1 else 0 end) as negative, \
    sum(case when (total_amount <> 0) <> (event_count <> 0) then 1 else 0 end) as uncounted, \
    sum(case when channel in ('web', 'mobile', 'api') and event_type in ('deposit_completed', 'withdrawal_completed') \
        then 0 else 1 end) as unknown, \
    sum(case when event_type = 'deposit_completed' then total_amount end) as deposits, \
    sum(case when event_type = 'withdrawal_completed' then total_amount end) as withdrawals, \
    sum(case when event_type = 'deposit_completed' then event_count end) as deposit_count, \
    sum(case when event_type = 'withdrawal_completed' then event_count end) as withdrawal_count \
    from channel_distribution";

/// The aggregates of the three tables at one cut.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) m1: Figures,
    pub(super) m2: Figures,
    pub(super) m3: Figures,
}

impl Metrics {
    pub(super) fn read(reader: &Reader, versions: &Versions) -> Result<Metrics, Error> {
        Ok(Metrics {
            m1: reader.figures(versions, &[NET_FLOW], NET_FLOW_SQL)?,
            m2: reader.figures(versions, &[USERS], USERS_SQL)?,
            m3: reader.figures(versions, &[CHANNELS], CHANNELS_SQL)?,
        })
    }

    /// Accepted events by M1.
    pub(super) fn count(&self) -> i128 {
        count(&self.m1)
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let Metrics { m1, m2, m3 } = self;
        let net = ["net_flow", "deposits", "withdrawals"].map(|name| pounds(m1.get(name)));
        let rows = |m: &Figures| counted(u64::try_from(m.get("rows")).unwrap_or(0), "row");
        let clean =
            |m: &Figures| format!("{}, {} with a null, {} negative", rows(m), m.get("nulls"), m.get("negative"));
        let is_clean = |m: &Figures| m.get("nulls") == 0 && m.get("negative") == 0;
        vec![
            Check::that("m1.one_row", "M1 has one row", rows(m1), m1.get("rows") == 1),
            Check::that(
                "m1.net_flow",
                "net flow = deposits - withdrawals in M1",
                format!("{} = {} - {}", net[0], net[1], net[2]),
                m1.get("unbalanced") == 0 && m1.get("net_flow") == m1.get("deposits") - m1.get("withdrawals"),
            ),
            Check::that("m1.values", "nothing in M1 is null, or negative but the net flow", clean(m1), is_clean(m1)),
            Check::that(
                "m2.one_row_each",
                "M2 has one row for each user",
                format!("{}, {} users", rows(m2), m2.get("users")),
                m2.get("rows") == m2.get("users"),
            ),
            Check::that(
                "m2.counted",
                "no user has a total without a count",
                format!("{}, {} without", rows(m2), m2.get("uncounted")),
                m2.get("uncounted") == 0,
            ),
            Check::that(
                "m2.values",
                "nothing in M2 is null or negative, and nobody was last seen before he was first seen",
                format!("{}, {} backwards", clean(m2), m2.get("backwards")),
                is_clean(m2) && m2.get("backwards") == 0,
            ),
            Check::that(
                "m3.pairs",
                "M3 has at most six rows, one for each pair of channel and type",
                format!("{}, {} pairs, {} unknown", rows(m3), m3.get("pairs"), m3.get("unknown")),
                m3.get("rows") <= 6 && m3.get("rows") == m3.get("pairs") && m3.get("unknown") == 0,
            ),
            Check::that(
                "m3.values",
                "nothing in M3 is null or negative, and there is no total without a count",
                format!("{}, {} without a count", clean(m3), m3.get("uncounted")),
                is_clean(m3) && m3.get("uncounted") == 0,
            ),
            self.agree("cut.counts", "the counts of M1, M2 and M3 agree", ["deposit_count", "withdrawal_count"], |n| {
                n.to_string()
            }),
            self.agree(
                "cut.amounts",
                "the amounts of M1, M2 and M3 agree to the penny",
                ["deposits", "withdrawals"],
                pounds,
            ),
        ]
    }

    fn agree(
        &self,
        name: &'static str,
        claim: &'static str,
        columns: [&str; 2],
        shown: impl Fn(i128) -> String,
    ) -> Check {
        let all = [&self.m1, &self.m2, &self.m3].map(|m| columns.map(|column| m.get(column)));
        let [first, second] = [0, 1].map(|at| all.map(|pair| shown(pair[at])).join(" / "));
        Check::that(
            name,
            claim,
            format!("deposits {first}, withdrawals {second}"),
            all[0] == all[1] && all[1] == all[2],
        )
    }
}

fn count(metric: &Figures) -> i128 {
    metric.get("deposit_count") + metric.get("withdrawal_count")
}
