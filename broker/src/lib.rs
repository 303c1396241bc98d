//! A local broker that Event Hubs clients can use, for development and tests. It keeps events in memory.
#![forbid(unsafe_code)]
