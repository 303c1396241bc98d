//! Tidemark's corner for Delta Lake: the one place that speaks to delta-rs, and makes commits.
//!
//! It brings tables to an epoch in exactly one commit each, idempotently, and keeps their files in order. It knows nothing
//! of events or metrics, decides no epoch, holds no queue and runs no thread: a runtime calls it, one table at a time.
//!
//! Every commit carries two application transactions, `<pipeline>/epoch` and `<pipeline>/fence` (the writer's generation),
//! and user metadata as JSON: `kind`, `pipeline`, `generation`, `lineage`, `epoch`, `watermark`, and what others have changed.
//!
//! Files on a local disk are not synced unless [`Policy::sync`] says so: by default they are safe against a killed process,
//! not against a power failure.

#![forbid(unsafe_code)]

mod append;
mod cause;
mod checks;
mod damage;
mod error;
mod files;
mod fits;
mod foreign;
mod lake;
mod log;
mod maintain;
mod merge;
mod open;
mod policy;
mod read;
mod spec;
mod statistics;
mod txn;
mod writer;

pub use error::Error;
pub use foreign::{ForeignChanges, OnForeignChanges};
pub use lake::{Identity, Lake, Location};
pub use maintain::{Expired, Maintained};
pub use policy::{Policy, RETENTION_MIN};
pub use read::{
    Commit, Predicate, Scan, Standing, accepted_changes, damaged_files, exists, expired, history, standing,
};
pub use spec::{Check, Expires, Expiry, Shape, TableSpec};
pub use txn::Kind;
pub use writer::{Outcome, Published, TableWriter};
