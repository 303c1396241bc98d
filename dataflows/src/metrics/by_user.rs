//! Metric M2: totals of each user.

use super::GroupBy;
use crate::event::{Event, UserId};

/// Groups by user.
pub struct ByUser;

impl GroupBy for ByUser {
    type Key = UserId;
    const NAME: &'static str = "UserMetrics";

    #[inline]
    fn key(event: &Event) -> UserId {
        event.user.clone()
    }
}
