//! Events that wait to be fed once more: a partition of their own, kept as objects that are appended to at any time, by
//! any number of processes, whether an instance runs or not.
//!
//! An object holds one replay and is named after the offset of its first event; the next one begins where it ends. So
//! the place of the next object follows from the newest one, which is therefore never pruned, and of two processes that
//! append at once one finds the place taken and goes behind it. Every object repeats the ids of the replays before it:
//! a replay that is repeated under its id is found, also when its own object is long gone.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::Micros;
use tidemark_store::{Listed, Store};

use crate::envelope::{self, Builder, Kind, u64_at};
use crate::error::Error;
use crate::names;

/// Name of the partition.
pub const PARTITION: &str = "replay";

/// Most bytes of bodies in one object. It is read as a whole.
pub const MAX_BYTES: u64 = 64 << 20;

/// Most events in one object.
pub const MAX_EVENTS: usize = 1 << 20;

/// How many replays are known by their ids.
const REMEMBERED_REPLAYS: usize = 1000;

/// Bytes before the head.
const HEAD_AT: usize = 8;

/// One replay and where its events stand in the partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its name: a repetition under the same one does nothing.
    pub id: String,
    /// Offset of its first event.
    pub first: u64,
    /// Number of events, at least 1.
    pub events: u64,
    /// When it was put there.
    pub put_us: i64,
}

impl Replay {
    /// One past its last offset.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.events)
    }
}

/// What became of an [`Inbox::append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The events are durable, and will be taken once.
    Now(Replay),
    /// A replay of that id had been put there before; nothing was done.
    Before(Replay),
}

/// The events of one object.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The replay that it holds.
    pub replay: Replay,
    /// The bodies, one after the other.
    pub bytes: Bytes,
    /// Length of each body.
    lengths: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    /// This one, and those before it, newest first.
    replays: Vec<Replay>,
}

impl Batch {
    /// Where in [`Self::bytes`] each body lies, in the order of offsets.
    pub fn bodies(&self) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
        let mut end = 0;
        self.lengths.as_chunks().0.iter().map(move |length| {
            let start = end;
            end += u32::from_le_bytes(*length);
            start..end
        })
    }
}

/// The inbox of a pipeline.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    /// The object that was read last.
    last: Option<Replay>,
}

impl Inbox {
    /// The inbox in a checkpoint's folder.
    pub fn new(store: Store) -> Inbox {
        Inbox { store, last: None }
    }

