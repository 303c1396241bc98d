//! The composition against the oracle: whatever the number of workers, the sizes of blocks, and who decodes which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_dataflows::arrangement::{Settings as IndexSettings, SweepRate};
use tidemark_dataflows::block::{Arrival, Block};
use tidemark_dataflows::contract::Contract;

use tidemark_dataflows::event::{Epoch, EpochMark, Micros, Offset, PartitionId, Position, UserId};
use tidemark_dataflows::metrics::{ChannelKey, Row, Totals};
use tidemark_dataflows::oracle::Oracle;
use tidemark_dataflows::pipeline::{Inputs, Settings, tidemark};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::EpochSummary;
use tidemark_dataflows::watermark::Horizon;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Inspect, Probe};

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_767_261_600_000_000;

/// Bodies by epoch and partition.
type Stream = Vec<Vec<Vec<String>>>;

fn settings(delay_hours: i64, retention_hours: i64) -> Settings {
    let horizon = Horizon { watermark_delay_us: delay_hours * HOUR_US, dedup_retention_us: retention_hours * HOUR_US };
    Settings {
        contract: Contract { max_future_skew_us: 200 * HOUR_US, id_key: [3, 4], curated: false },
        index: IndexSettings { horizon, key: [5, 6], expected_ids: 16, sweep: SweepRate::default() },
    }
}

fn mark(epoch: Epoch) -> EpochMark {
    let at = |n: u64| Micros(START_US + 1_000_000 * i64::try_from(n).unwrap());
    EpochMark { epoch, opened: at(epoch), closed: at(epoch + 1) }
}

