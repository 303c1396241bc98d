//! The composition: the whole computation on one page.
//!
//! To add a metric, write its [`GroupBy`](crate::metrics::GroupBy) in a file of its own below `metrics`, and add a line
//! here and a field to [`Outputs`].

use timely::dataflow::StreamVec;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::rc::SharedStream;
use timely::dataflow::operators::vec::Map;

use crate::arrangement::{Settings as IndexSettings, SharedArrangement, TimeBoundedArrangement};
use crate::block::Block;
use crate::contract::Contract;
use crate::decode::{Rejected, decode};
use crate::distinct::distinct_within_watermark;
use crate::event::{Epoch, EpochMark, UserId};
use crate::metrics::{Accepted, ByChannel, ByUser, ChannelKey, Row, net_flow, running_totals};
use crate::quarantine::quarantine;
use crate::tally::{EpochSummary, summaries};

/// What the computation depends on besides its input.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules about single events.
    pub contract: Contract,
    /// What is remembered of the stream, and for how long.
    pub index: IndexSettings,
}

/// What goes in, on each worker.
pub struct Inputs<'s> {
    /// Raw bodies, each block on any one worker, at the time of its epoch.
    pub blocks: StreamVec<'s, Epoch, Block>,
    /// One mark for each epoch, on every worker.
    pub marks: StreamVec<'s, Epoch, EpochMark>,
}

/// What comes out, at the time of the epoch that it belongs to.
pub struct Outputs<'s> {
    /// M1, on worker 0: one row for each epoch that accepted anything.
    pub net_flow: StreamVec<'s, Epoch, Row<()>>,
    /// M2, each user on one worker.
    pub users: StreamVec<'s, Epoch, Row<UserId>>,
    /// M3.
    pub channels: StreamVec<'s, Epoch, Row<ChannelKey>>,
    /// Every accepted event, for the curated table.
    pub accepted: Accepted<'s>,
    /// Every rejected event, on the worker that decoded it.
    pub rejected: StreamVec<'s, Epoch, Rejected>,
    /// One for each epoch, on worker 0.
    pub summaries: StreamVec<'s, Epoch, EpochSummary>,
    /// The remembered ids of this worker.
    pub remembered: SharedArrangement,
}

/// Builds the computation.
pub fn tidemark<'s>(inputs: Inputs<'s>, settings: &Settings) -> Outputs<'s> {
    let blocks = inputs.blocks.shared();
    let decoded = decode(blocks.clone(), settings.contract.clone());
    let remembered = TimeBoundedArrangement::shared(settings.index);
    let distinct = distinct_within_watermark(decoded.events, inputs.marks.clone(), remembered.clone(), None);
    let accepted = distinct.accepted.shared();

    let users = running_totals::<ByUser>(accepted.clone());
    let channels = running_totals::<ByChannel>(accepted.clone());
    let net_flow = net_flow(channels.clone());

    let refused = quarantine(blocks, distinct.refused, settings.contract.clone());
    let tallies = decoded.tallies.concat(distinct.tallies.map(|tally| (tally.epoch, tally.into())));

    Outputs {
        net_flow,
        users,
        channels,
        accepted,
        rejected: decoded.rejected.concat(refused),
        summaries: summaries(tallies, inputs.marks),
        remembered,
    }
}
