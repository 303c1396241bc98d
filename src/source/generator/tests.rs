//! The generator through its public face.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;
use tidemark_dataflows::event::{Micros, Offset, PartitionId};
use tidemark_dataflows::reason::Reason;

use super::*;
use crate::source::{FileSource, ReadAhead, SourceErrorKind};

const EVERYTHING_DUE: Micros = Micros(i64::MAX);

fn faulty(events: u64) -> GeneratorOptions {
    GeneratorOptions {
        duplicates: 0.1,
        invalid: 0.2,
        late: 0.05,
        disordered: 0.2,
        events: Some(events),
        ..GeneratorOptions::default()
    }
}

fn generator(options: GeneratorOptions) -> EventGenerator {
    EventGenerator::new(options).unwrap()
}

fn body(generator: &EventGenerator, partition: u32, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    generator.write_body(PartitionId(partition), Offset(offset), &mut out);
    out
}

/// The value of a member, as text, in a sound event.
fn member<'a>(body: &'a str, name: &str) -> &'a str {
    let (_, rest) = body.split_once(&format!("\"{name}\": ")).unwrap();
    rest.split([',', '}']).next().unwrap().trim_matches('"')
}

/// All bodies of a source in order, pulled in pieces of `max_events`.
fn drain(source: &mut dyn Source, max_events: usize) -> Vec<Vec<Vec<u8>>> {
    let mut partitions = vec![Vec::new(); source.partitions().len()];
    for (index, bodies) in partitions.iter_mut().enumerate() {
        loop {
            let from = Offset(bodies.len() as u64);
            match source.pull(PartitionId(index as u32), from, max_events, EVERYTHING_DUE).unwrap() {
                Pull::Block(block) => bodies.extend(block.iter().map(|body| body.bytes.to_vec())),
                Pull::Pending => {}
                Pull::End => break,
            }
        }
    }
    partitions
}

#[test]
fn events_look_as_producers_write_them() {
    let options = GeneratorOptions { invalid: 0.0, ..GeneratorOptions::default() };
    let text = String::from_utf8(body(&generator(options), 1, 5)).unwrap();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert!(text.starts_with("{\"event_id\": \""), "{text}");
    for part in [
        ", \"user_id\": \"user_99999\", \"event_time\": \"9999-99-99T99:99:99.999999+99:99\", \"ingest_time\": \"9999-",
        "T99:99:99.999999+99:99\", \"event_type\": \"",
        "_completed\", \"amount\": 9",
        ".99, \"currency\": \"GBP\", \"channel\": \"",
    ] {
        assert!(shape.contains(part), "{part} is not in {shape}");
    }
    assert!(text.ends_with("\"}"), "{text}");
}

#[test]
fn the_same_options_give_the_same_bytes_everywhere() {
    for partitions in [1, 3, 11] {
        let options = GeneratorOptions { partitions, ..faulty(5_003) };
        let made = generator(options.clone());
        let stop = AtomicBool::new(false);
        let writer = EventWriter::new(&made, Pacing::Live, &stop);
        let directory = TempDir::new().unwrap();
        let written = writer.write_files(directory.path(), false).unwrap();
        assert_eq!(written.events, 5_003);
        let input = directory.path().to_str().unwrap().to_owned();
        let mut files = FileSource::open(&[input], ReadAhead::default()).unwrap();
        assert_eq!(files.total_bytes(), Some(written.bytes));
        let mut live = GeneratorSource::new(made.clone(), Pacing::Live);
        assert!(live.is_bounded());
        let from_source = drain(&mut live, 77);
        assert!(from_source == drain(&mut files, 1000));

        let mut stream = Vec::new();
        assert_eq!(writer.write_stream("memory", &mut stream).unwrap(), written);
        let dealt: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
        for (index, &line) in dealt[..5_003].iter().enumerate() {
            assert_eq!(line, from_source[index % partitions as usize][index / partitions as usize]);
        }
        let other = generator(GeneratorOptions { seed: 43, ..options });
        assert_ne!(body(&other, 0, 0), body(&made, 0, 0));
    }
}

