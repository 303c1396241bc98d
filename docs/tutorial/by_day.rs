//! Net flow of each UTC day, by the day on which a payment happened: the fourth metric of the walk-through in the README.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Column, Key, Metric, TableText, Value};
use crate::event::Event;

/// A UTC day, counted from 1970-01-01.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(u32);

impl Day {
    /// The date as `YYYY-MM-DD`, after `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>.
    fn date(self) -> String {
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let (month, day) = ((shifted + 2) % 12 + 1, day_of_year - (153 * shifted + 2) / 5 + 1);
        let year = era * 400 + year + u32::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }
}

impl Key for Day {
    fn to_bytes(&self) -> Cow<'_, [u8]> {
        self.0.to_be_bytes().to_vec().into()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Day(u32::from_be_bytes(bytes)))
    }
}

/// Groups by day.
pub struct ByDay;

impl Metric for ByDay {
    type Key = Day;
    const NAME: &'static str = "days";
    const TABLE: TableText =
        TableText("metrics/daily_net_flow", "Deposits, withdrawals and their difference by UTC day");
    const MANY_KEYS: bool = false;

    fn key(event: &Event) -> Day {
        // The contract takes no time before 1970, and none after 9999.
        Day(u32::try_from(event.time.0 / 86_400_000_000).unwrap_or_default())
    }

    fn columns() -> Vec<Column<Self>> {
        use Value::{Count, Money};
        vec![
            Column::new("day", "the UTC day of event_time, as YYYY-MM-DD", Value::Key(|day: &Day| day.date().into())),
            Column::new("total_deposits", "sum of its accepted deposits, in pounds", Money(|_, t| t.deposits)),
            Column::new("total_withdrawals", "sum of its accepted withdrawals, in pounds", Money(|_, t| t.withdrawals)),
            Column::new("net_flow", "deposits minus withdrawals, in pounds", Money(|_, t| t.deposits - t.withdrawals)),
            Column::new("event_count", "number of accepted events", Count(|_, t| t.count())),
        ]
    }
}
