//! The events of one partition, in memory.
//!
//! Encoded events lie one behind the other in segments, so that an event costs its bytes and sixteen more. An offset is
//! the number of bytes before the event, as in Event Hubs it grows by more than one.

use crate::event::{Event, Stored, data_head};
use std::collections::VecDeque;

/// Bytes after which a segment is full. Memory is given back segment by segment.
const SEGMENT: usize = 1 << 20;

/// How long events are kept. Without limits, until the broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events older than this are forgotten.
    pub age: Option<std::time::Duration>,
    /// The oldest events are forgotten while a partition holds more bytes.
    pub bytes: Option<u64>,
    /// The oldest events are forgotten while a partition holds more events.
    pub events: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    /// Where the event's bytes end in the segment.
    end: u32,
    /// How many of its bytes are annotations.
    annotations: u32,
    enqueued: i64,
}

#[derive(Debug)]
struct Segment {
    /// Sequence number of the first entry.
    first: u64,
    /// Offset of the first byte.
    offset: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Segment {
    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|index| self.entries.get(index)).map_or(0, |entry| position(entry.end))
    }

    fn get(&self, index: usize) -> Option<Stored<'_>> {
        let entry = self.entries.get(index)?;
        let start = self.start(index);
        let (annotations, bare) = self.bytes[start..position(entry.end)].split_at(position(entry.annotations));
        Some(Stored {
            sequence: self.first + widen(index),
            offset: self.offset + widen(start),
            enqueued: entry.enqueued,
            annotations,
            bare,
        })
    }
}

