//! Metric M3: totals of each channel and event type, at most six groups.

use std::borrow::Cow;

use super::{Column, Key, Metric, TableText, Value};
use crate::event::{Channel, Event, EventType};

/// The key of a row of M3.
pub type ChannelKey = (Channel, EventType);

/// Groups by channel and event type.
pub struct ByChannel;

impl Metric for ByChannel {
    type Key = ChannelKey;
    const NAME: &'static str = "channels";
    const TABLE: TableText =
        TableText("metrics/channel_distribution", "Events and amounts of each channel and event type");
    const MANY_KEYS: bool = false;

    #[inline]
    fn key(event: &Event) -> ChannelKey {
        (event.channel, event.event_type)
    }

    fn columns() -> Vec<Column<Self>> {
        use Value::{Count, Money};
        let channel = Value::Key(|key: &ChannelKey| key.0.as_str().into());
        let event_type = Value::Key(|key: &ChannelKey| key.1.as_str().into());
        vec![
            Column::new("channel", "web, mobile or api", channel),
            Column::new("event_type", "deposit_completed or withdrawal_completed", event_type),
            Column::new("event_count", "number of accepted events", Count(|_, totals| totals.count())),
            // One of the two is zero: all events of a row are of one type.
            Column::new(
                "total_amount",
                "sum of their amounts, in pounds",
                Money(|_, totals| totals.deposits + totals.withdrawals),
            ),
        ]
    }
}

/// Two bytes: the discriminants of channel and event type.
impl Key for ChannelKey {
    fn to_bytes(&self) -> Cow<'_, [u8]> {
        vec![self.0 as u8, self.1 as u8].into()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[channel, event_type] = bytes else { return None };
        let channel = Channel::ALL.into_iter().find(|value| *value as u8 == channel)?;
        let event_type = EventType::ALL.into_iter().find(|value| *value as u8 == event_type)?;
        Some((channel, event_type))
    }
}
