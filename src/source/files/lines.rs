//! Cuts a stream of bytes into blocks of lines.
//!
//! It reads large chunks and looks for line ends in memory. What it leaves out: where the bytes come from, and when
//! they are wanted.

use std::io::{self, Read};
use std::mem;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr_iter};
use tidemark_dataflows::block::{Arrival, Block, MAX_BODY_BYTES, MAX_KEPT_BYTES};
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

/// A line over [`MAX_BODY_BYTES`] whose end has not been read yet. Only its first [`MAX_KEPT_BYTES`] stay in memory.
struct Overlong {
    /// Bytes read so far.
    whole_len: u64,
    /// Whether they are all white space.
    blank: bool,
}

/// When a chunk is complete.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// When it is full, or at the end of the input: fewest blocks.
    Whole,
    /// As soon as anything has come: whoever feeds a pipe slowly waits for nothing but his own next line.
    Available,
}

/// Splits what it reads into event bodies and numbers them.
///
/// Holds at most one line and one chunk: a line that grows over [`MAX_BODY_BYTES`] is cut back at once.
pub(super) struct LineSplitter {
    partition: PartitionId,
    fill: Fill,
    next_offset: u64,
    bytes_read: u64,
    at_end: bool,
    /// Complete lines, then a line whose end has not been read yet.
    bytes: Vec<u8>,
    /// Where in `bytes` the unfinished line starts.
    line_start: usize,
    overlong: Option<Overlong>,
    bodies: Vec<Range<u32>>,
    oversized: Vec<(u32, u64)>,
}

/// White space alone is no event.
fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

impl LineSplitter {
    /// A splitter of the whole input.
    pub(super) fn new(partition: PartitionId, fill: Fill) -> Self {
        Self::after(partition, fill, 0, 0)
    }

    /// A splitter of what follows on `bytes` bytes of whole lines, in which there are `events` events.
    pub(super) fn after(partition: PartitionId, fill: Fill, bytes: u64, events: u64) -> Self {
        Self {
            partition,
            fill,
            next_offset: events,
            bytes_read: bytes,
            at_end: false,
            bytes: Vec::new(),
            line_start: 0,
            overlong: None,
            bodies: Vec::new(),
            oversized: Vec::new(),
        }
    }

    /// How far the input has been read, in bytes: where to go on with an input that was closed in between.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Where the line begins that comes next: a splitter could begin there and go on like this one.
    pub(super) fn line_position(&self) -> u64 {
        let unfinished = (self.bytes.len() - self.line_start) as u64;
        self.bytes_read - self.overlong.as_ref().map_or(unfinished, |long| long.whole_len)
    }

    /// How many events there have been.
    pub(super) fn events(&self) -> u64 {
        self.next_offset
    }

    /// Whether the end of the input has been met. The block that came with it is its last line, which nothing ends.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Takes back the last event.
    pub(super) fn leave_last(&mut self) {
        self.next_offset = self.next_offset.saturating_sub(1);
    }

    /// The next events, or `None` at the end of `input`. Reads at most `chunk_bytes` (at least 1, well below 4 GiB) at a
    /// time.
    pub(super) fn next_block(&mut self, input: &mut dyn Read, chunk_bytes: usize) -> io::Result<Option<Block>> {
        while self.bodies.is_empty() && !self.at_end {
            // Without a body, what lies before the unfinished line is blank. A file of blank lines must not pile up.
            self.bytes.drain(..mem::take(&mut self.line_start));
            let seen = self.bytes.len();
            let read = self.read_chunk(input, chunk_bytes)?;
            self.bytes_read += read as u64;
            if read == 0 {
                self.at_end = true;
                self.end_line(seen, self.bytes.len());
            } else {
                self.scan(seen);
            }
        }
        Ok(if self.bodies.is_empty() { None } else { Some(self.take_block()) })
    }

