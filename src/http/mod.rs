//! The operator's side: the console, the API behind it, and the metrics, over HTTP.
//!
//! ```text
//! telemetry, health, counters -> board (one picture, four times a second at most) -> routes -> guard -> connections
//! ```
//!
//! It runs on a thread of its own and only reads what others keep: see `board`. `guard` says who may ask what, and
//! `server` how much. Nothing here changes anything in the pipeline.

pub mod answers;
mod board;
pub mod catalogue;
pub mod client;
mod exposition;
mod guard;
pub mod openapi;
mod picture;
mod places;
pub mod reference;
mod routes;
mod sampler;
mod server;
mod stream;
mod usage;

pub use server::{HttpError, Server};
