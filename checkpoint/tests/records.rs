//! The bytes of fixed objects: the format of a checkpoint changes only together with its version.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::records::{
    Adoption, Claim, Claimant, Counters, Cut, Cuts, Identity, Link, Manifest, Position, Range, Record, Run, Seal, Span,
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
    Claim { generation: 2, by, nonce: 1_234_567_890_123_456_789 }
}

fn adoption() -> Adoption {
    let settings = [("dedup.retention", "1 day"), ("epochs.events", "100000")];
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
        identity,
        last_cut: 14,
        cuts: vec![Span { generation: 1, first: 1, last: 14 }],
        manifests: vec![link()],
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
    let cut = |epoch, ranges| Cut { epoch, opened_us: 1_735_689_600_000_000, closed_us: 1_735_689_601_000_000, ranges };
    let first = vec![range(0, 1_400, 1_500, Some("00ff")), range(1, 900, 1_000, None)];
    Cuts { generation: 2, cuts: vec![cut(15, first), cut(16, vec![range(0, 1_500, 1_600, None)])] }
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
    let position =
        Position { partition: "p0.ndjson".to_owned(), index: 0, next: 1_500, digest: Some("00ff".to_owned()) };
    Manifest {
        generation: 2,
        sequence: 4,
        epoch: 15,
        pipeline: "tidemark".to_owned(),
        lineage: 8_234_567_890_123_456_789,
        written_us: 1_735_689_601_500_000,
        positions: vec![position],
        counters,
        ids: vec![run("runs/0000000002/0000-000000000001-ids", Some(482_136))],
        users: vec![run("runs/0000000002/0000-000000000002-users", None)],
        channels: vec![run("runs/0000000002/0000-000000000003-channels", None)],
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
    let objects = [
        Seal { by: 3 }.to_object("x").unwrap(),
        manifest().to_object("x").unwrap(),
        ids::encode(kept, 3_600_000_000).0,
        totals::encode(&users),
        totals::encode(&channels),
    ];
    let hashes = objects.map(|object| hash(&object));
    let known = [
        "9c0149250b0d2f54df2823d0928da3a488eaed1cac5a7a09400ccafabe1ee431",
        "442c5941b069c64e00faf2f56e7979b477de808ded3079c441a562f8c2665b83",
        "0dc10a84bbfc4f3e1878ca2f0d2363db5b049fae5fbeeb3c5d29f780fa639676",
        "3587e063fa546b5d402b80e4fac047536d49233f284dd6846181bafd957ac8b0",
        "e7c9e72268b09e0d2a67b8ee86236033534cb1370062da68a0c91e719bd0acc5",
    ];
    assert_eq!(hashes, known);
}
