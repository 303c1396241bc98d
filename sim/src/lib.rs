//! A simulator of the whole protocol: the real protocol of epochs, the real journal and the real dataflow, over model
//! partitions, stores and tables, under a schedule that follows from one number. `sim/README.md` says how to use it and how to
//! read a trace.
//!
//! ```text
//! scenario -> world: queue of what is due
//!                |        |           \
//!             reader   leader          lanes: jobs (start, cuts, groups, checkpoints)
//!                |      Epochs           |  one request at a time, through port
//!                 \       |            durable: objects, tables
//!                  compute: dataflow     |
//!                                      checks: oracle over the cuts that count
//! ```
//!
//! Nothing here goes by a clock, and no two threads run at once: a seed is the same whenever it is run.

#![forbid(unsafe_code)]

mod checkpoint;
mod checks;
mod compute;
mod durable;
mod events;
mod instance;
mod jobs;
mod lanes;
mod leader;
pub mod orders;
mod port;
mod reader;
mod rng;
pub mod scenario;
pub mod shrink;
mod source;
mod tables;
mod trace;
mod world;