    /// Puts events behind all that are there, in one object: all of them or none. A repetition under the same `id` does
    /// nothing, whatever it holds.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store fails for good or there are more events or bytes than fit one object,
    /// [`Error::Damaged`] when the newest object cannot be read.
    pub fn append<B: AsRef<[u8]>>(&self, id: &str, bodies: &[B], now: Micros) -> Result<Appended, Error> {
        loop {
            let known = self.newest()?.map(|(_, replays)| replays).unwrap_or_default();
            if let Some(before) = known.iter().find(|replay| replay.id == id) {
                return Ok(Appended::Before(before.clone()));
            }
            let first = known.first().map_or(0, Replay::end);
            let replay = Replay { id: id.to_owned(), first, events: bodies.len() as u64, put_us: now.0 };
            let name = names::inbox(first);
            let replays = std::iter::once(replay.clone()).chain(known).take(REMEMBERED_REPLAYS).collect();
            match self.store.create(&name, encode(&name, &Head { replays }, bodies)?) {
                // Whoever was stopped before this write may have found a place free that had been taken, passed and
                // pruned in the meantime. What lies there is never read; the newest object does not know of it.
                Ok(()) if self.newest()?.is_some_and(|(_, replays)| replays.contains(&replay)) => {
                    return Ok(Appended::Now(replay));
                }
                Ok(()) | Err(tidemark_store::Error::Taken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The object that holds the event at `from`; `None` when there is no such event yet.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when `from` lies beyond the end, or the events there are gone; else those of the store and
    /// of the envelope.
    pub fn read(&mut self, from: u64) -> Result<Option<Batch>, Error> {
        let listed = self.store.list(names::INBOX)?;
        let first = |object: &Listed| names::number(&object.name);
        let missing = || Error::Missing { what: format!("event {from} of the inbox, up to which it was read,") };
        let Some(holds) = listed.iter().rev().find(|object| first(object).is_some_and(|first| first <= from)) else {
            return if listed.is_empty() && from == 0 { Ok(None) } else { Err(missing()) };
        };
        let newest = listed.last().is_some_and(|last| last == holds);
        let mut end = self.last.as_ref().filter(|last| Some(last.first) == first(holds)).map(Replay::end);
        if end.is_none_or(|end| end > from) {
            let object = self.store.read(&holds.name)?.ok_or_else(missing)?;
            let (batch, _) = decode(&holds.name, &object)?;
            self.last = Some(batch.replay.clone());
            if batch.replay.end() > from {
                return Ok(Some(batch));
            }
            end = Some(batch.replay.end());
        }
        if end == Some(from) && newest { Ok(None) } else { Err(missing()) }
    }

    /// Every object that is still there, in the order of offsets.
    ///
    /// # Errors
    ///
    /// Those of the store and of the envelope.
    pub fn batches(&self) -> Result<Vec<Batch>, Error> {
        let names: Vec<String> = self.store.list(names::INBOX)?.into_iter().map(|object| object.name).collect();
        let objects = self.store.read_all(&names)?;
        // One that is gone was pruned meanwhile.
        let found = names.iter().zip(objects).filter_map(|(name, object)| Some((name, object?)));
        found.map(|(name, object)| decode(name, &object).map(|(batch, _)| batch)).collect()
    }

    /// The newest object and the replays that it knows of.
    fn newest(&self) -> Result<Option<(Batch, Vec<Replay>)>, Error> {
        loop {
            let Some(newest) = self.store.list(names::INBOX)?.pop() else { return Ok(None) };
            // The newest one is never pruned: if it is gone, there is a newer one.
            let Some(object) = self.store.read(&newest.name)? else { continue };
            return decode(&newest.name, &object).map(Some);
        }
    }
}

fn encode<B: AsRef<[u8]>>(name: &str, head: &Head, bodies: &[B]) -> Result<Bytes, Error> {
    let bytes: u64 = bodies.iter().map(|body| body.as_ref().len() as u64).sum();
    if bodies.is_empty() || bodies.len() > MAX_EVENTS || bytes > MAX_BYTES {
        let why = format!("{} events of {bytes} bytes do not fit one object of the inbox", bodies.len());
        return Err(tidemark_store::Error::at_once(format!("writing '{name}'"), why).into());
    }
    let head = serde_json::to_vec(head).map_err(|error| Error::damaged(name, error.to_string()))?;
    let size = HEAD_AT + head.len() + 4 * bodies.len() + usize::try_from(bytes).unwrap_or(0);
    let mut builder = Builder::new(Kind::Inbox, size);
    builder.put(&(head.len() as u64).to_le_bytes());
    builder.put(&head);
    // At most `MAX_BYTES`.
    builder.put_all(bodies.iter().map(|body| (body.as_ref().len() as u32).to_le_bytes()));
    bodies.iter().for_each(|body| builder.put(body.as_ref()));
    Ok(builder.finish())
}

fn decode(name: &str, object: &Bytes) -> Result<(Batch, Vec<Replay>), Error> {
    let body = envelope::unwrap(Kind::Inbox, name, object)?;
    let damaged = |what: &str| Error::damaged(name, what);
    let short = || damaged("it ends before its events do");
    let length = u64_at(&body, 0).and_then(|length| usize::try_from(length).ok()).ok_or_else(short)?;
    let lengths_at = length.checked_add(HEAD_AT).filter(|end| *end <= body.len()).ok_or_else(short)?;
    let head: Head = serde_json::from_slice(&body[HEAD_AT..lengths_at]).map_err(|error| damaged(&error.to_string()))?;
    let replay = head.replays.first().cloned().ok_or_else(|| damaged("it names no replay"))?;
    if names::number(name) != Some(replay.first) {
        return Err(damaged("its events are not those of its name"));
    }
    let events = usize::try_from(replay.events).ok().and_then(|events| events.checked_mul(4)).ok_or_else(short)?;
    let bytes_at = lengths_at.checked_add(events).filter(|end| *end <= body.len()).ok_or_else(short)?;
    let (lengths, bytes) = (body.slice(lengths_at..bytes_at), body.slice(bytes_at..));
    let total: u64 = lengths.as_chunks().0.iter().map(|length| u64::from(u32::from_le_bytes(*length))).sum();
    if total != bytes.len() as u64 || total > MAX_BYTES || events == 0 {
        return Err(damaged("the lengths of its events do not add up"));
    }
    Ok((Batch { replay, bytes, lengths }, head.replays))
}
