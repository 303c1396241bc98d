//! What the pure part of a checkpoint costs: laying down runs of ids and of totals, opening them, and merging several.
//!
//! `cargo bench -p tidemark-checkpoint --bench runs`. Nothing is written; what forcing runs to the disk and taking them up
//! again costs is measured by `benches/checkpoint.rs`. Sorting the ids is the reference: a run is sorted, so nothing that
//! lays one down can be faster.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::{Fingerprint, Remembered};
use tidemark_dataflows::event::{EventId, Micros, UserId};
use tidemark_dataflows::metrics::Totals;
use tidemark_dataflows::watermark::Bucket;

const ROWS: u64 = 100_000;
const MERGED: u64 = 8;
const HOUR: i64 = 3_600_000_000;

/// The finalizer of SplitMix.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Ids as they are admitted within two hours of event time, in no order: those of version 4.
fn admitted(first: u64, rows: u64) -> Vec<(EventId, Remembered)> {
    let one = |n: u64| {
        let id = EventId(u128::from(mix(n)) << 64 | u128::from(mix(!n)));
        (id, Remembered { bucket: Bucket(490_000 + mix(n) % 2), fingerprint: Fingerprint(mix(n ^ 0x55)) })
    };
    (first..first + rows).map(one).collect()
}

fn rows(first: u64, rows: u64) -> Vec<(UserId, Totals)> {
    let one = |n: u64| {
        let draw = mix(n);
        let totals = Totals {
            deposits: i128::from(draw % 10_000_000),
            withdrawals: i128::from(draw >> 32),
            deposit_count: draw % 900,
            withdrawal_count: draw % 500,
            first_seen: Micros(0),
            last_seen: Micros(1),
        };
        (UserId(format!("user_{:08}", draw % 10_000_000).into()), totals)
    };
    (first..first + rows).map(one).collect()
}

fn runs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("runs of 100,000 rows");
    group.throughput(Throughput::Elements(ROWS)).sample_size(20);
    let ids = admitted(0, ROWS);
    group.bench_function("ids: sorting alone", |bencher| {
        let sort = |mut ids: Vec<(EventId, Remembered)>| {
            ids.sort_by_key(|(id, _)| *id);
            ids
        };
        bencher.iter_batched(|| ids.clone(), sort, BatchSize::LargeInput);
    });
    group.bench_function("ids: lay down", |bencher| {
        bencher.iter_batched(|| ids.clone(), |ids| ids::encode(ids, HOUR), BatchSize::LargeInput);
    });
    let object = ids::encode(ids, HOUR).0;
    group.bench_function("ids: open", |bencher| bencher.iter(|| ids::decode("ids", &object).unwrap()));
    let part = |n: u64| ids::decode("part", &ids::encode(admitted(n * ROWS, ROWS / MERGED), HOUR).0).unwrap();
    let parts: Vec<ids::IdRun> = (0..MERGED).map(part).collect();
    group.bench_function("ids: merge of eight", |bencher| bencher.iter(|| ids::merge(&parts, Bucket(0)).unwrap()));

    let users = rows(0, ROWS);
    group.bench_function("totals: lay down", |bencher| bencher.iter(|| totals::encode(&users)));
    let object = totals::encode(&users);
    let open = |object: &Bytes| totals::decode_of::<UserId>("totals", object).unwrap();
    group.bench_function("totals: open", |bencher| bencher.iter(|| open(&object)));
    let parts: Vec<_> = (0..MERGED).map(|n| open(&totals::encode(&rows(n * ROWS, ROWS / MERGED)))).collect();
    group.bench_function("totals: merge of eight", |bencher| bencher.iter(|| totals::merge(&parts)));
    group.finish();
}

criterion_group!(benches, runs);
criterion_main!(benches);
