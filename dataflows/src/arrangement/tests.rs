//! Memory: what is counted, when it grows, and that it is given back.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

fn settings(expected_ids: usize) -> Settings {
    let horizon = Horizon { watermark_delay_us: 24 * HOUR, dedup_retention_us: 24 * HOUR };
    Settings { horizon, key: [5, 6], expected_ids, sweep: SweepRate::default() }
}

fn admit(index: &mut TimeBoundedArrangement, id: u128, time: i64, epoch: Epoch) -> Admission {
    index.admit(index.key(EventId(id)), Micros(time), Fingerprint(id as u64), epoch)
}

fn fill(index: &mut TimeBoundedArrangement, ids: std::ops::Range<u128>, time: i64) {
    for id in ids {
        assert_eq!(admit(index, id, time, 1), Admission::New);
    }
}

#[test]
fn memory_is_given_back_once_the_horizon_has_passed_and_the_expected_share_is_kept() {
    for expected in [0, 20_000] {
        let mut index = TimeBoundedArrangement::new(settings(expected));
        let at_start = index.heap_bytes();
        fill(&mut index, 0..200_000, HOUR / 2);
        let full = index.heap_bytes();
        assert!(full > 200_000 * 27 && full < 200_000 * 80, "{full}");
        index.advance(Some(Micros(25 * HOUR)));
        assert_eq!((index.retained(index.watermark()), index.len()), (0, 200_000));
        while !index.is_empty() {
            let before = index.len();
            index.sweep(1);
            assert!(index.len() < before);
        }
        let after = index.heap_bytes();
        assert!(after >= at_start && after <= at_start + full / 20, "{at_start} -> {full} -> {after}");
        fill(&mut index, 0..1000, 30 * HOUR);
        assert_eq!(index.iter().count(), 1000);
    }
}

#[test]
fn expected_ids_take_at_most_28_bytes_each_and_never_move() {
    for expected in [1_000_000, 1_234_567] {
        let mut index = TimeBoundedArrangement::new(settings(expected));
        let at_start = index.heap_bytes();
        assert!(at_start <= expected * 28, "{expected} ids take {at_start} bytes");
        // Of the many shards a few run ahead of the average by chance.
        fill(&mut index, 0..expected as u128 * 9 / 10, 0);
        assert_eq!(index.heap_bytes(), at_start);
    }
}

#[test]
fn without_expectations_an_id_never_takes_more_than_34_bytes_once_there_are_many() {
    let mut index = TimeBoundedArrangement::new(settings(0));
    for step in 0..800 {
        fill(&mut index, step * 1000..(step + 1) * 1000, 0);
        if step >= 400 {
            let bytes = index.heap_bytes() as f64 / index.len() as f64;
            assert!(bytes > 27.0 && bytes < 34.0, "{bytes} bytes for each of {}", index.len());
        }
    }
}

#[test]
fn shards_do_not_all_grow_at_once() {
    for expected in [0, 1_000_000] {
        let mut index = TimeBoundedArrangement::new(settings(expected));
        let first = expected as u128 * 9 / 10;
        fill(&mut index, 0..first, 0);
        let (mut bytes, mut worst) = (index.heap_bytes(), 0);
        for step in 0..100 {
            let from = first + step * 5_000;
            fill(&mut index, from..from + 5_000, 0);
            let now = index.heap_bytes();
            if from > 250_000 {
                worst = worst.max((now - bytes) * 1000 / bytes);
            }
            bytes = now;
        }
        // Were all shards to grow together, it would be 250, and 93 if nothing but chance kept them apart.
        assert!(worst <= 45, "{worst} thousandths in one step");
    }
}

#[test]
fn ids_that_come_and_go_at_a_constant_rate_do_not_make_the_table_grow() {
    let mut index = TimeBoundedArrangement::new(settings(400_000));
    let at_start = index.heap_bytes();
    let per_hour = 14_000;
    for hour in 0..100 {
        index.advance(Some(Micros(hour * HOUR)));
        let first = u128::from(hour.unsigned_abs()) * per_hour;
        fill(&mut index, first..first + per_hour, hour * HOUR);
        index.sweep(per_hour as usize * settings(0).sweep.cells_per_event);
    }
    assert!(index.retained(index.watermark()) > 320_000);
    assert!(index.heap_bytes() <= at_start * 6 / 5, "{at_start} -> {}", index.heap_bytes());
}

#[test]
fn any_instant_up_to_9999_has_its_own_second() {
    let horizon = Horizon { watermark_delay_us: 0, dedup_retention_us: 0 };
    let mut index = TimeBoundedArrangement::new(Settings { horizon, ..settings(0) });
    let last = crate::event::END_OF_TIME.0 - 1;
    for (id, time) in [(1, 0), (2, last - SECOND), (3, last)] {
        assert_eq!(admit(&mut index, id, time, u64::MAX), Admission::New);
        assert_eq!(index.get(EventId(id), None).unwrap().bucket, Bucket((time / SECOND).cast_unsigned()));
    }
    index.advance(Some(Micros(last)));
    assert_eq!(index.retained(index.watermark()), 1);
    assert!(index.get(EventId(3), index.watermark()).is_some());
    assert!(index.get(EventId(2), index.watermark()).is_none());
}

