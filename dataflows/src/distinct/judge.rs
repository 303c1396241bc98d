//! The verdicts of one closed epoch, apart from the dataflow around them.
//!
//! The events of an epoch come in any order, and nearly all of their ids occur once. So one pass admits whatever comes
//! first, and only the ids that are met again within the epoch are put in order of position afterwards.

use hashbrown::HashTable;

use super::{DistinctTally, Refusal};
use crate::arrangement::{Admission, Fingerprint, TimeBoundedArrangement};
use crate::event::{Epoch, Event, EventId, Micros, Position};
use crate::reason::Reason;
use crate::watermark::EpochTimes;

/// How many events are looked up ahead of their admission: enough to keep the memory busy, few enough to stay in cache.
const LOOK_AHEAD: usize = 64;

/// An event that was not accepted in passing, with what its verdict needs.
#[derive(Copy, Clone)]
struct Claim {
    hash: u64,
    id: EventId,
    at: Position,
    origin: u16,
    time: Micros,
    fingerprint: Fingerprint,
}

impl Claim {
    fn of(event: &Event, hash: u64, fingerprint: Fingerprint) -> Self {
        Claim { hash, id: event.id, at: event.at, origin: event.origin, time: event.time, fingerprint }
    }
}

/// The accepted event of an id that was met more than once in the epoch.
struct Winner {
    hash: u64,
    id: EventId,
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
        let DistinctTally { epoch, watermark, .. } = self.tally;
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
    probes: Vec<(u64, Fingerprint)>,
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
        let EpochTimes { watermark, newest_in_epoch, newest } = times;
        let (accepted, duplicates, late, conflicting, retained) = (0, 0, 0, 0, 0);
        let tally = DistinctTally {
            epoch,
            accepted,
            duplicates,
            late,
            conflicting,
            retained,
            watermark,
            newest_in_epoch,
            newest,
        };
        let mut verdicts = Verdicts { refused: Vec::new(), tally };
        let received: usize = batches.iter().map(Vec::len).sum();

        index.advance(watermark);
        for batch in batches.iter_mut() {
            self.admit(index, batch, &mut verdicts);
        }
        self.late.retain(|claim| match index.lookup(claim.hash, claim.id, epoch) {
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
        let DistinctTally { epoch, watermark, .. } = verdicts.tally;
        let Judge { probes, late, contested } = self;
        let hashes = index.hashes();
        probes.clear();
        probes.extend(batch.iter().map(|event| (hashes.index(event.id), hashes.fingerprint(event))));
        let mut next = 0;
        batch.retain(|event| {
            if next % LOOK_AHEAD == 0 {
                index.look_ahead(probes[next..].iter().take(LOOK_AHEAD).map(|(hash, _)| *hash));
            }
            let (hash, fingerprint) = probes[next];
            next += 1;
            // `None` is less than any watermark and any time.
            if Some(event.time) <= watermark {
                late.push(Claim::of(event, hash, fingerprint));
                return false;
            }
            match index.admit(hash, event.id, event.time, fingerprint, epoch) {
                Admission::New => return true,
                Admission::Earlier(known) => verdicts.repeated(&Claim::of(event, hash, fingerprint), known.fingerprint),
                Admission::ThisEpoch(_) => contested.push((event.clone(), Claim::of(event, hash, fingerprint))),
            }
            false
        });
    }

    /// Settles the ids that were met more than once in the epoch: the least position wins, and whatever is late and
    /// stands before the winner came before the id was remembered.
    fn order(&mut self, index: &mut TimeBoundedArrangement, batches: &mut [Vec<Event>], verdicts: &mut Verdicts) {
        let mut winners: HashTable<Winner> = HashTable::new();
        for claim in self.late.iter().chain(self.contested.iter().map(|(_, claim)| claim)) {
            let Claim { hash, id, .. } = *claim;
            winners.entry(hash, |winner| winner.id == id, |winner| winner.hash).or_insert(Winner {
                hash,
                id,
                at: Position::default(),
                place: None,
            });
        }
        for (b, batch) in batches.iter().enumerate() {
            for (i, event) in batch.iter().enumerate() {
                if let Some(winner) = winners.find_mut(index.hash(event.id), |winner| winner.id == event.id) {
                    (winner.at, winner.place) = (event.at, Some((b, i)));
                }
            }
        }
        let epoch = verdicts.tally.epoch;
        let mut losers = Vec::with_capacity(self.contested.len());
        for (mut event, mut claim) in self.contested.drain(..) {
            if let Some(winner) = winners.find_mut(claim.hash, |winner| winner.id == claim.id)
                && let Some((b, i)) = winner.place
                && event.at < winner.at
            {
                winner.at = event.at;
                let hashes = index.hashes();
                index.replace(event.id, event.time, claim.fingerprint, epoch);
                std::mem::swap(&mut batches[b][i], &mut event);
                claim = Claim::of(&event, claim.hash, hashes.fingerprint(&event));
            }
            losers.push(claim);
        }
        for claim in losers {
            if let Some(known) = index.get(claim.id, verdicts.tally.watermark) {
                verdicts.repeated(&claim, known.fingerprint);
            }
        }
        for claim in self.late.drain(..) {
            let winner = winners.find(claim.hash, |winner| winner.id == claim.id);
            let before = winner.is_some_and(|winner| winner.place.is_some() && claim.at < winner.at);
            match index.get(claim.id, verdicts.tally.watermark) {
                Some(known) if !before => verdicts.repeated(&claim, known.fingerprint),
                _ => verdicts.late(&claim),
            }
        }
    }
}
