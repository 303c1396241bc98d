//! Runs the real program over generated events and compares every table with what must come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod azure;
mod breaker;
mod cells;
mod checkpoints;
mod clock;
mod cluster;
mod commits;
mod crash;
mod data;
mod dry;
mod errors;
mod eventhubs;
mod evidence;
mod expiry;
mod explain;
mod faults;
mod faulty;
mod files;
mod golden;
mod hostile;
mod http;
mod inside;
mod late;
mod lateness;
mod live;
mod memory;
mod notebook;
mod omitted;
mod oracle;
mod packaging;
mod places;
mod program;
mod properties;
mod python;
mod quarantine;
mod rules;
mod strangers;
mod tables;
#[cfg(feature = "traces")]
mod traces;
mod verbs;