#[test]
fn restoring_leaves_out_what_is_forgotten_and_prefers_the_later_admission() {
    let mut index = TimeBoundedArrangement::new(settings(0));
    let at = |hour| Remembered { bucket: Bucket(hour), fingerprint: Fingerprint(hour) };
    index.advance(Some(Micros(30 * HOUR)));
    for hour in [2, 8, 7, 9, 5] {
        index.restore(EventId(1), at(hour));
    }
    assert_eq!(index.get(EventId(1), index.watermark()), Some(at(9)));
    index.restore(EventId(2), at(5));
    assert!(index.get(EventId(2), index.watermark()).is_none());
    assert_eq!(index.retained(index.watermark()), 1);
    assert_eq!(admit(&mut index, 1, 20 * HOUR, 1), Admission::Earlier(at(9)));
}

/// With buckets of a second, so that codes run out within hours.
fn short() -> Settings {
    let horizon = Horizon { watermark_delay_us: 10 * SECOND, dedup_retention_us: 10 * SECOND };
    Settings { horizon, ..settings(0) }
}

/// Ids that all live in the first shard of an index of the least size.
fn of_one_shard(count: usize) -> Vec<u128> {
    let index = TimeBoundedArrangement::new(settings(0));
    (0..).filter(|id| index.shard_of(index.key(EventId(*id))) == 0).take(count).collect()
}

#[test]
fn event_times_far_from_each_other_are_told_apart_before_there_is_a_watermark() {
    let mut index = TimeBoundedArrangement::new(short());
    // In both directions from the first, by less and by more than codes span.
    let seconds = [50_000, 50_001, 47_000, 40_000, 53_000, 60_000, 0, 200_000_000_000, 51_000, 40_000];
    let ids = of_one_shard(seconds.len());
    for (id, second) in ids.iter().copied().zip(seconds) {
        assert_eq!(admit(&mut index, id, second * SECOND, 7), Admission::New);
    }
    assert!(!index.far.is_empty());
    for (id, second) in ids.iter().copied().zip(seconds) {
        let kept = Remembered { bucket: Bucket(second.unsigned_abs()), fingerprint: Fingerprint(id as u64) };
        assert_eq!(index.get(EventId(id), None), Some(kept));
        assert_eq!(admit(&mut index, id, 0, 7), Admission::ThisEpoch(kept));
        assert_eq!(admit(&mut index, id, 0, 8), Admission::Earlier(kept));
    }
    assert_eq!((index.len(), index.iter().count()), (10, 10));
    for (watermark, left) in [(40_010, 9), (40_011, 7), (53_010, 3), (60_011, 1)] {
        index.advance(Some(Micros(watermark * SECOND)));
        assert_eq!((index.retained(index.watermark()), index.iter().count()), (left, left), "at {watermark}");
        for (id, second) in ids.iter().copied().zip(seconds) {
            assert_eq!(
                index.lookup(index.key(EventId(id)), 8).is_some(),
                second + 11 > watermark,
                "{id} at {watermark}"
            );
        }
    }
    index.sweep(usize::MAX);
    assert_eq!(index.len(), 1);
}

#[test]
fn codes_never_run_out_however_long_it_runs_and_whatever_is_swept() {
    for cells in [0, 40, usize::MAX] {
        let mut index = TimeBoundedArrangement::new(short());
        let mut known = HashMap::new();
        for second in 0i64..30_000 {
            // Now and then nothing comes for longer than codes span.
            let second = second + second / 10_000 * 50_000;
            index.advance(Some(Micros((second - 10) * SECOND)));
            let id = u128::from(second.unsigned_abs()) * 7 % 1000;
            let expected = known.get(&id).is_some_and(|then| then + 1 + 10 > second - 10);
            let admission = admit(&mut index, id, second * SECOND, second.unsigned_abs());
            assert_eq!(admission != Admission::New, expected, "{id} at {second}");
            if !expected {
                known.insert(id, second);
            }
            index.sweep(cells);
            assert!(index.far.is_empty());
        }
        assert!(index.retained(index.watermark()) <= 21);
    }
}

