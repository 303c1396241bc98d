//! The fast and the strict path never disagree, and the usual shape really takes the fast one.

use super::*;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidemark_dataflows::event::Pence;

/// How a producer puts tokens together: before and after the colon, after the comma, around the object.
const SPACINGS: [[&str; 4]; 4] =
    [["", " ", " ", ""], ["", "", "", ""], [" ", "\t", "\r\n  ", "\n"], ["", " ", "\n    ", " "]];

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9A-Fa-f-]{36}",
        "[!#-\\[\\]-~]{1,40}",
        "[^\"\\\\\u{0}-\u{1f}]{1,40}",
        "[é€]{1,300}",
    ]
}

/// A time between 1970 and 2025, so before the arrival whatever its offset.
fn time() -> impl Strategy<Value = String> {
    let date = (1971..2025, 1..=12, 1..=28).prop_map(|(y, m, d)| format!("{y}-{m:02}-{d:02}"));
    let clock = (0..24, 0..60, 0..60).prop_map(|(h, m, s)| format!("{h:02}:{m:02}:{s:02}"));
    let zone =
        prop_oneof![Just("+00:00".to_owned()), Just("Z".to_owned()), Just("z".to_owned()), "[+-]0[0-9]:[0-5][0-9]"];
    (date, "[Tt ]", clock, prop_oneof!["", "\\.[0-9]{1,9}"], prop_oneof![zone, Just(String::new())])
        .prop_map(|(date, t, clock, fraction, zone)| format!("{date}{t}{clock}{fraction}{zone}"))
}

/// A number of the usual shape, and the pence that it means.
fn amount() -> impl Strategy<Value = (String, i64)> {
    let pounds = prop_oneof![0..1000_i64, 0..1_000_000_000_000_000_i64];
    (pounds, 0..100_i64, 0..3).prop_filter_map("zero", |(pounds, pence, decimals)| {
        let (text, pence) = match decimals {
            0 => (format!("{pounds}"), pounds * 100),
            1 => (format!("{pounds}.{}", pence / 10), pounds * 100 + pence / 10 * 10),
            _ => (format!("{pounds}.{pence:02}"), pounds * 100 + pence),
        };
        (pence > 0).then_some((text, pence))
    })
}

/// A valid event of the usual shape, in any order of members, and its pence.
fn usual() -> impl Strategy<Value = (Vec<u8>, i64)> {
    let event_type = select(&["deposit_completed", "withdrawal_completed"][..]);
    let channel = select(&["web", "mobile", "api"][..]);
    let order = prop_oneof![Just((0..8).collect::<Vec<_>>()), Just((0..8).collect::<Vec<_>>()).prop_shuffle()];
    (id(), id(), time(), time(), event_type, amount(), channel, order, select(&SPACINGS[..])).prop_map(
        |(id, user, time, ingest, event_type, (amount, pence), channel, order, [before, after, comma, around])| {
            let quoted = [&*id, &*user, &*time, &*ingest, event_type].map(|text| format!("\"{text}\""));
            let channel = format!("\"{channel}\"");
            let [id, user, time, ingest, event_type] = quoted;
            let values = [id, user, time, ingest, event_type, amount, "\"GBP\"".to_owned(), channel];
            let member = |i: &usize| format!("\"{}\"{before}:{after}{}", VALID[*i].0, values[*i]);
            let members: Vec<_> = order.iter().map(member).collect();
            let json = format!("{around}{{{around}{}{around}}}{around}", members.join(&format!("{before},{comma}")));
            (json.into_bytes(), pence)
        },
    )
}

/// One change to the bytes of a body.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, &'static [u8]),
    Delete(Index, usize),
    Duplicate(Index, Index, usize),
    Swap(Index, Index, usize),
    Member(Index, &'static str, &'static str),
}

const FRAGMENTS: [&[u8]; 31] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\x00",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"0",
    b"9",
    b"-",
    b".",
    b"+",
    b"e",
    b"e1",
    b"00",
    b"null",
    b"\\u0041",
    b"\\ud83d",
    b"\\ud83d\\ude00",
    b"\xef\xbb\xbf",
    "é".as_bytes(),
    b"Z",
    b"\r",
];

const VALUES: [&str; 26] = [
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1.",
    "01",
    "1.234",
    "1.230",
    "1e2",
    "1e400",
    "NaN",
    "1000000000000000",
    "\"\"",
    "\"GBP\"",
    "\"web\"",
    "\"WEB\"",
    "[]",
    "{}",
    "{\"amount\": 1}",
    "\"\\u0067\"",
    "\"2026-01-01T11:00:00.000001Z\"",
    "\"2016-12-31T23:59:60Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"1970-01-01T00:00:00+00:01\"",
    "\"00112233-4455-6677-8899-aabbccddeeff\"",
];

