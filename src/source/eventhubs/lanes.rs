//! From the readers' tasks to the runtime: one bounded lane for each partition, and blocks cut to the size that is
//! asked for.

use std::ops::Range;

use tidemark_dataflows::block::{Arrival, Block, Section};
use tidemark_dataflows::event::{Micros, Offset, PartitionId};
use tidemark_eventhubs::Error;
use tidemark_eventhubs::batch::{self, Batch};
use tokio::sync::mpsc::Receiver;

use crate::source::ContentDigest;

/// What a reader sends: a block with the digest of its bodies, or why it has ended.
pub(super) type Sent = Result<(Block, ContentDigest), Error>;

/// The runtime's end of a lane.
pub(super) struct Lane {
    receiver: Receiver<Sent>,
    /// A block that was not wanted, or not whole. Its digest, unless it is the rest of one.
    at_hand: Option<(Block, Option<ContentDigest>)>,
    failed: Option<Error>,
}

/// What is there.
pub(super) enum Taken {
    /// Events, and the digest of their bodies.
    Block(Block, ContentDigest),
    /// Events that were enqueued too late to be handed out.
    Paused,
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    Failed(Error),
}

impl Lane {
    pub(super) fn new(receiver: Receiver<Sent>) -> Self {
        Lane { receiver, at_hand: None, failed: None }
    }

    /// The next events at or after `from`, if there are any: those before `from + max`, unless the first lies behind that,
    /// and before the first that was enqueued after `limit`.
    pub(super) fn take(&mut self, from: u64, max: usize, limit: Option<Micros>) -> Taken {
        let (block, digest) = loop {
            let (block, digest) = match self.at_hand.take() {
                Some(at_hand) => at_hand,
                None => match self.receiver.try_recv() {
                    Ok(Ok((block, digest))) => (block, Some(digest)),
                    Ok(Err(error)) => return self.failed.insert(error).clone().into(),
                    // A reader that has failed has said why, and says it again whenever it is asked.
                    Err(_) => return self.failed.clone().map_or(Taken::Nothing, Taken::from),
                },
            };
            // A replay passes over what was missing when it was cut, also if it is there now.
            match usize::try_from(from.saturating_sub(block.first_offset.0)).unwrap_or(usize::MAX) {
                0 => break (block, digest),
                before if before >= block.len() => {}
                before => break (split(&block, before).1, None),
            }
        };
        let reach = from.saturating_add(max as u64).saturating_sub(block.first_offset.0);
        let wanted = usize::try_from(reach).unwrap_or(usize::MAX).clamp(1, max).min(up_to(limit, &block));
        if wanted == 0 {
            self.at_hand = Some((block, digest));
            return Taken::Paused;
        }
        if wanted >= block.len() {
            let digest = digest.unwrap_or_else(|| ContentDigest::of(&block));
            return Taken::Block(block, digest);
        }
        let (first, rest) = split(&block, wanted);
        self.at_hand = Some((rest, None));
        let digest = ContentDigest::of(&first);
        Taken::Block(first, digest)
    }
}

impl From<Error> for Taken {
    fn from(error: Error) -> Self {
        Taken::Failed(error)
    }
}

/// A batch as the runtime hands it on.
pub(super) fn block_of(partition: PartitionId, batch: Batch) -> Block {
    Block {
        partition,
        first_offset: Offset(batch.first),
        arrival: Arrival::Each(batch.enqueued_us.into_iter().map(Micros).collect()),
        bytes: batch.bytes,
        bodies: batch.bodies,
        oversized: batch.cut,
        sections: batch.sections.into_iter().map(|(index, section)| (index, named(section))).collect(),
    }
}

/// How many of the first events were enqueued at `limit` or before.
fn up_to(limit: Option<Micros>, block: &Block) -> usize {
    match (&block.arrival, limit) {
        (Arrival::Each(times), Some(limit)) => times.iter().take_while(|time| **time <= limit).count(),
        _ => usize::MAX,
    }
}

fn named(section: batch::Section) -> Section {
    match section {
        batch::Section::Value => Section::Value,
        batch::Section::Sequence => Section::Sequence,
    }
}