proptest! {
    #[test]
    fn a_block_from_anywhere_is_the_same(seed in any::<u64>(), from in 0_u64..1 << 40, events in 1_usize..50) {
        let made = generator(GeneratorOptions { seed, events: None, ..faulty(0) });
        let mut source = GeneratorSource::new(made.clone(), Pacing::AtOnce);
        let pulled = source.pull(PartitionId(2), Offset(from), events, Micros(0)).unwrap();
        let Pull::Block(block) = pulled else { return Err(TestCaseError::fail("nothing was due")) };
        prop_assert_eq!(block.len(), events);
        for found in block.iter() {
            prop_assert_eq!(found.bytes, body(&made, 2, found.at.offset.0));
        }
    }

    #[test]
    fn nothing_is_due_early_and_nothing_is_due_late(rate in 1_u64..20_000_000, elapsed in 0_i64..1 << 45) {
        let options = GeneratorOptions { rate, ..GeneratorOptions::default() };
        let start = options.start;
        let made = generator(options);
        let due = made.due(Micros(start.0 + elapsed));
        // Event n, counted from 0, is due n / rate seconds after the start, rounded down to the microsecond.
        let due_at = |event: u64| i128::from(event) * 1_000_000 / i128::from(rate);
        prop_assert!(due_at(due - 1) <= i128::from(elapsed));
        prop_assert!(due_at(due) > i128::from(elapsed));
        let dealt: u64 = (0..4).map(|partition| made.in_partition(due, PartitionId(partition))).sum();
        prop_assert_eq!(dealt, due);
        prop_assert_eq!(made.due(Micros(start.0 - 1 - elapsed)), 0);
    }
}

#[test]
fn a_live_source_hands_out_what_is_due() {
    let options = GeneratorOptions { rate: 10, partitions: 2, events: Some(4), ..GeneratorOptions::default() };
    let start = options.start;
    let mut source = GeneratorSource::new(generator(options), Pacing::Live);
    let mut pull = |partition, from, after| {
        source.pull(PartitionId(partition), Offset(from), 10, Micros(start.0 + after)).unwrap()
    };
    assert!(matches!(pull(0, 0, -1), Pull::Pending));
    assert!(matches!(pull(0, 0, 0), Pull::Block(block) if block.len() == 1));
    assert!(matches!(pull(1, 0, 99_999), Pull::Pending));
    assert!(matches!(pull(1, 0, 100_000), Pull::Block(block) if block.len() == 1));
    assert!(matches!(pull(0, 0, 1_000_000), Pull::Block(block) if block.len() == 2));
    assert!(matches!(pull(0, 2, 0), Pull::End));
    let beyond = source.pull(PartitionId(0), Offset(3), 1, start).unwrap_err();
    assert_eq!(beyond.kind(), SourceErrorKind::Changed);
}

#[test]
fn a_resumed_generator_goes_on_anywhere_without_a_digest() {
    let options = GeneratorOptions { partitions: 2, events: Some(40), ..GeneratorOptions::default() };
    let made = generator(options);
    let mut source = GeneratorSource::new(made.clone(), Pacing::AtOnce);
    let at = |partition, offset| Position { partition: PartitionId(partition), offset: Offset(offset) };
    source.resume(at(1, 7), None).unwrap();
    assert_eq!(source.digest(PartitionId(1)), None);
    let rest = source.pull(PartitionId(1), Offset(7), 100, EVERYTHING_DUE).unwrap();
    assert!(
        matches!(rest, Pull::Block(block) if block.len() == 13 && block.body(0).unwrap().bytes == body(&made, 1, 7))
    );
    assert_eq!(source.resume(at(2, 0), None).unwrap_err().kind(), SourceErrorKind::Usage);
}

