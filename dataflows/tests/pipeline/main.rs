//! The composition against the oracle: whatever the number of workers, the sizes of blocks, and who decodes which; and
//! whenever it is stopped and goes on from a checkpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod harness;
mod lateness;
mod restart;

use std::collections::BTreeSet;

use harness::{Results, Session, Stream, expected, run, settings};
use proptest::prelude::*;
use tidemark_dataflows::event::{Micros, PartitionId};
use tidemark_dataflows::metrics::AllTotals;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{Restored, Settings};
use tidemark_dataflows::watermark::Behind;

const HOUR_US: i64 = 3_600_000_000;

/// One session over all of the stream, without checkpoints.
fn run_all(stream: &Stream, settings: &Settings, workers: usize, size: usize, deal: u64) -> Results {
    let last = stream.epochs.len() as u64;
    let session = Session { first: 1, last, workers, size, deal, requests: BTreeSet::new(), lag: 0 };
    let empty = settings.clone();
    run(stream, settings, &session, move |_, _| (Restored::nothing(&empty), AllTotals::new())).results
}

/// Bodies over few ids and few hours, so that duplicates, conflicts, lateness and forgetting happen all the time.
fn body() -> impl Strategy<Value = String> {
    let event = (0..12u8, 0..60i64, 0..3u8, 1..4u32, prop::bool::ANY, 0..3usize, 0..12u8);
    event.prop_map(|(id, hours, user, amount, deposit, channel, oddity)| {
        let event_type = if deposit { "deposit_completed" } else { "withdrawal_completed" };
        let channel = ["web", "mobile", "api"][channel];
        let (day, hour) = (1 + hours / 24, hours % 24);
        let amount = if oddity == 0 { "-1".to_owned() } else { format!("{amount}.50") };
        let id = if id % 2 == 0 { format!("id-{id}") } else { format!("00000000-0000-4000-8000-0000000000{id:02x}") };
        let end = if oddity == 1 { "" } else { "}" };
        format!(
            r#"{{"event_id":"{id}","user_id":"u{user}","event_time":"2026-01-{day:02}T{hour:02}:00:00Z","ingest_time":"2026-01-01T00:00:00Z","event_type":"{event_type}","amount":{amount},"currency":"GBP","channel":"{channel}"{end}"#
        )
    })
}

/// Which partitions were behind, and where their heads were.
fn cut() -> impl Strategy<Value = Vec<Behind>> {
    let behind = prop::collection::btree_map(0..4u32, prop::option::weighted(0.8, 0..60i64), 0..4);
    behind.prop_map(|behind| {
        let behind = behind.into_iter().map(|(partition, hours)| {
            let head = hours.map(|hours| Micros(1_767_225_600_000_000 + hours * HOUR_US));
            Behind { partition: PartitionId(partition), head }
        });
        behind.collect()
    })
}

/// Up to six epochs, of which the first ones may be of the rule without waiting.
fn streams() -> impl Strategy<Value = Stream> {
    let epoch = (prop::collection::vec(prop::collection::vec(body(), 0..8), 3), cut());
    (prop::collection::vec(epoch, 1..7), prop_oneof![2 => Just(0usize), 1 => 0..7usize]).prop_map(|(epochs, old)| {
        let (epochs, cuts): (Vec<_>, Vec<_>) = epochs.into_iter().unzip();
        let cuts = cuts.into_iter().enumerate().map(|(epoch, cut)| (epoch >= old).then_some(cut));
        Stream { epochs, cuts: cuts.collect() }
    })
}

/// What the watermark depends on besides the delay.
fn rules() -> impl Strategy<Value = (usize, Option<PartitionId>)> {
    (1..5usize, prop::option::weighted(0.25, Just(PartitionId(2))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_the_oracle(stream in streams(), workers in 1..=3usize, size in 1..5usize, deal: u64,
                         delay in 1..30i64, retention in 1..40i64, (witnesses, uncounted) in rules()) {
        let settings = Settings { witnesses, uncounted, ..settings(delay, retention) };
        let results = run_all(&stream, &settings, workers, size, deal);
        let mut next = None;
        for summary in results.summaries.values() {
            prop_assert_eq!(summary.tally.watermark, next);
            prop_assert!(summary.next_watermark >= next, "moved back: {summary:?}");
            next = summary.next_watermark;
        }
        prop_assert_eq!(results, expected(&stream, &settings).0);
    }

    /// Bodies have some 180 bytes, and a third of them is rejected: a cap of nothing, of a few payloads, and of all.
    #[test]
    fn payloads_are_left_out_in_the_order_of_offsets(stream in streams(), workers in 1..=4usize, size in 1..5usize,
                                                     deal: u64, cap in 0..1_500u64) {
        let settings = Settings { payload_cap: PayloadCap(Some(cap)), ..settings(3, 8) };
        prop_assert_eq!(run_all(&stream, &settings, workers, size, deal), expected(&stream, &settings).0);
    }

    /// Events of different ids in one epoch and partition may come in any order: every metric stays the same.
    #[test]
    fn order_inside_an_epoch_does_not_matter_to_the_metrics(
        amounts in prop::collection::vec(1..1_000u32, 1..40), shift in 0..40usize
    ) {
        let body = |(i, amount): (usize, &u32)| format!(
            r#"{{"event_id":"e{i}","user_id":"u{}","event_time":"2026-01-01T00:00:{:02}Z","ingest_time":"2026-01-01T00:00:00Z","event_type":"deposit_completed","amount":{amount},"currency":"GBP","channel":"api"}}"#,
            i % 5, i % 60
        );
        let bodies: Vec<String> = amounts.iter().enumerate().map(body).collect();
        let mut turned = bodies.clone();
        turned.rotate_left(shift % bodies.len());
        let settings = settings(24, 24);
        let (one, other) = (Stream::caught_up(vec![vec![bodies]]), Stream::caught_up(vec![vec![turned]]));
        let (one, other) = (run_all(&one, &settings, 1, 7, 1), run_all(&other, &settings, 2, 3, 0));
        prop_assert_eq!((one.totals, one.net_flow), (other.totals, other.net_flow));
    }
}
