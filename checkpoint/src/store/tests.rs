//! Properties of a store, over stores that fail.

#![allow(clippy::unwrap_used)]

