//! The frame around every object: what it is, which format it has, and whether it is whole.
//!
//! The layout is told byte by byte in `docs/checkpoint-format.md`. What the body means is the business of the modules
//! that write it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Error;

/// The format version that this program writes.
pub const VERSION: u16 = 2;

/// The oldest format version that this program reads, and so every one from here to [`VERSION`].
pub const OLDEST_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"TIDEMARK";
/// Magic, version, kind, a zero, a reserved word and the length of the body.
const HEADER: usize = 24;
const LENGTH_AT: usize = 16;
/// Length of the hash at the end.
const TRAILER: usize = blake3::OUT_LEN;

/// What an object holds. The numbers are part of the format.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The claim to a generation.
    Generation = 1,
    /// What a generation took over from the ones before it.
    Adoption = 2,
    /// Cuts of epochs.
    Cuts = 3,
    /// The end of an older generation.
    Seal = 4,
    /// A checkpoint.
    Manifest = 5,
    /// A run of remembered ids.
    Ids = 6,
    /// A run of totals.
    Totals = 7,
    /// Events that are fed once more.
    Inbox = 8,
    /// The lock of an output.
    Output = 9,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Generation,
        Kind::Adoption,
        Kind::Cuts,
        Kind::Seal,
        Kind::Manifest,
        Kind::Ids,
        Kind::Totals,
        Kind::Inbox,
        Kind::Output,
    ];

    fn of(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Generation => "a generation",
            Kind::Adoption => "an adoption",
            Kind::Cuts => "cuts",
            Kind::Seal => "a seal",
            Kind::Manifest => "a manifest",
            Kind::Ids => "a run of ids",
            Kind::Totals => "a run of totals",
            Kind::Inbox => "an inbox",
            Kind::Output => "the lock of an output",
        })
    }
}

/// Writes an object piece by piece, so that a large body is laid down once.
#[derive(Debug)]
pub struct Builder {
    object: Vec<u8>,
}

impl Builder {
    /// Begins an object. A body of up to `body_bytes` is written without moving it.
    pub fn new(kind: Kind, body_bytes: usize) -> Self {
        let mut object = Vec::with_capacity(body_bytes.saturating_add(HEADER + TRAILER));
        object.extend_from_slice(MAGIC);
        object.extend_from_slice(&VERSION.to_le_bytes());
        object.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0]);
        object.extend_from_slice(&[0; HEADER - LENGTH_AT]);
        Builder { object }
    }

    /// Adds to the body.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.object.extend_from_slice(bytes);
    }

    /// Adds many pieces of the same size to the body.
    #[inline]
    pub fn put_all<const N: usize>(&mut self, pieces: impl Iterator<Item = [u8; N]>) {
        pieces.for_each(|piece| self.object.extend_from_slice(&piece));
    }

    /// Adds so many zeros to the body, to be filled in by [`Builder::body_mut`], and returns where they begin.
    pub fn put_zeros(&mut self, bytes: usize) -> usize {
        let at = self.body_bytes();
        self.object.resize(self.object.len() + bytes, 0);
        at
    }

    /// Bytes of body so far.
    pub fn body_bytes(&self) -> usize {
        self.object.len() - HEADER
    }

    /// The body so far, to fill in what was not known when its place was written.
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.object[HEADER..]
    }

    /// Closes the object.
    pub fn finish(mut self) -> Bytes {
        let length = self.body_bytes() as u64;
        self.object[LENGTH_AT..HEADER].copy_from_slice(&length.to_le_bytes());
        let hash = blake3::hash(&self.object);
        self.object.extend_from_slice(hash.as_bytes());
        self.object.into()
    }
}

/// Puts a body into its envelope.
pub fn wrap(kind: Kind, body: &[u8]) -> Bytes {
    let mut builder = Builder::new(kind, body.len());
    builder.put(body);
    builder.finish()
}

/// The body of an object, as part of the same memory, where it does not matter which format the object has.
///
/// # Errors
///
/// As for [`open`].
pub fn unwrap(kind: Kind, name: &str, object: &Bytes) -> Result<Bytes, Error> {
    open(kind, name, object).map(|(_, body)| body)
}

/// The format version of an object, and its body, as part of the same memory.
///
/// # Errors
///
/// [`Error::Version`] for a format that this program does not know, which is found out before anything else that may
/// differ between formats. [`Error::Damaged`] if the object is too short or too long, no object of Tidemark, of
/// another kind, or does not match its hash.
pub fn open(kind: Kind, name: &str, object: &Bytes) -> Result<(u16, Bytes), Error> {
    let damaged = |what: String| Error::Damaged { name: name.to_owned(), what };
    let Some((magic, rest)) = object.split_first_chunk::<8>() else {
        return Err(damaged(format!("it has {} bytes, fewer than any object", object.len())));
    };
    if magic != MAGIC {
        return Err(damaged("it does not begin as an object of Tidemark".to_owned()));
    }
    let Some((version, _)) = rest.split_first_chunk::<2>() else {
        return Err(damaged(format!("it has {} bytes, fewer than any object", object.len())));
    };
    let found = u16::from_le_bytes(*version);
    if !(OLDEST_VERSION..=VERSION).contains(&found) {
        return Err(Error::Version { name: name.to_owned(), found, known: VERSION });
    }
    let body_bytes = object.len().checked_sub(HEADER + TRAILER);
    let (Some(body_bytes), Some(length)) = (body_bytes, u64_at(object, LENGTH_AT)) else {
        return Err(damaged(format!("it has {} bytes, fewer than any object", object.len())));
    };
    if length != body_bytes as u64 {
        return Err(damaged(format!("its body has {body_bytes} bytes where {length} were written")));
    }
    let (hashed, trailer) = object.split_at(HEADER + body_bytes);
    if blake3::hash(hashed).as_bytes() != trailer {
        return Err(damaged("its contents do not match its hash".to_owned()));
    }
    match Kind::of(object[10]) {
        Some(of) if of == kind => Ok((found, object.slice(HEADER..HEADER + body_bytes))),
        Some(of) => Err(damaged(format!("it holds {of} in the place of {kind}"))),
        None => Err(damaged(format!("it holds something unknown ({}) in the place of {kind}", object[10]))),
    }
}

/// The little-endian number at an offset, if the bytes go that far.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let (word, _) = bytes.get(at..)?.split_first_chunk::<8>()?;
    Some(u64::from_le_bytes(*word))
}

/// A 256-bit BLAKE3 hash. As text it is 64 hexadecimal digits, in JSON too.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash at the end of an object that [`wrap`] or [`Builder::finish`] made or [`unwrap`] accepted. Of anything
    /// shorter than a hash, what there is, filled up with zeros.
    pub fn of_object(object: &Bytes) -> Self {
        object.last_chunk().map_or_else(
            || {
                let mut short = [0; 32];
                short[..object.len()].copy_from_slice(object);
                Digest(short)
            },
            |trailer| Digest(*trailer),
        )
    }

    /// The hash of any bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = blake3::Hash::from_hex(text).map_err(|error| format!("'{text}' is no digest: {error}"))?;
        Ok(Digest(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
