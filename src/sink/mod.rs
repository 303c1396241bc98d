//! From the dataflow's outputs to Delta tables: rows become record batches, closed epochs become publications.
//!
//! [`deliver`] runs on every worker and holds back the frontier until its epochs are published; [`publisher`] is who takes
//! their rows, and `writer` the one thread that writes; [`opened`] is what it begins with; [`breaker`] says when it ends;
//! [`repair`] says what tables must hold that others have changed;
//! `figures` is what it shows of the tables. How a table is written is the business of `tidemark-delta`.

pub mod breaker;
pub mod coalesce;
pub mod deliver;
mod figures;
pub mod opened;
pub mod publisher;
mod ratio;
pub mod repair;
pub mod tables;
pub mod writer;
