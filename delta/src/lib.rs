//! Tidemark's corner for Delta Lake: the one place that speaks to delta-rs.
//!
//! It brings tables to an epoch in exactly one commit each, idempotently, and keeps their files in order. It knows nothing
//! of events or metrics, decides no epoch, holds no queue and runs no thread: a runtime calls it, one table at a time.
//!
//! Every commit carries two application transactions, `<pipeline>/epoch` and `<pipeline>/fence` (the writer's generation),
//! and metadata: `tidemark.kind`, `tidemark.pipeline`, `tidemark.generation`, `tidemark.epoch` and `tidemark.watermark`.
//!
//! Files on a local disk are not synced unless [`Policy::sync`] says so: by default they are safe against a killed process,
//! not against a power failure.

#![forbid(unsafe_code)]

mod append;
mod cause;
mod checks;
mod deadline;
mod deferred;
mod durable;
mod error;
mod files;
mod lake;
mod maintain;
mod merge;
mod open;
mod policy;
mod read;
mod spec;
mod txn;
mod writer;

pub use cause::Cause;
pub use error::Error;
pub use lake::{Identity, Lake, Location};
pub use maintain::Maintained;
pub use policy::{Policy, RETENTION_MIN, Retry};
pub use read::{Commit, Predicate, Scan, exists, held, history};
pub use spec::{Check, Shape, TableSpec};
pub use txn::{Held, Kind};
pub use writer::{Outcome, Published, TableWriter};
