//! The contract: what an event body must look like, and why it is rejected when it does not.
//!
//! Every body is judged by the rules R000 to R140, in order; the first that fails names the rejection. There are two
//! paths to the same verdict:
//!
//! * `fast` accepts the shape that producers really send, in one pass over the bytes and without a heap. It never
//!   rejects: whatever it does not know (an escape, an exponent, a member of another name, a broken rule) it leaves to
//! * `strict`, which reads any JSON, makes every rejection and explains it.
//!
//! Both share the readers of single values ([`timestamp`], `identity`), so that a value cannot mean two things. What is
//! left out: the rules about the stream (late events, duplicates), which need to know other events.

mod amount;
mod fast;
mod identity;
mod member;
mod members;
mod nesting;
mod strict;
pub mod timestamp;

use std::fmt;

use crate::block::Body;
use crate::event::{Event, EventId, Micros};
use crate::reason::Reason;

pub use nesting::MAX_DEPTH;

/// Longest `event_id` or `user_id`, in bytes of UTF-8 after unescaping.
pub const MAX_ID_BYTES: usize = 1024;

/// Settings of the contract that do not change while a pipeline lives.
///
/// ```
/// use tidemark_dataflows::block::Body;
/// use tidemark_dataflows::contract::Contract;
/// use tidemark_dataflows::event::{Channel, Micros, Pence, Position};
/// use tidemark_dataflows::reason::Reason;
///
/// let contract = Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: false };
/// let json = r#"{"event_id": "9f1c2f6e-0d4b-4c7a-8f55-2f1f0f9f8a11", "user_id": "user_00001",
///     "event_time": "2026-01-01T10:00:00Z", "ingest_time": "2026-01-01T10:00:01Z",
///     "event_type": "deposit_completed", "amount": 12.34, "currency": "GBP", "channel": "web"}"#;
/// let body = |json: &'static str| Body {
///     bytes: json.as_bytes(),
///     whole_len: json.len() as u64,
///     at: Position::default(),
///     arrival: Micros(1_767_261_602_000_000),
///     section: None,
/// };
///
/// let event = contract.check(&body(json), 0).expect("a valid event");
/// assert_eq!((event.amount, event.channel), (Pence(1234), Channel::Web));
///
/// let violation = contract.check(&body(r#"{"event_id": "a", "user_id": 7}"#), 0).unwrap_err();
/// assert_eq!(violation.reason, Reason::NullUserId);
/// assert_eq!(violation.event_id.as_deref(), Some("a"));
/// assert_eq!(violation.detail.as_deref(), Some("`user_id` is a number"));
/// ```
#[derive(Clone, Debug)]
pub struct Contract {
    /// How far `event_time` may lie after the arrival, in microseconds.
    pub max_future_skew_us: i64,
    /// Key of the hash that turns an `event_id` which is no UUID into 128 bits.
    pub id_key: [u64; 2],
    /// Whether to carry the members that only the curated table needs.
    pub curated: bool,
}

/// Why a body was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The first rule that failed.
    pub reason: Reason,
    /// `event_id`, when it passed R010.
    pub event_id: Option<String>,
    /// What exactly was wrong, for a person. Short, whatever the body holds.
    pub detail: Option<String>,
}

impl Contract {
    /// Judges one body. `origin` is the index of the worker that decodes it, to be carried in the event.
    ///
    /// # Errors
    ///
    /// The first of the rules R000 to R140 that the body breaks.
    #[inline]
    pub fn check(&self, body: &Body<'_>, origin: u16) -> Result<Event, Violation> {
        match self.check_fast(body, origin) {
            Some(event) => Ok(event),
            None => self.check_strict(body, origin),
        }
    }

    /// Accepts a valid body of the usual shape. `None` says nothing about the body but that it is not of that shape.
    #[inline]
    pub fn check_fast(&self, body: &Body<'_>, origin: u16) -> Option<Event> {
        fast::check(self, body, origin)
    }

    /// Judges a body of any shape, with the same verdict as [`Contract::check`] and several times its cost.
    ///
    /// # Errors
    ///
    /// The first of the rules R000 to R140 that the body breaks.
    pub fn check_strict(&self, body: &Body<'_>, origin: u16) -> Result<Event, Violation> {
        strict::check(self, body, origin)
    }

    /// The identity that an event with this `event_id` has.
    pub fn event_id(&self, event_id: &str) -> EventId {
        identity::event_id(event_id.as_bytes(), self.id_key)
    }

    /// R140: how far `time` lies after `arrival`, in microseconds, if that is too far.
    #[inline]
    fn too_far_ahead(&self, time: Micros, arrival: Micros) -> Option<i64> {
        let ahead = time.0.saturating_sub(arrival.0);
        (ahead > self.max_future_skew_us).then_some(ahead)
    }
}

impl Violation {
    fn new(reason: Reason, detail: impl Into<String>) -> Violation {
        Violation { reason, event_id: None, detail: Some(detail.into()) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

impl std::error::Error for Violation {}
