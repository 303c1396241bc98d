//! A message of a producer, taken apart just as far as is needed to keep it, and put together for a receiver.

use crate::log::Bounds;
use crate::wire::{Malformed, Section, binary, entries, sections, text};

/// Message format of a transfer that carries several events, each of them a message in a data section.
pub(crate) const BATCH_FORMAT: u32 = 0x8001_3700;
const PARTITION_KEY: &str = "x-opt-partition-key";
/// The broker's own annotations; a producer cannot set them.
const OURS: [&str; 3] = ["x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time"];
/// Foreign annotations that an event may bring.
const MAX_ANNOTATIONS: usize = 100;
const DELIVERY_ANNOTATIONS: u8 = 0x71;
const MESSAGE_ANNOTATIONS: u8 = 0x72;
const PROPERTIES: u8 = 0x73;
const DATA: u8 = 0x75;

/// An event as it is kept: what the producer sent without header and annotations, and the annotations that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Keys and values of annotations, encoded, behind the number of their pairs; empty if there are none.
    pub(crate) annotations: Vec<u8>,
    /// Properties, application properties, body and footer as they came.
    pub(crate) bare: &'a [u8],
    pub(crate) key: Option<String>,
}

/// The events of a transfer and the partition key of all of them.
pub(crate) fn events(payload: &[u8], batch: bool) -> Result<(Vec<Event<'_>>, Option<String>), Malformed> {
    let envelope = event(payload)?;
    if !batch {
        let key = envelope.key.clone();
        return Ok((vec![envelope], key));
    }
    let mut found = Vec::new();
    for section in sections(envelope.bare) {
        let section = section?;
        if section.code == DATA {
            let inner = binary(section.value).ok_or_else(|| Malformed::new("a data section without binary content"))?;
            let mut inner = event(inner)?;
            if inner.key.is_none() && envelope.key.is_some() {
                inner.annotations.clone_from(&envelope.annotations);
            }
            found.push(inner);
        }
    }
    let key = envelope.key.or_else(|| found.iter().find_map(|event| event.key.clone()));
    Ok((found, key))
}

fn event(message: &[u8]) -> Result<Event<'_>, Malformed> {
    let (mut annotations, mut key, mut at) = (Vec::new(), None, 0);
    let mut bare = None;
    for section in sections(message) {
        let section = section?;
        match section.code {
            MESSAGE_ANNOTATIONS if bare.is_none() => (annotations, key) = kept_annotations(section)?,
            0x70 | DELIVERY_ANNOTATIONS if bare.is_none() => {}
            PROPERTIES..=0x78 => bare = bare.or(Some(at)),
            code => return Err(Malformed::new(format!("unexpected section {code:#04x}"))),
        }
        at += section.len;
    }
    Ok(Event { annotations, bare: bare.map(|at| &message[at..]).unwrap_or_default(), key })
}

fn kept_annotations(section: Section<'_>) -> Result<(Vec<u8>, Option<String>), Malformed> {
    let (mut kept, mut pairs, mut partition_key) = (vec![0], 0u8, None);
    for (key, value) in entries(section.value)? {
        let name = text(key);
        if name.is_some_and(|name| OURS.contains(&name)) {
            continue;
        }
        if name == Some(PARTITION_KEY) {
            match text(value) {
                Some(value) => partition_key = Some(value.to_owned()),
                None => continue,
            }
        }
        if usize::from(pairs) == MAX_ANNOTATIONS {
            return Err(Malformed::new(format!("more than {MAX_ANNOTATIONS} message annotations")));
        }
        kept.extend_from_slice(key);
        kept.extend_from_slice(value);
        pairs += 1;
    }
    kept[0] = pairs;
    if pairs == 0 {
        kept.clear();
    }
    Ok((kept, partition_key))
}

/// Bytes before a body of `len` bytes that make it a message of one data section.
pub(crate) fn data_head(len: usize) -> ([u8; 8], usize) {
    match u8::try_from(len) {
        Ok(len) => ([0x00, 0x53, DATA, 0xa0, len, 0, 0, 0], 5),
        Err(_) => {
            let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
            ([0x00, 0x53, DATA, 0xb0, a, b, c, d], 8)
        }
    }
}

