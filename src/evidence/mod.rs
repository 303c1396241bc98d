//! Evidence.

pub mod chain;
