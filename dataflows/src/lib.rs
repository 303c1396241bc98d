//! The pure heart of Tidemark.
//!
//! Raw blocks of payment events go in; accepted events, rejected events, per-epoch tallies and the absolute rows of
//! three metrics come out, each at the logical time of its epoch. There is no I/O and no clock in here: the same
//! blocks cut into the same epochs give the same output, whatever the number of workers.

#![forbid(unsafe_code)]

pub mod arrangement;
pub mod baselines;
pub mod block;
pub mod checkpoints;
pub mod combine;
pub mod contract;
pub mod decode;
pub mod distinct;
pub mod event;
pub mod metrics;
pub mod newest;
pub mod oracle;
pub mod payloads;
pub mod pipeline;
pub mod quarantine;
pub mod reason;
pub mod tally;
pub mod watermark;
mod wire;
