//! The names of the eight members that the contract reads. All others are ignored.

/// A member of the event object, in the order in which the rules look at them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    EventId,
    UserId,
    EventTime,
    IngestTime,
    EventType,
    Amount,
    Currency,
    Channel,
}

impl Member {
    pub(super) const COUNT: usize = 8;

    /// All, in the order in which producers usually write them.
    pub(super) const ALL: [Member; Member::COUNT] = [
        Member::EventId,
        Member::UserId,
        Member::EventTime,
        Member::IngestTime,
        Member::EventType,
        Member::Amount,
        Member::Currency,
        Member::Channel,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Member::EventId => "event_id",
            Member::UserId => "user_id",
            Member::EventTime => "event_time",
            Member::IngestTime => "ingest_time",
            Member::EventType => "event_type",
            Member::Amount => "amount",
            Member::Currency => "currency",
            Member::Channel => "channel",
        }
    }

    /// The member of this name, given after unescaping.
    #[inline]
    pub(super) fn from_name(name: &[u8]) -> Option<Member> {
        Some(match name {
            b"event_id" => Member::EventId,
            b"user_id" => Member::UserId,
            b"event_time" => Member::EventTime,
            b"ingest_time" => Member::IngestTime,
            b"event_type" => Member::EventType,
            b"amount" => Member::Amount,
            b"currency" => Member::Currency,
            b"channel" => Member::Channel,
            _ => return None,
        })
    }

    /// What follows the name and its closing quote, if `text` starts with them. Spelt out, because a comparison with a
    /// constant is a few instructions.
    #[inline]
    pub(super) fn strip_name(self, text: &[u8]) -> Option<&[u8]> {
        match self {
            Member::EventId => text.strip_prefix(b"event_id\""),
            Member::UserId => text.strip_prefix(b"user_id\""),
            Member::EventTime => text.strip_prefix(b"event_time\""),
            Member::IngestTime => text.strip_prefix(b"ingest_time\""),
            Member::EventType => text.strip_prefix(b"event_type\""),
            Member::Amount => text.strip_prefix(b"amount\""),
            Member::Currency => text.strip_prefix(b"currency\""),
            Member::Channel => text.strip_prefix(b"channel\""),
        }
    }
}
