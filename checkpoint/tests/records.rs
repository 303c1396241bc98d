//! The bytes of fixed objects: the format of a checkpoint changes only together with its version.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use std::collections::BTreeMap;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::records::{
    Adoption, Behind, Change, Claim, Claimant, Counters, Cut, Cuts, EventTimes, Identity, Joined, Link, Manifest,
    PartitionTimes, Position, Range, Record, Run, Seal, Span, inbox_among,
};
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::{Fingerprint, Remembered};
use tidemark_dataflows::event::{Channel, EventId, EventType, Micros, UserId};
use tidemark_dataflows::metrics::{ChannelKey, Totals};
use tidemark_dataflows::watermark::Bucket;

const FORMAT: &str = include_str!("../../docs/checkpoint-format.md");

fn link() -> Link {
    Link { generation: 1, sequence: 3, epoch: 11, digest: Digest::of(b"manifest") }
}

fn run(name: &str, newest_bucket: Option<u64>) -> Run {
    Run { name: name.to_owned(), rows: 500, bytes: 12_080, digest: Digest::of(name.as_bytes()), newest_bucket }
}

fn claim() -> Claim {
    let by = Claimant {
        host: "db-1".to_owned(),
        pid: 4711,
        started_us: 1_735_689_600_000_000,
        program: "tidemark 0.1.0".to_owned(),
    };
    Claim { generation: 2, by, nonce: 1_234_567_890_123_456_789, lineage: Some(7) }
}

fn change() -> Change {
    let (before, after) = (Some("1 day".to_owned()), Some("2 days".to_owned()));
    Change { epoch: 15, setting: "dedup.retention".to_owned(), before, after }
}

fn adoption() -> Adoption {
    let settings = [("dedup.retention", "2 days"), ("epochs.events", "100000")];
    let identity = Identity {
        pipeline: "tidemark".to_owned(),
        lineage: 8_234_567_890_123_456_789,
        created_us: 1_735_689_500_000_000,
        id_key: [1, 2],
        index_key: [3, 4],
        settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        source: serde_json::json!({"files": {"partitions": [{"name": "p0.ndjson", "path": "events/p0.ndjson"}]}}),
    };
    Adoption {
        generation: 2,
        follows: Some(1),
        identity,
        last_cut: 14,
        cuts: vec![Span { generation: 1, first: 1, last: 14 }],
        manifests: vec![link()],
        changes: vec![change()],
    }
}

fn cuts() -> Cuts {
    let range = |index: u32, from, to, digest: Option<&str>| Range {
        partition: format!("p{index}.ndjson"),
        index,
        from,
        to,
        digest: digest.map(str::to_owned),
    };
    let (opened_us, closed_us) = (1_735_689_600_000_000, 1_735_689_601_000_000);
    let cut = |epoch, ranges, behind: &[Behind], joined| Cut {
        epoch,
        opened_us,
        closed_us,
        ranges,
        behind: Some(behind.to_vec()),
        joined,
    };
    let first = vec![range(0, 1_400, 1_500, Some("00ff")), range(1, 900, 1_000, None)];
    let heads = [Behind { index: 0, head_us: Some(1_735_689_590_000_000) }, Behind { index: 1, head_us: None }];
    let joined = Joined { partition: "p3.ndjson".to_owned(), index: 3, from: 0 };
    let first = cut(15, first, &heads, vec![]);
    Cuts {
        generation: 2,
        lineage: Some(8_234_567_890_123_456_789),
        cuts: vec![first, cut(16, vec![range(0, 1_500, 1_600, None)], &[], vec![joined])],
    }
}

fn manifest() -> Manifest {
    let counters = Counters {
        stream_start_us: Some(1_735_689_500_000_000),
        last_closed_us: Some(1_735_689_601_000_000),
        epochs: 15,
        received: 2_500,
        accepted: 2_400,
        duplicates: 60,
        rejected: [("R200_late_event".to_owned(), 40)].into(),
        newest_event_time_us: Some(1_735_689_599_000_000),
        retained_ids: 2_300,
    };
    let position = |index, partition: &str, next, digest: Option<&str>, ended| {
        let (partition, digest) = (partition.to_owned(), digest.map(str::to_owned));
        Position { partition, index, next, digest, ended }
    };
    let positions = vec![
        position(0, "p0.ndjson", 1_500, Some("00ff"), false),
        position(1, "p1.ndjson", 1_000, Some("0f0f"), true),
        position(2, "replay", 0, None, false),
    ];
    let event_times = EventTimes {
        watermark_us: Some(1_735_603_190_000_000),
        newest_us: vec![1_735_689_598_250_000, 1_735_689_599_000_000, 1_735_689_599_000_000],
        partitions: vec![
            PartitionTimes { index: 0, newest_us: vec![1_735_689_598_250_000, 1_735_689_599_000_000] },
            PartitionTimes { index: 1, newest_us: vec![1_735_689_599_000_000] },
        ],
    };
    Manifest {
        generation: 2,
        sequence: 4,
        epoch: 15,
        pipeline: "tidemark".to_owned(),
        lineage: 8_234_567_890_123_456_789,
        written_us: 1_735_689_601_500_000,
        positions,
        counters,
        event_times: Some(event_times),
        ids: vec![run("runs/0000000002/0000-000000000001-ids", Some(482_136))],
        metrics: BTreeMap::from([
            ("users".to_owned(), vec![run("runs/0000000002/0000-000000000002-users", None)]),
            ("channels".to_owned(), vec![run("runs/0000000002/0000-000000000003-channels", None)]),
        ]),
        changes: vec![change()],
        previous: Some(link()),
    }
}

