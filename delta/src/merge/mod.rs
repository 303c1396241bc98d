//! MERGE of absolute rows into a keyed table: a row replaces the row with its key, or is new.
//!
//! The files that can hold one of the keys are read and written anew.

mod anew;
mod keys;
mod plan;
mod rewrite;

pub(crate) use keys::sorted;
pub(crate) use rewrite::merge;
