//! Properties of the table writer on real tables in a temporary directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod doubt;
mod expire;
mod maintain;
mod merge;
mod open;
mod points;
mod publish;
mod read;
mod repeat;
mod store;
mod strangers;
mod support;
mod terms;
mod zombie;
