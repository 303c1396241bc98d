//! Tidemark's corner for Delta Lake: the one place that speaks to delta-rs.
//!
//! It brings tables to an epoch in exactly one commit each, idempotently, and keeps their files in order. It knows nothing
//! of events or metrics, decides no epoch, holds no queue and runs no thread: a runtime calls it, one table at a time.
//!
//! Every commit carries two application transactions, `<pipeline>/epoch` and `<pipeline>/fence` (the writer's generation),
//! and metadata: `tidemark.kind`, `tidemark.pipeline`, `tidemark.generation`, `tidemark.epoch` and `tidemark.watermark`.
//!
//! Commits on a local disk are hard links without `fsync`: safe against a killed process, not against a power failure.

#![forbid(unsafe_code)]

mod append;
mod error;
mod lake;
mod maintain;
mod merge;
mod open;
mod policy;
mod read;
mod spec;
mod txn;
mod writer;

pub use error::Error;
pub use lake::{Identity, Lake, Location};
pub use maintain::Maintained;
pub use policy::{Policy, RETENTION_MIN, Retry};
pub use read::query;
pub use spec::{Check, Shape, TableSpec};
pub use txn::Kind;
pub use writer::{Outcome, Published, TableWriter};
