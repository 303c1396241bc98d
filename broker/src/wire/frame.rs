//! Reads frames.

use super::{MAX_FRAME, Malformed, Section, check};
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
    check(bytes)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use fe2o3_amqp_types::definitions::{AmqpError, Error, Fields, ReceiverSettleMode, Role, SenderSettleMode};
    use fe2o3_amqp_types::messaging::{Accepted, Source, Target};
    use fe2o3_amqp_types::primitives::Value;

    fn frame(performative: &impl serde::Serialize) -> Vec<u8> {
        let body = serde_amqp::to_vec(performative).unwrap();
        let size = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
        [&size[..], &[2, 0, 0, 0], &body].concat()
    }

    fn attach() -> Attach {
        let mut source = Source::builder().address("hub/ConsumerGroups/g/Partitions/0").build();
        source.filter = Some([("selector-filter".into(), Value::String("x > '1'".into()))].into_iter().collect());
        let mut properties = Fields::new();
        properties.insert("com.microsoft:epoch".into(), Value::Long(1));
        Attach {
            name: "name".into(),
            handle: 0.into(),
            role: Role::Receiver,
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            source: Some(Box::new(source)),
            target: Some(Box::new(Target::default().into())),
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: None,
            max_message_size: Some(1),
            offered_capabilities: Some(vec!["a".into(), "b".into()].into()),
            desired_capabilities: None,
            properties: Some(properties),
        }
    }

    /// Frames of all kinds.
    fn frames() -> Vec<Vec<u8>> {
        let flow = Flow {
            next_incoming_id: Some(1),
            incoming_window: 2,
            next_outgoing_id: 3,
            outgoing_window: 4,
            handle: Some(5.into()),
            delivery_count: Some(6),
            link_credit: Some(7),
            available: None,
            drain: true,
            echo: true,
            properties: Some(Fields::new()),
        };
        let transfer = Transfer {
            handle: 0.into(),
            delivery_id: Some(1),
            delivery_tag: Some(vec![1, 2].into()),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: Some(ReceiverSettleMode::Second),
            state: Some(Accepted {}.into()),
            resume: false,
            aborted: false,
            batchable: true,
        };
        let error = Error::new(AmqpError::NotFound, Some("what".to_owned()), Some(Fields::new()));
        let detach = Detach { handle: 1.into(), closed: true, error: Some(error.clone()) };
        vec![frame(&attach()), frame(&flow), frame(&transfer), frame(&detach), frame(&Close { error: Some(error) })]
    }

    #[test]
    fn no_cut_or_changed_frame_makes_reading_panic() {
        for whole in frames() {
            assert!(read_frame(&whole).is_ok());
            for at in 0..whole.len() {
                let _ = read_frame(&whole[..at]);
                for byte in 0..=255 {
                    let mut changed = whole.clone();
                    changed[at] = byte;
                    let _ = read_frame(&changed);
                    let _ = read_sasl(&changed);
                }
            }
        }
    }

    #[test]
    fn no_frame_with_several_changes_makes_reading_panic() {
        let mut random = 1u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % below
        };
        const TELLING: [u8; 16] =
            [0, 1, 2, 0x40, 0x45, 0x50, 0x53, 0x70, 0xa1, 0xa3, 0xc0, 0xc1, 0xd0, 0xd1, 0xe0, 0xf0];
        let frames = frames();
        for _ in 0..ROUNDS {
            let mut changed = frames[next(frames.len())].clone();
            for _ in 0..1 + next(6) {
                let at = 8 + next(changed.len() - 8);
                changed[at] = if next(2) == 0 { TELLING[next(16)] } else { u8::try_from(next(256)).unwrap() };
            }
            let _ = read_frame(&changed);
        }
    }

    const ROUNDS: usize = 30_000;
}
