//! Properties of the table writer on real tables in a temporary directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod doubt;
mod maintain;
mod open;
mod publish;
mod support;
