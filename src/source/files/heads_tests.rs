//! What a source says of the events that come next, against a recomputation from all of them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, Read, Write};
use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use proptest::prelude::*;
use tempfile::TempDir;
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use super::{FileOptions, FileSource, ReadAhead};
use crate::source::{Head, Pull, Source, Standing};

pub(super) const SKEW: i64 = 1000;
const BASE: i64 = 1_700_000_000_000_000;

/// A line of a file, and what is to be made of it.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// A payment of this instant after the base.
    Valid(i64),
    /// Something that is rejected.
    Invalid(&'static str),
    /// No event.
    Blank(&'static str),
}

impl Line {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Line::Valid(time) => payment(BASE + time),
            Line::Invalid(text) | Line::Blank(text) => text.as_bytes().to_vec(),
        }
    }
}

/// A payment that happened then.
pub(super) fn payment(micros: i64) -> Vec<u8> {
    let time = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true);
    let ids = format!(r#""event_id":"e{micros}","user_id":"u""#);
    let rest = r#""event_type":"deposit_completed","amount":1,"currency":"GBP","channel":"web""#;
    format!(r#"{{{ids},"event_time":"{time}","ingest_time":"{time}",{rest}}}"#).into_bytes()
}

/// How a file is written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Gzip,
    Zstd,
}

