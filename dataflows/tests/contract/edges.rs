//! The edges of what single members may hold.

use super::*;
use tidemark_dataflows::contract::MAX_ID_BYTES;
use tidemark_dataflows::event::{END_OF_TIME, Pence};

#[test]
fn unknown_members_are_ignored_whatever_they_hold() {
    for ignored in [
        r#""more": 1e400"#,
        r#""more": -1E-999999999999999999999"#,
        r#""more": 123456789012345678901234567890123456789012345678901234567890.5"#,
        r#""": null"#,
        r#""more": [1, -0.5e+3, true, false, null, "x", {}, [], {"a": [{}]}]"#,
        r#""EVENT_ID": 7, "amount ": "x""#,
        r#""$serde_json::private::RawValue": "x", "$serde_json::private::Number": "y""#,
    ] {
        assert_eq!(check(event_after(ignored)), check(event_with(&[])), "{ignored}");
    }
}

#[test]
fn members_in_any_order() {
    for rotation in 0..8 {
        let mut members = VALID;
        members.rotate_left(rotation);
        assert_eq!(check(object(members)), check(event_with(&[])));
        members.reverse();
        assert_eq!(check(object(members)), check(event_with(&[])));
    }
}

#[test]
fn ids_have_1_to_1024_bytes_after_unescaping() {
    for (member, rule) in [("event_id", Reason::NullEventId), ("user_id", Reason::NullUserId)] {
        let verdict = |inside: String| reason(event_with(&[(member, &format!("\"{inside}\""))]));
        assert_eq!(verdict("x".repeat(MAX_ID_BYTES)), None);
        assert_eq!(verdict("x".repeat(MAX_ID_BYTES + 1)), Some(rule));
        assert_eq!(verdict("é".repeat(MAX_ID_BYTES / 2)), None);
        assert_eq!(verdict("é".repeat(MAX_ID_BYTES / 2) + "x"), Some(rule));
        assert_eq!(verdict("\\u0041".repeat(MAX_ID_BYTES)), None, "six times as long before unescaping");
        assert_eq!(verdict("\\u0041".repeat(MAX_ID_BYTES + 1)), Some(rule));
        assert_eq!(verdict("\\ud83d\\ude00".repeat(MAX_ID_BYTES / 4)), None);
        assert_eq!(verdict("\\ud83d\\ude00".repeat(MAX_ID_BYTES / 4) + "x"), Some(rule));
        assert_eq!(verdict(" ".to_owned()), None, "white space is a name like any other");
    }
}

#[test]
fn an_id_means_the_same_however_it_is_written() {
    let id = |inside: &str| check(event_with(&[("event_id", &format!("\"{inside}\""))])).unwrap().id;
    assert_eq!(id("order-1"), id("order\\u002d1"));
    assert_eq!(id("caf\\u00e9"), id("café"));
    let uuid = "9f1c2f6e-0d4b-4c7a-8f55-2f1f0f9f8a11";
    assert_eq!(id(uuid), id(&uuid.replace('-', "\\u002d")));
    assert_ne!(id(uuid), id(&uuid.to_uppercase()));
    assert_ne!(id(uuid), id(&uuid.replace('-', "")));
    assert_ne!(id("order-1"), id("order-1 "));
    let other_key = Contract { id_key: [1, 3], ..contract() };
    let json = event_with(&[("event_id", "\"order-1\"")]);
    assert_ne!(other_key.check(&body(json.as_bytes()), ORIGIN).unwrap().id, id("order-1"));
}

#[test]
fn amounts_are_exact() {
    for (number, pence) in [
        ("10", 1000),
        ("10.5", 1050),
        ("10.50", 1050),
        ("10.500", 1050),
        ("1.05e1", 1050),
        ("1E2", 10_000),
        ("1e-2", 1),
        ("100e-2", 100),
        ("0.01", 1),
        ("0.29", 29),
        ("1.005e3", 100_500),
        ("999999999999999.99", 99_999_999_999_999_999),
        ("999999999999999", 99_999_999_999_999_900),
        ("9007199254740.993e0", -1),
        ("0.000000000000000000000000000001e30", 100),
    ] {
        let verdict = check(event_with(&[("amount", number)])).map(|event| event.amount);
        match pence {
            -1 => assert_eq!(verdict.unwrap_err().reason, Reason::AmountNotRepresentable, "{number}"),
            pence => assert_eq!(verdict, Ok(Pence(pence)), "{number}"),
        }
    }
}