/// The first `count` events, and the others. Both share the bytes.
fn split(block: &Block, count: usize) -> (Block, Block) {
    let part = |range: Range<usize>| {
        let shift = |index: u32| {
            let index = (index as usize).checked_sub(range.start).filter(|index| *index < range.len())?;
            u32::try_from(index).ok()
        };
        Block {
            partition: block.partition,
            first_offset: Offset(block.first_offset.0 + range.start as u64),
            arrival: match &block.arrival {
                Arrival::Opening(at) => Arrival::Opening(*at),
                Arrival::Each(times) => Arrival::Each(times.get(range.clone()).unwrap_or_default().into()),
            },
            bytes: block.bytes.clone(),
            bodies: block.bodies.get(range.clone()).unwrap_or_default().to_vec(),
            oversized: block.oversized.iter().filter_map(|(index, whole)| Some((shift(*index)?, *whole))).collect(),
            sections: block.sections.iter().filter_map(|(index, section)| Some((shift(*index)?, *section))).collect(),
        }
    };
    (part(0..count), part(count..block.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use tidemark_eventhubs::ErrorKind;
    use tokio::sync::mpsc::channel;

    fn block(first: u64, bodies: &[&str]) -> (Block, ContentDigest) {
        let mut bytes = Vec::new();
        let range = |body: &&str| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(body.as_bytes());
            start..bytes.len() as u32
        };
        let bodies: Vec<_> = bodies.iter().map(range).collect();
        let enqueued_us = (0..).take(bodies.len()).collect();
        let batch = Batch {
            first,
            bytes: Bytes::from(bytes),
            bodies,
            enqueued_us,
            cut: vec![(1, 99)],
            sections: vec![(2, batch::Section::Value)],
        };
        let block = block_of(PartitionId(0), batch);
        let digest = ContentDigest::of(&block);
        (block, digest)
    }

    fn texts(block: &Block) -> Vec<(u64, String, i64, u64)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        block.iter().map(|body| (body.at.offset.0, text(body.bytes), body.arrival.0, body.whole_len)).collect()
    }

    fn taken(lane: &mut Lane, from: u64, max: usize) -> (Block, ContentDigest) {
        let Taken::Block(block, digest) = lane.take(from, max, None) else { panic!("nothing is there") };
        (block, digest)
    }

    #[test]
    fn blocks_are_cut_to_what_is_wanted_and_digests_add_up() {
        let (sender, receiver) = channel(4);
        let mut lane = Lane::new(receiver);
        let (whole, digest) = block(10, &["a", "bc", "def"]);
        sender.try_send(Ok((whole.clone(), digest))).unwrap();
        let (first, one) = taken(&mut lane, 10, 2);
        let (second, two) = taken(&mut lane, 12, 5);
        let parts: Vec<_> = texts(&first).into_iter().chain(texts(&second)).collect();
        assert_eq!((first.len(), parts), (2, texts(&whole)));
        assert_eq!(ContentDigest::EMPTY.followed_by(one, 2).followed_by(two, 1), digest);
        assert!(matches!(lane.take(13, 1, None), Taken::Nothing));
    }

    #[test]
    fn a_block_behind_a_hole_is_not_read_beyond_what_is_wanted() {
        let (sender, receiver) = channel(4);
        let mut lane = Lane::new(receiver);
        sender.try_send(Ok(block(10, &["a", "b", "c"]))).unwrap();
        assert_eq!(taken(&mut lane, 8, 3).0.len(), 1, "10 is before 8 + 3, 11 is not");
        assert_eq!(taken(&mut lane, 0, 5).0.len(), 1, "the first event is given even if it lies behind");
    }

    #[test]
    fn nothing_is_given_that_was_enqueued_after_the_limit_and_nothing_is_lost_by_it() {
        let (sender, receiver) = channel(4);
        let mut lane = Lane::new(receiver);
        // They were enqueued at 0, 1 and 2.
        let (whole, digest) = block(10, &["a", "b", "c"]);
        sender.try_send(Ok((whole.clone(), digest))).unwrap();
        assert!(matches!(lane.take(10, 9, Some(Micros(-1))), Taken::Paused));
        let Taken::Block(first, one) = lane.take(10, 9, Some(Micros(1))) else { panic!("two may be given") };
        assert_eq!(first.len(), 2);
        assert!(matches!(lane.take(12, 9, Some(Micros(1))), Taken::Paused));
        let (second, two) = taken(&mut lane, 12, 9);
        assert_eq!(texts(&first).into_iter().chain(texts(&second)).collect::<Vec<_>>(), texts(&whole));
        assert_eq!(ContentDigest::EMPTY.followed_by(one, 2).followed_by(two, 1), digest);
        let sections: Vec<_> = first.iter().chain(second.iter()).map(|body| body.section).collect();
        assert_eq!(sections, [None, None, Some(Section::Value)]);
    }

    #[test]
    fn what_lies_before_is_passed_over() {
        let (sender, receiver) = channel(4);
        let mut lane = Lane::new(receiver);
        sender.try_send(Ok(block(10, &["a", "b", "c"]))).unwrap();
        sender.try_send(Ok(block(13, &["d", "e", "f"]))).unwrap();
        let (rest, digest) = taken(&mut lane, 14, 9);
        assert_eq!((rest.first_offset, rest.len()), (Offset(14), 2));
        assert_eq!(digest, ContentDigest::of(&rest));
    }

    #[test]
    fn a_reader_that_failed_is_told_of_again_and_again() {
        let (sender, receiver) = channel(4);
        let mut lane = Lane::new(receiver);
        sender.try_send(Err(Error::new(ErrorKind::Stolen, "x", "y"))).unwrap();
        drop(sender);
        for _ in 0..2 {
            assert!(matches!(lane.take(0, 1, None), Taken::Failed(error) if error.kind() == ErrorKind::Stolen));
        }
    }
}
