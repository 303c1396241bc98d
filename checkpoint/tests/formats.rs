//! The formats of objects: what is written is read again, and nothing else is accepted.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::envelope::{self, Builder, Digest, Kind};
use tidemark_checkpoint::runs::{ids, totals};
use tidemark_dataflows::arrangement::{Fingerprint, Remembered};
use tidemark_dataflows::event::{Channel, EventId, EventType, Micros, UserId};
use tidemark_dataflows::metrics::{ChannelKey, Totals};
use tidemark_dataflows::watermark::Bucket;

const HOUR: i64 = 3_600_000_000;

fn entries() -> impl Strategy<Value = Vec<(EventId, Remembered)>> {
    // Few ids and buckets, so that many meet.
    let id = prop_oneof![0..20u128, any::<u128>()];
    let entry = (id, prop_oneof![0..4u64, Just(u64::MAX)], any::<u64>());
    vec(entry.prop_map(|(id, bucket, print)| (EventId(id), remembered(bucket, print))), 0..60)
}

fn remembered(bucket: u64, print: u64) -> Remembered {
    Remembered { bucket: Bucket(bucket), fingerprint: Fingerprint(print) }
}

fn some_totals() -> impl Strategy<Value = Totals> {
    let (money, counts, times) = (any::<(i128, i128)>(), any::<(u64, u64)>(), any::<(i64, i64)>());
    (money, counts, times).prop_map(|(money, counts, times)| Totals {
        deposits: money.0,
        withdrawals: money.1,
        deposit_count: counts.0,
        withdrawal_count: counts.1,
        first_seen: Micros(times.0),
        last_seen: Micros(times.1),
    })
}

fn users() -> impl Strategy<Value = Vec<(UserId, Totals)>> {
    let name = prop_oneof!["[ab]{0,3}", "user_[0-9]{1,2}(\u{0}|é)?", ".*"];
    vec((name.prop_map(|name| UserId(name.as_str().into())), some_totals()), 0..40)
}

