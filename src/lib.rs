//! Everything of Tidemark that touches the world: sources, configuration, tables, command line, and the runtime that
//! composes them around the pure dataflows of `tidemark-dataflows`.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod evidence;
pub mod exit;
pub mod explain;
pub mod health;
pub mod http;
pub mod logging;
pub mod permit;
pub mod quarantine;
pub mod report;
pub mod runtime;
pub mod signals;
pub mod sink;
pub mod source;
pub mod storage;
pub mod telemetry;
#[cfg(feature = "traces")]
pub mod traces;