/// The example in the description of the format, as it is stored: without white space between its parts.
fn documented(heading: &str) -> String {
    let section = FORMAT.split_once(heading).unwrap().1;
    let example = section.split_once("```json\n").unwrap().1.split_once("\n```").unwrap().0;
    example.lines().map(str::trim_start).collect()
}

fn is_documented<R: Record + PartialEq + std::fmt::Debug>(record: &R, heading: &str) {
    let object = record.to_object("x").unwrap();
    let body = String::from_utf8(object[24..object.len() - 32].to_vec()).unwrap();
    assert_eq!(body, documented(heading), "{heading}");
    assert_eq!(R::of_object("x", &object).unwrap(), *record);
}

#[test]
fn records_are_written_as_the_description_of_the_format_shows() {
    is_documented(&claim(), "## Generation (kind 1)");
    is_documented(&adoption(), "## Adoption (kind 2)");
    is_documented(&cuts(), "## Cuts (kind 3)");
    is_documented(&Seal { by: 3 }, "## Seal (kind 4)");
    is_documented(&manifest(), "## Manifest (kind 5)");
}

/// The bytes of bodies that format 1 had and format 2 still has: those without what came with format 2.
#[test]
fn what_format_1_did_not_have_is_left_out_where_there_is_nothing_to_say() {
    let body = |object: Bytes| String::from_utf8(object[24..object.len() - 32].to_vec()).unwrap();
    let adoption = Adoption { changes: vec![], ..adoption() };
    assert!(!body(adoption.to_object("x").unwrap()).contains("changes"));
    let mut cuts = cuts();
    for cut in &mut cuts.cuts {
        (cut.behind, cut.joined) = (None, vec![]);
    }
    let written = body(cuts.to_object("x").unwrap());
    assert!(!written.contains("behind") && !written.contains("joined"), "{written}");
    let mut manifest = Manifest { event_times: None, changes: vec![], ..manifest() };
    manifest.positions.iter_mut().for_each(|position| position.ended = false);
    let written = body(manifest.to_object("x").unwrap());
    assert!(!["event_times", "changes", "ended"].iter().any(|member| written.contains(member)), "{written}");
    assert_eq!(Manifest::of_object("x", &manifest.to_object("x").unwrap()).unwrap(), manifest);
}

#[test]
fn event_times_and_heads_of_five_thousand_files_stay_small() {
    let newest = 1_735_689_599_123_456;
    let times =
        |index: i64| (0..10).map(|at| newest - index * 3_600_000_000 - (9 - at) * 997_301).collect::<Vec<i64>>();
    let partitions = (0..5_000).map(|index| PartitionTimes { index, newest_us: times(index.into()) }).collect();
    let event_times = EventTimes { watermark_us: Some(newest), newest_us: times(0), partitions };
    let manifest = Manifest { event_times: Some(event_times), positions: vec![], ..manifest() };
    let object = manifest.to_object("x").unwrap();
    assert!(object.len() < 5_000 * 95, "{} bytes", object.len());
    assert_eq!(Manifest::of_object("x", &object).unwrap(), manifest);
    let behind = (0..5_000).map(|index| Behind { index, head_us: Some(newest + i64::from(index)) }).collect();
    let cuts = Cuts { cuts: vec![Cut { behind: Some(behind), ..cuts().cuts.remove(0) }], ..cuts() };
    let object = cuts.to_object("x").unwrap();
    assert!(object.len() < 5_000 * 25, "{} bytes", object.len());
    assert_eq!(Cuts::of_object("x", &object).unwrap(), cuts);
}

