//! Readers of partitions against the local broker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod loss;
mod sections;
mod support;