proptest! {
    #[test]
    fn a_run_of_ids_holds_the_last_entry_of_each_id_in_the_order_of_bucket_and_id(entries in entries()) {
        let last: BTreeMap<_, _> = entries.iter().copied().collect();
        let mut expected: Vec<_> = last.into_iter().collect();
        expected.sort_by_key(|(id, kept)| (kept.bucket, *id));
        let (object, stats) = ids::encode(entries, HOUR);
        let run = ids::decode("run", &object).unwrap();
        prop_assert_eq!(run.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(run.stats(), stats);
        prop_assert_eq!(run.bucket_us(), HOUR);
    }

    #[test]
    fn a_merge_of_ids_holds_the_newest_of_each_id_and_bucket_and_nothing_forgotten(
        parts in vec(entries(), 0..5), oldest in 0..5u64,
    ) {
        let mut expected = BTreeMap::new();
        let mut runs = Vec::new();
        for part in parts {
            let run = ids::decode("run", &ids::encode(part, HOUR).0).unwrap();
            expected.extend(run.iter().map(|(id, kept)| ((kept.bucket, id), kept.fingerprint)));
            runs.push(run);
        }
        expected.retain(|(bucket, _), _| bucket.0 >= oldest);
        let (object, stats) = ids::merge(&runs, Bucket(oldest)).unwrap();
        let run = ids::decode("merged", &object).unwrap_or_else(|error| panic!("{error}"));
        let merged: Vec<_> = run.iter().map(|(id, kept)| ((kept.bucket, id), kept.fingerprint)).collect();
        prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(run.stats(), stats);
    }

    #[test]
    fn a_run_of_totals_holds_the_last_row_of_each_key_and_a_merge_the_newest(parts in vec(users(), 1..4)) {
        let mut expected: BTreeMap<UserId, Totals> = BTreeMap::new();
        let mut runs = Vec::new();
        for part in parts {
            let alone: BTreeMap<_, _> = part.iter().cloned().collect();
            let run = totals::decode_of::<UserId>("run", &totals::encode(&part)).unwrap();
            prop_assert_eq!(run.iter().collect::<Vec<_>>(), alone.into_iter().collect::<Vec<_>>());
            expected.extend(part);
            runs.push(run);
        }
        let merged = totals::decode_of::<UserId>("merged", &totals::merge(&runs)).unwrap();
        prop_assert_eq!(merged.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_sound_envelope_around_any_body_never_makes_a_reader_panic(body in vec(any::<u8>(), 0..200)) {
        let _ = ids::decode("x", &envelope::wrap(Kind::Ids, &body));
        let _ = totals::decode_of::<UserId>("x", &envelope::wrap(Kind::Totals, &body));
        let _ = envelope::unwrap(Kind::Ids, "x", &Bytes::from(body));
    }

    #[test]
    fn hostile_lengths_in_a_sound_envelope_are_refused(
        words in vec(prop_oneof![0..4u64, Just(u64::MAX), Just(1 << 60), Just(1 << 63), any::<u64>()], 2..9),
    ) {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Ok(run) = ids::decode("x", &envelope::wrap(Kind::Ids, &body)) {
            prop_assert_eq!(run.iter().count(), run.len());
        }
        if let Ok(run) = totals::decode_of::<UserId>("x", &envelope::wrap(Kind::Totals, &body)) {
            prop_assert_eq!(run.iter::<UserId>().count(), run.len());
        }
    }
}

/// The same object as the program wrote it that knew format 1 alone: a body that both formats have is in the same place.
fn of_format_1(object: &Bytes) -> Bytes {
    let mut bytes = object[..object.len() - 32].to_vec();
    assert_eq!(bytes[8..10], envelope::VERSION.to_le_bytes());
    bytes[8] = 1;
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(&digest.0);
    bytes.into()
}

fn objects() -> [Bytes; 3] {
    let ids = (0..4).map(|n| (EventId(n), remembered(n as u64 / 2, 7))).collect();
    let rows = [(UserId("ann".into()), Totals::NONE), (UserId("bob".into()), Totals::NONE)];
    [ids::encode(ids, HOUR).0, totals::encode(&rows), envelope::wrap(Kind::Manifest, b"{}")]
}

fn open(index: usize, object: &Bytes) -> Result<(), Error> {
    match index {
        0 => ids::decode("o", object).map(|_| ()),
        1 => totals::decode_of::<UserId>("o", object).map(|_| ()),
        _ => envelope::unwrap(Kind::Manifest, "o", object).map(|_| ()),
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let both = objects().into_iter().enumerate().flat_map(|(at, object)| [(at, of_format_1(&object)), (at, object)]);
    for (index, object) in both {
        open(index, &object).unwrap();
        for length in 0..object.len() {
            let cut = open(index, &object.slice(..length));
            assert!(matches!(cut, Err(Error::Damaged { .. })), "{index}: {length} bytes: {cut:?}");
        }
        for bit in 0..object.len() * 8 {
            let mut bytes = object.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match open(index, &bytes.into()) {
                Err(Error::Version { .. }) => assert!((64..80).contains(&bit), "{bit}"),
                Err(Error::Damaged { .. }) => {}
                other => panic!("object {index}, bit {bit}: {other:?}"),
            }
        }
        let mut longer = object.to_vec();
        longer.push(0);
        assert!(matches!(open(index, &longer.into()), Err(Error::Damaged { .. })));
    }
}

#[test]
fn an_object_of_a_newer_version_is_told_from_a_damaged_one_whatever_follows_the_version() {
    let newer = Bytes::from_static(b"TIDEMARK\x03\x00 and something quite different");
    let error = envelope::unwrap(Kind::Cuts, "cuts/1", &newer).unwrap_err();
    assert!(matches!(error, Error::Version { found: 3, known: 2, .. }));
    assert!(error.to_string().contains("versions 1 to 2 only"), "{error}");
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn an_object_tells_which_format_it_has() {
    for (index, object) in objects().iter().enumerate() {
        let kind = [Kind::Ids, Kind::Totals, Kind::Manifest][index];
        let (version, body) = envelope::open(kind, "o", object).unwrap();
        assert_eq!((version, &body), (2, &envelope::unwrap(kind, "o", object).unwrap()));
        assert_eq!(envelope::open(kind, "o", &of_format_1(object)).unwrap(), (1, body));
    }
}

#[test]
fn an_object_of_another_kind_is_refused_by_name() {
    let error = envelope::unwrap(Kind::Manifest, "m", &envelope::wrap(Kind::Seal, b"")).unwrap_err();
    assert_eq!(error.to_string().split(';').next(), Some("'m' is damaged: it holds a seal in the place of a manifest"));
}

/// Runs with a sound hash that no writer makes: order is relied on by merges.
#[test]
fn a_run_out_of_order_is_refused() {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    // Two ids (low and high word each) in one bucket, then two fingerprints.
    let body = |low: u64| words(&[1, 2, 1, 5, 2, low, 0, 2, 0, 8, 9]);
    ids::decode("x", &envelope::wrap(Kind::Ids, &body(1))).unwrap();
    for low in [2, 3] {
        let refused = ids::decode("x", &envelope::wrap(Kind::Ids, &body(low)));
        assert!(matches!(refused, Err(Error::Damaged { what, .. }) if what == "its ids are out of order"));
    }
    for counts in [[1u64, 2], [2, 1], [0, 2], [u64::MAX, 3]] {
        let body = words(&[1, 2, 2, 5, counts[0], 6, counts[1], 1, 0, 2, 0, 8, 9]);
        assert!(ids::decode("x", &envelope::wrap(Kind::Ids, &body)).is_err(), "{counts:?}");
    }
    let merged = ids::merge(
        &[ids::decode("a", &ids::encode(vec![], 1).0).unwrap(), ids::decode("b", &ids::encode(vec![], 2).0).unwrap()],
        Bucket(0),
    );
    assert!(matches!(merged, Err(Error::Damaged { name, .. }) if name == "b"));
}

#[test]
fn all_six_channel_keys_have_bytes_of_their_own_and_unknown_ones_are_refused() {
    let keys = Channel::ALL.into_iter().flat_map(|channel| EventType::ALL.map(|event_type| (channel, event_type)));
    let rows: Vec<(ChannelKey, Totals)> = keys.map(|key| (key, Totals::NONE)).collect();
    let run = totals::decode_of::<ChannelKey>("x", &totals::encode(&rows)).unwrap();
    assert_eq!(run.iter::<ChannelKey>().map(|(key, _)| key).collect::<BTreeSet<_>>().len(), 6);
    let strange = totals::encode(&[(UserId("\u{7}\u{0}".into()), Totals::NONE)]);
    assert!(matches!(totals::decode_of::<ChannelKey>("x", &strange), Err(Error::Damaged { .. })));
}

#[test]
fn a_digest_is_the_trailer_and_survives_json() {
    let mut builder = Builder::new(Kind::Inbox, 0);
    builder.put(b"bo");
    builder.put(b"dy");
    let object = builder.finish();
    assert_eq!(object, envelope::wrap(Kind::Inbox, b"body"));
    let digest = Digest::of_object(&object);
    assert_eq!(digest, Digest::of(&object[..object.len() - 32]));
    let json = serde_json::to_string(&digest).unwrap();
    assert_eq!(json, format!("\"{digest}\""));
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    assert!(serde_json::from_str::<Digest>("\"00\"").is_err());
}