const NAMES: [&str; 11] = [
    "event_id",
    "user_id",
    "event_time",
    "ingest_time",
    "event_type",
    "amount",
    "currency",
    "channel",
    "",
    "event\\u005fid",
    "more",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(i, bit)| Mutation::Flip(i, 1 << bit)),
        (at(), any::<u8>()).prop_map(|(i, byte)| Mutation::Set(i, byte)),
        (at(), select(&FRAGMENTS[..])).prop_map(|(i, text)| Mutation::Insert(i, text)),
        (at(), 1..20_usize).prop_map(|(i, length)| Mutation::Delete(i, length)),
        (at(), at(), 1..60_usize).prop_map(|(i, j, length)| Mutation::Duplicate(i, j, length)),
        (at(), at(), 1..20_usize).prop_map(|(i, j, length)| Mutation::Swap(i, j, length)),
        (at(), select(&NAMES[..]), select(&VALUES[..])).prop_map(|(i, name, value)| Mutation::Member(i, name, value)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Mutation::Flip(i, bit) => bytes[i.index(len)] ^= bit,
            Mutation::Set(i, byte) => bytes[i.index(len)] = *byte,
            Mutation::Insert(i, text) => drop(bytes.splice(i.index(len)..i.index(len), text.iter().copied())),
            Mutation::Delete(i, length) => drop(bytes.drain(i.index(len)..(i.index(len) + length).min(len))),
            Mutation::Duplicate(i, j, length) => {
                let span = bytes[i.index(len)..(i.index(len) + length).min(len)].to_vec();
                drop(bytes.splice(j.index(len)..j.index(len), span));
            }
            Mutation::Swap(i, j, length) => {
                let (i, j) = (i.index(len), j.index(len));
                (0..*length).filter(|k| i + k < len && j + k < len).for_each(|k| bytes.swap(i + k, j + k));
            }
            Mutation::Member(i, name, value) => insert_member(bytes, *i, name, value),
        }
    }
}

/// Puts a member behind one of the commas, or the opening brace.
fn insert_member(bytes: &mut Vec<u8>, i: Index, name: &str, value: &str) {
    let places: Vec<_> = (0..bytes.len()).filter(|at| matches!(bytes[*at], b',' | b'{')).collect();
    if !places.is_empty() {
        let at = places[i.index(places.len())] + 1;
        drop(bytes.splice(at..at, format!("\"{name}\": {value},").into_bytes()));
    }
}

/// Replaces the value of one member: valid JSON all through, so that the later rules are reached.
fn revalued() -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), select(&VALUES[..])).prop_map(|(i, value)| {
        let (name, _) = VALID[i.index(VALID.len())];
        event_with(&[(name, value)]).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_usual_shape_takes_the_fast_path((json, pence) in usual()) {
        let text = String::from_utf8_lossy(&json);
        for contract in [contract(), plain_contract()] {
            let fast = contract.check_fast(&body(&json), ORIGIN);
            prop_assert!(fast.is_some(), "{}: {:?}", text, contract.check_strict(&body(&json), ORIGIN));
            prop_assert_eq!(fast.as_ref().map(|event| event.amount), Some(Pence(pence)), "{}", text);
            prop_assert_eq!(contract.check_strict(&body(&json), ORIGIN).ok(), fast, "{}", text);
        }
    }

    #[test]
    fn the_paths_agree_on_damaged_events(
        (mut json, _) in usual(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        mutations.iter().for_each(|mutation| mutation.apply(&mut json));
        let _ = check(&json);
    }

    #[test]
    fn the_paths_agree_on_other_values(mut json in revalued(), more in prop::option::of(mutation())) {
        more.iter().for_each(|mutation| mutation.apply(&mut json));
        let _ = check(&json);
    }

    #[test]
    fn any_bytes_have_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&bytes);
    }

    /// What the contract takes for an event, a general JSON parser takes for an object with the same members.
    #[test]
    fn what_is_accepted_is_json(
        (mut json, _) in usual(),
        mutations in prop::collection::vec(mutation(), 0..3),
    ) {
        mutations.iter().for_each(|mutation| mutation.apply(&mut json));
        if let Ok(event) = check(&json) {
            // 1e400 in an ignored member is JSON, but no number of this parser's.
            prop_assume!(!json.windows(5).any(|window| window == b"1e400"));
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let curated = event.curated.as_ref().unwrap();
            prop_assert_eq!(value["event_id"].as_str(), Some(&*curated.event_id));
            prop_assert_eq!(value["user_id"].as_str(), Some(&*event.user.0));
            prop_assert_eq!(value["event_type"].as_str(), Some(event.event_type.as_str()));
            prop_assert_eq!(value["channel"].as_str(), Some(event.channel.as_str()));
            let pounds = value["amount"].as_f64().unwrap();
            prop_assert!((pounds * 100.0 - event.amount.0 as f64).abs() <= event.amount.0 as f64 * 1e-15);
        }
    }
}
