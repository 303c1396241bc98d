//! A run of remembered ids, about 24 bytes each: sorted by bucket of event time, then by id.
//!
//! Buckets stand together because all ids of a bucket are forgotten together: a merge copies or drops them whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemark_dataflows::arrangement::{Fingerprint, Remembered};
use tidemark_dataflows::event::EventId;
use tidemark_dataflows::watermark::Bucket;

use super::Columns;
use crate::Error;
use crate::envelope::{self, Builder, Kind, u64_at};

const ID: usize = 16;
const FINGERPRINT: usize = 8;

/// What a manifest tells of a run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Ids in it.
    pub count: u64,
    /// The first bucket that it has ids of; 0 if it has none.
    pub oldest: Bucket,
    /// The last such bucket. Once this is forgotten, the whole run is.
    pub newest: Bucket,
}

/// Lays down a run. Of several entries for one id the last counts. `bucket_us` is the length of a bucket.
pub fn encode(mut ids: Vec<(EventId, Remembered)>, bucket_us: i64) -> (Bytes, RunStats) {
    keep_last(&mut ids);
    let mut counts: BTreeMap<Bucket, u64> = BTreeMap::new();
    for (_, remembered) in &ids {
        *counts.entry(remembered.bucket).or_default() += 1;
    }
    let mut run = Writer::new(bucket_us, counts.len(), ids.len());
    counts.iter().for_each(|(bucket, count)| run.bucket(*bucket, *count));

    let at = run.builder.put_zeros(ids.len() * (ID + FINGERPRINT));
    let (id_column, fingerprint_column) = run.builder.body_mut()[at..].split_at_mut(ids.len() * ID);
    let (id_column, _) = id_column.as_chunks_mut::<ID>();
    let (fingerprint_column, _) = fingerprint_column.as_chunks_mut::<FINGERPRINT>();
    // From here on a bucket maps to the place of its next id: all go to their bucket in the order by id.
    let mut places: Vec<(Bucket, usize)> = Vec::with_capacity(counts.len());
    counts.into_iter().fold(0, |place, (bucket, count)| {
        places.push((bucket, place));
        place + count as usize
    });
    for (id, Remembered { bucket, fingerprint }) in ids {
        let Ok(index) = places.binary_search_by_key(&bucket, |(bucket, _)| *bucket) else { continue };
        let place = places[index].1;
        places[index].1 += 1;
        id_column[place] = id.0.to_le_bytes();
        fingerprint_column[place] = fingerprint.0.to_le_bytes();
    }
    run.finish()
}

/// Sorts by id and keeps the last entry of each.
fn keep_last(ids: &mut Vec<(EventId, Remembered)>) {
    sort_by_id(ids);
    ids.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
}

/// Sorts by id, entries of one id in the order in which they are.
///
/// A sort that need not keep an order takes two thirds of the time of one that does, and hardly an id occurs twice. So
/// the place of each entry is written over its bucket, into bits that buckets of seconds up to the year 9999 leave free.
fn sort_by_id(ids: &mut [(EventId, Remembered)]) {
    const PLACE: u32 = 40;
    if ids.len() >> (u64::BITS - PLACE) > 0 || ids.iter().any(|(_, remembered)| remembered.bucket.0 >> PLACE > 0) {
        return ids.sort_by_key(|(id, _)| *id);
    }
    (0..).zip(ids.iter_mut()).for_each(|(place, (_, remembered))| remembered.bucket.0 |= place << PLACE);
    ids.sort_unstable_by_key(|(id, remembered)| (*id, remembered.bucket));
    ids.iter_mut().for_each(|(_, remembered)| remembered.bucket.0 &= (1 << PLACE) - 1);
}

/// The body of a run in the making: header, bucket table, then whatever is put.
struct Writer {
    builder: Builder,
    stats: RunStats,
    buckets: u64,
}

/// Where the number of ids stands in the body, after the length of a bucket.
const COUNT_AT: usize = 8;
const HEADER: usize = 24;
const TABLE_ENTRY: usize = 16;

impl Writer {
    fn new(bucket_us: i64, buckets: usize, ids: usize) -> Self {
        let body = HEADER + buckets * TABLE_ENTRY + ids * (ID + FINGERPRINT);
        let mut builder = Builder::new(Kind::Ids, body);
        builder.put(&bucket_us.to_le_bytes());
        builder.put(&0u64.to_le_bytes());
        builder.put(&(buckets as u64).to_le_bytes());
        Writer { builder, stats: RunStats::default(), buckets: 0 }
    }

