//! How an event travels to a worker in another process: fixed little-endian fields, then the user and the rest.
//!
//! timely serializes what it exchanges through serde. Field by field that is a dozen small writes for each event, and as
//! many checked reads. Here an event is one run of bytes, written and read in one step; the bench `exchange` has the
//! figures. Only processes of one program and one start speak it to each other, so it can change with every version.

use compact_str::CompactString;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{
    Channel, CuratedMembers, Event, EventId, EventType, Micros, Offset, PartitionId, Pence, Position, UserId,
};

/// Bytes before the user.
const HEAD: usize = 16 + 8 + 8 + 8 + 4 + 2 + 1 + 2;
/// Events of up to so many bytes are put together without the heap. A user of 24 bytes leaves some.
const SHORT: usize = 128;

const CURATED: u8 = 0x80;

/// A place in bytes that are being read or written.
struct Cursor<B>(B);

impl Cursor<&mut [u8]> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }
}

impl<'a> Cursor<&'a [u8]> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (here, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*here)
    }

    #[inline]
    fn text(&mut self, length: usize) -> Option<&'a str> {
        let (here, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(here).ok()
    }
}

#[inline]
fn length(event: &Event) -> usize {
    let curated = event.curated.as_ref().map_or(0, |curated| 8 + curated.event_id.len());
    HEAD + event.user.0.len() + curated
}

#[inline]
fn write(event: &Event, out: &mut [u8]) {
    let mut out = Cursor(out);
    out.put(&event.id.0.to_le_bytes());
    out.put(&event.time.0.to_le_bytes());
    out.put(&event.amount.0.to_le_bytes());
    out.put(&event.at.offset.0.to_le_bytes());
    out.put(&event.at.partition.0.to_le_bytes());
    out.put(&event.origin.to_le_bytes());
    let curated = if event.curated.is_some() { CURATED } else { 0 };
    out.put(&[event.event_type as u8 | (event.channel as u8) << 1 | curated]);
    // The contract admits 1,024 bytes.
    out.put(&(event.user.0.len() as u16).to_le_bytes());
    out.put(event.user.0.as_bytes());
    if let Some(curated) = &event.curated {
        out.put(&curated.ingest_time.0.to_le_bytes());
        out.put(curated.event_id.as_bytes());
    }
}

#[inline]
fn read(bytes: &[u8]) -> Option<Event> {
    let mut bytes = Cursor(bytes);
    let id = EventId(u128::from_le_bytes(bytes.array()?));
    let time = Micros(i64::from_le_bytes(bytes.array()?));
    let amount = Pence(i64::from_le_bytes(bytes.array()?));
    let offset = Offset(u64::from_le_bytes(bytes.array()?));
    let partition = PartitionId(u32::from_le_bytes(bytes.array()?));
    let origin = u16::from_le_bytes(bytes.array()?);
    let [kinds] = bytes.array()?;
    let event_type = *EventType::ALL.get(usize::from(kinds & 1))?;
    let channel = *Channel::ALL.get(usize::from((kinds & !CURATED) >> 1))?;
    let user = usize::from(u16::from_le_bytes(bytes.array()?));
    let user = UserId(CompactString::from(bytes.text(user)?));
    let curated = if kinds & CURATED == 0 {
        None
    } else {
        let ingest_time = Micros(i64::from_le_bytes(bytes.array()?));
        let event_id = bytes.text(bytes.0.len())?.to_owned();
        Some(Box::new(CuratedMembers { event_id, ingest_time }))
    };
    let at = Position { partition, offset };
    bytes.0.is_empty().then_some(Event { id, user, time, amount, at, origin, event_type, channel, curated })
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = length(self);
        if let Some(short) = [0; SHORT].get_mut(..length) {
            write(self, short);
            return serializer.serialize_bytes(short);
        }
        let mut long = vec![0; length];
        write(self, &mut long);
        serializer.serialize_bytes(&long)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(EventVisitor)
    }
}

struct EventVisitor;

impl Visitor<'_> for EventVisitor {
    type Value = Event;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes of an event")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Event, E> {
        read(bytes).ok_or_else(|| E::custom("not the bytes of an event"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use timely::bytes::arc::BytesMut;
    use timely::dataflow::channels::ContainerBytes;

    fn texts(longest: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..longest).prop_map(String::from_iter)
    }

    prop_compose! {
        fn events()(
            id: u128, user in prop_oneof![texts(12), texts(200)], time: i64, amount: i64, offset: u64, partition: u32,
            origin: u16, event_type in 0..2usize, channel in 0..3usize,
            curated in prop::option::of((texts(200), any::<i64>())),
        ) -> Event {
            let members = |(event_id, time)| Box::new(CuratedMembers { event_id, ingest_time: Micros(time) });
            Event {
                id: EventId(id),
                user: UserId(user.into()),
                time: Micros(time),
                amount: Pence(amount),
                at: Position { partition: PartitionId(partition), offset: Offset(offset) },
                origin,
                event_type: EventType::ALL[event_type],
                channel: Channel::ALL[channel],
                curated: curated.map(members),
            }
        }
    }

    proptest! {
        /// The way that timely takes between processes.
        #[test]
        fn what_is_exchanged_arrives_unchanged(events in prop::collection::vec(events(), 0..20)) {
            let mut bytes = Vec::new();
            events.into_bytes(&mut bytes);
            prop_assert_eq!(bytes.len(), events.length_in_bytes());
            prop_assert_eq!(Vec::<Event>::from_bytes(BytesMut::from(bytes).freeze()), events);
        }

        #[test]
        fn bytes_that_are_no_event_are_refused(event in events(), cut in any::<prop::sample::Index>()) {
            let mut bytes = vec![0; length(&event)];
            write(&event, &mut bytes);
            prop_assert_eq!(read(&bytes), Some(event.clone()));
            // The last text of all has no length of its own: the bytes of an event are counted around it.
            let last = event.curated.as_ref().map_or(0, |curated| curated.event_id.len());
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len() - last)]), None);
            if event.curated.is_none() {
                bytes.push(b'x');
                prop_assert_eq!(read(&bytes), None);
            }
        }
    }
}
