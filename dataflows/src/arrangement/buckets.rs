//! How many remembered ids each bucket of event time holds.

use std::collections::BTreeMap;

use crate::watermark::Bucket;

/// Counts of the remembered ids by bucket. What is forgotten is dropped, so the number of entries is bounded by the
/// event times that the horizon spans, and by the number of ids.
#[derive(Debug, Default)]
pub(super) struct BucketCounts {
    counts: BTreeMap<Bucket, usize>,
    total: usize,
    /// The bucket that grew last, its count kept out of the map: runs of one bucket cost an addition each.
    open: (Bucket, usize),
}

impl BucketCounts {
    /// Counts one id more.
    #[inline]
    pub(super) fn add(&mut self, bucket: Bucket) {
        self.total += 1;
        if self.open.0 == bucket {
            self.open.1 += 1;
        } else {
            self.fold_open();
            self.open = (bucket, 1);
        }
    }

    /// Counts one id less, of a bucket that is not forgotten.
    pub(super) fn remove(&mut self, bucket: Bucket) {
        self.fold_open();
        if let Some(count) = self.counts.get_mut(&bucket) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.counts.remove(&bucket);
            }
        }
    }

    /// Forgets all buckets before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: Bucket) {
        self.fold_open();
        while let Some(first) = self.counts.first_entry().filter(|first| *first.key() < oldest) {
            self.total -= first.remove();
        }
    }

    /// Ids in all buckets.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Ids in buckets from `oldest` on; costs a step for each bucket before it.
    pub(super) fn from(&self, oldest: Bucket) -> usize {
        let open = if self.open.0 < oldest { self.open.1 } else { 0 };
        self.total - open - self.counts.range(..oldest).map(|(_, count)| count).sum::<usize>()
    }

    /// The earliest bucket that holds an id.
    pub(super) fn first(&self) -> Option<Bucket> {
        let open = Some(self.open.0).filter(|_| self.open.1 > 0);
        let first = self.counts.first_key_value().map(|(bucket, _)| *bucket);
        open.into_iter().chain(first).min()
    }

    fn fold_open(&mut self) {
        let (bucket, count) = std::mem::take(&mut self.open);
        if count > 0 {
            *self.counts.entry(bucket).or_default() += count;
        }
    }
}
