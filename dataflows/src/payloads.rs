//! The cap on payloads: how many bytes of rejected bodies the quarantine keeps.
//!
//! The payload of a rejected event is kept if it takes, together with those of all rejected events before it in its
//! partition and epoch, no more than the cap. So which are kept follows from the events and the cuts alone. Rows always
//! stay, and the cap is no bound on them.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::decode::Rejected;
use crate::event::{Epoch, Offset, PartitionId, Position};

/// Greatest number of bytes that the payloads of a partition and epoch take together; `None` keeps every payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadCap(pub Option<u64>);

/// What has been rejected of an epoch so far, as far as one worker knows.
///
/// That may be less than all of it. So what is refused here is refused in the end as well, and need not be carried that
/// far; what is allowed here may still be refused by [`cap_payloads`], which knows all.
#[derive(Clone, Debug)]
pub struct Allowance {
    cap: PayloadCap,
    /// Newest offset of each partition, and bytes up to it.
    taken: BTreeMap<PartitionId, (Offset, u64)>,
}

impl Allowance {
    /// Nothing so far.
    pub fn new(cap: PayloadCap) -> Self {
        Allowance { cap, taken: BTreeMap::new() }
    }

    /// Notes a payload of `bytes` at a place; returns whether it fits. One that stands before another that was noted
    /// earlier may always pass: what stands before it is not known.
    pub fn admits(&mut self, at: Position, bytes: u64) -> bool {
        let PayloadCap(Some(cap)) = self.cap else { return true };
        let (newest, taken) = self.taken.entry(at.partition).or_insert((at.offset, 0));
        if at.offset < *newest {
            return true;
        }
        *newest = at.offset;
        *taken = taken.saturating_add(bytes);
        *taken <= cap
    }
}

/// Leaves out the payloads that are beyond the cap. Each partition is decided by one worker, once its epoch is closed.
///
/// ```
/// use tidemark_dataflows::decode::Rejected;
/// use tidemark_dataflows::event::{Offset, Position};
/// use tidemark_dataflows::payloads::{PayloadCap, cap_payloads};
/// use tidemark_dataflows::reason::Reason;
/// use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
///
/// let row = |offset, bytes: usize| Rejected {
///     epoch: 0, at: Position { offset: Offset(offset), ..Position::default() }, reason: Reason::MalformedEvent,
///     event_id: None, detail: None, payload: Some(vec![b'x'; bytes]), whole_len: bytes as u64,
/// };
/// let kept = timely::example(move |scope| {
///     let rows = vec![row(2, 1), row(1, 9), row(0, 4)].to_stream(scope).container::<Vec<_>>();
///     cap_payloads(rows, PayloadCap(Some(10))).capture()
/// });
/// let lengths: Vec<_> = kept.extract()[0].1.iter().map(|row| row.payload.as_ref().map(Vec::len)).collect();
/// // The second goes beyond the cap, and everything after it does.
/// assert_eq!(lengths, [Some(4), None, None]);
/// ```
pub fn cap_payloads(rejected: StreamVec<'_, Epoch, Rejected>, cap: PayloadCap) -> StreamVec<'_, Epoch, Rejected> {
    if cap == PayloadCap(None) {
        return rejected;
    }
    let by_partition = Exchange::new(|row: &Rejected| u64::from(row.at.partition.0));
    rejected.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(by_partition, "Cap payloads", |_, _| {
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Vec<Rejected>)> = BTreeMap::new();
        move |(rows, frontier), output| {
            rows.for_each_stamp(|stamp, batches| {
                let Some(epoch) = stamp.least().copied() else { return };
                let (_, held) = open.entry(epoch).or_insert_with(|| (stamp.delayed(&epoch, 0), Vec::new()));
                batches.for_each(|batch| held.append(batch));
            });
            while let Some(entry) = open.first_entry().filter(|e| !frontier.less_equal(e.key())) {
                let (stamp, mut rows) = entry.remove();
                rows.sort_unstable_by_key(|row| row.at);
                let mut allowance = Allowance::new(cap);
                for row in &mut rows {
                    if !allowance.admits(row.at, row.kept_len()) {
                        row.payload = None;
                    }
                }
                output.session(&stamp).give_iterator(rows.into_iter());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32, offset: u64) -> Position {
        Position { partition: PartitionId(partition), offset: Offset(offset) }
    }

    #[test]
    fn each_partition_has_the_whole_cap_and_nothing_fits_after_the_first_that_did_not() {
        let mut allowance = Allowance::new(PayloadCap(Some(10)));
        let asked = [(0, 0, 10), (1, 0, 3), (0, 1, 0), (0, 2, 1), (1, 5, 7), (0, 3, 0), (1, 6, 1)];
        let answers = asked.map(|(partition, offset, bytes)| allowance.admits(at(partition, offset), bytes));
        assert_eq!(answers, [true, true, true, false, true, false, false]);
    }

    #[test]
    fn without_a_cap_everything_fits_and_with_one_of_zero_only_what_is_empty() {
        assert!(Allowance::new(PayloadCap(None)).admits(at(0, 0), u64::MAX));
        let mut none = Allowance::new(PayloadCap(Some(0)));
        assert!(none.admits(at(0, 0), 0) && !none.admits(at(0, 1), 1));
    }

    #[test]
    fn what_comes_out_of_order_is_left_to_those_who_know_more() {
        let mut allowance = Allowance::new(PayloadCap(Some(10)));
        assert!(!allowance.admits(at(0, 9), 11));
        assert!(allowance.admits(at(0, 3), 11));
    }
}
