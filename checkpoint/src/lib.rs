//! What survives a crash: the cuts, checkpoints and generations of one pipeline, in one folder of an object store.
//!
//! Objects are written once and never changed. This crate knows what they hold and in which order they may appear; it
//! neither computes anything nor writes tables.

#![forbid(unsafe_code)]

mod claims;
pub mod compaction;
pub mod envelope;
mod error;
pub mod inbox;
pub mod inspect;
pub mod journal;
pub mod lease;
pub mod names;
mod prune;
pub mod records;
pub mod runs;
mod times;
pub mod verify;

pub use error::Error;
