//! Sorted, immutable runs: what a checkpoint adds to the ones before it.
//!
//! A run is encoded once, read in place, and merged with others of its kind. Which runs make up a checkpoint, and when
//! they are merged, is not known here.

pub mod ids;
pub mod totals;

use crate::Error;
use crate::envelope::u64_at;

/// Cuts a body into its columns; each step refuses what the body does not hold.
struct Columns<'a> {
    name: &'a str,
    body: bytes::Bytes,
}

impl Columns<'_> {
    fn word(&mut self, what: &str) -> Result<u64, Error> {
        let column = self.column(what, 1, 8)?;
        u64_at(&column, 0).ok_or_else(|| Error::damaged(self.name, format!("it ends within {what}")))
    }

    /// A column of `count` entries of `width` bytes.
    fn column(&mut self, what: &str, count: u64, width: usize) -> Result<bytes::Bytes, Error> {
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
        match bytes.filter(|bytes| *bytes <= self.body.len()) {
            Some(bytes) => Ok(self.body.split_to(bytes)),
            None => Err(Error::damaged(self.name, format!("it ends within {what}"))),
        }
    }

    fn end(&self) -> Result<(), Error> {
        if self.body.is_empty() { Ok(()) } else { Err(Error::damaged(self.name, "bytes follow its last column")) }
    }
}
