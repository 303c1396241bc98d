//! Events of one partition, laid out one behind the other.

use std::ops::Range;

use azure_core_amqp::{AmqpMessage, AmqpValue, message::AmqpMessageBody};
use azure_messaging_eventhubs::models::ReceivedEventData;
use bytes::Bytes;

use crate::hub::micros;
use crate::json;

/// How much a batch holds.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Most events.
    pub events: usize,
    /// Bytes after which it is full.
    pub bytes: usize,
    /// Longest body that is kept whole.
    pub whole: usize,
    /// How many bytes of a longer one are kept.
    pub kept: usize,
}

/// A part of a message that carries a value and no bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// One value of any type but text and binary, which are bytes.
    Value,
    /// Lists of values.
    Sequence,
}

/// Events with consecutive sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequence number of the first; the others follow without a gap.
    pub first: u64,
    /// The bodies, one behind the other.
    pub bytes: Bytes,
    /// Where in `bytes` each body lies.
    pub bodies: Vec<Range<u32>>,
    /// When each came to the event hub, in microseconds since 1970.
    pub enqueued_us: Vec<i64>,
    /// Bodies that were cut, as (index, whole length).
    pub cut: Vec<(u32, u64)>,
    /// Bodies that are the JSON text of a value, as (index, what it came in).
    pub sections: Vec<(u32, Section)>,
}

impl Batch {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether there is no event in it.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Sequence number of the event after the last.
    pub fn end(&self) -> u64 {
        self.first + self.bodies.len() as u64
    }
}

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    limits: Limits,
    first: u64,
    bytes: Vec<u8>,
    bodies: Vec<Range<u32>>,
    enqueued_us: Vec<i64>,
    cut: Vec<(u32, u64)>,
    sections: Vec<(u32, Section)>,
}

impl Builder {
    pub(crate) fn new(limits: Limits) -> Self {
        Builder {
            limits,
            first: 0,
            bytes: Vec::new(),
            bodies: Vec::new(),
            enqueued_us: Vec::new(),
            cut: Vec::new(),
            sections: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Whether the event with this number would be the next one, and there is room.
    pub(crate) fn takes(&self, sequence: u64) -> bool {
        self.bodies.is_empty()
            || (sequence == self.first + self.bodies.len() as u64
                && self.bodies.len() < self.limits.events
                && self.bytes.len() < self.limits.bytes)
    }

    /// Adds an event. `arrived_us` stands for an enqueued time that is not told.
    pub(crate) fn push(&mut self, sequence: u64, event: &ReceivedEventData, arrived_us: i64) {
        if self.bodies.is_empty() {
            self.first = sequence;
        }
        let start = self.bytes.len();
        if let Some(section) = append_body(event.raw_amqp_message(), &mut self.bytes) {
            self.sections.push((index(self.bodies.len()), section));
        }
        let whole = self.bytes.len() - start;
        if whole > self.limits.whole {
            self.bytes.truncate(start + self.limits.kept);
            self.cut.push((index(self.bodies.len()), whole as u64));
        }
        self.bodies.push(index(start)..index(self.bytes.len()));
        self.enqueued_us.push(event.enqueued_time().and_then(micros).unwrap_or(arrived_us));
    }

    /// What has gathered.
    pub(crate) fn take(&mut self) -> Batch {
        let capacity = (self.bytes.len(), self.bodies.len());
        Batch {
            first: self.first,
            bytes: Bytes::from(std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity.0))),
            bodies: std::mem::replace(&mut self.bodies, Vec::with_capacity(capacity.1)),
            enqueued_us: std::mem::replace(&mut self.enqueued_us, Vec::with_capacity(capacity.1)),
            cut: std::mem::take(&mut self.cut),
            sections: std::mem::take(&mut self.sections),
        }
    }
}