#[test]
fn shares_are_met() {
    const EVENTS: u64 = 100_000;
    let options = faulty(EVENTS);
    let made = generator(options.clone());
    let mut counts: HashMap<&str, f64> = HashMap::new();
    let mut reasons: HashMap<Reason, u64> = HashMap::new();
    let originals = |partition: u32| {
        let plan = |offset| made.plan(PartitionId(partition), Offset(offset));
        (0..EVENTS / 4).map(plan).collect::<Vec<_>>()
    };
    for plan in (0..4).flat_map(originals) {
        if plan.redelivery_of.is_some() {
            *counts.entry("duplicates").or_default() += 1.0;
            continue;
        }
        let name = match plan.kind {
            Kind::Ordinary => "ordinary",
            Kind::Disordered => "disordered",
            Kind::Late => "late",
            Kind::Invalid(reason) => {
                *reasons.entry(reason).or_default() += 1;
                "invalid"
            }
            Kind::Conflicting(_) => {
                *reasons.entry(Reason::ConflictingDuplicate).or_default() += 1;
                "invalid"
            }
        };
        *counts.entry(name).or_default() += 1.0;
    }
    let duplicates = counts.remove("duplicates").unwrap();
    let originals = EVENTS as f64 - duplicates;
    assert!((duplicates / EVENTS as f64 - options.duplicates).abs() < 0.005);
    for (name, share) in [("invalid", options.invalid), ("late", options.late), ("disordered", options.disordered)] {
        assert!((counts[name] / originals - share).abs() < 0.005, "{name}: {}", counts[name]);
    }
    let expected = originals * options.invalid / 15.0;
    assert_eq!(reasons.len(), 15);
    for (reason, count) in reasons {
        assert!((count as f64 / expected - 1.0).abs() < 0.15, "{reason}: {count}, not {expected}");
    }
}

#[test]
fn redeliveries_and_conflicts_refer_to_sound_earlier_events() {
    let made = generator(faulty(0));
    let partition = PartitionId(3);
    let mut seen = (0, 0);
    for offset in 0..20_000 {
        let plan = made.plan(partition, Offset(offset));
        if let Some(original) = plan.redelivery_of {
            assert!(original.0 < offset);
            assert_eq!(made.plan(partition, original), Plan { redelivery_of: None, kind: plan.kind });
            assert_eq!(body(&made, 3, offset), body(&made, 3, original.0));
            seen.0 += 1;
        } else if let Kind::Conflicting(original) = plan.kind {
            assert!(original.0 < offset);
            let first = made.plan(partition, original);
            assert_eq!(first.redelivery_of, None);
            assert!(matches!(first.kind, Kind::Ordinary | Kind::Disordered));
            let [ours, theirs] = [offset, original.0].map(|at| String::from_utf8(body(&made, 3, at)).unwrap());
            for name in ["event_id", "user_id", "event_time", "event_type", "channel"] {
                assert_eq!(member(&ours, name), member(&theirs, name));
            }
            assert_ne!(member(&ours, "amount"), member(&theirs, "amount"));
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 1000 && seen.1 > 100, "{seen:?}");
}

#[test]
fn event_times_follow_the_rate() {
    let made = generator(GeneratorOptions { rate: 1000, ..faulty(0) });
    let mut newest = String::new();
    let mut counts = [0; 3];
    // A day and an hour before the newest event.
    let horizon = "2025-12-31T09:00:20";
    for index in 0..20_000_u64 {
        let (partition, offset) = ((index % 4) as u32, index / 4);
        let plan = made.plan(PartitionId(partition), Offset(offset));
        let Ok(text) = String::from_utf8(body(&made, partition, offset)) else { continue };
        if plan.redelivery_of.is_some() {
            continue;
        }
        let due = format!("2026-01-01T10:00:{:02}.{:03}", index / 1000, index % 1000);
        match plan.kind {
            Kind::Ordinary => {
                let time = member(&text, "event_time");
                assert!(newest.as_str() <= time && time < due.as_str());
                assert!(member(&text, "ingest_time") <= format!("{due}999").as_str());
                assert!(time <= member(&text, "ingest_time"));
                newest = time.into();
                counts[0] += 1;
            }
            Kind::Disordered => {
                assert!(member(&text, "event_time") < newest.as_str());
                counts[1] += 1;
            }
            Kind::Late => {
                assert!(member(&text, "event_time") < horizon);
                counts[2] += 1;
            }
            _ => {}
        }
    }
    assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
}

#[test]
fn every_shape_of_every_rule_is_one_line() {
    let made = generator(GeneratorOptions { invalid: 1.0, duplicates: 0.0, late: 0.0, disordered: 0.0, ..faulty(0) });
    let mut shapes: HashMap<Reason, std::collections::HashSet<Vec<u8>>> = HashMap::new();
    for offset in 0..20_000 {
        let Kind::Invalid(reason) = made.plan(PartitionId(0), Offset(offset)).kind else { continue };
        let body = body(&made, 0, offset);
        assert!(!body.contains(&b'\n') && !body.trim_ascii().is_empty() && body.len() < MAX_EVENT_BYTES);
        // What is left without digits and identities tells the shapes apart.
        let letters = body.iter().filter(|byte| !byte.is_ascii_hexdigit()).copied().collect();
        shapes.entry(reason).or_default().insert(letters);
    }
    assert_eq!(shapes.len(), 14);
    assert!(shapes.values().all(|shapes| shapes.len() >= 3));
}

#[test]
fn files_are_not_overwritten_unasked() {
    let made = generator(faulty(10));
    let stop = AtomicBool::new(false);
    let writer = EventWriter::new(&made, Pacing::AtOnce, &stop);
    let directory = TempDir::new().unwrap();
    let kept = directory.path().join("p2.ndjson");
    fs::write(&kept, "mine\n").unwrap();
    let error = writer.write_files(directory.path(), false).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Usage);
    assert!(error.to_string().contains("p2.ndjson: the file exists already"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(fs::read(&kept).unwrap(), b"mine\n");
    writer.write_files(directory.path(), true).unwrap();
    assert_eq!(
        fs::read(&kept).unwrap(),
        [body(&made, 2, 0), body(&made, 2, 1)].map(|body| [body, b"\n".to_vec()].concat()).concat()
    );
}

#[test]
fn a_file_has_its_name_once_it_is_whole() {
    let made = generator(GeneratorOptions { events: None, ..faulty(0) });
    let (stop, directory) = (AtomicBool::new(false), TempDir::new().unwrap());
    let names = || {
        let listed = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let writer = EventWriter::new(&made, Pacing::AtOnce, &stop);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| writer.write_files(directory.path(), false).unwrap());
        let written_to = |name: &String| fs::metadata(directory.path().join(name)).is_ok_and(|file| file.len() > 0);
        while !names().iter().any(written_to) {
            std::thread::yield_now();
        }
        assert!(names().iter().all(|name| name.starts_with('.')), "{:?}", names());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(written.join().unwrap().events > 0);
    });
    assert!(names().iter().all(|name| name.starts_with('p')), "{:?}", names());
}