fn position(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn widen(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Sequence number of the oldest event that is kept.
    pub(crate) begin: u64,
    /// Sequence number that the next event gets.
    pub(crate) next: u64,
    /// Offset and time of the newest event, kept or not.
    pub(crate) last: Option<(u64, i64)>,
}

/// The events of a partition that are kept.
#[derive(Debug, Default)]
pub(crate) struct Log {
    segments: VecDeque<Segment>,
    begin: u64,
    next: u64,
    offset: u64,
    last: Option<(u64, i64)>,
}

impl Log {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { begin: self.begin, next: self.next, last: self.last }
    }

    /// Appends an event of a producer.
    pub(crate) fn append(&mut self, event: &Event<'_>, now: i64) {
        if event.annotations.is_empty() && event.bare.is_empty() {
            return self.append_body(&[], now);
        }
        self.push(&[&event.annotations, event.bare], event.annotations.len(), now);
    }

    /// Appends an event that has nothing but a body.
    pub(crate) fn append_body(&mut self, body: &[u8], now: i64) {
        let (head, len) = data_head(body.len());
        self.push(&[&head[..len], body], 0, now);
    }

    fn push(&mut self, parts: &[&[u8]], annotations: usize, now: i64) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.segments.back().is_none_or(|segment| segment.bytes.len() + len > SEGMENT && !segment.entries.is_empty())
        {
            if let Some(full) = self.segments.back_mut() {
                full.bytes.shrink_to_fit();
                full.entries.shrink_to_fit();
            }
            let bytes = Vec::new();
            self.segments.push_back(Segment { first: self.next, offset: self.offset, bytes, entries: Vec::new() });
        }
        let Some(segment) = self.segments.back_mut() else { return };
        // Clocks go back, enqueued times do not.
        let enqueued = self.last.map_or(now, |(_, last)| now.max(last));
        parts.iter().for_each(|part| segment.bytes.extend_from_slice(part));
        segment.entries.push(Entry { end: narrow(segment.bytes.len()), annotations: narrow(annotations), enqueued });
        self.last = Some((self.offset, enqueued));
        self.offset += widen(len);
        self.next += 1;
    }

    /// The kept events from a sequence number on.
    pub(crate) fn from(&self, sequence: u64) -> impl Iterator<Item = Stored<'_>> {
        let sequence = sequence.max(self.begin);
        let mut at = self.segments.partition_point(|segment| segment.first <= sequence).saturating_sub(1);
        let first = self.segments.get(at).map_or(0, |segment| segment.first);
        let mut index = usize::try_from(sequence.saturating_sub(first)).unwrap_or(usize::MAX);
        std::iter::from_fn(move || {
            loop {
                let segment = self.segments.get(at)?;
                if let Some(stored) = segment.get(index) {
                    index += 1;
                    return Some(stored);
                }
                (at, index) = (at + 1, 0);
            }
        })
    }

    /// Sequence number of the first kept event for which `before` is false; events are ordered by offset and time.
    fn first_where_not(&self, before: impl Fn(&Stored<'_>) -> bool) -> u64 {
        let full = self.segments.partition_point(|segment| {
            segment.entries.len().checked_sub(1).and_then(|last| segment.get(last)).is_some_and(|last| before(&last))
        });
        let Some(segment) = self.segments.get(full) else { return self.next };
        let (mut low, mut high) = (0, segment.entries.len());
        while low < high {
            let middle = low.midpoint(high);
            if segment.get(middle).is_some_and(|stored| before(&stored)) { low = middle + 1 } else { high = middle }
        }
        (segment.first + widen(low)).max(self.begin)
    }

    /// Sequence number of the first kept event behind an offset, or at it.
    pub(crate) fn at_offset(&self, offset: i64, inclusive: bool) -> u64 {
        let Ok(offset) = u64::try_from(offset) else { return self.begin };
        self.first_where_not(|stored| if inclusive { stored.offset < offset } else { stored.offset <= offset })
    }

    /// Sequence number of the first kept event enqueued after a time, or at it.
    pub(crate) fn at_time(&self, time: i64, inclusive: bool) -> u64 {
        self.first_where_not(|stored| if inclusive { stored.enqueued < time } else { stored.enqueued <= time })
    }

    /// Forgets all events before a sequence number.
    pub(crate) fn expire(&mut self, before: u64) {
        self.begin = self.begin.max(before.min(self.next));
        while self.segments.front().is_some_and(|segment| segment.first + widen(segment.entries.len()) <= self.begin) {
            self.segments.pop_front();
        }
    }

    /// Forgets what is older or more than is to be kept.
    pub(crate) fn retain(&mut self, retention: &Retention, now: i64) {
        let mut begin = self.begin;
        if let Some(events) = retention.events {
            begin = begin.max(self.next.saturating_sub(events));
        }
        if let Some(bytes) = retention.bytes {
            let oldest = self.offset.saturating_sub(bytes);
            begin = begin.max(self.first_where_not(|stored| stored.offset < oldest));
        }
        if let Some(age) = retention.age {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            begin = begin.max(self.at_time(now.saturating_sub(age), true));
        }
        if begin > self.begin {
            self.expire(begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn log(events: u64, len: usize) -> Log {
        let mut log = Log::default();
        for i in 0..events {
            log.append_body(&vec![b'x'; len], i64::try_from(i).unwrap() * 10);
        }
        log
    }

    #[test]
    fn events_are_found_by_sequence_offset_and_time_across_segments() {
        let log = log(5000, 1000);
        assert!(log.segments.len() > 3);
        for sequence in [0u64, 1, 1039, 1040, 1041, 2500, 4999] {
            let stored = log.from(sequence).next().unwrap();
            assert_eq!(stored.sequence, sequence);
            let offset = i64::try_from(stored.offset).unwrap();
            assert_eq!((log.at_offset(offset, true), log.at_offset(offset, false)), (sequence, sequence + 1));
            assert_eq!(log.at_time(stored.enqueued, true), sequence);
            assert_eq!(log.at_time(stored.enqueued, false), sequence + 1);
        }
        assert_eq!(log.from(0).count(), 5000);
        assert_eq!(log.from(5000).count(), 0);
        assert_eq!(log.from(u64::MAX).count(), 0);
        assert_eq!((log.at_offset(-1, false), log.at_offset(i64::MAX, false)), (0, 5000));
    }

    #[test]
    fn what_is_expired_is_gone_with_its_memory_and_positions_before_it_begin_at_the_oldest() {
        let mut log = log(5000, 1000);
        log.expire(3000);
        assert!(log.segments.len() <= 3);
        assert_eq!(log.from(0).next().unwrap().sequence, 3000);
        assert_eq!((log.at_offset(5, true), log.at_time(0, true)), (3000, 3000));
        log.expire(10_000);
        assert_eq!((log.bounds().begin, log.bounds().next, log.segments.len()), (5000, 5000, 0));
        log.append_body(b"y", 0);
        let stored = log.from(0).next().unwrap();
        assert_eq!((stored.sequence, stored.enqueued), (5000, 49_990));
    }

    #[test]
    fn retention_keeps_the_newest() {
        let of = |retention: Retention, now| {
            let mut log = log(100, 92);
            log.retain(&retention, now);
            log.bounds().begin
        };
        assert_eq!(of(Retention::default(), i64::MAX), 0);
        assert_eq!(of(Retention { events: Some(30), ..Retention::default() }, 0), 70);
        assert_eq!(of(Retention { bytes: Some(1000), ..Retention::default() }, 0), 90);
        assert_eq!(of(Retention { age: Some(Duration::from_millis(100)), ..Retention::default() }, 1000), 90);
    }
}
