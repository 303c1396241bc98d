//! Counting every event once more, apart from the metrics: what became of each, per epoch.
//!
//! received = accepted + duplicates + rejected, in every epoch. Partial tallies come from the workers that decode and
//! from the workers that deduplicate; they are summed on worker 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;

use crate::distinct::DistinctTally;
use crate::event::{Epoch, EpochMark, Micros};
use crate::reason::Reason;
use crate::watermark::{EpochTimes, HeldBack};

/// What became of the events of one epoch, or of some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tally {
    /// Events that came in.
    pub received: u64,
    /// Events counted in the metrics.
    pub accepted: u64,
    /// Events that repeat an accepted one.
    pub duplicates: u64,
    /// Rejected events by rule, in the order of [`Reason::ALL`].
    pub rejected: [u64; Reason::COUNT],
    /// Ids remembered under the epoch's watermark, after the epoch.
    pub retained_ids: u64,
    /// Greatest event time of those that passed R000 to R140.
    pub newest: Option<Micros>,
    /// The watermark of the epoch; none before the first event.
    pub watermark: Option<Micros>,
}

impl Tally {
    /// Adds the tally of other events of the same epoch.
    pub fn add(&mut self, other: &Tally) {
        self.received += other.received;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected.iter_mut().zip(other.rejected).for_each(|(mine, theirs)| *mine += theirs);
        self.retained_ids += other.retained_ids;
        self.newest = self.newest.max(other.newest);
        self.watermark = self.watermark.max(other.watermark);
    }

    /// Counts `n` events rejected for `reason`.
    pub fn reject(&mut self, reason: Reason, n: u64) {
        self.rejected[reason as usize] += n;
    }

    /// Events rejected for `reason`.
    pub fn rejected_for(&self, reason: Reason) -> u64 {
        self.rejected[reason as usize]
    }

    /// Events rejected for any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }
}

/// What one worker says of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// The epoch.
    pub epoch: Epoch,
    /// What became of the events that it decoded, or of those whose ids it owns.
    pub tally: Tally,
    /// Event time as the epoch sees it, from those who derive the watermark: the same on all workers.
    pub times: Option<EpochTimes>,
}

impl From<DistinctTally> for Part {
    fn from(part: DistinctTally) -> Self {
        let DistinctTally { epoch, accepted, duplicates, late, conflicting, retained, times } = part;
        let watermark = times.watermark;
        let mut tally = Tally { accepted, duplicates, retained_ids: retained, watermark, ..Tally::default() };
        tally.reject(Reason::LateEvent, late);
        tally.reject(Reason::ConflictingDuplicate, conflicting);
        Part { epoch, tally, times: Some(times) }
    }
}

/// One closed epoch in figures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochSummary {
    /// The epoch, and when it was opened and closed.
    pub mark: EpochMark,
    /// What became of its events.
    pub tally: Tally,
    /// The watermark of the epoch after it.
    pub next_watermark: Option<Micros>,
    /// The partition that held that watermark back, if one did.
    pub held_back: Option<HeldBack>,
}

/// Sums partial tallies into one summary for each marked epoch, on worker 0, events or none.
///
/// ```
/// use tidemark_dataflows::event::{EpochMark, Micros};
/// use tidemark_dataflows::tally::{summaries, Part, Tally};
/// use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
///
/// let mark = EpochMark { epoch: 0, opened: Micros(1), closed: Micros(2), missing: 0, waits: true };
/// let part = |received| Part { tally: Tally { received, ..Tally::default() }, ..Part::default() };
/// let out = timely::example(move |scope| {
///     let parts = vec![part(3), part(4)].to_stream(scope).container::<Vec<_>>();
///     summaries(parts, vec![mark].to_stream(scope).container::<Vec<_>>()).capture()
/// });
/// let (_, summaries) = out.extract().remove(0);
/// assert_eq!((summaries[0].mark, summaries[0].tally.received), (mark, 7));
/// ```
pub fn summaries<'s>(
    parts: StreamVec<'s, Epoch, Part>,
    marks: StreamVec<'s, Epoch, EpochMark>,
) -> StreamVec<'s, Epoch, EpochSummary> {
    let first_worker = parts.scope().index() == 0;
    let pact = Exchange::new(|_: &Part| 0);
    parts.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        marks,
        pact,
        Pipeline,
        "Summaries",
        |_, _| {
            let mut sums: BTreeMap<Epoch, (Tally, EpochTimes)> = BTreeMap::new();
            let mut open = BTreeMap::new();
            move |(parts, parts_frontier), (marks, marks_frontier), output| {
                parts.for_each(|_, batch| {
                    for part in batch.drain(..) {
                        let (tally, times) = sums.entry(part.epoch).or_default();
                        tally.add(&part.tally);
                        *times = part.times.unwrap_or(*times);
                    }
                });
                marks.for_each(|cap, batch| {
                    for mark in batch.drain(..).filter(|_| first_worker) {
                        open.insert(mark.epoch, (cap.delayed(&mark.epoch, 0), mark));
                    }
                });
                let closed = |epoch: &Epoch| !parts_frontier.less_equal(epoch) && !marks_frontier.less_equal(epoch);
                while let Some(entry) = open.first_entry().filter(|e| closed(e.key())) {
                    let (epoch, (cap, mark)) = entry.remove_entry();
                    let (tally, times) = sums.remove(&epoch).unwrap_or_default();
                    let EpochTimes { next_watermark, held_back, .. } = times;
                    output.session(&cap).give(EpochSummary { mark, tally, next_watermark, held_back });
                }
            }
        },
    )
}
