//! Which epoch took an event, as far as that can still be told.

use std::collections::BTreeMap;

use tidemark_checkpoint::journal::Past;
use tidemark_checkpoint::records::Cut;

/// The stored cuts by partition.
pub(super) struct Epochs {
    /// By index of the partition and first offset: one past the last offset, and the epoch.
    ranges: BTreeMap<(u32, u64), (u64, u64)>,
    /// How far each partition has been cut, by its index; `None` where no checkpoint tells.
    cut: Option<BTreeMap<u32, u64>>,
    /// Index of the inbox, where it is known.
    inbox: Option<u32>,
}

impl Epochs {
    /// The epochs of a pipeline.
    pub(super) fn new(past: Option<&Past>) -> Self {
        let cuts = past.into_iter().flat_map(|past| past.cuts.values());
        let mut ranges = BTreeMap::new();
        let mut cut = BTreeMap::new();
        let manifest = past.and_then(|past| past.manifests.first()).map(|found| &found.manifest);
        for position in manifest.into_iter().flat_map(|manifest| &manifest.positions) {
            cut.insert(position.index, position.next);
        }
        let inbox = manifest.and_then(|manifest| manifest.inbox());
        for (epoch, range) in cuts.flat_map(|Cut { epoch, ranges, .. }| ranges.iter().map(move |range| (*epoch, range)))
        {
            ranges.insert((range.index, range.from), (range.to, epoch));
            let end = cut.entry(range.index).or_insert(0);
            *end = range.to.max(*end);
        }
        Epochs { ranges, cut: past.map(|_| cut), inbox: inbox.map(|inbox| inbox.index) }
    }

    /// How far a partition has been cut; `None` where that is not known.
    pub(super) fn cut_to(&self, partition: u32) -> Option<u64> {
        self.cut.as_ref().map(|cut| cut.get(&partition).copied().unwrap_or(0))
    }

    /// Index of the inbox.
    pub(super) fn inbox(&self) -> Option<u32> {
        self.inbox
    }

    /// The epoch that took an event, where its cut is still stored.
    pub(super) fn of(&self, partition: u32, offset: u64) -> Option<u64> {
        let before = self.ranges.range(..=(partition, offset)).next_back();
        let stored = before.filter(|((index, _), (to, _))| *index == partition && offset < *to);
        stored.map(|(_, (_, epoch))| *epoch)
    }
}
