//! A run of absolute totals, one row a key, sorted by the bytes of the key.

use std::borrow::Cow;

use bytes::Bytes;
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::metrics::{Key, Totals};

use super::Columns;
use crate::Error;
use crate::envelope::{self, Builder, Kind};

const LENGTH: usize = 4;
const TOTALS: usize = 64;

/// Lays down a run. Of several rows for one key the last counts.
pub fn encode<K: Key>(rows: &[(K, Totals)]) -> Bytes {
    let keys: Vec<Cow<'_, [u8]>> = rows.iter().map(|(key, _)| key.to_bytes()).collect();
    write(&keys, |row| to_bytes(&rows[row].1))
}

/// Writes the rows of all keys, the last of each key.
fn write(keys: &[impl AsRef<[u8]>], totals: impl Fn(usize) -> [u8; TOTALS]) -> Bytes {
    let (order, key_bytes) = order(keys);
    let columns = order.len() * (LENGTH + TOTALS) + key_bytes;
    let mut builder = Builder::new(Kind::Totals, 16 + columns);
    builder.put(&(order.len() as u64).to_le_bytes());
    builder.put(&(key_bytes as u64).to_le_bytes());
    let at = builder.put_zeros(columns);
    let (length_column, rest) = builder.body_mut()[at..].split_at_mut(order.len() * LENGTH);
    let (mut key_column, totals_column) = rest.split_at_mut(key_bytes);
    let (length_column, _) = length_column.as_chunks_mut();
    let (totals_column, _) = totals_column.as_chunks_mut();
    // All of a row at once: rows are met in no order that memory likes.
    for ((row, length), to) in order.into_iter().zip(length_column).zip(totals_column) {
        let key = keys[row].as_ref();
        assert!(u32::try_from(key.len()).is_ok(), "a key of 4 GiB passed the contract");
        *length = (key.len() as u32).to_le_bytes();
        let place;
        (place, key_column) = key_column.split_at_mut(key.len());
        place.copy_from_slice(key);
        *to = totals(row);
    }
    builder.finish()
}

/// The rows in the order of their keys, the last of each key only; and the length of their keys together.
fn order(keys: &[impl AsRef<[u8]>]) -> (Vec<usize>, usize) {
    let shared = shared_prefix(keys);
    // Eight bytes decide almost every comparison, and lie side by side with the number of the row.
    let mut key_bytes = 0;
    let packed = keys.iter().enumerate().map(|(row, key)| {
        let rest = &key.as_ref()[shared..];
        key_bytes += key.as_ref().len();
        u128::from(head(rest)) << 64 | row as u128
    });
    let mut packed: Vec<u128> = packed.collect();
    // Of all sorts of the standard library this one finds the runs that a merge consists of.
    packed.sort();
    let mut order: Vec<usize> = packed.iter().map(|packed| *packed as u64 as usize).collect();
    let mut end = 0;
    for alike in packed.chunk_by(|a, b| a >> 64 == b >> 64) {
        let begin = end;
        end += alike.len();
        if alike.len() > 1 {
            order[begin..end].sort_by(|a, b| keys[*a].as_ref().cmp(keys[*b].as_ref()));
        }
    }
    if packed.is_sorted_by(|a, b| a >> 64 < b >> 64) {
        return (order, key_bytes);
    }
    order.dedup_by(|later, kept| {
        let same = keys[*later].as_ref() == keys[*kept].as_ref();
        if same {
            key_bytes -= keys[*later].as_ref().len();
            *kept = *later;
        }
        same
    });
    (order, key_bytes)
}

/// The first eight bytes, filled up with zeros, as a number of the same order.
fn head(bytes: &[u8]) -> u64 {
    if let Some(head) = bytes.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(head)
}

/// How many bytes all keys begin with in common.
fn shared_prefix(keys: &[impl AsRef<[u8]>]) -> usize {
    let Some(first) = keys.first().map(AsRef::as_ref) else { return 0 };
    keys.iter().fold(first.len(), |shared, key| {
        let common = first[..shared].iter().zip(key.as_ref()).position(|(a, b)| a != b);
        common.unwrap_or(shared.min(key.as_ref().len()))
    })
}

