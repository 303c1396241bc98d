//! The verdicts of one closed epoch, apart from the dataflow around them.
//!
//! The events of an epoch come in any order, and nearly all of their ids occur once. So one pass admits whatever comes
//! first, and only the ids that are met again within the epoch are put in order of position afterwards.

use hashbrown::HashTable;

use super::{DistinctTally, Refusal};
use crate::arrangement::{Admission, Fingerprint, Scrambled, TimeBoundedArrangement};
use crate::event::{Epoch, Event, EventId, Micros, Position};
use crate::reason::Reason;
use crate::watermark::EpochTimes;

/// How many events are looked up ahead of their admission: enough to keep the memory busy, few enough to stay in cache.
const LOOK_AHEAD: usize = 64;

/// An event that was not accepted in passing, with what its verdict needs.
#[derive(Copy, Clone)]
struct Claim {
    key: Scrambled,
    id: EventId,
    at: Position,
    origin: u16,
    time: Micros,
    fingerprint: Fingerprint,
}

impl Claim {
    fn of(event: &Event, key: Scrambled, fingerprint: Fingerprint) -> Self {
        Claim { key, id: event.id, at: event.at, origin: event.origin, time: event.time, fingerprint }
    }
}

/// The accepted event of an id that was met more than once in the epoch.
struct Winner {
    key: Scrambled,
    at: Position,
    /// Which batch, and which event of it; `None` if the id was accepted in an earlier epoch after all.
    place: Option<(usize, usize)>,
}

/// What was decided about an epoch, but for the accepted events.
#[derive(Debug)]
pub struct Verdicts {
    /// The late and the conflicting events, in no order.
    pub refused: Vec<Refusal>,
    /// The counts.
    pub tally: DistinctTally,
}

impl Verdicts {
    fn refuse(&mut self, claim: &Claim, reason: Reason) {
        let Claim { id, at, origin, time, .. } = *claim;
        let DistinctTally { epoch, times: EpochTimes { watermark, .. }, .. } = self.tally;
        self.refused.push(Refusal { epoch, at, origin, reason, id, time, watermark });
    }

    fn late(&mut self, claim: &Claim) {
        self.tally.late += 1;
        self.refuse(claim, Reason::LateEvent);
    }

    /// The id is remembered: a plain repetition, or a conflict.
    fn repeated(&mut self, claim: &Claim, accepted: Fingerprint) {
        if claim.fingerprint == accepted {
            self.tally.duplicates += 1;
        } else {
            self.tally.conflicting += 1;
            self.refuse(claim, Reason::ConflictingDuplicate);
        }
    }
}

/// Decides epoch after epoch; keeps its buffers.
#[derive(Default)]
pub struct Judge {
    probes: Vec<(Scrambled, Fingerprint)>,
    /// At or before the watermark, whether or not their id is remembered.
    late: Vec<Claim>,
    /// In time, but another event of this epoch had been admitted with their id, as they came.
    contested: Vec<(Event, Claim)>,
}

impl Judge {
    /// Decides one epoch; leaves the accepted events in `batches`, and the index as of the end of the epoch. Epochs are
    /// closed in order.
    pub fn close(
        &mut self,
        index: &mut TimeBoundedArrangement,
        epoch: Epoch,
        times: EpochTimes,
        batches: &mut [Vec<Event>],
    ) -> Verdicts {
        let watermark = times.watermark;
        let (accepted, duplicates, late, conflicting, retained) = (0, 0, 0, 0, 0);
        let tally = DistinctTally { epoch, accepted, duplicates, late, conflicting, retained, times };
        let mut verdicts = Verdicts { refused: Vec::new(), tally };
        let received: usize = batches.iter().map(Vec::len).sum();

        index.advance(watermark);
        for batch in batches.iter_mut() {
            self.admit(index, batch, &mut verdicts);
        }
        self.late.retain(|claim| match index.lookup(claim.key, epoch) {
            None => {
                verdicts.late(claim);
                false
            }
            Some(Admission::Earlier(known)) => {
                verdicts.repeated(claim, known.fingerprint);
                false
            }
            Some(_) => true,
        });
        if !(self.late.is_empty() && self.contested.is_empty()) {
            self.order(index, batches, &mut verdicts);
        }

        verdicts.tally.accepted = batches.iter().map(|batch| batch.len() as u64).sum();
        verdicts.tally.retained = index.retained(watermark) as u64;
        let rate = index.settings().sweep;
        index.sweep(received.saturating_mul(rate.cells_per_event).saturating_add(rate.cells_per_epoch));
        verdicts
    }

