//! Which epoch took an event, as far as that can still be told.

use std::collections::BTreeMap;

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::journal::Past;
use tidemark_checkpoint::records::Cut;

/// The stored cuts by partition, and what follows from the settings where they are gone.
pub(super) struct Epochs {
    /// By index of the partition and first offset: one past the last offset, and the epoch.
    ranges: BTreeMap<(u32, u64), (u64, u64)>,
    /// How far each partition has been cut, by its index; `None` where no checkpoint tells.
    cut: Option<BTreeMap<u32, u64>>,
    /// Events of each file in an epoch, where that is fixed.
    events: Option<u64>,
    /// Index of the inbox, where it is known.
    inbox: Option<u32>,
}

impl Epochs {
    /// The epochs of a pipeline. `events` is how many events of each file an epoch has, if it is that kind of source.
    pub(super) fn new(past: Option<&Past>, events: Option<u64>) -> Self {
        let cuts = past.into_iter().flat_map(|past| past.cuts.values());
        let mut ranges = BTreeMap::new();
        let mut cut = BTreeMap::new();
        let positions = past.and_then(|past| past.manifests.first()).map(|found| &found.manifest.positions);
        for position in positions.into_iter().flatten() {
            cut.insert(position.index, position.next);
        }
        let inbox = positions.and_then(|all| all.last()).filter(|last| last.partition == inbox::PARTITION);
        for (epoch, range) in cuts.flat_map(|Cut { epoch, ranges, .. }| ranges.iter().map(move |range| (*epoch, range)))
        {
            ranges.insert((range.index, range.from), (range.to, epoch));
            let end = cut.entry(range.index).or_insert(0);
            *end = range.to.max(*end);
        }
        Epochs { ranges, cut: past.map(|_| cut), events, inbox: inbox.map(|last| last.index) }
    }

    /// How far a partition has been cut; `None` where that is not known.
    pub(super) fn cut_to(&self, partition: u32) -> Option<u64> {
        self.cut.as_ref().map(|cut| cut.get(&partition).copied().unwrap_or(0))
    }

    /// Index of the inbox.
    pub(super) fn inbox(&self) -> Option<u32> {
        self.inbox
    }

    /// The epoch that took an event, and whether it was computed instead of read.
    pub(super) fn of(&self, partition: u32, offset: u64) -> Option<(u64, bool)> {
        let before = self.ranges.range(..=(partition, offset)).next_back();
        let stored = before.filter(|((index, _), (to, _))| *index == partition && offset < *to);
        if let Some((_, (_, epoch))) = stored {
            return Some((*epoch, false));
        }
        let cut = self.cut_to(partition).is_some_and(|cut| offset < cut);
        let events = self.events.filter(|_| cut && self.inbox != Some(partition) && self.is_regular(partition))?;
        Some((offset / events + 1, true))
    }

    /// Whether the stored cuts of a file are where its first epochs without a gap would have put them. A file that has
    /// grown after it had ended has others.
    fn is_regular(&self, partition: u32) -> bool {
        let stored = self.ranges.range((partition, 0)..=(partition, u64::MAX));
        let in_place = |from: u64, epoch: u64| self.events.is_some_and(|events| from == (epoch - 1) * events);
        stored.into_iter().all(|((_, from), (_, epoch))| in_place(*from, *epoch))
    }
}
