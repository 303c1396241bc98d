//! The difference type of every metric: sums, counts and the span of event times.

use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventType, Micros};

/// Running totals of some group of accepted events, carried in the *difference* field of a collection.
///
/// Sums and counts form a group, but minimum and maximum only a semigroup: they cannot be subtracted. That suffices,
/// because nothing is ever retracted here: accepted events are append-only, and forgetting an id emits nothing. In
/// return the arrangement behind a metric holds one `Totals` per key and no history.
///
/// Money is summed in 128 bits: 2^64 events of the largest amount do not overflow it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// Sum of deposits, in pence.
    pub deposits: i128,
    /// Sum of withdrawals, in pence.
    pub withdrawals: i128,
    /// Number of deposits.
    pub deposit_count: u64,
    /// Number of withdrawals.
    pub withdrawal_count: u64,
    /// Least event time.
    pub first_seen: Micros,
    /// Greatest event time.
    pub last_seen: Micros,
}

impl Totals {
    /// The totals of no event: adding it changes nothing.
    pub const NONE: Totals = Totals {
        deposits: 0,
        withdrawals: 0,
        deposit_count: 0,
        withdrawal_count: 0,
        first_seen: Micros(i64::MAX),
        last_seen: Micros(i64::MIN),
    };

    /// The totals of one event.
    #[inline]
    pub fn of(event: &Event) -> Self {
        let pence = i128::from(event.amount.0);
        let seen = Totals { first_seen: event.time, last_seen: event.time, ..Totals::NONE };
        match event.event_type {
            EventType::Deposit => Totals { deposits: pence, deposit_count: 1, ..seen },
            EventType::Withdrawal => Totals { withdrawals: pence, withdrawal_count: 1, ..seen },
        }
    }

    /// Adds other events.
    #[inline]
    pub fn add(&mut self, other: &Totals) {
        self.deposits += other.deposits;
        self.withdrawals += other.withdrawals;
        self.deposit_count += other.deposit_count;
        self.withdrawal_count += other.withdrawal_count;
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
    }

    /// Number of events.
    pub fn count(&self) -> u64 {
        self.deposit_count + self.withdrawal_count
    }
}

impl IsZero for Totals {
    /// Never: a group exists because an event fell into it.
    #[inline]
    fn is_zero(&self) -> bool {
        false
    }
}

impl Semigroup for Totals {
    #[inline]
    fn plus_equals(&mut self, other: &Self) {
        self.add(other);
    }
}