    /// Appends to `bytes`; nothing at the end of the input.
    fn read_chunk(&mut self, input: &mut dyn Read, chunk_bytes: usize) -> io::Result<usize> {
        if self.fill == Fill::Whole {
            self.bytes.reserve_exact(chunk_bytes);
            return input.take(chunk_bytes as u64).read_to_end(&mut self.bytes);
        }
        let seen = self.bytes.len();
        self.bytes.resize(seen + chunk_bytes, 0);
        let read = loop {
            match input.read(&mut self.bytes[seen..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.bytes.truncate(seen + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Finds the lines that end in `bytes[seen..]`.
    fn scan(&mut self, seen: usize) {
        let mut seen = seen;
        if self.overlong.is_some() {
            match memchr(b'\n', &self.bytes[seen..]) {
                Some(at) => self.end_line(seen, seen + at),
                None => return self.drop_rest(seen),
            }
            seen = self.line_start;
        }
        let mut start = self.line_start;
        for at in memchr_iter(b'\n', &self.bytes[seen..]) {
            let end = seen + at;
            push_body(&mut self.bodies, &mut self.oversized, &self.bytes, start..end);
            start = end + 1;
        }
        self.line_start = start;
        let rest = &self.bytes[start..];
        if rest.len() > MAX_BODY_BYTES {
            self.overlong = Some(Overlong { whole_len: rest.len() as u64, blank: is_blank(rest) });
            self.bytes.truncate(start + MAX_KEPT_BYTES);
        }
    }

    /// Ends the unfinished line at `end`, after `bytes[seen..end]` was added to it.
    fn end_line(&mut self, seen: usize, end: usize) {
        match self.overlong.take() {
            None => push_body(&mut self.bodies, &mut self.oversized, &self.bytes, self.line_start..end),
            Some(long) => {
                let added = &self.bytes[seen..end];
                if !(long.blank && is_blank(added)) {
                    self.oversized.push((self.bodies.len() as u32, long.whole_len + added.len() as u64));
                    self.bodies.push(self.line_start as u32..(self.line_start + MAX_KEPT_BYTES) as u32);
                }
            }
        }
        self.line_start = (end + 1).min(self.bytes.len());
    }

    /// Counts `bytes[seen..]`, which goes on with an overlong line, and forgets it.
    fn drop_rest(&mut self, seen: usize) {
        if let Some(long) = &mut self.overlong {
            let added = &self.bytes[seen..];
            long.whole_len += added.len() as u64;
            long.blank = long.blank && is_blank(added);
        }
        self.bytes.truncate(seen);
    }

    /// Hands over the complete lines and keeps the unfinished one.
    fn take_block(&mut self) -> Block {
        // Its room for the next chunk is taken when that is read: nobody may ever ask for it.
        let rest = if self.at_end { Vec::new() } else { self.bytes[self.line_start..].to_vec() };
        self.bytes.truncate(self.line_start);
        self.line_start = 0;
        // A block of a few lines must not hold the memory of a chunk: there may be many of them.
        if self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes.shrink_to_fit();
        }
        // The next block will have about as many bodies as this one.
        let expected = self.bodies.len() + self.bodies.len() / 16;
        let bodies = mem::replace(&mut self.bodies, Vec::with_capacity(if self.at_end { 0 } else { expected }));
        let first_offset = Offset(self.next_offset);
        self.next_offset += bodies.len() as u64;
        Block {
            partition: self.partition,
            first_offset,
            arrival: Arrival::Opening(Micros(0)),
            bytes: Bytes::from(mem::replace(&mut self.bytes, rest)),
            bodies,
            oversized: mem::take(&mut self.oversized),
            sections: Vec::new(),
        }
    }
}

fn push_body(bodies: &mut Vec<Range<u32>>, oversized: &mut Vec<(u32, u64)>, bytes: &[u8], line: Range<usize>) {
    let body = &bytes[line.start..line.end];
    if is_blank(body) {
        return;
    }
    let mut end = line.end;
    if body.len() > MAX_BODY_BYTES {
        oversized.push((bodies.len() as u32, body.len() as u64));
        end = line.start + MAX_KEPT_BYTES;
    }
    bodies.push(line.start as u32..end as u32);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// (offset, whole length, kept bytes), as a reader without blocks would say it.
    type Line = (u64, u64, Vec<u8>);

    fn naive(input: &[u8]) -> Vec<Line> {
        let blank = |line: &&[u8]| String::from_utf8_lossy(line).trim_matches([' ', '\t', '\r']).is_empty();
        let bodies = input.split(|&byte| byte == b'\n').filter(|line| !blank(line));
        let line = |(offset, body): (usize, &[u8])| {
            let kept = if body.len() > MAX_BODY_BYTES { &body[..MAX_KEPT_BYTES] } else { body };
            (offset as u64, body.len() as u64, kept.to_vec())
        };
        bodies.enumerate().map(line).collect()
    }

    /// Gives the input in portions of the given sizes, over and over, as a pipe does.
    struct Dribble<'a> {
        input: &'a [u8],
        portions: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let portion = *self.portions.next().unwrap();
            let count = portion.min(into.len()).min(self.input.len());
            into[..count].copy_from_slice(&self.input[..count]);
            self.input = &self.input[count..];
            Ok(count)
        }
    }

    fn split(input: &mut dyn Read, chunk_bytes: usize, fill: Fill) -> Vec<Line> {
        let mut splitter = LineSplitter::new(PartitionId(7), fill);
        let mut lines = Vec::new();
        while let Some(block) = splitter.next_block(input, chunk_bytes).unwrap() {
            assert!(!block.is_empty());
            lines.extend(block.iter().map(|body| (body.at.offset.0, body.whole_len, body.bytes.to_vec())));
        }
        assert!(splitter.next_block(input, chunk_bytes).unwrap().is_none());
        lines
    }

    fn any_input() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            4 => proptest::collection::vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 0..40),
            1 => "[ \t\r]{0,12}".prop_map(String::into_bytes),
            2 => "[a-z ]{0,12}\r".prop_map(String::into_bytes),
        ];
        (proptest::collection::vec(line, 0..20), any::<bool>()).prop_map(|(lines, ended)| {
            let mut input = lines.join(&b'\n');
            if ended {
                input.push(b'\n');
            }
            input
        })
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_are_read(
            input in any_input(),
            chunk_bytes in 1_usize..80,
            portions in proptest::collection::vec(1_usize..30, 1..6),
        ) {
            for fill in [Fill::Whole, Fill::Available] {
                let mut dribble = Dribble { input: &input, portions: portions.iter().cycle() };
                prop_assert_eq!(split(&mut dribble, chunk_bytes, fill), naive(&input));
                prop_assert_eq!(split(&mut input.as_slice(), 1 << 20, fill), naive(&input));
            }
        }
    }

    #[test]
    fn long_lines_keep_their_start_and_their_length() {
        let mut input = b"first\n".to_vec();
        for len in [MAX_BODY_BYTES - 1, MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES + 5] {
            input.extend((0..len).map(|at| b'a' + (at % 23) as u8));
            input.extend(b"\nshort\r\n");
        }
        // White space alone is no event at any length; with something else behind it, it is one.
        input.resize(input.len() + 2 * MAX_BODY_BYTES, b' ');
        input.push(b'\n');
        input.resize(input.len() + 2 * MAX_BODY_BYTES, b'\t');
        input.push(b'x');
        input.resize(input.len() + 2 * MAX_BODY_BYTES, b'\t');
        input.extend(b"\nlast\n");
        input.resize(input.len() + MAX_BODY_BYTES + 1, b'z');
        let expected = naive(&input);
        assert_eq!(expected.len(), 12);
        for chunk_bytes in [10_007, 64 << 10, 1 << 20, 4 << 20, 64 << 20] {
            assert!(
                split(&mut input.as_slice(), chunk_bytes, Fill::Whole) == expected,
                "chunks of {chunk_bytes} bytes"
            );
        }
    }

    #[test]
    fn memory_stays_bounded_without_line_ends_and_without_bodies() {
        for filler in [&b"x"[..], b" ", b"\n", b" \n"] {
            let mut input = Repeat { pattern: filler, left: 40 << 20 };
            let mut splitter = LineSplitter::new(PartitionId(0), Fill::Whole);
            let block = splitter.next_block(&mut input, 64 << 10).unwrap();
            assert!(splitter.bytes.capacity() <= 2 * (MAX_BODY_BYTES + (64 << 10)));
            assert_eq!(splitter.bytes_read(), 40 << 20);
            assert_eq!(block.map(|block| block.body(0).unwrap().whole_len), (filler == b"x").then_some(40 << 20));
        }
    }

    struct Repeat {
        pattern: &'static [u8],
        left: usize,
    }

    impl Read for Repeat {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = into.len().min(self.left) / self.pattern.len() * self.pattern.len();
            for part in into[..count].chunks_exact_mut(self.pattern.len()) {
                part.copy_from_slice(self.pattern);
            }
            self.left -= count;
            Ok(count)
        }
    }
}
