//! Properties of a file source that goes on where an earlier run stopped.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, Read};

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};
use xxhash_rust::xxh3::xxh3_64;

use super::tests::{SMALL, lines, pull, write};
use super::{FileSource, ReadAhead};
use crate::source::{ContentDigest, Pull, Source, SourceError, SourceErrorKind};

type Bodies = Vec<Vec<u8>>;

/// The bodies of an input, as a reader without blocks would say it. Good for bodies that are not oversized.
pub(super) fn bodies(input: &[u8]) -> Bodies {
    let blank = |line: &&[u8]| line.iter().all(|byte| b" \t\r".contains(byte));
    input.split(|&byte| byte == b'\n').filter(|line| !blank(line)).map(<[u8]>::to_vec).collect()
}

/// The same of a file, whose last line has to be whole.
pub(super) fn bodies_of_file(input: &[u8]) -> Bodies {
    let (whole, last) = input.split_at(input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    let mut bodies = bodies(whole);
    bodies.extend(
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(last)
            .is_ok()
            .then(|| last.trim_ascii_end().to_vec()),
    );
    bodies
}

/// The digest by its definition.
fn digest(bodies: &[Vec<u8>]) -> ContentDigest {
    let power = |digest: u64, body: &Vec<u8>| digest.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(xxh3_64(body));
    format!("{:016x}", bodies.iter().fold(0, power)).parse().unwrap()
}

fn at(partition: usize, offset: usize) -> Position {
    Position { partition: PartitionId(partition as u32), offset: Offset(offset as u64) }
}

fn write_all(inputs: &[Vec<u8>]) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    for (file, input) in inputs.iter().enumerate() {
        write(&directory, &format!("f{file}.ndjson"), input);
    }
    let path = directory.path().to_str().unwrap().to_owned();
    (directory, path)
}

/// Gives `input` in portions of `portion` bytes, as a pipe does.
struct Portions(io::Cursor<Vec<u8>>, usize);

impl Read for Portions {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.1);
        self.0.read(&mut into[..count])
    }
}

fn stream(input: &[u8], portion: usize) -> FileSource {
    let stream = Portions(io::Cursor::new(input.to_vec()), portion);
    FileSource::from_stream("stdin", Box::new(stream), SMALL)
}

/// Goes on in the only partition after `before`, and reads to the end.
fn go_on(mut source: FileSource, before: &[Vec<u8>]) -> Result<Bodies, SourceError> {
    source.resume(at(0, before.len()), Some(digest(before)))?;
    let mut found = Bodies::new();
    loop {
        let from = Offset((before.len() + found.len()) as u64);
        match source.pull(PartitionId(0), from, 7, Micros(0))? {
            Pull::Block(block) => found.extend(block.iter().map(|body| body.bytes.to_vec())),
            Pull::Pending => {}
            Pull::End => return Ok(found),
        }
    }
}

/// The same with a file that holds `input`, which is compared with a stream of the same bytes.
fn read_on(input: &[u8], before: &[Vec<u8>]) -> Result<Bodies, SourceError> {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "a.ndjson", input);
    let found = go_on(FileSource::open(&[path], SMALL).unwrap(), before);
    if input.is_empty() || input.ends_with(b"\n") {
        let fed = go_on(stream(input, 11), before);
        let kind = |read: &Result<Bodies, SourceError>| read.clone().map_err(|error| error.kind());
        assert_eq!(kind(&found), kind(&fed));
    }
    found
}

fn assert_changed(read: Result<Bodies, SourceError>, words: &str) {
    let error = read.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Changed, "{error}");
    assert!(error.input().ends_with("a.ndjson"), "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().ends_with("restore the file, or start with another output"), "{error}");
}

fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => proptest::collection::vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 1..40),
        1 => "\\{\"[a-c]\":[0-9]?\\}".prop_map(String::into_bytes),
        1 => "[ \t\r]{0,5}".prop_map(String::into_bytes),
    ];
    let ended = any::<bool>();
    (proptest::collection::vec(line, 0..40), ended).prop_map(|(lines, ended)| {
        let mut input = lines.join(&b'\n');
        input.extend(ended.then_some(b'\n'));
        input
    })
}