/// Cuts the bodies of one epoch and partition into blocks of at most `size` events.
fn blocks(partition: usize, first: u64, bodies: &[String], epoch: Epoch, size: usize) -> Vec<Block> {
    let block = |(i, chunk): (usize, &[String])| {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for body in chunk {
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(body.as_bytes());
            ranges.push(start..u32::try_from(bytes.len()).unwrap());
        }
        Block {
            partition: PartitionId(u32::try_from(partition).unwrap()),
            first_offset: Offset(first + (i * size) as u64),
            arrival: Arrival::Opening(mark(epoch).opened),
            bytes: Bytes::from(bytes),
            bodies: ranges,
            oversized: Vec::new(),
        }
    };
    bodies.chunks(size).enumerate().map(block).collect()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Results {
    users: BTreeMap<UserId, (Totals, Epoch)>,
    channels: BTreeMap<ChannelKey, (Totals, Epoch)>,
    net_flow: Option<(Totals, Epoch)>,
    accepted: BTreeSet<(Epoch, Position)>,
    rejected: BTreeSet<(Epoch, Position, Reason)>,
    payloads: BTreeMap<Position, Vec<u8>>,
    summaries: BTreeMap<Epoch, EpochSummary>,
}

/// Every block with its epoch, in the order in which a reader would deliver them.
fn all_blocks(stream: &Stream, size: usize) -> Vec<(Epoch, Vec<Block>)> {
    let mut next = vec![0u64; stream.first().map_or(0, Vec::len)];
    let mut out = Vec::new();
    for (i, partitions) in stream.iter().enumerate() {
        let epoch = i as u64 + 1;
        let mut all = Vec::new();
        for (p, bodies) in partitions.iter().enumerate() {
            all.extend(blocks(p, next[p], bodies, epoch, size));
            next[p] += bodies.len() as u64;
        }
        out.push((epoch, all));
    }
    out
}

fn newest<K: Ord>(rows: &mut BTreeMap<K, (Totals, Epoch)>, row: Row<K>) {
    let slot = rows.entry(row.key).or_insert((row.totals, row.epoch));
    if slot.1 <= row.epoch {
        *slot = (row.totals, row.epoch);
    }
}

fn run(stream: &Stream, settings: &Settings, workers: usize, size: usize, deal: u64) -> Results {
    let results = Arc::new(Mutex::new(Results::default()));
    let (shared, settings, fed) = (Arc::clone(&results), settings.clone(), all_blocks(stream, size));
    timely::execute(timely::Config::process(workers), move |worker| {
        let mut block_input: InputHandle<Epoch, CapacityContainerBuilder<Vec<Block>>> = InputHandle::new();
        let mut mark_input: InputHandle<Epoch, CapacityContainerBuilder<Vec<EpochMark>>> = InputHandle::new();
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let probe = worker.dataflow(|scope| {
            let inputs = Inputs { blocks: block_input.to_stream(scope), marks: mark_input.to_stream(scope) };
            let outputs = tidemark(inputs, &settings);
            let to = || Arc::clone(&shared);
            let (users, channels, net, accepted, rejected, summaries) = (to(), to(), to(), to(), to(), to());
            outputs.users.inspect(move |row| newest(&mut users.lock().unwrap().users, row.clone()));
            outputs.channels.inspect(move |row| newest(&mut channels.lock().unwrap().channels, row.clone()));
            outputs.net_flow.inspect(move |row| net.lock().unwrap().net_flow = Some((row.totals, row.epoch)));
            outputs.accepted.inspect_core(move |seen| {
                if let Ok((stamp, batch)) = seen {
                    let epoch = *stamp.least().unwrap();
                    let positions = batch.iter().map(|event| (epoch, event.at));
                    accepted.lock().unwrap().accepted.extend(positions);
                }
            });
            outputs.rejected.inspect(move |row| {
                let mut results = rejected.lock().unwrap();
                assert!(results.rejected.insert((row.epoch, row.at, row.reason)), "rejected twice: {row:?}");
                results.payloads.insert(row.at, row.payload.clone());
            });
            let summaries_seen = outputs.summaries.inspect(move |row| {
                let twice = summaries.lock().unwrap().summaries.insert(row.mark.epoch, row.clone());
                assert!(twice.is_none(), "summarised twice: {row:?}");
            });
            summaries_seen.probe().0
        });
        for (epoch, blocks) in &fed {
            block_input.advance_to(*epoch);
            mark_input.advance_to(*epoch);
            for (i, block) in blocks.iter().enumerate() {
                if (i as u64).wrapping_mul(deal | 1).wrapping_add(deal >> 7) % peers == index {
                    block_input.send(block.clone());
                }
            }
            mark_input.send(mark(*epoch));
            if deal.is_multiple_of(3) {
                worker.step();
            }
        }
        drop((block_input, mark_input));
        while !probe.done() {
            worker.step();
        }
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|result| result.unwrap());
    Arc::try_unwrap(results).map(|m| m.into_inner().unwrap()).unwrap_or_else(|m| m.lock().unwrap().clone())
}

fn expected(stream: &Stream, settings: &Settings) -> Results {
    let horizon = settings.index.horizon;
    let mut oracle = Oracle::new(settings.contract.clone(), horizon.watermark_delay_us, horizon.dedup_retention_us);
    let mut payloads = BTreeMap::new();
    for (_, blocks) in all_blocks(stream, usize::MAX) {
        oracle.epoch(blocks.iter().flat_map(Block::iter));
        payloads.extend(blocks.iter().flat_map(Block::iter).map(|body| (body.at, body.bytes.to_vec())));
    }
    let net_flow = oracle.channels.values().map(|(_, epoch)| *epoch).max().map(|epoch| (oracle.net_flow(), epoch));
    let rejected: BTreeSet<_> = oracle.rejected.iter().copied().collect();
    payloads.retain(|at, _| rejected.iter().any(|(_, rejected, _)| rejected == at));
    let summary = |(epoch, tally): (Epoch, _)| (epoch, EpochSummary { mark: mark(epoch), tally });
    Results {
        net_flow,
        accepted: oracle.accepted.iter().copied().collect(),
        rejected,
        payloads,
        summaries: (1..).zip(oracle.epochs.clone()).map(summary).collect(),
        users: oracle.users,
        channels: oracle.channels,
    }
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

fn streams() -> impl Strategy<Value = Stream> {
    prop::collection::vec(prop::collection::vec(prop::collection::vec(body(), 0..8), 3), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_the_oracle(stream in streams(), workers in 1..=3usize, size in 1..5usize, deal: u64,
                         delay in 1..30i64, retention in 1..40i64) {
        let settings = settings(delay, retention);
        prop_assert_eq!(run(&stream, &settings, workers, size, deal), expected(&stream, &settings));
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
        let (one, other) = (run(&vec![vec![bodies]], &settings, 1, 7, 1), run(&vec![vec![turned]], &settings, 2, 3, 0));
        prop_assert_eq!((one.users, one.channels, one.net_flow), (other.users, other.channels, other.net_flow));
    }
}
