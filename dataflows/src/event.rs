//! The values that flow: identities, positions, money, instants and the accepted event itself.
//!
//! Each is a newtype, so that an offset cannot pass for an amount. What the bytes of an event must look like
//! is the business of [`crate::contract`]; this module holds only what has passed it.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Number of an epoch, counted from 1. It is the logical time of every dataflow in this crate: an epoch is closed
/// once the frontier has passed it.
pub type Epoch = u64;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

/// One past what the contract admits: 10000-01-01T00:00:00Z.
pub const END_OF_TIME: Micros = Micros(253_402_300_800_000_000);

/// An amount of money in whole pence. A single event holds less than 10^17.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pence(pub i64);

/// Index of a partition in the order of its source. The source knows its name.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

/// Index of an event within its partition, from 0; for an event hub, the sequence number.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub u64);

/// Where an event stands in its source. The order is the order of arrival within an epoch.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The place in it.
    pub offset: Offset,
}

/// Identity of an event, 128 bits: a canonical lower-case UUID is its own bits, any other string is its keyed hash.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub u128);

/// A user, by the bytes the producer gave. Up to 24 bytes live inline.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserId(pub CompactString);

/// What a payment event reports.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum EventType {
    /// `deposit_completed`
    Deposit = 0,
    /// `withdrawal_completed`
    Withdrawal = 1,
}

/// Where the customer acted.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Channel {
    /// `web`
    Web = 0,
    /// `mobile`
    Mobile = 1,
    /// `api`
    Api = 2,
}

impl EventType {
    /// Both values, in the order of their discriminants.
    pub const ALL: [EventType; 2] = [EventType::Deposit, EventType::Withdrawal];

    /// The value as the contract spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Deposit => "deposit_completed",
            EventType::Withdrawal => "withdrawal_completed",
        }
    }
}

impl Channel {
    /// All three values, in the order of their discriminants.
    pub const ALL: [Channel; 3] = [Channel::Web, Channel::Mobile, Channel::Api];

    /// The value as the contract spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::Web => "web",
            Channel::Mobile => "mobile",
            Channel::Api => "api",
        }
    }
}

/// The members that only the curated table needs; decoded and carried only when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CuratedMembers {
    /// `event_id` as the producer wrote it.
    pub event_id: String,
    /// `ingest_time`.
    pub ingest_time: Micros,
}

/// An event that passed R000 to R140.
///
/// 80 bytes. The raw body stays where it was decoded; `origin` says on which worker, so that a verdict
/// of the stream rules can find its way back to it. How it is serialized stands in `wire.rs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Identity for deduplication.
    pub id: EventId,
    /// Whose money moved.
    pub user: UserId,
    /// When the transaction happened.
    pub time: Micros,
    /// How much.
    pub amount: Pence,
    /// Where it stands in its source: decides which of several arrivals is the first.
    pub at: Position,
    /// Index of the worker that decoded it.
    pub origin: u16,
    /// Deposit or withdrawal.
    pub event_type: EventType,
    /// Where the customer acted.
    pub channel: Channel,
    /// What the curated table needs besides.
    pub curated: Option<Box<CuratedMembers>>,
}

/// Told once per epoch and worker, at that epoch's time, when the epoch is cut: the epoch exists, whatever came in it.
///
/// Operators that owe something for every epoch, events or none, walk these marks: the frontier alone cannot tell an
/// empty epoch from the end of the input.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochMark {
    /// The epoch that was cut.
    pub epoch: Epoch,
    /// When it was opened.
    pub opened: Micros,
    /// When it was closed: the `updated_at` of all that it changes.
    pub closed: Micros,
    /// Events that should have been in it and were not in the source any more, or never came.
    pub missing: u64,
    /// Whether the watermark after the epoch waits for the partitions that were behind at its closing. False where its cut
    /// does not say which these are, as cuts of earlier releases do not; see [`crate::watermark::Watermarks`].
    pub waits: bool,
}