#[test]
fn numbers_of_a_million_digits_are_judged_by_their_digits() {
    let amount = |number: String| reason(event_with(&[("amount", &number)]));
    let many = 1_000_000;
    assert_eq!(amount(format!("1e{}", "9".repeat(many))), Some(Reason::AmountNotRepresentable));
    assert_eq!(amount(format!("1e-{}", "9".repeat(many))), Some(Reason::AmountNotRepresentable));
    assert_eq!(amount(format!("0e{}", "9".repeat(many))), Some(Reason::NonPositiveAmount));
    assert_eq!(amount(format!("1e{}1", "0".repeat(many))), None);
    assert_eq!(amount(format!("1{}e-{many}", "0".repeat(many))), None);
    assert_eq!(amount(format!("12.34{}", "0".repeat(many))), None);
    assert_eq!(amount(format!("12.34{}1", "0".repeat(many))), Some(Reason::AmountNotRepresentable));
    assert_eq!(amount(format!("-0.{}1", "0".repeat(many))), Some(Reason::NonPositiveAmount));
    assert_eq!(amount("9".repeat(many)), Some(Reason::AmountNotRepresentable));
}

#[test]
fn both_times_follow_the_same_rules() {
    for (member, rule) in [("event_time", Reason::NullEventTime), ("ingest_time", Reason::NullIngestTime)] {
        let verdict = |text: &str| reason(event_with(&[(member, &format!("\"{text}\""))]));
        for good in [
            "2026-01-01T09:00:00Z",
            "2026-01-01t09:00:00z",
            "2026-01-01 09:00:00",
            "2026-01-01T09:00:00.123456789+23:59",
            "2025-12-31T09:00:00-23:59",
            "1970-01-01T00:00:00Z",
            "1970-01-01T23:59:00+23:59",
            "2024-02-29T00:00:00Z",
        ] {
            assert_eq!(verdict(good), None, "{member}: {good}");
        }
        for bad in [
            "2016-12-31T23:59:60Z",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:00:00+00:01",
            "10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "0000-01-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T09:00:00+24:00",
            "2026-01-01T09:00:00+00:60",
            "2026-01-01T09:00:00.Z",
            "2026-01-01T09:00:00.1234567890Z",
            "2026-01-01T09:00:00Z ",
            "2026-01-01",
            "٢026-01-01T09:00:00Z",
        ] {
            assert_eq!(verdict(bad), Some(rule), "{member}: {bad}");
        }
    }
}

#[test]
fn nanoseconds_are_truncated() {
    let time = |fraction: &str| {
        let text = format!("\"2026-01-01T09:00:00{fraction}Z\"");
        check(event_with(&[("event_time", &text), ("ingest_time", &text)])).unwrap().time.0 - 1_767_258_000_000_000
    };
    let cases = [("", 0), (".1", 100_000), (".000001", 1), (".0000019", 1), (".000000999", 0), (".999999999", 999_999)];
    for (fraction, micros) in cases {
        assert_eq!(time(fraction), micros, "{fraction}");
    }
}

/// With an arrival so late that R140 lets the last instant pass.
#[test]
fn the_last_instant() {
    let judged = |text: &str, arrival: i64| {
        let json = event_with(&[("event_time", text)]);
        let body = Body { arrival: Micros(arrival), ..body(json.as_bytes()) };
        let verdict = contract().check(&body, ORIGIN);
        assert_eq!(contract().check_strict(&body, ORIGIN), verdict);
        verdict.map(|event| event.time).map_err(|violation| violation.reason)
    };
    let last = "\"9999-12-31T23:59:59.999999999Z\"";
    assert_eq!(judged(last, END_OF_TIME.0), Ok(Micros(END_OF_TIME.0 - 1)));
    assert_eq!(judged(last, i64::MAX), Ok(Micros(END_OF_TIME.0 - 1)));
    assert_eq!(judged(last, i64::MIN), Err(Reason::EventTimeInFuture));
    assert_eq!(judged("\"9999-12-31T23:59:59.999999-00:01\"", END_OF_TIME.0), Err(Reason::NullEventTime));
}

#[test]
fn an_hour_ahead_is_allowed_and_a_microsecond_more_is_not() {
    let at = |text: &str| reason(event_with(&[("event_time", text), ("ingest_time", "\"9999-12-31T23:59:59Z\"")]));
    assert_eq!(at("\"2026-01-01T11:00:00Z\""), None);
    assert_eq!(at("\"2026-01-01T11:00:00.000000999Z\""), None, "truncated before it is compared");
    assert_eq!(at("\"2026-01-01T11:00:00.000001Z\""), Some(Reason::EventTimeInFuture));
    assert_eq!(at("\"2026-01-01T12:00:00+01:00\""), None);
    assert_eq!(at("\"2026-01-01T12:00:00.000001+01:00\""), Some(Reason::EventTimeInFuture));
}