/// An event in the log, at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    /// Milliseconds since 1970.
    pub(crate) enqueued: i64,
    pub(crate) annotations: &'a [u8],
    pub(crate) bare: &'a [u8],
}

impl Stored<'_> {
    /// Appends the message as a receiver gets it.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let offset = decimal(self.offset, &mut digits);
        let (pairs, kept) = self.annotations.split_first().map_or((0, &[][..]), |(pairs, kept)| (*pairs, kept));
        let count = 6 + 2 * pairs;
        let size = 23 + 9 + 14 + 2 + offset.len() + 21 + 9 + kept.len();
        to.extend_from_slice(&[0x00, 0x53, MESSAGE_ANNOTATIONS]);
        if let Ok(size) = u8::try_from(size + 1) {
            to.extend_from_slice(&[0xc1, size, count]);
        } else {
            to.push(0xd1);
            to.extend_from_slice(&u32::try_from(size + 4).unwrap_or(u32::MAX).to_be_bytes());
            to.extend_from_slice(&u32::from(count).to_be_bytes());
        }
        to.extend_from_slice(b"\xa3\x15x-opt-sequence-number\x81");
        to.extend_from_slice(&self.sequence.to_be_bytes());
        to.extend_from_slice(b"\xa3\x0cx-opt-offset\xa1");
        to.push(u8::try_from(offset.len()).unwrap_or(u8::MAX));
        to.extend_from_slice(offset);
        to.extend_from_slice(b"\xa3\x13x-opt-enqueued-time\x83");
        to.extend_from_slice(&self.enqueued.to_be_bytes());
        to.extend_from_slice(kept);
        to.extend_from_slice(self.bare);
    }
}

