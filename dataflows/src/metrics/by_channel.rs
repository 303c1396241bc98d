//! Metric M3: totals of each channel and event type, at most six groups.

use super::GroupBy;
use crate::event::{Channel, Event, EventType};

/// The key of a row of M3.
pub type ChannelKey = (Channel, EventType);

/// Groups by channel and event type.
pub struct ByChannel;

impl GroupBy for ByChannel {
    type Key = ChannelKey;
    const NAME: &'static str = "ChannelDistribution";

    #[inline]
    fn key(event: &Event) -> ChannelKey {
        (event.channel, event.event_type)
    }
}
