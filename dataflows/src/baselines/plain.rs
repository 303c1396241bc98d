//! One plain thread, without dataflow and without anything that survives it.

use differential_dataflow::difference::Semigroup;
use hashbrown::HashMap;

use crate::block::Body;
use crate::contract::Contract;
use crate::event::UserId;
use crate::metrics::Totals;

/// The speed of light of this problem: decodes, looks each id up in a hash map, and adds to totals. It knows no epochs, no
/// late events and no conflicts, forgets nothing and publishes nothing; what comes beside it is measured in it.
///
/// ```
/// use tidemark_dataflows::baselines::Plain;
/// use tidemark_dataflows::block::Body;
/// use tidemark_dataflows::contract::Contract;
/// use tidemark_dataflows::event::{Micros, Position};
///
/// let mut plain = Plain::new(Contract { max_future_skew_us: 0, id_key: [1, 2], curated: false }, 10);
/// let json = r#"{"event_id": "a", "user_id": "u", "event_time": "2026-01-01T10:00:00Z", "ingest_time":
///     "2026-01-01T10:00:01Z", "event_type": "deposit_completed", "amount": 1, "currency": "GBP", "channel": "web"}"#;
/// let arrival = Micros(1_767_261_602_000_000);
/// let body = Body { bytes: json.as_bytes(), whole_len: json.len() as u64, at: Position::default(), arrival, section: None };
/// assert_eq!([plain.take(&body), plain.take(&body)], [true, false]);
/// ```
pub struct Plain {
    contract: Contract,
    seen: HashMap<u128, i64>,
    users: HashMap<UserId, Totals>,
    channels: [Totals; 6],
}

impl Plain {
    /// With room for so many ids.
    pub fn new(contract: Contract, ids: usize) -> Plain {
        let (seen, users) = (HashMap::with_capacity(ids), HashMap::new());
        Plain { contract, seen, users, channels: [Totals::NONE; 6] }
    }

    /// Takes an event; returns whether it counts.
    #[inline]
    pub fn take(&mut self, body: &Body<'_>) -> bool {
        let Ok(event) = self.contract.check(body, 0) else { return false };
        if self.seen.insert(event.id.0, event.time.0).is_some() {
            return false;
        }
        let totals = Totals::of(&event);
        self.channels[event.channel as usize * 2 + event.event_type as usize].plus_equals(&totals);
        self.users.entry(event.user).or_insert(Totals::NONE).plus_equals(&totals);
        true
    }
}
