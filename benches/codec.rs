//! What carrying an event between processes costs: fixed little-endian slots against bincode, columnar and abomonation.
//!
//! `cargo bench -p tidemark-dataflows --bench codec`. Why abomonation is used nowhere else stands in `docs/abomonation.md`: it has an open
//! soundness advisory, writes addresses of this process into its output, and the time it would save is measured here.
#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code, missing_docs)]

use abomonation::Abomonation;
use columnar::{Borrow, Columnar, Index, Len, Push};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::{Channel, Event, EventId, EventType, Micros, Pence, Position, UserId};

const EVENTS: u64 = 1_000;

/// An event without its user: what all four codecs can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
struct Slot {
    id: (u64, u64),
    time_us: i64,
    pence: i64,
    offset: u64,
    partition: u32,
    kind: u32,
}

// SAFETY: every field is plain old data, so there is nothing behind a pointer to embed, exhume or account for.
impl Abomonation for Slot {}

const SLOT_BYTES: usize = 48;

fn slots() -> Vec<Slot> {
    let mix = |n: u64| (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(27);
    let slot = |n: u64| Slot {
        id: (mix(n), mix(n + EVENTS)),
        time_us: 1_767_261_600_000_000 + n.cast_signed(),
        pence: (mix(n) % 50_000).cast_signed(),
        offset: n,
        partition: (n % 4) as u32,
        kind: (n % 6) as u32,
    };
    (0..EVENTS).map(slot).collect()
}

fn encode_fixed(slots: &[Slot], out: &mut Vec<u8>) {
    for slot in slots {
        out.extend_from_slice(&slot.id.0.to_le_bytes());
        out.extend_from_slice(&slot.id.1.to_le_bytes());
        out.extend_from_slice(&slot.time_us.to_le_bytes());
        out.extend_from_slice(&slot.pence.to_le_bytes());
        out.extend_from_slice(&slot.offset.to_le_bytes());
        out.extend_from_slice(&slot.partition.to_le_bytes());
        out.extend_from_slice(&slot.kind.to_le_bytes());
    }
}

fn decode_fixed(bytes: &[u8]) -> Vec<Slot> {
    let long = |b: &[u8], at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap());
    let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
    let slot = |b: &[u8]| Slot {
        id: (long(b, 0), long(b, 8)),
        time_us: long(b, 16).cast_signed(),
        pence: long(b, 24).cast_signed(),
        offset: long(b, 32),
        partition: word(b, 40),
        kind: word(b, 44),
    };
    bytes.chunks_exact(SLOT_BYTES).map(slot).collect()
}

/// The columnar layout that timely offers: pushed row by row, read back row by row.
fn through_columns(slots: &[Slot]) -> Vec<Slot> {
    let mut columns = <Slot as Columnar>::Container::default();
    slots.iter().for_each(|slot| columns.push(slot));
    let columns = columns.borrow();
    (0..columns.len()).map(|i| Slot::into_owned(columns.get(i))).collect()
}

fn codecs(criterion: &mut Criterion) {
    let slots = slots();
    let mut group = criterion.benchmark_group("round trip of 1,000 events");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("fixed little-endian slots", |bencher| {
        let mut bytes = Vec::new();
        bencher.iter(|| {
            bytes.clear();
            encode_fixed(&slots, &mut bytes);
            let back = decode_fixed(&bytes);
            assert_eq!(back.len(), slots.len());
            back
        });
    });
    group.bench_function("bincode", |bencher| {
        bencher.iter(|| bincode::deserialize::<Vec<Slot>>(&bincode::serialize(&slots).unwrap()).unwrap());
    });
    group.bench_function("columnar", |bencher| bencher.iter(|| through_columns(&slots)));
    group.bench_function("abomonation", |bencher| {
        bencher.iter_batched(
            Vec::new,
            |mut bytes| {
                // SAFETY: encoded and decoded in this process, from memory that no other writes; that is the only use
                // for which the crate can be sound.
                unsafe { abomonation::encode(&slots, &mut bytes) }.unwrap();
                unsafe { abomonation::decode::<Vec<Slot>>(&mut bytes) }.unwrap().0.clone()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    let mut bytes = Vec::new();
    encode_fixed(&slots, &mut bytes);
    assert_eq!(decode_fixed(&bytes), slots);
    assert_eq!(through_columns(&slots), slots);
    println!("an event as timely carries it between processes: {} bytes", carried_bytes());
}

/// Bytes of one event with a user id of ten letters: bincode is what timely carries them with.
fn carried_bytes() -> u64 {
    let event = Event {
        id: EventId(u128::MAX),
        user: UserId("user_00042".into()),
        time: Micros(1_767_261_600_000_000),
        amount: Pence(12_345),
        at: Position::default(),
        origin: 0,
        event_type: EventType::Deposit,
        channel: Channel::Web,
        curated: None,
    };
    bincode::serialized_size(&event).unwrap()
}

criterion_group!(benches, codecs);
criterion_main!(benches);