/// A batch stays far below 4 GiB: it is full long before, and one body more has 20 MiB at most.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The bytes that the producer sent: data sections one behind the other, or the text or bytes of a value. Any other
/// value is no event, and is kept as JSON text for whoever looks at what was rejected; then the answer is what it came in.
fn append_body(message: &AmqpMessage, out: &mut Vec<u8>) -> Option<Section> {
    match &message.body {
        AmqpMessageBody::Binary(sections) => sections.iter().for_each(|section| out.extend_from_slice(section)),
        AmqpMessageBody::Value(AmqpValue::String(text)) => out.extend_from_slice(text.as_bytes()),
        AmqpMessageBody::Value(AmqpValue::Binary(bytes)) => out.extend_from_slice(bytes),
        AmqpMessageBody::Value(value) => {
            json::append(value, out);
            return Some(Section::Value);
        }
        AmqpMessageBody::Sequence(lists) => {
            json::append_lists(lists, out);
            return Some(Section::Sequence);
        }
        AmqpMessageBody::Empty => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core_amqp::AmqpList;

    const LIMITS: Limits = Limits { events: 3, bytes: 100, whole: 8, kept: 4 };

    fn event(body: AmqpMessageBody) -> ReceivedEventData {
        ReceivedEventData::from(AmqpMessage::builder().with_body(body).build())
    }

    fn binary(text: &str) -> ReceivedEventData {
        event(AmqpMessageBody::from(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_batch_has_no_gap_and_a_limit() {
        let mut builder = Builder::new(LIMITS);
        assert!(builder.takes(7));
        builder.push(7, &binary("a"), 1);
        assert!(builder.takes(8) && !builder.takes(9) && !builder.takes(7));
        builder.push(8, &binary("bc"), 2);
        builder.push(9, &binary(""), 3);
        assert!(!builder.takes(10), "it is full");
        let batch = builder.take();
        assert_eq!((batch.first, batch.end(), batch.bytes.as_ref()), (7, 10, b"abc".as_ref()));
        assert_eq!(batch.bodies, [0..1, 1..3, 3..3]);
        assert_eq!(batch.enqueued_us, [1, 2, 3]);
        assert!(builder.is_empty() && builder.takes(42));
    }

    #[test]
    fn long_bodies_are_cut_and_their_length_kept() {
        let mut builder = Builder::new(LIMITS);
        builder.push(0, &binary("12345678"), 0);
        builder.push(1, &binary("123456789"), 0);
        let batch = builder.take();
        assert_eq!((batch.bodies.clone(), batch.cut), (vec![0..8, 8..12], vec![(1, 9)]));
    }

    #[test]
    fn bodies_of_all_kinds_have_their_bytes() {
        let mut builder = Builder::new(LIMITS);
        builder.push(0, &event(AmqpMessageBody::Binary(vec![b"a".to_vec(), b"b".to_vec()])), 0);
        builder.push(1, &event(AmqpMessageBody::Value(AmqpValue::String("c".into()))), 0);
        builder.push(2, &event(AmqpMessageBody::Empty), 0);
        let batch = builder.take();
        assert_eq!((batch.bytes.as_ref(), batch.bodies), (b"abc".as_ref(), vec![0..2, 2..3, 3..3]));
        assert_eq!(batch.sections, []);
    }

    #[test]
    fn values_that_are_no_bytes_are_kept_as_json_text() {
        let mut builder = Builder::new(LIMITS);
        builder.push(0, &binary("{}"), 0);
        builder.push(1, &event(AmqpMessageBody::Value(AmqpValue::Boolean(true))), 0);
        let list = AmqpList(vec![AmqpValue::Int(1), AmqpValue::String("long".into())]);
        builder.push(2, &event(AmqpMessageBody::Sequence(vec![list])), 0);
        let batch = builder.take();
        assert_eq!((batch.bytes.as_ref(), batch.bodies.len()), (b"{}true[1,\"".as_ref(), 3));
        assert_eq!(batch.sections, [(1, Section::Value), (2, Section::Sequence)]);
        assert_eq!(batch.cut, [(2, 10)], "its text is as long as any other body may be");
        builder.push(3, &binary("{}"), 0);
        assert_eq!(builder.take().sections, []);
    }
}