/// Appends delivery annotations that name the newest event of the partition, as a receiver may ask for.
pub(crate) fn encode_newest(bounds: &Bounds, now: i64, to: &mut Vec<u8>) {
    let Some((offset, enqueued)) = bounds.last else { return };
    let mut digits = [0; 20];
    let offset = decimal(offset, &mut digits);
    let size = 1 + (31 + 9) + (22 + 2 + offset.len()) + (24 + 9) + (33 + 9);
    to.extend_from_slice(&[0x00, 0x53, DELIVERY_ANNOTATIONS, 0xc1, u8::try_from(size).unwrap_or(u8::MAX), 8]);
    to.extend_from_slice(b"\xa3\x1dlast_enqueued_sequence_number\x81");
    to.extend_from_slice(&bounds.next.saturating_sub(1).to_be_bytes());
    to.extend_from_slice(b"\xa3\x14last_enqueued_offset\xa1");
    to.push(u8::try_from(offset.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(offset);
    to.extend_from_slice(b"\xa3\x16last_enqueued_time_utc\x83");
    to.extend_from_slice(&enqueued.to_be_bytes());
    to.extend_from_slice(b"\xa3\x1fruntime_info_retrieval_time_utc\x83");
    to.extend_from_slice(&now.to_be_bytes());
}

/// The digits of a number, without going through the formatting machinery: it is done for every delivery.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fe2o3_amqp_types::messaging::message::__private::{Deserializable, Serializable};
    use fe2o3_amqp_types::messaging::{Body, Data, Message, MessageAnnotations, Properties};
    use fe2o3_amqp_types::primitives::{Binary, Timestamp, Value};

    fn message(key: Option<&str>, body: &[u8]) -> Vec<u8> {
        let mut annotations = MessageAnnotations::builder().insert("x-opt-offset", Value::String("forged".into()));
        if let Some(key) = key {
            annotations = annotations.insert("x-opt-partition-key", Value::String(key.into()));
        }
        serde_amqp::to_vec(&Serializable(Message {
            header: None,
            delivery_annotations: None,
            message_annotations: Some(annotations.build()),
            properties: Some(Properties { message_id: Some(7u64.into()), ..Properties::default() }),
            application_properties: None,
            body: Data(Binary::from(body)),
            footer: None,
        }))
        .unwrap()
    }

    fn annotation(message: &Message<Body<Value>>, name: &str) -> Option<Value> {
        let annotations = message.message_annotations.as_ref().unwrap();
        annotations.iter().find(|(key, _)| format!("{key:?}").contains(name)).map(|(_, value)| value.clone())
    }

    #[test]
    fn what_was_sent_is_read_with_the_brokers_annotations_and_without_forged_ones() {
        for (key, len) in [(None, 3usize), (Some("user-42"), 300), (Some(&*"k".repeat(200)), 0)] {
            let sent = message(key, &vec![b'x'; len]);
            let (found, found_key) = events(&sent, false).unwrap();
            assert_eq!(found_key.as_deref(), key);
            let stored = Stored {
                sequence: 5,
                offset: 18_446_744_073_709_551_615,
                enqueued: 1_700_000_000_123,
                annotations: &found[0].annotations,
                bare: found[0].bare,
            };
            let mut encoded = Vec::new();
            stored.encode(&mut encoded);
            let read: Deserializable<Message<Body<Value>>> = serde_amqp::from_slice(&encoded).unwrap();
            let read = read.0;
            assert_eq!(annotation(&read, "x-opt-sequence-number"), Some(Value::Long(5)));
            assert_eq!(annotation(&read, "x-opt-offset"), Some(Value::String("18446744073709551615".into())));
            let enqueued = Value::Timestamp(Timestamp::from_milliseconds(1_700_000_000_123));
            assert_eq!(annotation(&read, "x-opt-enqueued-time"), Some(enqueued));
            assert_eq!(annotation(&read, "x-opt-partition-key"), key.map(|key| Value::String(key.into())));
            assert_eq!(read.properties.as_ref().unwrap().message_id, Some(7u64.into()));
            let Body::Data(body) = &read.body else { panic!("no data") };
            assert_eq!(body.iter().map(|part| part.0.len()).sum::<usize>(), len);
        }
    }

    #[test]
    fn the_newest_event_is_named_before_the_event_itself() {
        let last = Some((18_446_744_073_709_551_615, 1_700_000_000_123));
        let mut encoded = Vec::new();
        encode_newest(&Bounds { begin: 0, next: 43, last }, 1_700_000_000_456, &mut encoded);
        Stored { sequence: 5, offset: 7, enqueued: 1, annotations: &[], bare: b"\x00\x53\x75\xa0\x01x" }
            .encode(&mut encoded);
        let read: Deserializable<Message<Body<Value>>> = serde_amqp::from_slice(&encoded).unwrap();
        let named = read.0.delivery_annotations.as_ref().unwrap();
        let found: Vec<_> = named.iter().map(|(key, value)| (format!("{key:?}"), value.clone())).collect();
        let time = |at| Value::Timestamp(Timestamp::from_milliseconds(at));
        for (name, value) in [
            ("last_enqueued_sequence_number", Value::Long(42)),
            ("last_enqueued_offset", Value::String("18446744073709551615".into())),
            ("last_enqueued_time_utc", time(1_700_000_000_123)),
            ("runtime_info_retrieval_time_utc", time(1_700_000_000_456)),
        ] {
            assert!(found.iter().any(|(key, there)| key.contains(name) && *there == value), "{name} in {found:?}");
        }
        assert_eq!(annotation(&read.0, "x-opt-sequence-number"), Some(Value::Long(5)));
    }

    #[test]
    fn a_batch_gives_its_key_to_all_its_events() {
        let inner: Vec<Vec<u8>> = (0..3).map(|i| message(None, &[i])).collect();
        let mut batch = message(Some("k"), b"");
        batch.truncate(batch.len() - 5);
        for inner in &inner {
            let (head, len) = data_head(inner.len());
            batch.extend_from_slice(&head[..len]);
            batch.extend_from_slice(inner);
        }
        let (found, key) = events(&batch, true).unwrap();
        assert_eq!((found.len(), key.as_deref()), (3, Some("k")));
        assert!(found.iter().all(|event| event.annotations.len() > 1));
    }

    #[test]
    fn no_cut_or_flipped_message_makes_it_panic() {
        let sent = message(Some("k"), b"body");
        for end in 0..sent.len() {
            let _ = events(&sent[..end], true);
            for bit in 0..8 {
                let mut flipped = sent.clone();
                flipped[end] ^= 1 << bit;
                let _ = events(&flipped, false);
                let _ = events(&flipped, true);
            }
        }
    }
}
