//! Storage that is sturdy before anybody opens it: what journal, tables and event hubs share.
//!
//! Between a request and a disk or a service stand, in this order: a [`Persistence`] that repeats what fails for a reason that
//! may pass, and reports it; a [`Deadline`] for each request; and a [`Disk`] that syncs, or a client of Azure whose answers
//! are [explained]. [`Store`] puts them together for objects by name. Requests run on [one runtime](io) for the whole process.

#![forbid(unsafe_code)]

mod backoff;
pub mod cause;
mod deadline;
mod disk;
mod error;
pub mod explained;
mod failpoint;
mod outage;
mod patience;
mod runtime;
mod store;

pub use backoff::Backoff;
pub use cause::Cause;
pub use deadline::Deadline;
pub use disk::{Disk, clean_unfinished, create_dir_all, sync_folder, unfinished};
pub use error::{BoxedError, Error, remedy};
pub use failpoint::failpoint;
pub use outage::{Failing, Outage, Over, Words};
pub use patience::{GaveUp, Patience, Persistence, Silent, Watch};
pub use runtime::io;
pub use store::{Listed, Store};