#[test]
fn event_times_that_do_not_ascend_are_neither_written_nor_read() {
    for newest_us in [vec![], vec![7], vec![7, 7], vec![i64::MIN, -2, 0, 9], vec![-5, -5, i64::MAX - 9]] {
        let times = EventTimes { watermark_us: None, newest_us, partitions: vec![] };
        let json = serde_json::to_string(&times).unwrap();
        assert_eq!(serde_json::from_str::<EventTimes>(&json).unwrap(), times);
    }
    for newest_us in [vec![2, 1], vec![1, 3, 2], vec![i64::MIN, i64::MAX]] {
        assert!(serde_json::to_string(&PartitionTimes { index: 0, newest_us }).is_err());
    }
    for json in ["[0,[5,-1]]", "[0,[-9223372036854775807,2]]", "[0,[5,1.5]]", "[-1,[5]]", "[4294967296,[5]]", "[0]"] {
        assert!(serde_json::from_str::<PartitionTimes>(json).is_err(), "{json}");
    }
    assert_eq!(serde_json::from_str::<PartitionTimes>("[3,[5,1,0]]").unwrap().newest_us, [4, 4, 5]);
}

#[test]
fn the_inbox_is_found_by_its_name_wherever_it_stands() {
    let mut manifest = manifest();
    manifest.positions[2].next = 4;
    assert_eq!((manifest.inbox_position(), manifest.inbox().unwrap().index), (4, 2));
    // Partitions that join later stand behind it, and a file of the name before it.
    let joined = Position { partition: "p3.ndjson".to_owned(), index: 3, next: 9, digest: None, ended: false };
    manifest.positions.push(joined);
    manifest.positions[0].partition = "replay".to_owned();
    assert_eq!((manifest.inbox_position(), manifest.inbox().unwrap().index), (4, 2));
    assert_eq!(inbox_among(&manifest.positions[1..2]), None);
}

fn hash(object: &Bytes) -> String {
    Digest::of_object(object).to_string()
}

/// The hash is over everything before it, so it stands for every byte.
#[test]
fn fixed_objects_have_the_hashes_that_they_had() {
    let remembered = |bucket, print| Remembered { bucket: Bucket(bucket), fingerprint: Fingerprint(print) };
    let kept = vec![(EventId(9), remembered(5, 1)), (EventId(1 << 100), remembered(4, 2))];
    let row = Totals {
        deposits: 1 << 70,
        withdrawals: -3,
        deposit_count: 2,
        withdrawal_count: 1,
        first_seen: Micros(-1),
        last_seen: Micros(7),
    };
    let users = [(UserId("zoë".into()), row), (UserId("ann".into()), Totals::NONE)];
    let channels: [(ChannelKey, Totals); 1] = [((Channel::ALL[2], EventType::ALL[1]), row)];
    let format_1 = [
        "9c0149250b0d2f54df2823d0928da3a488eaed1cac5a7a09400ccafabe1ee431",
        "5e3d467c351fb9d4a2d207e7c88d579c2d56550cb3d8787b2e065c4a2adb520a",
        "0dc10a84bbfc4f3e1878ca2f0d2363db5b049fae5fbeeb3c5d29f780fa639676",
        "3587e063fa546b5d402b80e4fac047536d49233f284dd6846181bafd957ac8b0",
        "e7c9e72268b09e0d2a67b8ee86236033534cb1370062da68a0c91e719bd0acc5",
    ];
    let format_2 = [
        "331c3151eed71d222171ba3dc33955992e3329a403edf691e21329385e75bbc0",
        "f0467025e3ff39010a74194f6cf14173b201235edc5c919ab61f4c1ef85c033c",
        "9dc3c229f0d7205edde9c3de3da161c83fa374e8ca9ce10300bc366ea97bdabc",
        "87d784b476c11163887a55120e0c4f802dfb2c7d9bfa5237878146a0e6c3e365",
        "3ba774a0396d02467845a9aaf1be83fb638bb89ed7f7c9502d9ab78c7d966d1e",
    ];
    let objects = |manifest: &Manifest| {
        [
            Seal { by: 3 }.to_object("x").unwrap(),
            manifest.to_object("x").unwrap(),
            ids::encode(kept.clone(), 3_600_000_000).0,
            totals::encode(&users),
            totals::encode(&channels),
        ]
    };
    assert_eq!(objects(&manifest()).map(|object| hash(&object)), format_2);
    // Without what came with format 2, they are what they were but for the number of the format.
    let mut manifest = Manifest { event_times: None, changes: vec![], ..manifest() };
    manifest.positions.truncate(1);
    assert_eq!(objects(&manifest).map(|object| hash(&of_format_1(&object))), format_1);
}

/// The same object as the program wrote it that knew format 1 alone.
fn of_format_1(object: &Bytes) -> Bytes {
    let mut bytes = object[..object.len() - 32].to_vec();
    bytes[8] = 1;
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(&digest.0);
    bytes.into()
}
