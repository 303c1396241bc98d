//! The three metrics: each by itself, and all against each other.

use std::collections::{BTreeSet, HashSet};

use arrow::array::RecordBatch;
use tidemark_dataflows::event::{Channel, EventType};
use tidemark_delta::Error;

use super::check::Check;
use super::read::Tables;
use crate::report::numbers::{counted, pounds};
use crate::report::reader::{doubles, longs, money, texts};
use crate::sink::tables::{ChannelDistribution, NetFlow, Table as _, UserMetrics};

/// Amounts in pence, and the events that they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) deposits: i128,
    pub(super) withdrawals: i128,
    deposit_count: i128,
    withdrawal_count: i128,
}

impl Totals {
    /// The totals of each row.
    fn of(batch: &RecordBatch) -> impl Fn(usize) -> Totals {
        let (deposits, withdrawals) = (money(batch, "total_deposits"), money(batch, "total_withdrawals"));
        let (deposit_count, withdrawal_count) = (longs(batch, "deposit_count"), longs(batch, "withdrawal_count"));
        move |row| Totals {
            deposits: deposits.at(row),
            withdrawals: withdrawals.at(row),
            deposit_count: deposit_count.at(row).into(),
            withdrawal_count: withdrawal_count.at(row).into(),
        }
    }

    fn add(&mut self, other: Totals) {
        self.deposits = self.deposits.saturating_add(other.deposits);
        self.withdrawals = self.withdrawals.saturating_add(other.withdrawals);
        self.deposit_count += other.deposit_count;
        self.withdrawal_count += other.withdrawal_count;
    }

    fn net_flow(&self) -> i128 {
        self.deposits.saturating_sub(self.withdrawals)
    }

    /// Accepted events.
    pub(super) fn count(&self) -> i128 {
        self.deposit_count + self.withdrawal_count
    }

    fn is_negative(&self) -> bool {
        [self.deposits, self.withdrawals, self.deposit_count, self.withdrawal_count].iter().any(|value| *value < 0)
    }

    /// Whether there is a total without a count, or the other way round.
    fn is_uncounted(&self) -> bool {
        (self.deposits != 0) != (self.deposit_count != 0) || (self.withdrawals != 0) != (self.withdrawal_count != 0)
    }
}

/// What every metric has: how many rows are wrong in which way, and the totals of all.
#[derive(Clone, Debug, Default)]
struct Rows {
    rows: u64,
    nulls: u64,
    negative: u64,
    uncounted: u64,
    totals: Totals,
}

impl Rows {
    fn take(&mut self, totals: Totals, is_negative: bool, is_uncounted: bool) {
        self.rows += 1;
        self.negative += u64::from(is_negative);
        self.uncounted += u64::from(is_uncounted);
        self.totals.add(totals);
    }

    fn in_words(&self) -> String {
        counted(self.rows, "row")
    }

    fn clean(&self) -> String {
        format!("{}, {} with a null, {} negative", self.in_words(), self.nulls, self.negative)
    }

    fn is_clean(&self) -> bool {
        self.nulls == 0 && self.negative == 0
    }
}

#[derive(Clone, Debug, Default)]
struct M1 {
    all: Rows,
    net_flow: i128,
    unbalanced: u64,
}

impl M1 {
    fn take(&mut self, batch: &RecordBatch) {
        let (totals, net_flow) = (Totals::of(batch), money(batch, "net_flow"));
        let ratios = ["avg_deposit", "avg_withdrawal", "deposit_to_withdrawal_ratio"].map(|name| doubles(batch, name));
        for row in 0..batch.num_rows() {
            let (totals, net_flow) = (totals(row), net_flow.at(row));
            let is_negative = totals.is_negative() || ratios.iter().any(|ratio| ratio.at(row) < 0.0);
            self.unbalanced += u64::from(net_flow != totals.net_flow());
            self.net_flow = self.net_flow.saturating_add(net_flow);
            self.all.take(totals, is_negative, totals.is_uncounted());
        }
    }
}

#[derive(Clone, Debug, Default)]
struct M2 {
    all: Rows,
    users: HashSet<String>,
    backwards: u64,
}

impl M2 {
    fn take(&mut self, batch: &RecordBatch) {
        let (users, totals) = (texts(batch, "user_id"), Totals::of(batch));
        let (first_seen, last_seen) = (longs(batch, "first_seen"), longs(batch, "last_seen"));
        for row in 0..batch.num_rows() {
            let totals = totals(row);
            self.all.take(totals, totals.is_negative(), totals.is_uncounted() || totals.count() == 0);
            self.backwards += u64::from(first_seen.at(row) > last_seen.at(row));
            self.users.extend(users.owned(row));
        }
    }
}

#[derive(Clone, Debug, Default)]
struct M3 {
    all: Rows,
    pairs: BTreeSet<(String, String)>,
    unknown: u64,
}

