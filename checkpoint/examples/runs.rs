//! What runs cost: nanoseconds and bytes for each id or user, to encode, open, read and merge.
//!
//! `cargo run --release -p tidemark-checkpoint --example runs [IDS [USERS]]`, by default 10 million and 1 million.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::{Fingerprint, Remembered};
use tidemark_dataflows::event::{EventId, Micros, UserId};
use tidemark_dataflows::metrics::Totals;
use tidemark_dataflows::watermark::Bucket;

/// Runs that are merged into one.
const RUNS: usize = 4;
/// Buckets of event time within one retention, with those of late and early events.
const BUCKETS: u64 = 26;

fn main() -> Result<(), tidemark_checkpoint::Error> {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse().unwrap_or(0));
    let ids = sizes.next().unwrap_or(10_000_000);
    let users = sizes.next().unwrap_or(1_000_000);
    measure_ids(ids)?;
    measure_totals(users)
}

/// Times a step and prints what it costs for each of `count`.
fn timed<T>(step: &str, count: usize, work: impl FnOnce() -> T) -> T {
    let began = (Instant::now(), on_cpu());
    let result = work();
    let took = on_cpu().zip(began.1).map_or_else(|| began.0.elapsed(), |(now, began)| now - began);
    println!("  {step:<28} {:8.1} ms {:8.2} ns each", took.as_secs_f64() * 1e3, took.as_nanos() as f64 / count as f64);
    result
}

/// How long this thread has run, where Linux tells: other work on the machine does not count.
fn on_cpu() -> Option<Duration> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedule.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// A permutation of 128-bit numbers that looks random.
fn random(seed: u128) -> u128 {
    let mixed = (seed + 1).wrapping_mul(0x2d99_787a_9267_39d3_2e2b_2ae3_5e8a_c7ab);
    (mixed ^ mixed >> 67).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn entries(seeds: std::ops::Range<usize>) -> Vec<(EventId, Remembered)> {
    let entry = |seed: usize| {
        let bits = random(seed as u128);
        let bucket = Bucket(480_000 + (bits >> 100) as u64 % BUCKETS);
        (EventId(bits), Remembered { bucket, fingerprint: Fingerprint(bits as u64) })
    };
    seeds.map(entry).collect()
}

fn measure_ids(count: usize) -> Result<(), tidemark_checkpoint::Error> {
    println!("{count} ids in {BUCKETS} buckets");
    let all = entries(0..count);
    let (object, _) = timed("encode", count, || ids::encode(all, 3_600_000_000));
    println!("  {:<28} {:8.2} bytes each", "size", object.len() as f64 / count as f64);
    let run = timed("open (hash and checks)", count, || ids::decode("run", &object))?;
    let sum = timed("read all", count, || run.iter().fold(0, |sum, (id, kept)| sum ^ id.0 as u64 ^ kept.bucket.0));
    std::hint::black_box(sum);
    let part = count / RUNS;
    let parts: Vec<Bytes> =
        (0..RUNS).map(|n| ids::encode(entries(n * part..(n + 1) * part), 3_600_000_000).0).collect();
    let parts: Vec<_> = parts.iter().map(|part| ids::decode("part", part)).collect::<Result<_, _>>()?;
    let merged = timed("merge of 4 runs", count, || ids::merge(&parts, Bucket(0)))?;
    std::hint::black_box(merged);
    Ok(())
}

fn rows(users: impl Iterator<Item = usize>) -> Vec<(UserId, Totals)> {
    let row = |user: usize| {
        let totals = Totals {
            deposits: user as i128 * 100,
            withdrawals: 50,
            deposit_count: 3,
            withdrawal_count: 1,
            first_seen: Micros(1),
            last_seen: Micros(2),
        };
        (UserId(format!("user_{user:08}").into()), totals)
    };
    users.map(row).collect()
}

fn measure_totals(count: usize) -> Result<(), tidemark_checkpoint::Error> {
    println!("{count} users");
    let shuffled = |users: usize| (0..users).map(move |n| (n * 7_368_787 + 11) % users);
    let all = rows(shuffled(count));
    let object = timed("encode", count, || totals::encode(&all));
    println!("  {:<28} {:8.2} bytes each", "size", object.len() as f64 / count as f64);
    let run = timed("open (hash and checks)", count, || totals::decode_of::<UserId>("run", &object))?;
    let sum = timed("read all", count, || {
        run.iter::<UserId>().fold(0, |sum, (user, kept)| sum + kept.deposits + user.0.len() as i128)
    });
    std::hint::black_box(sum);
    let mut parts = vec![run];
    for n in 1..RUNS {
        let some: Vec<_> = rows(shuffled(count).filter(|user| user % RUNS == n));
        parts.push(totals::decode("part", &totals::encode(&some))?);
    }
    std::hint::black_box(timed("merge of 1 full, 3 quarters", count, || totals::merge(&parts)));
    Ok(())
}
