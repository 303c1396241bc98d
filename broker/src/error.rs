//! What can go wrong with a broker as a whole; what goes wrong with one client is told to that client.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a broker did not start, or a switch did nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options cannot work.
    #[error("the broker cannot have {0}")]
    Options(String),
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot use {file} for TLS: {reason}", file = .file.display())]
    Tls {
        /// The file that is to blame.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A switch names a partition that the hub does not have.
    #[error("no partition {partition}; the hub has {partitions}, from 0 on")]
    NoPartition {
        /// The partition that was named.
        partition: usize,
        /// How many there are.
        partitions: usize,
    },
    /// A switch asks for fewer partitions than there are, or for too many.
    #[error("{count} partitions; the hub has {partitions}, and {max} are possible", max = crate::MAX_PARTITIONS)]
    Partitions {
        /// How many were asked for.
        count: usize,
        /// How many there are.
        partitions: usize,
    },
    /// A switch names a range of sequence numbers that is empty.
    #[error("no sequence numbers from {from} to {to}")]
    EmptyRange {
        /// First sequence number.
        from: u64,
        /// Last sequence number.
        to: u64,
    },
    /// An event is larger than a message may be.
    #[error("an event of {len} bytes; at most {max} are possible")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The greatest length.
        max: usize,
    },
}
