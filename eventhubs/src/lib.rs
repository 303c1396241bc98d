//! Tidemark's corner for Azure Event Hubs: who we are, receiving with positions of our own, and sending in batches.
//!
//! It knows event hubs, partitions and sequence numbers, and nothing of payments or epochs. The official client does the
//! protocol; what it leaves to chance is done here:
//!
//! * **Positions are ours.** The client's own recovery goes back to where a receiver was opened, so it is switched off
//!   ([`hub`]). After any fault the client is dropped and a new one opened behind the last event that was handed on
//!   ([`receive`]).
//! * **Nothing is waited for without end.** Every call has a timeout, and a stream that is quiet while the partition goes
//!   on is given up.
//! * **Connection strings mean what they say**: the port of the endpoint and `UseDevelopmentEmulator` are honoured
//!   ([`connection`]).
//!
//! It deliberately leaves out balancing partitions over several readers, and storing positions: a checkpoint that holds
//! more than positions does both.
#![forbid(unsafe_code)]

pub mod batch;
pub mod connection;
pub mod credential;
mod error;
pub mod hub;
mod json;
pub mod receive;
pub mod secret;
pub mod send;
pub mod status;
pub mod vault;

pub use error::{Error, ErrorKind};

/// Chooses the cryptography of TLS for the whole process: two of them are compiled in, and a connection is not opened
/// before one is chosen. Call it first thing; a choice that was made before stays.
pub fn choose_cryptography() {
    // An error means that the choice has been made.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
