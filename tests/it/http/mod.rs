//! The operator's side of a running instance: metrics, API, console, `status`, and what comes ready for monitoring.

mod access;
mod alerts;
mod answers;
mod ask;
mod browser;
mod status;