#[test]
fn an_id_is_of_the_epoch_that_admitted_it_however_it_is_moved() {
    let mut index = TimeBoundedArrangement::new(settings(0));
    let this_epoch = |index: &mut TimeBoundedArrangement, id: u128, epoch| {
        matches!(admit(index, id, 0, epoch), Admission::ThisEpoch(_))
    };
    for id in 0..50_000 {
        index.restore(EventId(id), Remembered { bucket: Bucket(0), fingerprint: Fingerprint(id as u64) });
    }
    // Epoch 0 is none: what is restored belongs to no epoch.
    assert!((0..50_000).all(|id| !this_epoch(&mut index, id, 0)));
    let mut filled = 50_000;
    for epoch in [1, 2, 1 << 32, (1 << 32) + 3] {
        for id in filled..filled + 70_000 {
            assert_eq!(admit(&mut index, id, 0, epoch), Admission::New);
        }
        assert!((filled..filled + 70_000).all(|id| this_epoch(&mut index, id, epoch)), "epoch {epoch}");
        assert!((0..filled).all(|id| !this_epoch(&mut index, id, epoch)), "epoch {epoch}");
        assert!((0..filled + 70_000).all(|id| !this_epoch(&mut index, id, epoch + 5)));
        filled += 70_000;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit { id: u128, hour: i64 },
    Restore { id: u128, hour: i64 },
    Replace { id: u128, hour: i64 },
    Advance { hours: i64 },
    Sweep { cells: usize },
}

/// Mostly within a day or so, some as far away as codes of buckets do not span.
fn hours() -> impl Strategy<Value = i64> {
    prop_oneof![12 => 0i64..30, 1 => 0i64..10_000]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u128..40, hours()).prop_map(|(id, hour)| Step::Admit { id, hour }),
        1 => (0u128..40, hours()).prop_map(|(id, hour)| Step::Restore { id, hour }),
        1 => (0u128..40, hours()).prop_map(|(id, hour)| Step::Replace { id, hour }),
        1 => prop_oneof![20 => 0i64..6, 1 => 0i64..9000].prop_map(|hours| Step::Advance { hours }),
        2 => (0usize..2000).prop_map(|cells| Step::Sweep { cells }),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// Against a map of id to event time that forgets by the definition.
    #[test]
    fn counts_and_look_ups_agree_with_a_plain_map_whatever_is_swept(steps in steps(), together: bool) {
        // All in one shard, which then has to grow, or each in its own.
        let ids = if together { of_one_shard(40) } else { (0..40).collect() };
        let ids = |id: u128| ids[id as usize];
        let horizon = settings(0).horizon;
        let mut index = TimeBoundedArrangement::new(settings(0));
        let mut map: HashMap<u128, Micros> = HashMap::new();
        // Event hours count from the watermark, so that ids keep expiring.
        let mut watermark = Micros(100 * HOUR);
        index.advance(Some(watermark));
        for (epoch, step) in (1u64..).zip(steps) {
            match step {
                Step::Admit { id, hour } => {
                    let id = ids(id);
                    let time = Micros(watermark.0 - 20 * HOUR + hour * HOUR);
                    let known = map.get(&id).is_some_and(|time| horizon.forgotten_at(*time) > watermark);
                    let new = horizon.forgotten_at(time) > watermark && !known;
                    if known || new {
                        let admission = admit(&mut index, id, time.0, epoch);
                        prop_assert_eq!(admission == Admission::New, new);
                    }
                    if new {
                        map.insert(id, time);
                    }
                }
                Step::Restore { id, hour } => {
                    let id = ids(id);
                    let time = Micros(watermark.0 - 30 * HOUR + hour * HOUR);
                    let kept = Remembered { bucket: horizon.bucket_of(time), fingerprint: Fingerprint(id as u64) };
                    index.restore(EventId(id), kept);
                    let known = map.get(&id).map(|time| horizon.bucket_of(*time));
                    if horizon.forgotten_at(time) > watermark && known < Some(kept.bucket) {
                        map.insert(id, time);
                    }
                }
                Step::Replace { id, hour } => {
                    let id = ids(id);
                    let time = Micros(watermark.0 + hour * HOUR);
                    index.replace(EventId(id), time, Fingerprint(id as u64), epoch);
                    map.entry(id).and_modify(|known| *known = time);
                }
                Step::Advance { hours } => {
                    watermark.0 += hours * HOUR;
                    index.advance(Some(watermark));
                    map.retain(|_, time| horizon.forgotten_at(*time) > watermark);
                }
                Step::Sweep { cells } => index.sweep(cells),
            }
            let ahead = Some(Micros(watermark.0 + 7 * HOUR));
            let left = map.values().filter(|time| Some(horizon.forgotten_at(**time)) > ahead).count();
            prop_assert_eq!((index.retained(Some(watermark)), index.retained(ahead)), (map.len(), left));
            prop_assert!(index.len() >= map.len());
            for id in (0..40).map(ids) {
                let bucket = index.get(EventId(id), Some(watermark)).map(|known| known.bucket);
                prop_assert_eq!(bucket, map.get(&id).map(|time| horizon.bucket_of(*time)));
            }
            prop_assert_eq!(index.iter().count(), map.len());
        }
    }
}
