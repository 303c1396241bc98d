//! What a person at the terminal sees of a run: a live line or a progress bar, and the summary at the end.
//!
//! It only reads counters that others keep. Everything goes to standard error but the summary.

pub mod checkpoint;
pub mod evidence;
pub mod graph;
pub(crate) mod least;
pub mod live;
pub mod numbers;
pub mod page;
pub(crate) mod reader;
pub mod requests;
pub mod schema;
pub mod status;
pub mod summary;
pub mod terminal;