    fn bucket(&mut self, bucket: Bucket, count: u64) {
        self.builder.put(&bucket.0.to_le_bytes());
        self.builder.put(&count.to_le_bytes());
        self.note(bucket, count);
    }

    fn note(&mut self, bucket: Bucket, count: u64) {
        if self.buckets == 0 {
            self.stats.oldest = bucket;
        }
        self.buckets += 1;
        self.stats.newest = bucket;
        self.stats.count += count;
    }

    fn finish(mut self) -> (Bytes, RunStats) {
        self.builder.body_mut()[COUNT_AT..COUNT_AT + 8].copy_from_slice(&self.stats.count.to_le_bytes());
        (self.builder.finish(), self.stats)
    }
}

/// A run that is read in place.
#[derive(Clone, Debug)]
pub struct IdRun {
    name: String,
    bucket_us: i64,
    /// Each bucket and how many ids it has.
    buckets: Vec<(Bucket, usize)>,
    ids: Bytes,
    fingerprints: Bytes,
}

/// Opens a run and checks all that [`IdRun`] relies on.
///
/// # Errors
///
/// Those of [`envelope::unwrap`], and [`Error::Damaged`] for a body that is no run.
pub fn decode(name: &str, object: &Bytes) -> Result<IdRun, Error> {
    let damaged = |what: &str| Error::damaged(name, what);
    let mut columns = Columns { name, body: envelope::unwrap(Kind::Ids, name, object)? };
    let bucket_us = columns.word("the length of a bucket")?.cast_signed();
    if bucket_us < 1 {
        return Err(damaged("its buckets have no length"));
    }
    let count = columns.word("the number of ids")?;
    let buckets = columns.word("the number of buckets")?;
    let table = columns.column("the table of buckets", buckets, TABLE_ENTRY)?;
    let ids = columns.column("the ids", count, ID)?;
    let fingerprints = columns.column("the fingerprints", count, FINGERPRINT)?;
    columns.end()?;

    let mut run = IdRun { name: name.to_owned(), bucket_us, buckets: Vec::new(), ids, fingerprints };
    let mut left = run.len();
    for entry in table.as_chunks::<TABLE_ENTRY>().0 {
        let (Some(bucket), Some(count)) = (u64_at(entry, 0), u64_at(entry, 8)) else { continue };
        let count = usize::try_from(count).ok().filter(|count| (1..=left).contains(count));
        let count = count.ok_or_else(|| damaged("its buckets and its ids do not add up"))?;
        left -= count;
        if run.buckets.last().is_some_and(|(last, _)| last.0 >= bucket) {
            return Err(damaged("its buckets are out of order"));
        }
        run.buckets.push((Bucket(bucket), count));
    }
    if left > 0 {
        return Err(damaged("its buckets and its ids do not add up"));
    }
    if !run.slices().all(|slice| slice.ids.is_sorted_by(|a, b| u128::from_le_bytes(*a) < u128::from_le_bytes(*b))) {
        return Err(damaged("its ids are out of order"));
    }
    Ok(run)
}

/// The ids of one bucket in one run.
#[derive(Copy, Clone)]
struct Slice<'a> {
    bucket: Bucket,
    ids: &'a [[u8; ID]],
    fingerprints: &'a [[u8; FINGERPRINT]],
}

impl<'a> Slice<'a> {
    fn iter(self) -> impl Iterator<Item = (EventId, Fingerprint)> + 'a {
        let fingerprints = self.fingerprints.iter().map(|bytes| Fingerprint(u64::from_le_bytes(*bytes)));
        self.ids.iter().map(|bytes| EventId(u128::from_le_bytes(*bytes))).zip(fingerprints)
    }
}

impl IdRun {
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ids.len() / ID
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Length of a bucket in microseconds.
    pub fn bucket_us(&self) -> i64 {
        self.bucket_us
    }

    /// What a manifest tells of it.
    pub fn stats(&self) -> RunStats {
        let bucket = |entry: Option<&(Bucket, usize)>| entry.map_or(Bucket(0), |(bucket, _)| *bucket);
        RunStats { count: self.len() as u64, oldest: bucket(self.buckets.first()), newest: bucket(self.buckets.last()) }
    }

