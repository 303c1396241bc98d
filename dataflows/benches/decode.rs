//! What it costs to judge one event: the fast path, the strict path, and a plain `serde_json` struct for comparison.
//!
//! `cargo bench -p tidemark-dataflows --bench decode`. Each iteration judges [`EVENTS`] different events, so that the
//! branches are not learnt by heart; the throughput line gives events per second. The struct is not the contract: it
//! checks no duplicates, no nesting and no time, and its amount is a float.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Micros, Position};

const EVENTS: u64 = 1000;

#[derive(Deserialize)]
#[allow(dead_code, reason = "only parsed")]
struct Plain<'a> {
    event_id: &'a str,
    user_id: &'a str,
    event_time: &'a str,
    ingest_time: &'a str,
    event_type: &'a str,
    amount: f64,
    currency: &'a str,
    channel: &'a str,
}

/// Events as the usual producers write them, about 270 bytes each.
fn bodies() -> Vec<Vec<u8>> {
    let mut state = 42_u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut body = || {
        let (a, b, c) = (next(1 << 31), next(1 << 16), next(1 << 31));
        let (day, hour, minute, second, micros) = (1 + next(28), next(24), next(60), next(60), next(1_000_000));
        let date = format!("2026-01-{day:02}T{hour:02}:{minute:02}");
        let (user, pounds, pence) = (next(500), 5 + next(495), next(100));
        let event_type = ["deposit_completed", "withdrawal_completed"][next(2) as usize];
        let channel = ["web", "mobile", "api"][next(3) as usize];
        format!(
            "{{\"event_id\": \"{a:08x}-{b:04x}-4{:03x}-8{:03x}-{c:012x}\", \"user_id\": \"user_{user:05}\", \
             \"event_time\": \"{date}:{second:02}.{micros:06}+00:00\", \
             \"ingest_time\": \"{date}:{second:02}.{micros:06}+00:00\", \"event_type\": \"{event_type}\", \
             \"amount\": {pounds}.{pence:02}, \"currency\": \"GBP\", \"channel\": \"{channel}\"}}",
            b & 0xFFF,
            c & 0xFFF,
        )
    };
    (0..EVENTS).map(|_| body().into_bytes()).collect()
}

fn contract() -> Contract {
    Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: false }
}

fn body(bytes: &[u8]) -> Body<'_> {
    let arrival = Micros(1_772_000_000_000_000);
    Body { bytes, whole_len: bytes.len() as u64, at: Position::default(), arrival, section: None }
}

fn decode(criterion: &mut Criterion) {
    let bodies = bodies();
    let contract = contract();
    assert!(bodies.iter().all(|bytes| contract.check_fast(&body(bytes), 0).is_some()), "the usual shape");

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("fast", |b| {
        b.iter(|| bodies.iter().for_each(|bytes| drop(black_box(contract.check_fast(&body(bytes), 0)))));
    });
    group.bench_function("strict", |b| {
        b.iter(|| bodies.iter().for_each(|bytes| drop(black_box(contract.check_strict(&body(bytes), 0)))));
    });
    group.bench_function("serde_json struct, nothing checked", |b| {
        b.iter(|| bodies.iter().for_each(|bytes| drop(black_box(serde_json::from_slice::<Plain<'_>>(bytes)))));
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
