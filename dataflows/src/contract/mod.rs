//! The contract: what an event body must look like, and why it is rejected when it does not.

use crate::block::Body;
use crate::event::Event;
use crate::reason::Reason;

/// Settings of the contract that do not change while a pipeline lives.
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
    /// What exactly was wrong, for a person.
    pub detail: Option<String>,
}

impl Contract {
    /// Judges one body.
    pub fn check(&self, _body: &Body<'_>, _origin: u16) -> Result<Event, Violation> {
        Err(Violation { reason: Reason::MalformedEvent, event_id: None, detail: None })
    }
}