fn any_read_ahead() -> impl Strategy<Value = ReadAhead> {
    (1_usize..200, 1_usize..4, 0_usize..2000).prop_map(|(block_bytes, blocks, total_bytes)| ReadAhead {
        block_bytes,
        blocks,
        total_bytes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_resumed_source_gives_the_rest_and_the_digests_of_the_whole(
        inputs in proptest::collection::vec((any_input(), any::<Index>()), 1..4),
        limits in proptest::collection::vec(1_usize..25, 1..6),
        ahead in any_read_ahead(),
    ) {
        let (inputs, offsets): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let all: Vec<Bodies> = inputs.iter().map(|input| bodies_of_file(input)).collect();
        let (_directory, path) = write_all(&inputs);
        let mut source = FileSource::open(&[path], ahead).unwrap();
        let mut next: Vec<usize> =
            all.iter().zip(offsets).map(|(bodies, offset)| offset.index(bodies.len() + 1)).collect();
        for (partition, bodies) in all.iter().enumerate() {
            let before = digest(&bodies[..next[partition]]);
            source.resume(at(partition, next[partition]), Some(before)).unwrap();
            prop_assert_eq!(source.digest(PartitionId(partition as u32)), Some(before));
        }
        let mut limits = limits.iter().cycle();
        let mut ended = vec![false; all.len()];
        while ended.contains(&false) {
            for (partition, bodies) in all.iter().enumerate() {
                let from = next[partition];
                match pull(&mut source, partition as u32, from as u64, *limits.next().unwrap()) {
                    None => ended[partition] = true,
                    Some(block) => {
                        let found: Bodies = block.iter().map(|body| body.bytes.to_vec()).collect();
                        next[partition] += found.len();
                        prop_assert_eq!(&found[..], &bodies[from..next[partition]]);
                    }
                }
                let expected = digest(&bodies[..next[partition]]);
                prop_assert_eq!(source.digest(PartitionId(partition as u32)), Some(expected));
            }
        }
        prop_assert_eq!(next, all.iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn what_follows_may_change_and_what_lies_before_may_not(
        input in any_input(),
        offset in any::<Index>(),
        (place, byte) in (any::<Index>(), any::<u8>()),
        portion in 1_usize..50,
    ) {
        let mut changed = input.clone();
        if !changed.is_empty() {
            let place = place.index(changed.len());
            changed[place] = byte;
        }
        let of = |input: &[u8], is_file: bool| if is_file { bodies_of_file(input) } else { bodies(input) };
        for is_file in [true, false] {
            let old = of(&input, is_file);
            let before = &old[..offset.index(old.len() + 1)];
            let read = if is_file { read_on(&changed, before) } else { go_on(stream(&changed, portion), before) };
            // A line that is not whole any more is passed over where an earlier version has read it.
            let new = bodies(&changed);
            match read {
                Ok(found) => {
                    prop_assert!(new.starts_with(before));
                    let rest = of(&changed, is_file);
                    prop_assert_eq!(&found[..], &rest[before.len().min(rest.len())..]);
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), SourceErrorKind::Changed);
                    prop_assert!(!new.starts_with(before));
                }
            }
        }
    }
}

#[test]
fn every_changed_byte_before_is_noticed_and_none_after() {
    let input = lines(12);
    let all = bodies(&input);
    for read in [1, 5, 11, 12] {
        let border = all[..read].iter().map(|body| body.len() + 1).sum::<usize>();
        for place in 0..input.len() {
            // The last also turns a line end into a letter, and the second a letter into a line end.
            for byte in [input[place] ^ 1, b'\n', b'x'] {
                let mut changed = input.clone();
                changed[place] = byte;
                if changed != input {
                    let found = go_on(stream(&changed, 64), &all[..read]);
                    assert_eq!(found.is_err(), place < border, "byte {place} of {border}");
                }
            }
        }
    }
}

#[test]
fn changes_of_the_order_and_the_number_of_events_are_noticed() {
    let before: Bodies = bodies(&lines(10));
    let text = |bodies: &[Vec<u8>]| [bodies.join(&b'\n'), b"\nmore\nand more\n".to_vec()].concat();
    assert_eq!(read_on(&text(&before), &before).unwrap().len(), 2);
    let mut swapped = before.clone();
    swapped.swap(2, 7);
    let mut fewer = before.clone();
    fewer.remove(4);
    let mut more = before.clone();
    more.insert(4, before[4].clone());
    for changed in [swapped, fewer, more] {
        assert_changed(read_on(&text(&changed), &before), "the events before offset 10 are not what they were");
    }
}

#[test]
fn a_shrunk_file_is_noticed_and_a_grown_one_goes_on() {
    let before = bodies(&lines(20));
    for left in 0..20 {
        assert_changed(read_on(&lines(left), &before), &format!("ends after {left} events, but has been read up to"));
    }
    for count in [20, 21, 60] {
        assert_eq!(read_on(&lines(count), &before).unwrap(), bodies(&lines(count))[20..]);
    }
}

#[test]
fn a_last_line_may_get_its_end_but_not_grow() {
    let before = bodies(b"{\"a\":1}\n{\"b\":1}");
    assert_eq!(read_on(b"{\"a\":1}\n{\"b\":1}", &before).unwrap(), Bodies::new());
    assert_eq!(read_on(b"{\"a\":1}\n{\"b\":1}\n{}\n", &before).unwrap(), [b"{}"]);
    for grown in [&b"{\"a\":1}\n{\"b\":12}\n"[..], b"{\"a\":1}\n{\"b\":1}}"] {
        assert_changed(read_on(grown, &before), "the events before offset 2 are not what they were");
    }
}

#[test]
fn a_last_line_may_get_white_space_and_its_end() {
    let first = [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()];
    for begun in ["", " ", " \t"] {
        let file = format!("{{\"a\":1}}\r\n{{\"b\":2}}{begun}");
        // Nothing ends it yet: what is taken is the event alone.
        let read = bodies_of_file(file.as_bytes());
        assert_eq!(read, [b"{\"a\":1}\r".to_vec(), first[1].clone()]);
        for more in ["", "\n", "\r\n", "  \r\n{}\r\n"] {
            let grown = format!("{file}{more}");
            let rest: Bodies = if more.ends_with("{}\r\n") { vec![b"{}\r".to_vec()] } else { Vec::new() };
            assert_eq!(read_on(grown.as_bytes(), &read).unwrap(), rest, "{begun:?} {more:?}");
            // From then on it is what it is.
            let now = bodies_of_file(grown.as_bytes());
            assert_eq!(read_on(grown.as_bytes(), &now).unwrap(), Bodies::new());
        }
        assert_changed(read_on(format!("{file}x\n").as_bytes(), &read), "are not what they were");
    }
}

#[test]
fn a_half_line_waits_and_earlier_versions_have_taken_it_for_an_event() {
    let before = bodies(b"{\"a\":1}\n");
    for half in [&b"{\"b\""[..], b"x", b"{} {}", b"\xef\xbb\xbf{}"] {
        let input = [b"{\"a\":1}\n", half].concat();
        assert_eq!(read_on(&input, &before).unwrap(), Bodies::new());
        let whole = [&input[..], b":2}\n{}\n"].concat();
        assert_eq!(read_on(&whole, &before).unwrap(), [[half, b":2}"].concat(), b"{}".to_vec()]);
        // Read by an earlier version, it stays read.
        let all = bodies(&input);
        assert_eq!(read_on(&input, &all).unwrap(), Bodies::new());
        assert_changed(read_on(&whole, &all), "the events before offset 2 are not what they were");
        // A replay of its cut gets it, and whoever asks for more does not.
        let directory = TempDir::new().unwrap();
        let mut source = FileSource::open(&[write(&directory, "a.ndjson", &input)], SMALL).unwrap();
        assert_eq!(pull(&mut source, 0, 0, 9).unwrap().len(), 1);
        assert!(pull(&mut source, 0, 1, 9).is_none());
        let replayed = source.pull(PartitionId(0), Offset(1), 9, Micros(i64::MAX)).unwrap();
        assert!(matches!(replayed, Pull::Block(block) if block.body(0).unwrap().bytes == half));
        assert_eq!(source.digest(PartitionId(0)), Some(digest(&all)));
        assert!(pull(&mut source, 0, 2, 9).is_none());
    }
}

#[test]
fn what_is_known_of_oversized_bodies_is_compared() {
    let line = |len: usize, first: u8| [vec![first], vec![b'x'; len], b"\n".to_vec()].concat();
    let input = |long: Vec<u8>| [b"a\n".to_vec(), long, b"b\nc\n".to_vec()].concat();
    let digest_of = |ahead: ReadAhead, limit: usize, long: Vec<u8>| {
        let (_directory, path) = write_all(&[input(long)]);
        let mut source = FileSource::open(&[path], ahead).unwrap();
        let mut next = 0;
        while next < 3 {
            next += pull(&mut source, 0, next, limit.min(3 - next as usize)).unwrap().len() as u64;
        }
        source.digest(PartitionId(0)).unwrap()
    };
    let roomy = ReadAhead { block_bytes: 8 << 20, ..ReadAhead::default() };
    let base = digest_of(roomy, 1, line(1_500_000, b'x'));
    for (ahead, limit) in [(roomy, 3), (ReadAhead::default(), 2), (ReadAhead::default(), 1)] {
        assert_eq!(digest_of(ahead, limit, line(1_500_000, b'x')), base);
    }
    assert_ne!(digest_of(roomy, 1, line(1_500_001, b'x')), base);
    assert_ne!(digest_of(roomy, 1, line(1_500_000, b'y')), base);
}

#[test]
fn a_changed_input_stays_refused_and_nothing_of_it_is_handed_out() {
    let before = bodies(&lines(30));
    let mut source = stream(&lines(40)[1..], 20);
    source.resume(at(0, 30), Some(digest(&before))).unwrap();
    let mut refusals = 0;
    while refusals < 3 {
        match source.pull(PartitionId(0), Offset(30 + refusals), 5, Micros(0)) {
            Ok(Pull::Pending) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                let words = "stdin: the events before offset 30 are not what they were when they were read; feed";
                assert!(error.to_string().starts_with(words), "{error}");
                refusals += 1;
            }
        }
    }
    assert_eq!(source.digest(PartitionId(0)), Some(digest(&before)));
}

#[test]
fn a_place_to_go_on_from_comes_before_the_first_event() {
    let (_directory, path) = write_all(&[lines(10)]);
    let mut source = FileSource::open(&[path], SMALL).unwrap();
    assert_eq!(source.digest(PartitionId(0)), Some(ContentDigest::EMPTY));
    assert_eq!(source.resume(at(1, 0), None).unwrap_err().kind(), SourceErrorKind::Usage);
    source.resume(at(0, 4), None).unwrap();
    assert_eq!(source.digest(PartitionId(0)), None);
    let early = source.pull(PartitionId(0), Offset(3), 1, Micros(0)).unwrap_err();
    assert_eq!(early.kind(), SourceErrorKind::Usage);
    assert_eq!(pull(&mut source, 0, 4, 1).unwrap().first_offset, Offset(4));
    assert_eq!(source.digest(PartitionId(0)), Some(digest(&bodies(&lines(5)))));
    assert_eq!(source.resume(at(0, 5), None).unwrap_err().kind(), SourceErrorKind::Usage);
}

#[test]
fn a_moved_directory_reads_the_same() {
    let (directory, path) = write_all(&[lines(3), lines(4)]);
    let stored = FileSource::open(&[path], SMALL).unwrap().identity();
    let (_moved, path) = write_all(&[lines(30), lines(40)]);
    let same: [&str; 0] = [];
    assert_eq!(FileSource::open(&[path], SMALL).unwrap().identity().difference(&stored), same);
    drop(directory);
}
