//! Bringing a verdict of the stream rules back to the bytes that it is about.
//!
//! R200 and R210 are decided on the worker that remembers the id, far from the body. Sending bodies along with events
//! would make every event pay for the few that are refused; so the worker that decoded a block keeps it until its
//! epoch is decided, and refusals travel back to it.

use std::collections::BTreeMap;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::{Stream, StreamVec};

use crate::block::{Block, Body};
use crate::contract::{Contract, Violation};
use crate::decode::Rejected;
use crate::distinct::Refusal;
use crate::event::{Epoch, Position};
use crate::payloads::{Allowance, PayloadCap};
use crate::reason::Reason;

/// The blocks and refusals of an epoch that is not decided yet.
struct Open {
    cap: Capability<Epoch>,
    blocks: Vec<Rc<Vec<Block>>>,
    refusals: Vec<Refusal>,
}

impl Open {
    fn new(cap: Capability<Epoch>) -> Self {
        Open { cap, blocks: Vec::new(), refusals: Vec::new() }
    }

    /// The epoch's blocks by the position of their first body.
    fn by_position(&self) -> BTreeMap<Position, &Block> {
        let blocks = self.blocks.iter().flat_map(|batch| batch.iter());
        blocks.map(|block| (Position { partition: block.partition, offset: block.first_offset }, block)).collect()
    }
}

/// Joins refusals with the bodies they are about.
///
/// `blocks` are those this worker decoded; a refusal is routed to the worker it names as its origin. Payloads of which this
/// worker alone can tell that they are beyond the cap are left out.
///
/// ```
/// use bytes::Bytes;
/// use tidemark_dataflows::block::{Arrival, Block};
/// use tidemark_dataflows::contract::Contract;
/// use tidemark_dataflows::distinct::Refusal;
/// use tidemark_dataflows::event::Micros;
/// use tidemark_dataflows::payloads::PayloadCap;
/// use tidemark_dataflows::quarantine::quarantine;
/// use tidemark_dataflows::reason::Reason;
/// use timely::dataflow::operators::{Capture, ToStream, rc::SharedStream, capture::Extract};
///
/// let block = Block {
///     partition: Default::default(), first_offset: Default::default(), arrival: Arrival::Opening(Micros(0)),
///     bytes: Bytes::from_static(b"{}"), bodies: vec![0..2], oversized: vec![], sections: vec![],
/// };
/// let refusal = Refusal {
///     epoch: 0, at: Default::default(), origin: 0, reason: Reason::LateEvent, id: Default::default(), time: Micros(5),
///     watermark: Some(Micros(9)),
/// };
/// let contract = Contract { max_future_skew_us: 0, id_key: [1, 2], curated: false };
/// let rejected = timely::example(move |scope| {
///     let blocks = vec![block].to_stream(scope).container::<Vec<_>>().shared();
///     let refusals = vec![refusal].to_stream(scope).container::<Vec<_>>();
///     quarantine(blocks, refusals, contract, PayloadCap(None)).capture()
/// });
/// assert_eq!(rejected.extract()[0].1[0].payload.as_deref(), Some(&b"{}"[..]));
/// ```
pub fn quarantine<'s>(
    blocks: Stream<'s, Epoch, Rc<Vec<Block>>>,
    refusals: StreamVec<'s, Epoch, Refusal>,
    contract: Contract,
    payloads: PayloadCap,
) -> StreamVec<'s, Epoch, Rejected> {
    let to_origin = Exchange::new(|refusal: &Refusal| u64::from(refusal.origin));
    blocks.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        refusals,
        Pipeline,
        to_origin,
        "Quarantine",
        |_, _| {
            let mut open: BTreeMap<Epoch, Open> = BTreeMap::new();
            move |(blocks, blocks_frontier), (refusals, refusals_frontier), output| {
                blocks.for_each_stamp(|cap, batches| {
                    let Some(epoch) = cap.least().copied() else { return };
                    let slot = open.entry(epoch).or_insert_with(|| Open::new(cap.delayed(&epoch, 0)));
                    slot.blocks.extend(batches.map(|batch| Rc::clone(batch)));
                });
                refusals.for_each_stamp(|cap, batches| {
                    let Some(epoch) = cap.least().copied() else { return };
                    let slot = open.entry(epoch).or_insert_with(|| Open::new(cap.delayed(&epoch, 0)));
                    batches.for_each(|batch| slot.refusals.append(batch));
                });
                let closed = |epoch: &Epoch| !blocks_frontier.less_equal(epoch) && !refusals_frontier.less_equal(epoch);
                while let Some(entry) = open.first_entry().filter(|e| closed(e.key())) {
                    let (epoch, mut decided) = entry.remove_entry();
                    decided.refusals.sort_unstable_by_key(|refusal| refusal.at);
                    let mut room = Allowance::new(payloads);
                    let blocks = decided.by_position();
                    let mut session = output.session(&decided.cap);
                    for refusal in &decided.refusals {
                        let block = blocks.range(..=refusal.at).next_back().map(|(_, block)| *block);
                        if let Some(body) = block.and_then(|block| block.at_offset(refusal.at.offset)) {
                            let violation = violation(&contract, &body, refusal);
                            session.give(Rejected::new(epoch, &body, violation, &mut room));
                        }
                    }
                }
            }
        },
    )
}

/// The refusal in the words of the contract. The body is read once more for the id as its producer wrote it.
fn violation(contract: &Contract, body: &Body<'_>, refusal: &Refusal) -> Violation {
    let with_id = Contract { curated: true, ..contract.clone() };
    let event_id = with_id.check(body, refusal.origin).ok().and_then(|event| event.curated).map(|c| c.event_id);
    let detail = match (refusal.reason, refusal.watermark) {
        (Reason::LateEvent, Some(watermark)) => {
            let behind_us = watermark.0.saturating_sub(refusal.time.0);
            let (seconds, fraction) = (behind_us / 1_000_000, behind_us % 1_000_000);
            format!("event_time is {seconds}.{fraction:06} s behind the watermark of its epoch")
        }
        _ => "an event with this id and another user, time, type, amount or channel was accepted before".to_owned(),
    };
    Violation { reason: refusal.reason, event_id, detail: Some(detail) }
}