    /// Keeps in `batch` the events whose ids were not known when they came.
    fn admit(&mut self, index: &mut TimeBoundedArrangement, batch: &mut Vec<Event>, verdicts: &mut Verdicts) {
        let DistinctTally { epoch, times: EpochTimes { watermark, .. }, .. } = verdicts.tally;
        let Judge { probes, late, contested } = self;
        let hashes = index.hashes();
        probes.clear();
        probes.extend(batch.iter().map(|event| (hashes.scramble(event.id), hashes.fingerprint(event))));
        let mut next = 0;
        batch.retain(|event| {
            if next % LOOK_AHEAD == 0 {
                index.look_ahead(probes[next..].iter().take(LOOK_AHEAD).map(|(key, _)| *key));
            }
            let (key, fingerprint) = probes[next];
            next += 1;
            // `None` is less than any watermark and any time.
            if Some(event.time) <= watermark {
                late.push(Claim::of(event, key, fingerprint));
                return false;
            }
            match index.admit(key, event.time, fingerprint, epoch) {
                Admission::New => return true,
                Admission::Earlier(known) => verdicts.repeated(&Claim::of(event, key, fingerprint), known.fingerprint),
                Admission::ThisEpoch(_) => contested.push((event.clone(), Claim::of(event, key, fingerprint))),
            }
            false
        });
    }

    /// Settles the ids that were met more than once in the epoch: the least position wins, and whatever is late and
    /// stands before the winner came before the id was remembered.
    fn order(&mut self, index: &mut TimeBoundedArrangement, batches: &mut [Vec<Event>], verdicts: &mut Verdicts) {
        let mut winners: HashTable<Winner> = HashTable::new();
        for claim in self.late.iter().chain(self.contested.iter().map(|(_, claim)| claim)) {
            let key = claim.key;
            winners.entry(key.hash(), |winner| winner.key == key, |winner| winner.key.hash()).or_insert(Winner {
                key,
                at: Position::default(),
                place: None,
            });
        }
        for (b, batch) in batches.iter().enumerate() {
            for (i, event) in batch.iter().enumerate() {
                let key = index.key(event.id);
                if let Some(winner) = winners.find_mut(key.hash(), |winner| winner.key == key) {
                    (winner.at, winner.place) = (event.at, Some((b, i)));
                }
            }
        }
        let epoch = verdicts.tally.epoch;
        let mut losers = Vec::with_capacity(self.contested.len());
        for (mut event, mut claim) in self.contested.drain(..) {
            if let Some(winner) = winners.find_mut(claim.key.hash(), |winner| winner.key == claim.key)
                && let Some((b, i)) = winner.place
                && event.at < winner.at
            {
                winner.at = event.at;
                let hashes = index.hashes();
                index.replace(event.id, event.time, claim.fingerprint, epoch);
                std::mem::swap(&mut batches[b][i], &mut event);
                claim = Claim::of(&event, claim.key, hashes.fingerprint(&event));
            }
            losers.push(claim);
        }
        for claim in losers {
            if let Some(known) = index.get(claim.id, verdicts.tally.times.watermark) {
                verdicts.repeated(&claim, known.fingerprint);
            }
        }
        for claim in self.late.drain(..) {
            let winner = winners.find(claim.key.hash(), |winner| winner.key == claim.key);
            let before = winner.is_some_and(|winner| winner.place.is_some() && claim.at < winner.at);
            match index.get(claim.id, verdicts.tally.times.watermark) {
                Some(known) if !before => verdicts.repeated(&claim, known.fingerprint),
                _ => verdicts.late(&claim),
            }
        }
    }
}
