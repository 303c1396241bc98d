//! Where the consumer of a partition stands: which block is at hand, what has been handed out of it, and the digest of
//! all that lies before. It leaves out where blocks come from.

use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::Offset;

use crate::source::ContentDigest;

/// A block as the reading thread hands it over. It digests the bodies while their bytes are still in its cache.
pub(super) struct Digested {
    pub(super) block: Block,
    digest: ContentDigest,
}

impl Digested {
    pub(super) fn new(block: Block) -> Self {
        let digest = ContentDigest::of(&block);
        Self { block, digest }
    }
}

/// The events before the place where reading was resumed are not what they were.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differs {
    pub(super) before: Offset,
}

/// Where an earlier run stopped, and the digest of what it had read, if that is known.
#[derive(Copy, Clone)]
struct Resumed {
    at: u64,
    before: Option<ContentDigest>,
}

/// The block that was taken last and has not been handed out to its end.
struct AtHand {
    block: Block,
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
    /// Digest of the bodies before `next`.
    passed: ContentDigest,
    /// Set until the events before it have been compared, and for ever when they differ.
    resumed: Option<Resumed>,
}

impl Cursor {
    pub(super) fn new() -> Self {
        Self { at_hand: None, next: 0, passed: ContentDigest::EMPTY, resumed: None }
    }

    /// Whether nothing has been read yet, so that it can still be told where to start.
    pub(super) fn is_unread(&self) -> bool {
        self.next == 0 && self.at_hand.is_none()
    }

    /// Starts at `at`; what lies before it has the digest `before`.
    pub(super) fn resume(&mut self, at: Offset, before: Option<ContentDigest>) {
        self.resumed = Some(Resumed { at: at.0, before });
    }

    /// How far reading has come, in events.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first offset that can still be handed out.
    pub(super) fn floor(&self) -> u64 {
        self.resumed.map_or(self.next, |resumed| resumed.at)
    }

    /// Digest of everything before [`Self::floor`].
    pub(super) fn digest(&self) -> Option<ContentDigest> {
        self.resumed.map_or(Some(self.passed), |resumed| resumed.before)
    }

    /// Takes the block that follows the one at hand, which has been passed.
    pub(super) fn add(&mut self, next: Digested) {
        let through = self.passed.followed_by(next.digest, next.block.len() as u32);
        self.at_hand = Some(AtHand { block: next.block, through });
    }

    /// Passes over what lies before `from`, as far as the block at hand reaches. Returns whether it has come there,
    /// and then everything before the place of the resumption is what it was.
    pub(super) fn reach(&mut self, from: u64) -> Result<bool, Differs> {
        if let Some(resumed) = self.resumed {
            self.pass(resumed.at);
            if self.next < resumed.at {
                return Ok(false);
            }
            if resumed.before.is_some_and(|before| before != self.passed) {
                return Err(Differs { before: Offset(resumed.at) });
            }
            self.resumed = None;
        }
        self.pass(from);
        Ok(self.next == from)
    }

    /// The next events, at most `max_events` of them, if there is a block at hand.
    pub(super) fn hand_out(&mut self, max_events: usize) -> Option<Block> {
        let at_hand = self.at_hand.as_ref()?;
        let block = &at_hand.block;
        let start = usize::try_from(self.next.checked_sub(block.first_offset.0)?).ok()?;
        let stop = block.len().min(start.saturating_add(max_events));
        if start == 0 && stop == block.len() {
            let at_hand = self.at_hand.take()?;
            self.next = at_hand.end();
            self.passed = at_hand.through;
            return Some(at_hand.block);
        }
        let inside = |&(index, whole): &(u32, u64)| {
            let index = index as usize;
            (start..stop).contains(&index).then(|| ((index - start) as u32, whole))
        };
        let piece = Block {
            partition: block.partition,
            first_offset: Offset(self.next),
            arrival: block.arrival.clone(),
            bytes: block.bytes.clone(),
            bodies: block.bodies[start..stop].to_vec(),
            oversized: block.oversized.iter().filter_map(inside).collect(),
        };
        self.pass(self.next + piece.len() as u64);
        Some(piece)
    }

    /// Moves on to `to`, but not beyond the block at hand. Only a block that is left half-way is digested again.
    fn pass(&mut self, to: u64) {
        let Some(at_hand) = self.at_hand.take_if(|at_hand| to >= at_hand.end()) else {
            return self.pass_inside(to);
        };
        self.next = at_hand.end();
        self.passed = at_hand.through;
    }

    fn pass_inside(&mut self, to: u64) {
        let Some(AtHand { block, .. }) = &self.at_hand else { return };
        let bodies = (self.next..to).map_while(|offset| block.at_offset(Offset(offset)));
        self.passed = bodies.fold(self.passed, |digest, body| digest.with(&body));
        self.next = self.next.max(to);
    }
}
