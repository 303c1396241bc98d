//! What kind of event stands at an offset: an original, sound or faulty, or one that is delivered once more.

use tidemark_dataflows::event::{Offset, PartitionId};
use tidemark_dataflows::reason::Reason;

use super::EventGenerator;
use super::draws::{Draws, mix};

/// How far back, in offsets, a redelivery or a conflicting duplicate reaches.
const MAX_LAG: u64 = 10_000;

/// How often an original is looked for. With `duplicates` = 0.9 one in five searches fails, with 0.1 none ever.
const TRIES: usize = 16;

/// Events before which none is late, since there is no watermark yet.
const WARM_UP: u64 = 1000;

/// The rules that an event can break by itself: R000 to R130, in order.
const RULES: usize = Reason::EventTimeInFuture as usize;

/// What an event is meant to be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sound, and in order.
    Ordinary,
    /// Sound, with an event time up to five minutes behind.
    Disordered,
    /// Sound, with an event time behind the watermark.
    Late,
    /// Breaks this rule, one of R000 to R130.
    Invalid(Reason),
    /// Has all members of the sound original at this offset, but another amount.
    Conflicting(Offset),
}

/// What stands at an offset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The earlier offset whose bytes are delivered once more.
    pub redelivery_of: Option<Offset>,
    /// What the event is; for a redelivery, what the original is.
    pub kind: Kind,
}

/// What a sequence of draws is for. Each has its own, so that adding a draw to one leaves the others alone.
#[derive(Copy, Clone)]
pub(super) enum Purpose {
    Delivery = 1,
    Kind = 2,
    Members = 3,
    Shape = 4,
}

impl EventGenerator {
    /// What stands at `offset` of `partition`.
    pub fn plan(&self, partition: PartitionId, offset: Offset) -> Plan {
        let redelivery_of = self.redelivery_of(partition, offset);
        Plan { redelivery_of, kind: self.kind(partition, redelivery_of.unwrap_or(offset)) }
    }

    /// The draws for one purpose at one offset.
    pub(super) fn draws(&self, purpose: Purpose, partition: PartitionId, offset: Offset) -> Draws {
        let stream = u64::from(partition.0) << 8 | purpose as u64;
        Draws::new(mix(self.options().seed) ^ mix(stream), offset.0)
    }

    /// Whether `offset` would rather deliver an earlier event again.
    fn wants_redelivery(&self, partition: PartitionId, offset: Offset) -> bool {
        self.draws(Purpose::Delivery, partition, offset).unit() < self.options().duplicates
    }

    /// The original that is delivered again at `offset`, if any. Only offsets that do not want a redelivery themselves
    /// are taken, so that no chain has to be followed.
    fn redelivery_of(&self, partition: PartitionId, offset: Offset) -> Option<Offset> {
        let mut draws = self.draws(Purpose::Delivery, partition, offset);
        if draws.unit() >= self.options().duplicates {
            return None;
        }
        earlier(&mut draws, offset).find(|&candidate| !self.wants_redelivery(partition, candidate))
    }

    /// What the original at `offset` is.
    fn kind(&self, partition: PartitionId, offset: Offset) -> Kind {
        let mut draws = self.draws(Purpose::Kind, partition, offset);
        let options = self.options();
        let drawn = draws.unit();
        if drawn < options.invalid {
            return self.fault(partition, offset, &mut draws);
        }
        if drawn < options.invalid + options.late {
            let warm = self.index_in_stream(partition, offset) >= WARM_UP;
            return if warm { Kind::Late } else { Kind::Ordinary };
        }
        if drawn < options.invalid + options.late + options.disordered { Kind::Disordered } else { Kind::Ordinary }
    }

    fn fault(&self, partition: PartitionId, offset: Offset, draws: &mut Draws) -> Kind {
        let rule = draws.below(RULES as u64 + 1) as usize;
        if let Some(&reason) = Reason::ALL[..RULES].get(rule) {
            return Kind::Invalid(reason);
        }
        let is_sound = |&candidate: &Offset| {
            let drawn = self.draws(Purpose::Kind, partition, candidate).unit();
            drawn >= self.options().invalid + self.options().late && !self.wants_redelivery(partition, candidate)
        };
        let target = earlier(draws, offset).find(is_sound);
        target.map_or(Kind::Invalid(Reason::MalformedEvent), Kind::Conflicting)
    }
}

/// Some offsets before `offset`, at most [`MAX_LAG`] back.
fn earlier(draws: &mut Draws, offset: Offset) -> impl Iterator<Item = Offset> {
    let reach = offset.0.min(MAX_LAG);
    let tries = if reach == 0 { 0 } else { TRIES };
    std::iter::repeat_with(move || Offset(offset.0 - 1 - draws.below(reach))).take(tries)
}