impl M3 {
    fn take(&mut self, batch: &RecordBatch) {
        let (channels, types) = (texts(batch, "channel"), texts(batch, "event_type"));
        let (counts, amounts) = (longs(batch, "event_count"), money(batch, "total_amount"));
        for row in 0..batch.num_rows() {
            let (channel, kind) = (channels.at(row), types.at(row));
            let (count, amount) = (i128::from(counts.at(row)), amounts.at(row));
            let known = EventType::ALL.into_iter().find(|known| known.as_str() == kind);
            let totals = match known {
                Some(EventType::Deposit) => Totals { deposits: amount, deposit_count: count, ..Totals::default() },
                Some(EventType::Withdrawal) => {
                    Totals { withdrawals: amount, withdrawal_count: count, ..Totals::default() }
                }
                None => Totals::default(),
            };
            let is_known = known.is_some() && Channel::ALL.iter().any(|known| known.as_str() == channel);
            self.unknown += u64::from(!is_known);
            self.all.take(totals, count < 0 || amount < 0, (amount != 0) != (count != 0));
            self.pairs.insert((channel.to_owned(), kind.to_owned()));
        }
    }
}

/// The three tables at one cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    m1: M1,
    m2: M2,
    m3: M3,
}

impl Metrics {
    pub(super) fn read(tables: Tables<'_>) -> Result<Metrics, Error> {
        let (mut m1, nulls) = tables.every(&NetFlow::spec(), M1::default, M1::take)?;
        m1.all.nulls = nulls;
        let (mut m2, nulls) = tables.every(&UserMetrics::spec(), M2::default, M2::take)?;
        m2.all.nulls = nulls;
        let (mut m3, nulls) = tables.every(&ChannelDistribution::spec(), M3::default, M3::take)?;
        m3.all.nulls = nulls;
        Ok(Metrics { m1, m2, m3 })
    }

    /// What is accepted by M1.
    pub(super) fn accepted(&self) -> Totals {
        self.m1.all.totals
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let Metrics { m1, m2, m3 } = self;
        let totals = m1.all.totals;
        let net = [m1.net_flow, totals.deposits, totals.withdrawals].map(pounds);
        let (users, pairs) = (m2.users.len() as u64, m3.pairs.len() as u64);
        vec![
            Check::that("m1.one_row", "M1 has one row", m1.all.in_words(), m1.all.rows == 1),
            Check::that(
                "m1.net_flow",
                "net flow = deposits - withdrawals in M1",
                format!("{} = {} - {}", net[0], net[1], net[2]),
                m1.unbalanced == 0 && m1.net_flow == totals.net_flow(),
            ),
            Check::that(
                "m1.values",
                "nothing in M1 is null, or negative but the net flow",
                m1.all.clean(),
                m1.all.is_clean(),
            ),
            Check::that(
                "m2.one_row_each",
                "M2 has one row for each user",
                format!("{}, {users} users", m2.all.in_words()),
                m2.all.rows == users,
            ),
            Check::that(
                "m2.counted",
                "no user has a total without a count",
                format!("{}, {} without", m2.all.in_words(), m2.all.uncounted),
                m2.all.uncounted == 0,
            ),
            Check::that(
                "m2.values",
                "nothing in M2 is null or negative, and nobody was last seen before he was first seen",
                format!("{}, {} backwards", m2.all.clean(), m2.backwards),
                m2.all.is_clean() && m2.backwards == 0,
            ),
            Check::that(
                "m3.pairs",
                "M3 has at most six rows, one for each pair of channel and type",
                format!("{}, {pairs} pairs, {} unknown", m3.all.in_words(), m3.unknown),
                m3.all.rows <= 6 && m3.all.rows == pairs && m3.unknown == 0,
            ),
            Check::that(
                "m3.values",
                "nothing in M3 is null or negative, and there is no total without a count",
                format!("{}, {} without a count", m3.all.clean(), m3.all.uncounted),
                m3.all.is_clean() && m3.all.uncounted == 0,
            ),
            self.agree(
                "cut.counts",
                "the counts of M1, M2 and M3 agree",
                |totals| [totals.deposit_count, totals.withdrawal_count],
                |count| count.to_string(),
            ),
            self.agree(
                "cut.amounts",
                "the amounts of M1, M2 and M3 agree to the penny",
                |totals| [totals.deposits, totals.withdrawals],
                pounds,
            ),
        ]
    }

    fn agree(
        &self,
        name: &'static str,
        claim: &'static str,
        figures: fn(Totals) -> [i128; 2],
        shown: fn(i128) -> String,
    ) -> Check {
        let all = [&self.m1.all, &self.m2.all, &self.m3.all].map(|rows| figures(rows.totals));
        let [first, second] = [0, 1].map(|at| all.map(|pair| shown(pair[at])).join(" / "));
        Check::that(
            name,
            claim,
            format!("deposits {first}, withdrawals {second}"),
            all[0] == all[1] && all[1] == all[2],
        )
    }
}