impl Kind {
    pub(super) fn ending(self) -> &'static str {
        match self {
            Kind::Plain => "",
            Kind::Gzip => ".gz",
            Kind::Zstd => ".zst",
        }
    }

    /// In two members or frames, which are one stream.
    pub(super) fn pack(self, content: &[u8]) -> Vec<u8> {
        let (first, second) = content.split_at(content.len() / 2);
        match self {
            Kind::Plain => content.to_vec(),
            Kind::Gzip => [gzip(first), gzip(second)].concat(),
            Kind::Zstd => [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat(),
        }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The bytes of lines, the last without its end if so.
fn content(lines: &[Line], ended: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [line.bytes(), b"\n".to_vec()].concat()).collect();
    if !ended {
        bytes.pop();
    }
    bytes
}

/// The events of lines: a body, and the time of a payment.
fn events(lines: &[Line], ended: bool, is_file: bool) -> Vec<(Vec<u8>, Option<i64>)> {
    let event = |(index, line): (usize, &Line)| {
        let has_end = ended || index + 1 < lines.len();
        match line {
            Line::Valid(time) => Some((line.bytes(), Some(BASE + time))),
            // Of those below, what begins like an object is one.
            Line::Invalid(text) if has_end || !is_file || text.starts_with('{') => Some((line.bytes(), None)),
            _ => None,
        }
    };
    lines.iter().enumerate().filter_map(event).collect()
}

/// By the words of the specification.
fn standing(rest: &[(Vec<u8>, Option<i64>)], witnesses: usize, opened: i64) -> Standing {
    let next = rest.iter().take(10 * witnesses);
    let valid = next.filter_map(|(_, time)| *time).filter(|time| *time <= opened + SKEW);
    let time = valid.take(witnesses).min().map(Micros);
    if rest.is_empty() { Standing::CaughtUp } else { Standing::Behind(Head { time, ..Head::NONE }) }
}

/// Asks until there is an answer.
pub(super) fn ask(source: &mut dyn Source, partition: u32, next: u64, opened: i64) -> Standing {
    loop {
        if let Some(standing) = source.standing(PartitionId(partition), Offset(next), Micros(opened)).unwrap() {
            return standing;
        }
    }
}

fn any_line() -> impl Strategy<Value = Line> {
    prop_oneof![
        6 => (-5000_i64..5000).prop_map(Line::Valid),
        1 => Just(Line::Valid(10 * SKEW)),
        1 => prop_oneof![Just(-BASE), Just(400_000_000_000_000)].prop_map(Line::Valid),
        2 => prop_oneof![Just("event_id;user_id"), Just("\u{feff}{}"), Just("{}"), Just("{\"event_id\":\"a\"}"), Just("[]")]
            .prop_map(Line::Invalid),
        1 => prop_oneof![Just(""), Just(" \t"), Just("\r")].prop_map(Line::Blank),
    ]
}

fn any_file() -> impl Strategy<Value = (Vec<Line>, bool, Kind)> {
    let kind = prop_oneof![3 => Just(Kind::Plain), 1 => Just(Kind::Gzip), 1 => Just(Kind::Zstd)];
    let invalid = proptest::collection::vec(Just(Line::Invalid("nothing")), 0..60);
    let lines = (invalid, proptest::collection::vec(any_line(), 0..80)).prop_map(|(head, rest)| [head, rest].concat());
    (prop_oneof![lines, proptest::collection::vec(any_line(), 0..80)], any::<bool>(), kind)
}

fn any_options() -> impl Strategy<Value = FileOptions> {
    let ahead = (1_usize..2000, 1_usize..4, 0_usize..9000);
    (ahead, 1_usize..5).prop_map(|((block_bytes, blocks, total_bytes), witnesses)| FileOptions {
        ahead: ReadAhead { block_bytes, blocks, total_bytes },
        witnesses,
        max_future_skew_us: SKEW,
        ..FileOptions::default()
    })
}

/// What a driver does with a partition in one round: how much it pulls, and whether it asks at all.
type Deed = (usize, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn heads_are_those_of_the_specification(
        files in proptest::collection::vec(any_file(), 1..6),
        options in any_options(),
        rounds in proptest::collection::vec((0_i64..3000, proptest::collection::vec((0_usize..30, any::<bool>()), 6)), 1..40),
    ) {
        let directory = TempDir::new().unwrap();
        for (index, (lines, ended, kind)) in files.iter().enumerate() {
            let name = format!("f{index}.ndjson{}", kind.ending());
            std::fs::write(directory.path().join(name), kind.pack(&content(lines, *ended))).unwrap();
        }
        let mut source = FileSource::open(&[directory.path().to_str().unwrap().to_owned()], options).unwrap();
        let all: Vec<_> = files.iter().map(|(lines, ended, _)| events(lines, *ended, true)).collect();
        let mut next = vec![0_usize; all.len()];
        let mut opened = BASE;
        for (later, deeds) in rounds {
            opened += later;
            drive(&mut source, &all, &mut next, (options.witnesses, opened), &deeds)?;
        }
    }
}

fn drive(
    source: &mut FileSource,
    all: &[Vec<(Vec<u8>, Option<i64>)>],
    next: &mut [usize],
    (witnesses, opened): (usize, i64),
    deeds: &[Deed],
) -> Result<(), TestCaseError> {
    for (index, (events, (wanted, asks))) in all.iter().zip(deeds).enumerate() {
        let partition = index as u32;
        let rest = &events[next[index]..];
        if *asks {
            let found = ask(source, partition, next[index] as u64, opened);
            if let (Standing::Behind(head), Standing::Behind(expected)) = (found, standing(rest, witnesses, opened)) {
                prop_assert_eq!(head.time, expected.time);
                prop_assert!(head.until.0 > opened);
                // It is the same until then, and is worth another look then.
                for later in [opened + 1, head.until.0.saturating_sub(1)] {
                    let lasts = later < head.until.0 && later < i64::MAX - SKEW;
                    prop_assert!(!lasts || standing(rest, witnesses, later) == standing(rest, witnesses, opened));
                }
            } else {
                prop_assert_eq!(found, standing(rest, witnesses, opened));
            }
        }
        let mut left = (*wanted).min(rest.len());
        while left > 0 {
            match source.pull(PartitionId(partition), Offset(next[index] as u64), left, Micros(opened)).unwrap() {
                Pull::Pending => {}
                Pull::End => return Err(TestCaseError::fail("an early end")),
                Pull::Block(block) => {
                    let expected = &events[next[index]..next[index] + block.len()];
                    prop_assert!(block.iter().map(|body| body.bytes).eq(expected.iter().map(|(body, _)| &body[..])));
                    left -= block.len();
                    next[index] += block.len();
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_head_is_looked_for_again_once_a_wrong_date_is_none_any_more() {
    let directory = TempDir::new().unwrap();
    let times = [5000, 9000, 10, 20, 30];
    let lines: Vec<Line> = times.into_iter().map(Line::Valid).collect();
    std::fs::write(directory.path().join("a.ndjson"), content(&lines, true)).unwrap();
    let options = FileOptions { witnesses: 2, max_future_skew_us: SKEW, ..FileOptions::default() };
    let mut source = FileSource::open(&[directory.path().to_str().unwrap().to_owned()], options).unwrap();
    let head = |time: i64, until: i64| Standing::Behind(Head { time: Some(Micros(BASE + time)), until: Micros(until) });
    assert_eq!(ask(&mut source, 0, 0, BASE), head(10, BASE + 5000 - SKEW));
    assert_eq!(ask(&mut source, 0, 0, BASE + 3999), head(10, BASE + 4000));
    assert_eq!(ask(&mut source, 0, 0, BASE + 4000), head(10, BASE + 8000));
    assert_eq!(ask(&mut source, 0, 0, BASE + 8000), head(5000, i64::MAX));
}

/// A stream that gives one line at each read, and then an error if so.
struct Lines(Vec<Vec<u8>>, bool);

impl Read for Lines {
    fn read(&mut self, mut into: &mut [u8]) -> io::Result<usize> {
        match self.0.pop() {
            Some(line) => into.write(&line),
            None if self.1 => Err(io::Error::other("broken")),
            None => Ok(0),
        }
    }
}

#[test]
fn standard_input_has_no_head_and_ends() {
    for broken in [false, true] {
        let lines = Lines(vec![b"b".to_vec(), b"a\n".to_vec()], broken);
        let mut source = FileSource::from_stream("stdin", Box::new(lines), ReadAhead::default());
        assert_eq!(ask(&mut source, 0, 0, BASE), Standing::Behind(Head::NONE));
        let mut next = 0;
        let last = loop {
            match source.pull(PartitionId(0), Offset(next), 1, Micros(0)) {
                Ok(Pull::Block(block)) => next += block.len() as u64,
                Ok(Pull::Pending) => {}
                other => break other,
            }
        };
        assert_eq!((last.is_err(), next), (broken, if broken { 1 } else { 2 }));
        if !broken {
            assert_eq!(ask(&mut source, 0, next, BASE), Standing::CaughtUp);
        }
    }
}

#[test]
fn a_silent_writer_keeps_no_epoch_from_being_cut() {
    let (reader, writer) = io::pipe().unwrap();
    let mut source = FileSource::from_stream("stdin", Box::new(reader), ReadAhead::default());
    assert_eq!(ask(&mut source, 0, 0, BASE), Standing::Behind(Head::NONE));
    drop(writer);
    while ask(&mut source, 0, 0, BASE) != Standing::CaughtUp {}
}

/// A named pipe.
pub(super) fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_beside_others_is_looked_into_and_its_opening_holds_up_nobody() {
    let directory = TempDir::new().unwrap();
    let (fifo, file) = (directory.path().join("fifo"), directory.path().join("a.ndjson"));
    pipe(&fifo);
    std::fs::write(&file, content(&[Line::Valid(3)], true)).unwrap();
    let inputs = [&fifo, &file].map(|path| path.to_str().unwrap().to_owned());
    let options = FileOptions { witnesses: 3, ..FileOptions::default() };
    let mut source = FileSource::open(&inputs, options).unwrap();
    assert_eq!(source.partitions().iter().map(|info| &info.name).collect::<Vec<_>>(), ["a.ndjson", "fifo"]);
    assert!(source.standing(PartitionId(1), Offset(0), Micros(BASE)).unwrap().is_none());
    let head = |time: i64| Standing::Behind(Head { time: Some(Micros(BASE + time)), until: Micros(i64::MAX) });
    assert_eq!(ask(&mut source, 0, 0, BASE), head(3));
    let mut writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    writer.write_all(&content(&[Line::Valid(9), Line::Valid(7)], true)).unwrap();
    assert!(source.standing(PartitionId(1), Offset(0), Micros(BASE)).unwrap().is_none());
    writer.write_all(&content(&[Line::Valid(8)], true)).unwrap();
    assert_eq!(ask(&mut source, 1, 0, BASE), head(7));
    drop(writer);
    let Pull::Block(first) = source.pull(PartitionId(1), Offset(0), 1, Micros(BASE)).unwrap() else {
        panic!("nothing")
    };
    assert_eq!(first.len(), 1);
    assert_eq!(ask(&mut source, 1, 1, BASE), head(7));
}

#[test]
fn a_compressed_file_that_is_cut_short_is_read_to_its_last_whole_line() {
    let lines: Vec<Line> = (0..3000).map(|at| Line::Valid(at * at % 7919)).collect();
    let whole = content(&lines, true);
    let bodies = events(&lines, true, true);
    for kind in [Kind::Gzip, Kind::Zstd] {
        let packed = kind.pack(&whole);
        let (directory, name) = (TempDir::new().unwrap(), format!("a.jsonl{}", kind.ending()));
        let path = directory.path().join(name);
        let inputs = [directory.path().to_str().unwrap().to_owned()];
        let (mut read, mut digest) = (0, None);
        for cut in [0, 7, packed.len() / 3, packed.len() / 2 + 5, packed.len() - 9, packed.len()] {
            std::fs::write(&path, &packed[..cut]).unwrap();
            let mut source = FileSource::open(&inputs, ReadAhead::default()).unwrap();
            assert_eq!(source.total_bytes(), None);
            let at = tidemark_dataflows::event::Position { partition: PartitionId(0), offset: Offset(read) };
            source.resume(at, digest).unwrap();
            loop {
                match source.pull(PartitionId(0), Offset(read), 500, Micros(0)).unwrap() {
                    Pull::Pending => {}
                    Pull::End => break,
                    Pull::Block(block) => {
                        let expected = &bodies[read as usize..][..block.len()];
                        assert!(block.iter().map(|body| body.bytes).eq(expected.iter().map(|(body, _)| &body[..])));
                        read += block.len() as u64;
                    }
                }
            }
            assert_eq!(ask(&mut source, 0, read, BASE), Standing::CaughtUp);
            digest = source.digest(PartitionId(0));
        }
        assert_eq!(read, 3000);
        let mut damaged = packed;
        damaged[0] ^= 0xff;
        std::fs::write(&path, damaged).unwrap();
        let mut source = FileSource::open(&inputs, ReadAhead::default()).unwrap();
        let error = loop {
            match source.pull(PartitionId(0), Offset(0), 1, Micros(0)) {
                Ok(Pull::Pending) => {}
                other => break other.unwrap_err(),
            }
        };
        assert!(error.to_string().contains("it cannot be decompressed"), "{error}");
    }
}
