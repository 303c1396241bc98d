//! Files that are cut in the order of event time: lateness is a fact about a payment, not about how it was read.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidemark_dataflows::event::{Micros, PartitionId};
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::watermark::Behind;

use crate::harness::{Results, Stream, settings};
use crate::{HOUR_US, run_all};

const START_US: i64 = 1_767_225_600_000_000;

/// Hours since the start of the first of January, or none where the event breaks a rule.
type Files = Vec<Vec<Option<i64>>>;

/// What the files hold, and how they are read.
#[derive(Clone, Debug)]
struct Reading {
    files: Files,
    witnesses: usize,
    /// In hours.
    alignment: i64,
    epoch_events: usize,
    /// In hours, and not zero: with that, an event at the head of its file would be late by itself.
    delay: i64,
}

fn readings() -> impl Strategy<Value = Reading> {
    // Of three events in a row one may break a rule, so that enough valid ones are always in sight.
    let event = |base: i64| {
        (0..4u8, 0..30i64, 0..150i64, any::<bool>())
            .prop_map(move |(kind, near, far, valid)| (if kind == 0 { far } else { base + near }, valid))
    };
    let file = (0..120i64, any::<bool>()).prop_flat_map(move |(base, sorted)| {
        prop::collection::vec(event(base), 0..40).prop_map(move |mut events| {
            if sorted {
                events.sort_by_key(|(hours, _)| *hours);
            }
            let hours = |(i, (hours, valid)): (usize, (i64, bool))| (valid || i % 3 > 0).then_some(hours);
            events.into_iter().enumerate().map(hours).collect()
        })
    });
    (prop::collection::vec(file, 1..5), 1..4usize, 0..30i64, 1..20usize, 1..40i64).prop_map(
        |(files, witnesses, alignment, epoch_events, delay)| Reading {
            files,
            witnesses,
            alignment,
            epoch_events,
            delay,
        },
    )
}

/// The least time of the first n valid ones among the next 10 n events.
fn head(rest: &[Option<i64>], witnesses: usize) -> Option<i64> {
    rest.iter().take(10 * witnesses).flatten().take(witnesses).min().copied()
}

fn body(file: usize, offset: usize, hours: Option<i64>) -> String {
    let (day, hour) = (1 + hours.unwrap_or(0) / 24, hours.unwrap_or(0) % 24);
    let amount = if hours.is_some() { "1" } else { "-1" };
    format!(
        r#"{{"event_id":"{file}-{offset}","user_id":"u","event_time":"2026-01-{day:02}T{hour:02}:00:00Z","ingest_time":"2026-01-01T00:00:00Z","event_type":"deposit_completed","amount":{amount},"currency":"GBP","channel":"api"}}"#
    )
}

/// Reads files in the order of event time.
fn cut(reading: &Reading) -> Stream {
    let Reading { files, witnesses, alignment, epoch_events, .. } = reading;
    let mut stream = Stream { epochs: Vec::new(), cuts: Vec::new() };
    let mut read = vec![0; files.len()];
    let heads = |read: &[usize]| -> Vec<(usize, Option<i64>)> {
        let open = (0..files.len()).filter(|file| read[*file] < files[*file].len());
        open.map(|file| (file, head(&files[file][read[file]..], *witnesses))).collect()
    };
    loop {
        let open = heads(&read);
        if open.is_empty() {
            return stream;
        }
        let blind: Vec<usize> = open.iter().filter(|(_, head)| head.is_none()).map(|(file, _)| *file).collect();
        let limit = open.iter().filter_map(|(_, head)| *head).min().unwrap_or(0) + alignment;
        let near: Vec<usize> = open.iter().filter(|(_, head)| *head <= Some(limit)).map(|(file, _)| *file).collect();
        let active = if blind.is_empty() { near } else { blind };
        let each = (epoch_events / active.len()).max(1);
        let mut epoch = vec![Vec::new(); files.len()];
        for file in active {
            let end = files[file].len().min(read[file] + each);
            epoch[file] = (read[file]..end).map(|offset| body(file, offset, files[file][offset])).collect();
            read[file] = end;
        }
        stream.epochs.push(epoch);
        let behind = heads(&read).into_iter().map(|(file, head)| Behind {
            partition: PartitionId(u32::try_from(file).unwrap()),
            head: head.map(|hours| Micros(START_US + hours * HOUR_US)),
        });
        stream.cuts.push(Some(behind.collect()));
    }
}

fn read(reading: &Reading, workers: usize) -> Results {
    let settings = Settings { witnesses: reading.witnesses, ..settings(reading.delay, 24) };
    run_all(&cut(reading), &settings, workers, 3, 5)
}

/// File and offset of the late events.
fn late(results: &Results) -> BTreeSet<(usize, usize)> {
    let late = results.rejected.iter().filter(|(_, _, reason)| *reason == Reason::LateEvent);
    late.map(|(_, at, _)| (at.partition.0 as usize, usize::try_from(at.offset.0).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_late_event_has_witnesses_before_it_in_its_own_file(reading in readings(), workers in 1..=3usize) {
        for (file, offset) in late(&read(&reading, workers)) {
            let (before, from) = reading.files[file].split_at(offset);
            let time = from[0].expect("a valid event");
            let witnesses = before.iter().flatten().filter(|hours| **hours >= time + reading.delay).count();
            prop_assert!(witnesses >= reading.witnesses, "{witnesses} before {offset} of file {file}");
        }
    }

    /// However much of the files is behind the others, and in whatever steps they are read.
    #[test]
    fn nothing_is_late_where_each_file_is_in_order(mut reading in readings()) {
        for file in &mut reading.files {
            let mut sorted: Vec<i64> = file.iter().flatten().copied().collect();
            sorted.sort_unstable();
            file.iter_mut().flatten().zip(sorted).for_each(|(hours, in_order)| *hours = in_order);
        }
        prop_assert!(late(&read(&reading, 1)).is_empty());
    }
}

/// The property above is of use only if late events are common in what is read.
#[test]
fn there_are_late_events_to_speak_of() {
    let mut runner = TestRunner::deterministic();
    let readings = (0..50).map(|_| readings().new_tree(&mut runner).unwrap().current());
    let late: usize = readings.map(|reading| late(&read(&reading, 1)).len()).sum();
    assert!(late > 100, "{late}");
}
