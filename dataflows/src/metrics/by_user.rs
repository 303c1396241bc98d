//! Metric M2: totals of each user.

use std::borrow::Cow;

use super::{Column, Key, Metric, TableText, Value};
use crate::event::{Event, UserId};

/// Groups by user.
pub struct ByUser;

impl Metric for ByUser {
    type Key = UserId;
    const NAME: &'static str = "users";
    const TABLE: TableText = TableText("metrics/user_metrics", "Running totals of each user");
    const MANY_KEYS: bool = true;

    #[inline]
    fn key(event: &Event) -> UserId {
        event.user.clone()
    }

    fn columns() -> Vec<Column<Self>> {
        use Value::{Count, Money, Time};
        let user = Value::Key(|user: &UserId| user.0.as_str().into());
        vec![
            Column::new("user_id", "the user, as the producer wrote it", user),
            Column::new("total_deposits", "sum of the user's accepted deposits, in pounds", Money(|_, t| t.deposits)),
            Column::new(
                "total_withdrawals",
                "sum of the user's accepted withdrawals, in pounds",
                Money(|_, t| t.withdrawals),
            ),
            Column::new("deposit_count", "number of accepted deposits", Count(|_, t| t.deposit_count)),
            Column::new("withdrawal_count", "number of accepted withdrawals", Count(|_, t| t.withdrawal_count)),
            Column::new("first_seen", "least event_time of the user's accepted events", Time(|_, t| t.first_seen)),
            Column::new("last_seen", "greatest event_time of the user's accepted events", Time(|_, t| t.last_seen)),
        ]
    }
}

impl Key for UserId {
    fn to_bytes(&self) -> Cow<'_, [u8]> {
        self.0.as_bytes().into()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| UserId(text.into()))
    }
}
