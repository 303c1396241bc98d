//! Raw blocks to events: the operator around the [`Contract`].
//!
//! Accepted and rejected bodies leave as twin streams, so that bad data is data and never an error of the program.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::{Stream, StreamVec};

use crate::block::{Block, Body, MAX_KEPT_BYTES};
use crate::contract::{Contract, Violation};
use crate::event::{Epoch, Event, Position};
use crate::newest::{EventTimes, Gathering};
use crate::payloads::{Allowance, PayloadCap};
use crate::reason::Reason;
use crate::tally::{Part, Tally};

/// A rejected event, with all that the quarantine keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejected {
    /// The epoch it came in.
    pub epoch: Epoch,
    /// Where it stands in its source.
    pub at: Position,
    /// The first rule that it broke.
    pub reason: Reason,
    /// Its `event_id`, unless the rule is R000 or R010.
    pub event_id: Option<String>,
    /// What exactly was wrong.
    pub detail: Option<String>,
    /// The body, at most [`MAX_KEPT_BYTES`] of it; none where the [cap](crate::payloads) leaves it out.
    pub payload: Option<Vec<u8>>,
    /// Length of the whole body in bytes.
    pub whole_len: u64,
}

impl Rejected {
    /// Keeps of `body` what the quarantine needs, as far as there is room for its payload.
    pub fn new(epoch: Epoch, body: &Body<'_>, violation: Violation, room: &mut Allowance) -> Self {
        let Violation { reason, event_id, detail } = violation;
        let (at, whole_len) = (body.at, body.whole_len);
        let mut rejected = Rejected { epoch, at, reason, event_id, detail, payload: None, whole_len };
        if room.admits(at, rejected.kept_len()) {
            let kept = body.bytes.len().min(MAX_KEPT_BYTES);
            rejected.payload = Some(body.bytes.get(..kept).unwrap_or_default().to_vec());
        }
        rejected
    }

    /// Length of the payload where it is kept, and what it would be where it is left out.
    pub fn kept_len(&self) -> u64 {
        self.whole_len.min(MAX_KEPT_BYTES as u64)
    }
}

/// What [`decode`] makes of blocks.
pub struct Decoded<'s> {
    /// Events that passed R000 to R140.
    pub events: StreamVec<'s, Epoch, Event>,
    /// Events that did not.
    pub rejected: StreamVec<'s, Epoch, Rejected>,
    /// Received and rejected events of this worker, once for each closed epoch that had any.
    pub tallies: StreamVec<'s, Epoch, Part>,
    /// The greatest times of this worker's events, once for each closed epoch that had any, and once for each worker: the
    /// index of the worker that it is meant for stands before it.
    pub times: StreamVec<'s, Epoch, (u64, EventTimes)>,
}

/// What one worker has found in an epoch that is still open.
struct Open {
    for_tallies: Capability<Epoch>,
    for_times: Capability<Epoch>,
    tally: Tally,
    room: Allowance,
    times: Gathering,
}

/// Checks every body of every block against the contract. Payloads of which this worker alone can tell that they are beyond
/// the cap are left out. Of the event times of each partition the `witnesses` greatest are passed on to all workers.
///
/// ```
/// use bytes::Bytes;
/// use tidemark_dataflows::block::{Arrival, Block};
/// use tidemark_dataflows::contract::Contract;
/// use tidemark_dataflows::decode::decode;
/// use tidemark_dataflows::event::Micros;
/// use tidemark_dataflows::payloads::PayloadCap;
/// use tidemark_dataflows::reason::Reason;
/// use timely::dataflow::operators::{Capture, ToStream, rc::SharedStream, capture::Extract};
///
/// let block = Block {
///     partition: Default::default(), first_offset: Default::default(), arrival: Arrival::Opening(Micros(0)),
///     bytes: Bytes::from_static(b"not json"), bodies: vec![0..8], oversized: vec![], sections: vec![],
/// };
/// let contract = Contract { max_future_skew_us: 0, id_key: [1, 2], curated: false };
/// let rejected = timely::example(move |scope| {
///     let blocks = vec![block].to_stream(scope).container::<Vec<_>>().shared();
///     decode(blocks, contract, PayloadCap(None), 10).rejected.capture()
/// });
/// assert_eq!(rejected.extract()[0].1[0].reason, Reason::MalformedEvent);
/// ```
pub fn decode<'s>(
    blocks: Stream<'s, Epoch, Rc<Vec<Block>>>,
    contract: Contract,
    payloads: PayloadCap,
    witnesses: usize,
) -> Decoded<'s> {
    let mut builder = OperatorBuilder::new("Decode".to_owned(), blocks.scope());
    let origin = u16::try_from(blocks.scope().index()).unwrap_or(u16::MAX);
    let peers = blocks.scope().peers();
    let mut input = builder.new_input(blocks, Pipeline);
    let (events_out, events) = builder.new_output();
    let (rejected_out, rejected) = builder.new_output();
    let (tallies_out, tallies) = builder.new_output();
    let (times_out, times) = builder.new_output();
    let mut events_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(events_out);
    let mut rejected_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Rejected>>>::from(rejected_out);
    let mut tallies_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Part>>>::from(tallies_out);
    let mut times_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<(u64, EventTimes)>>>::from(times_out);

    builder.build(move |_| {
        let mut open: BTreeMap<Epoch, Open> = BTreeMap::new();
        move |frontiers| {
            let mut events_out = events_out.activate();
            let mut rejected_out = rejected_out.activate();
            input.for_each_stamp(|cap, batches| {
                let Some(epoch) = cap.least().copied() else { return };
                let mut events = events_out.session(&cap);
                let mut rejected = rejected_out.session(&cap);
                let Open { tally, room, times, .. } = open.entry(epoch).or_insert_with(|| Open {
                    for_tallies: cap.delayed(&epoch, 2),
                    for_times: cap.delayed(&epoch, 3),
                    tally: Tally::default(),
                    room: Allowance::new(payloads),
                    times: Gathering::new(witnesses),
                });
                for body in batches.flat_map(|batch| batch.iter()).flat_map(Block::iter) {
                    tally.received += 1;
                    match contract.check(&body, origin) {
                        Ok(event) => {
                            times.observe(body.at.partition, event.time);
                            events.give(event);
                        }
                        Err(violation) => {
                            tally.reject(violation.reason, 1);
                            rejected.give(Rejected::new(epoch, &body, violation, room));
                        }
                    }
                }
            });
            let (mut tallies_out, mut times_out) = (tallies_out.activate(), times_out.activate());
            while let Some(entry) = open.first_entry().filter(|e| !frontiers[0].less_equal(e.key())) {
                let (epoch, Open { for_tallies, for_times, mut tally, times, .. }) = entry.remove_entry();
                if let Some(times) = times.close(epoch) {
                    tally.newest = times.greatest();
                    times_out.session(&for_times).give_iterator(times.to_all(peers));
                }
                tallies_out.session(&for_tallies).give(Part { epoch, tally, times: None });
            }
        }
    });
    Decoded { events, rejected, tallies, times }
}
