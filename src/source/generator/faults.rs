//! The ways in which generated events break the contract.

use tidemark_dataflows::reason::Reason;

/// A member of the contract, in the order in which producers write them.
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
    pub(super) const ALL: [Member; 8] = [
        Member::EventId,
        Member::UserId,
        Member::EventTime,
        Member::IngestTime,
        Member::EventType,
        Member::Amount,
        Member::Currency,
        Member::Channel,
    ];

    /// The start of the member, up to its value.
    pub(super) const fn key(self) -> &'static [u8] {
        match self {
            Member::EventId => b"\"event_id\": ",
            Member::UserId => b"\"user_id\": ",
            Member::EventTime => b"\"event_time\": ",
            Member::IngestTime => b"\"ingest_time\": ",
            Member::EventType => b"\"event_type\": ",
            Member::Amount => b"\"amount\": ",
            Member::Currency => b"\"currency\": ",
            Member::Channel => b"\"channel\": ",
        }
    }
}

/// How an event that is otherwise sound is spoilt.
#[derive(Copy, Clone, Debug)]
pub(super) enum Shape {
    /// The member is left out.
    Missing(Member),
    /// The member has this for a value, JSON or not.
    Value(Member, &'static [u8]),
    /// The body ends after so many bytes.
    Cut(usize),
    /// The body is this.
    Instead(&'static [u8]),
    /// The body has this in front.
    Before(&'static [u8]),
    /// The body has this behind.
    After(&'static [u8]),
}

use Member::{Amount, Channel, Currency, EventId, EventTime, EventType, IngestTime, UserId};
use Shape::{After, Before, Cut, Instead, Missing, Value};

/// The shapes that break `reason` and no rule before it. Each is equally likely; none is empty for R000 to R130.
pub(super) fn shapes(reason: Reason) -> &'static [Shape] {
    match reason {
        Reason::MalformedEvent => &[
            Cut(60),
            Instead(b"not json at all"),
            Instead(b"[]"),
            Before(b"\xEF\xBB\xBF"),
            After(b" {}"),
            Value(Amount, b"NaN"),
            Value(UserId, b"\"user_\xFF\""),
            Value(UserId, b"\"user_\\ud800\""),
            Value(Channel, b"\"web\", \"channel\": \"web\""),
        ],
        Reason::NullEventId => {
            &[Value(EventId, b"null"), Missing(EventId), Value(EventId, b"17"), Value(EventId, b"\"\"")]
        }
        Reason::NullUserId => &[Value(UserId, b"null"), Missing(UserId), Value(UserId, b"[]"), Value(UserId, b"\"\"")],
        Reason::NullEventTime => &[
            Value(EventTime, b"null"),
            Missing(EventTime),
            Value(EventTime, b"\"not-a-time\""),
            Value(EventTime, b"1767261600"),
            Value(EventTime, b"\"2016-12-31T23:59:60Z\""),
        ],
        Reason::NullIngestTime => &[
            Value(IngestTime, b"null"),
            Missing(IngestTime),
            Value(IngestTime, b"\"yesterday\""),
            Value(IngestTime, b"\"2026-02-30T00:00:00Z\""),
        ],
        Reason::NullEventType => &[Value(EventType, b"null"), Missing(EventType), Value(EventType, b"7")],
        Reason::NullAmount => &[Value(Amount, b"null"), Missing(Amount), Value(Amount, b"\"12.34\"")],
        Reason::NullCurrency => &[Value(Currency, b"null"), Missing(Currency), Value(Currency, b"826")],
        Reason::NullChannel => &[Value(Channel, b"null"), Missing(Channel), Value(Channel, b"{}")],
        Reason::InvalidEventType => &[
            Value(EventType, b"\"deposit_pending\""),
            Value(EventType, b"\"refund_completed\""),
            Value(EventType, b"\"DEPOSIT_COMPLETED\""),
            Value(EventType, b"\"\""),
        ],
        Reason::InvalidChannel => &[Value(Channel, b"\"pos\""), Value(Channel, b"\"WEB\""), Value(Channel, b"\"\"")],
        Reason::InvalidCurrency => {
            &[Value(Currency, b"\"USD\""), Value(Currency, b"\"EUR\""), Value(Currency, b"\"gbp\"")]
        }
        Reason::NonPositiveAmount => {
            &[Value(Amount, b"-12.34"), Value(Amount, b"0.00"), Value(Amount, b"-0"), Value(Amount, b"-1e400")]
        }
        Reason::AmountNotRepresentable => &[
            Value(Amount, b"12.345"),
            Value(Amount, b"0.001"),
            Value(Amount, b"1000000000000000.00"),
            Value(Amount, b"1e400"),
        ],
        // These depend on the clock or on other events.
        Reason::EventTimeInFuture | Reason::LateEvent | Reason::ConflictingDuplicate => &[],
    }
}

/// Applies a shape that changes the body `out[start..]` as a whole.
pub(super) fn apply_to_whole(shape: Option<Shape>, out: &mut Vec<u8>, start: usize) {
    match shape {
        Some(Cut(len)) => out.truncate(start + len),
        Some(Instead(body)) => {
            out.truncate(start);
            out.extend_from_slice(body);
        }
        Some(Before(prefix)) => {
            out.splice(start..start, prefix.iter().copied());
        }
        Some(After(suffix)) => out.extend_from_slice(suffix),
        Some(Missing(_) | Value(..)) | None => {}
    }
}
