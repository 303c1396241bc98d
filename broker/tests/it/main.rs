//! The broker against clients that it does not share code with: Rust's Event Hubs client, Python's, and plain AMQP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control_port;
mod protocol;
mod python;
mod sdk;
mod storm;
mod support;
mod switches;
mod tls;
mod tokens;