fn to_bytes(totals: &Totals) -> [u8; TOTALS] {
    let mut bytes = [0; TOTALS];
    bytes[..16].copy_from_slice(&totals.deposits.to_le_bytes());
    bytes[16..32].copy_from_slice(&totals.withdrawals.to_le_bytes());
    bytes[32..40].copy_from_slice(&totals.deposit_count.to_le_bytes());
    bytes[40..48].copy_from_slice(&totals.withdrawal_count.to_le_bytes());
    bytes[48..56].copy_from_slice(&totals.first_seen.0.to_le_bytes());
    bytes[56..].copy_from_slice(&totals.last_seen.0.to_le_bytes());
    bytes
}

fn from_bytes(bytes: &[u8; TOTALS]) -> Totals {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let wide = |at: usize| (u128::from(word(at)) | u128::from(word(at + 8)) << 64).cast_signed();
    Totals {
        deposits: wide(0),
        withdrawals: wide(16),
        deposit_count: word(32),
        withdrawal_count: word(40),
        first_seen: Micros(word(48).cast_signed()),
        last_seen: Micros(word(56).cast_signed()),
    }
}

/// A run that is read in place, of whatever keys.
#[derive(Clone, Debug)]
pub struct TotalsRun {
    lengths: Bytes,
    keys: Bytes,
    totals: Bytes,
}

/// Opens a run and checks all that [`TotalsRun`] relies on.
///
/// # Errors
///
/// Those of [`envelope::unwrap`], and [`Error::Damaged`] for a body that is no run.
pub fn decode(name: &str, object: &Bytes) -> Result<TotalsRun, Error> {
    let damaged = |what: &str| Error::damaged(name, what);
    let mut columns = Columns { name, body: envelope::unwrap(Kind::Totals, name, object)? };
    let count = columns.word("the number of rows")?;
    let key_bytes = columns.word("the length of all keys")?;
    let lengths = columns.column("the lengths of the keys", count, LENGTH)?;
    let keys = columns.column("the keys", key_bytes, 1)?;
    let totals = columns.column("the totals", count, TOTALS)?;
    columns.end()?;

    let run = TotalsRun { lengths, keys, totals };
    let mut seen = 0;
    let mut last: Option<&[u8]> = None;
    for key in run.keys() {
        if last.is_some_and(|last| last >= key) {
            return Err(damaged("its keys are out of order"));
        }
        last = Some(key);
        seen += 1;
    }
    let used: u64 = run.lengths().map(u64::from).sum();
    if seen != run.len() || used != key_bytes {
        return Err(damaged("its keys do not add up"));
    }
    Ok(run)
}

/// Opens a run of keys `K`.
///
/// # Errors
///
/// Those of [`decode`], and [`Error::Damaged`] for a key that is no `K`.
pub fn decode_of<K: Key>(name: &str, object: &Bytes) -> Result<TotalsRun, Error> {
    let run = decode(name, object)?;
    if run.keys().any(|key| K::from_bytes(key).is_none()) {
        return Err(Error::damaged(name, "it has a key that means nothing"));
    }
    Ok(run)
}

impl TotalsRun {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.totals.len() / TOTALS
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }

    /// All rows of keys `K`, in the order of the bytes of their keys.
    pub fn iter<K: Key>(&self) -> impl Iterator<Item = (K, Totals)> + '_ {
        self.every(0, 1)
    }

    /// Every `step`-th row of keys `K`, from the one with that number on. The others are not looked at.
    pub fn every<K: Key>(&self, first: usize, step: usize) -> impl Iterator<Item = (K, Totals)> + '_ {
        let rows = self.keys().zip(self.all_totals()).skip(first).step_by(step.max(1));
        rows.filter_map(|(key, totals)| Some((K::from_bytes(key)?, totals)))
    }

    /// The totals of all rows.
    pub fn all_totals(&self) -> impl Iterator<Item = Totals> + '_ {
        self.totals().iter().map(from_bytes)
    }

    fn lengths(&self) -> impl Iterator<Item = u32> {
        self.lengths.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.keys[..];
        self.lengths().map_while(move |length| {
            let key;
            (key, rest) = rest.split_at_checked(length as usize)?;
            Some(key)
        })
    }

    fn totals(&self) -> &[[u8; TOTALS]] {
        self.totals.as_chunks().0
    }
}

/// Makes one run of several, given from old to new. Where two have the same key, the newer one counts.
pub fn merge(runs: &[TotalsRun]) -> Bytes {
    let keys: Vec<&[u8]> = runs.iter().flat_map(TotalsRun::keys).collect();
    let totals: Vec<&[u8; TOTALS]> = runs.iter().flat_map(TotalsRun::totals).collect();
    write(&keys, |row| *totals[row])
}