    /// All ids, in the order of bucket and id.
    pub fn iter(&self) -> impl Iterator<Item = (EventId, Remembered)> + '_ {
        self.slices().flat_map(|slice| {
            slice.iter().map(move |(id, fingerprint)| (id, Remembered { bucket: slice.bucket, fingerprint }))
        })
    }

    fn slices(&self) -> impl Iterator<Item = Slice<'_>> {
        let (mut ids, _) = self.ids.as_chunks();
        let (mut fingerprints, _) = self.fingerprints.as_chunks();
        // The counts add up to the lengths of both columns.
        self.buckets.iter().map_while(move |&(bucket, count)| {
            let (slice_ids, slice_fingerprints);
            (slice_ids, ids) = ids.split_at_checked(count)?;
            (slice_fingerprints, fingerprints) = fingerprints.split_at_checked(count)?;
            Some(Slice { bucket, ids: slice_ids, fingerprints: slice_fingerprints })
        })
    }
}

/// Makes one run of several, given from old to new, without the buckets before `oldest`. An id occurs once in each
/// bucket that it occurs in; where two runs have it in the same bucket, the newer one counts.
///
/// # Errors
///
/// [`Error::Damaged`] if the runs have buckets of different lengths.
pub fn merge(runs: &[IdRun], oldest: Bucket) -> Result<(Bytes, RunStats), Error> {
    let bucket_us = runs.first().map_or(1, IdRun::bucket_us);
    if let Some(run) = runs.iter().find(|run| run.bucket_us != bucket_us) {
        let what = format!("its buckets are {} µs long, those of the runs beside it {bucket_us}", run.bucket_us);
        return Err(Error::damaged(&run.name, what));
    }
    let mut by_bucket: BTreeMap<Bucket, Vec<Slice<'_>>> = BTreeMap::new();
    for slice in runs.iter().flat_map(IdRun::slices).filter(|slice| slice.bucket >= oldest) {
        by_bucket.entry(slice.bucket).or_default().push(slice);
    }
    let ids = by_bucket.values().flatten().map(|slice| slice.ids.len()).sum();
    let mut run = Writer::new(bucket_us, by_bucket.len(), ids);
    by_bucket.keys().for_each(|bucket| run.builder.put_all([bucket.0.to_le_bytes(), [0; 8]].into_iter()));
    let mut fingerprints: Vec<u8> = Vec::with_capacity(ids * FINGERPRINT);
    for (index, (bucket, slices)) in by_bucket.into_iter().enumerate() {
        let count = merge_bucket(&slices, &mut run.builder, &mut fingerprints);
        let at = HEADER + index * TABLE_ENTRY + 8;
        run.builder.body_mut()[at..at + 8].copy_from_slice(&count.to_le_bytes());
        run.note(bucket, count);
    }
    run.builder.put(&fingerprints);
    Ok(run.finish())
}

/// Appends the ids of a bucket and returns their number.
fn merge_bucket(slices: &[Slice<'_>], ids: &mut Builder, fingerprints: &mut Vec<u8>) -> u64 {
    if let [slice] = slices {
        ids.put(slice.ids.as_flattened());
        fingerprints.extend_from_slice(slice.fingerprints.as_flattened());
        return slice.ids.len() as u64;
    }
    // The stable sort of the standard library finds sorted runs and merges them.
    let mut entries: Vec<_> = slices.iter().flat_map(|slice| slice.iter()).collect();
    entries.sort_by_key(|(id, _)| *id);
    let mut count = 0;
    let mut rest = entries.iter().peekable();
    while let Some((id, fingerprint)) = rest.next() {
        if rest.peek().is_none_or(|(next, _)| next != id) {
            ids.put(&id.0.to_le_bytes());
            fingerprints.extend_from_slice(&fingerprint.0.to_le_bytes());
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where the last one has the least bucket, and where a bucket leaves no room for places.
    #[test]
    fn the_last_entry_of_an_id_stays() {
        for odd in [3, 1 << 41] {
            let entry = |n: u64| {
                let bucket = Bucket(if n == 7 { odd } else { 1_000 - n / 3 });
                (EventId(u128::from(n * 5 % 97)), Remembered { bucket, fingerprint: Fingerprint(n) })
            };
            let mut ids: Vec<_> = (0..900).map(entry).collect();
            let last: BTreeMap<EventId, Remembered> = ids.iter().copied().collect();
            keep_last(&mut ids);
            assert_eq!(ids, last.into_iter().collect::<Vec<_>>());
        }
    }
}