/// Takes some bytes, then fails.
struct Closing(io::ErrorKind);

impl Write for Closing {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_endless_stream_ends_by_flag_or_with_its_reader() {
    let made = generator(GeneratorOptions::default());
    let running = AtomicBool::new(false);
    let writer = EventWriter::new(&made, Pacing::AtOnce, &running);
    assert!(writer.write_stream("pipe", &mut Closing(io::ErrorKind::BrokenPipe)).is_ok());
    let error = writer.write_stream("disk", &mut Closing(io::ErrorKind::StorageFull)).unwrap_err();
    assert_eq!((error.kind(), error.input()), (SourceErrorKind::Unavailable, "disk"));
    let stopped = AtomicBool::new(true);
    let mut out = Vec::new();
    let written = EventWriter::new(&made, Pacing::AtOnce, &stopped).write_stream("memory", &mut out).unwrap();
    assert_eq!((written, out.len()), (Written::default(), 0));
}

#[test]
fn options_out_of_range_are_named() {
    let good = GeneratorOptions::default;
    for (options, name) in [
        (GeneratorOptions { partitions: 0, ..good() }, "partitions"),
        (GeneratorOptions { users: 0, ..good() }, "users"),
        (GeneratorOptions { rate: 0, ..good() }, "rate"),
        (GeneratorOptions { duplicates: 0.95, ..good() }, "duplicates"),
        (GeneratorOptions { late: f64::NAN, ..good() }, "late"),
        (GeneratorOptions { invalid: 0.6, disordered: 0.6, ..good() }, "invalid + late + disordered"),
        (GeneratorOptions { start: Micros(-1), ..good() }, "start"),
    ] {
        let error = EventGenerator::new(options).unwrap_err();
        assert!(error.to_string().starts_with(&format!("generator: {name} is out of range")), "{error}");
    }
}
