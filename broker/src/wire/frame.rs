//! Reads frames.

use super::{MAX_FRAME, Malformed, Section};
use fe2o3_amqp_types::performatives::{Attach, Begin, Close, Detach, Flow, Open, Transfer};
use fe2o3_amqp_types::sasl::SaslInit;
use serde::de::DeserializeOwned;

/// A frame of a peer.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) channel: u16,
    pub(crate) body: Body<'a>,
}

/// What a frame carries.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// Only says that the peer is alive.
    Empty,
    Open(Box<Open>),
    Begin(Box<Begin>),
    Attach(Box<Attach>),
    Flow(Box<Flow>),
    Transfer(Box<Transfer>, &'a [u8]),
    /// All that is sent to a peer is sent settled, so what it says here is not read.
    Disposition,
    Detach(Box<Detach>),
    End,
    Close(Box<Close>),
}

/// What a SASL frame carries.
#[derive(Debug)]
pub(crate) enum SaslBody {
    Init(SaslInit),
}

/// Length of the first frame in `bytes` if its header is there; an error if no peer may send such a frame.
pub(crate) fn frame_size(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(size) = bytes.first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size);
    if !(8..=MAX_FRAME).contains(&size) {
        return Err(Malformed::new(format!("a frame of {size} bytes; 8 to {MAX_FRAME} are allowed")));
    }
    Ok(usize::try_from(size).ok())
}

/// Splits a whole frame into type, channel and content.
fn split(frame: &[u8]) -> Result<(u8, u16, &[u8]), Malformed> {
    let [_, _, _, _, offset, kind, high, low, ..] = frame else { return Err(Malformed::new("a frame without header")) };
    let content = frame.get(usize::from(*offset) * 4..).filter(|_| *offset >= 2);
    let content = content.ok_or_else(|| Malformed::new("a frame whose data offset is wrong"))?;
    Ok((*kind, u16::from_be_bytes([*high, *low]), content))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Box<T>, Malformed> {
    serde_amqp::from_slice(bytes).map(Box::new).map_err(|error| Malformed::new(error.to_string()))
}

/// Reads a whole AMQP frame.
pub(crate) fn read_frame(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (kind, channel, content) = split(frame)?;
    if kind != 0 {
        return Err(Malformed::new(format!("a frame of type {kind} where AMQP is spoken")));
    }
    if content.is_empty() {
        return Ok(Frame { channel, body: Body::Empty });
    }
    let section = Section::first(content)?;
    let (performative, payload) = content.split_at(section.len);
    let body = match section.code {
        0x10 => Body::Open(decode(performative)?),
        0x11 => Body::Begin(decode(performative)?),
        0x12 => Body::Attach(decode(performative)?),
        0x13 => Body::Flow(decode(performative)?),
        0x14 => Body::Transfer(decode(performative)?, payload),
        0x15 => Body::Disposition,
        0x16 => Body::Detach(decode(performative)?),
        0x17 => Body::End,
        0x18 => Body::Close(decode(performative)?),
        code => return Err(Malformed::new(format!("unknown performative {code:#04x}"))),
    };
    Ok(Frame { channel, body })
}

/// Reads a whole SASL frame.
pub(crate) fn read_sasl(frame: &[u8]) -> Result<SaslBody, Malformed> {
    let (kind, _, content) = split(frame)?;
    if kind != 1 {
        return Err(Malformed::new(format!("a frame of type {kind} where SASL is spoken")));
    }
    match Section::first(content)?.code {
        0x41 => Ok(SaslBody::Init(*decode(content)?)),
        code => Err(Malformed::new(format!("unexpected SASL frame {code:#04x}"))),
    }
}
