//! Where the consumer of a partition stands: which block is at hand, what has been handed out of it, and the digest of
//! all that lies before. It leaves out where blocks come from.

use tidemark_dataflows::block::{Block, Body};
use tidemark_dataflows::event::Offset;

use super::input::Place;
use crate::source::ContentDigest;

/// A block as the reading thread hands it over. It digests the bodies while their bytes are still in its cache.
pub(super) struct Digested {
    pub(super) block: Block,
    /// Digest of all events before the block.
    pub(super) before: ContentDigest,
    /// Digest of the block's own.
    pub(super) digest: ContentDigest,
    /// Where reading can begin again to give this block.
    pub(super) place: Place,
}

impl Digested {
    /// What it holds in memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.block.bytes.len() + size_of_val(self.block.bodies.as_slice())
    }
}

/// The events of `block` from `start` to before `stop`.
pub(super) fn part(block: &Block, start: usize, stop: usize) -> Block {
    let inside = |&(index, whole): &(u32, u64)| {
        let index = index as usize;
        (start..stop).contains(&index).then(|| ((index - start) as u32, whole))
    };
    Block {
        partition: block.partition,
        first_offset: Offset(block.first_offset.0 + start as u64),
        arrival: block.arrival.clone(),
        bytes: block.bytes.clone(),
        bodies: block.bodies[start..stop].to_vec(),
        oversized: block.oversized.iter().filter_map(inside).collect(),
        sections: Vec::new(),
    }
}

/// The block that was taken last and has not been handed out to its end.
struct AtHand {
    block: Block,
    place: Place,
    /// Digest of everything up to the end of the block.
    through: ContentDigest,
}

impl AtHand {
    fn end(&self) -> u64 {
        self.block.first_offset.0 + self.block.len() as u64
    }
}

/// Where the consumer stands in a partition.
pub(super) struct Cursor {
    at_hand: Option<AtHand>,
    /// Offset of the next event to hand out.
    next: u64,
    /// Digest of the bodies before `next`, where it is known.
    passed: Option<ContentDigest>,
    /// The same as it was when nothing ended the last of them yet, where it may have been another one.
    unended: Option<ContentDigest>,
}

impl Cursor {
    pub(super) fn new() -> Self {
        Self { at_hand: None, next: 0, passed: Some(ContentDigest::EMPTY), unended: None }
    }

    /// Starts at `at`; what lies before it has the digest `before`, if that is known.
    pub(super) fn resume(&mut self, at: Offset, before: Option<ContentDigest>) {
        (self.next, self.passed) = (at.0, before);
    }

    /// How far reading has come, in events: the first offset that can still be handed out.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Digest of everything before [`Self::next`].
    pub(super) fn digest(&self) -> Option<ContentDigest> {
        self.passed
    }

    /// Whether [`Self::digest`] can have been this one, before something ended the last line.
    pub(super) fn can_have_had(&self, digest: ContentDigest) -> bool {
        self.passed == Some(digest) || self.unended == Some(digest)
    }

    /// Takes the block that follows the one at hand, which has been passed.
    pub(super) fn add(&mut self, next: Digested) {
        let through = next.before.followed_by(next.digest, next.block.len() as u32);
        self.next = self.next.max(next.block.first_offset.0);
        self.passed = Some(next.before);
        self.at_hand = Some(AtHand { block: next.block, place: next.place, through });
    }

    /// Passes over what lies before `from`, as far as the block at hand reaches. Returns whether it has come there.
    pub(super) fn reach(&mut self, from: u64) -> bool {
        self.pass(from);
        self.next == from
    }

    /// The next events, at most `max_events` of them, if there is a block at hand.
    pub(super) fn hand_out(&mut self, max_events: usize) -> Option<Block> {
        let block = self.take(max_events)?;
        self.unended =
            self.passed.zip(block.iter().last()).and_then(|(passed, last)| passed.without_space_behind(&last));
        Some(block)
    }

    fn take(&mut self, max_events: usize) -> Option<Block> {
        let at_hand = self.at_hand.as_ref()?;
        let block = &at_hand.block;
        let start = usize::try_from(self.next.checked_sub(block.first_offset.0)?).ok()?;
        let stop = block.len().min(start.saturating_add(max_events));
        if start == 0 && stop == block.len() {
            let at_hand = self.at_hand.take()?;
            self.next = at_hand.end();
            self.passed = Some(at_hand.through);
            return Some(at_hand.block);
        }
        let piece = part(block, start, stop);
        self.pass(self.next + piece.len() as u64);
        Some(piece)
    }

    /// What is left of the block at hand.
    pub(super) fn rest(&self) -> impl Iterator<Item = Body<'_>> {
        let block = self.at_hand.as_ref().map(|at_hand| &at_hand.block);
        block.into_iter().flat_map(|block| {
            let passed = self.next.saturating_sub(block.first_offset.0);
            (usize::try_from(passed).unwrap_or(usize::MAX)..block.len()).filter_map(|index| block.body(index))
        })
    }

    /// Gives the block at hand back: where reading has to begin to get what is left of it, if there was one.
    pub(super) fn release(&mut self) -> Option<(Place, u64)> {
        self.at_hand.take().map(|at_hand| (at_hand.place, self.next))
    }

    /// Moves on to `to`, but not beyond the block at hand. Only a block that is left half-way is digested again.
    fn pass(&mut self, to: u64) {
        let Some(at_hand) = self.at_hand.take_if(|at_hand| to >= at_hand.end()) else {
            return self.pass_inside(to);
        };
        self.next = at_hand.end();
        self.passed = Some(at_hand.through);
    }

    fn pass_inside(&mut self, to: u64) {
        let Some(AtHand { block, .. }) = &self.at_hand else { return };
        let bodies = (self.next..to).map_while(|offset| block.at_offset(Offset(offset)));
        self.passed = self.passed.map(|passed| bodies.fold(passed, |digest, body| digest.with(&body)));
        self.next = self.next.max(to);
    }
}
