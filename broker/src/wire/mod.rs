//! AMQP 1.0 on the wire: what is read (`frame`, `scan`), and what is written (`outbox`, `fields`).

mod fields;
mod frame;
mod outbox;
mod scan;

pub(crate) use frame::{Body, Frame, SaslBody, frame_size, read_frame, read_sasl};
pub(crate) use outbox::{Attached, Outbox, Outcome, Transfer};
pub(crate) use scan::{Section, binary, check, entries, sections, text};

/// What a peer sent is not AMQP, or not the part of it that is understood here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// First bytes of a connection that speaks AMQP at once.
pub(crate) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// First bytes of a connection that speaks SASL before AMQP.
pub(crate) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
/// The largest frame that is taken from a peer, as Event Hubs announces it.
pub(crate) const MAX_FRAME: u32 = 64 * 1024;
/// No peer may announce less.
pub(crate) const MIN_MAX_FRAME: u32 = 512;
