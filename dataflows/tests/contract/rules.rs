//! Each rule alone, and each pair of rules broken together: the earlier one names the rejection.

use super::*;
use tidemark_dataflows::event::{Channel, CuratedMembers, EventId, EventType, Pence};

/// Ways to break each rule but R000, by changing one member; "" leaves it out.
const BROKEN: [(Reason, &str, &[&str]); 14] = [
    (Reason::NullEventId, "event_id", &["", "null", "7", "1e400", "true", "[]", "{}", r#""""#]),
    (Reason::NullUserId, "user_id", &["", "null", "7", "false", r#"["user"]"#, r#"{"id": "user"}"#, r#""""#]),
    (Reason::NullEventTime, "event_time", &["", "null", "1767261600", r#""not-a-time""#, r#""""#]),
    (Reason::NullIngestTime, "ingest_time", &["", "null", "1767261600", r#""yesterday""#, r#""""#]),
    (Reason::NullEventType, "event_type", &["", "null", "1", "[]"]),
    (Reason::NullAmount, "amount", &["", "null", r#""12.34""#, "true", "[12.34]"]),
    (Reason::NullCurrency, "currency", &["", "null", "826", "{}"]),
    (Reason::NullChannel, "channel", &["", "null", "0", "false"]),
    (
        Reason::InvalidEventType,
        "event_type",
        &[r#""refund_completed""#, r#""DEPOSIT_COMPLETED""#, r#""""#, r#"" deposit_completed""#],
    ),
    (Reason::InvalidChannel, "channel", &[r#""pos""#, r#""WEB""#, r#""""#, r#""web ""#]),
    (Reason::InvalidCurrency, "currency", &[r#""USD""#, r#""gbp""#, r#""""#, r#""GBPX""#]),
    (
        Reason::NonPositiveAmount,
        "amount",
        &["0", "-0", "0.00", "-12.34", "-0.001", "-1e15", "0e999999999999", "-1e400"],
    ),
    (Reason::AmountNotRepresentable, "amount", &["0.001", "12.345", "1e15", "1000000000000000.00", "1e-3", "1e400"]),
    (Reason::EventTimeInFuture, "event_time", &[r#""2026-01-01T11:00:00.000001Z""#, r#""9999-12-31T23:59:59Z""#]),
];

#[test]
fn a_valid_event_is_read_in_full() {
    let event = check(event_with(&[])).unwrap();
    assert_eq!(
        event,
        Event {
            id: EventId(0x9f1c_2f6e_0d4b_4c7a_8f55_2f1f_0f9f_8a11),
            user: event.user.clone(),
            time: Micros(1_767_261_598_123_456),
            amount: Pence(1234),
            at: AT,
            origin: ORIGIN,
            event_type: EventType::Deposit,
            channel: Channel::Web,
            curated: Some(Box::new(CuratedMembers {
                event_id: "9f1c2f6e-0d4b-4c7a-8f55-2f1f0f9f8a11".to_owned(),
                ingest_time: Micros(1_767_261_599_500_000),
            })),
        }
    );
    assert_eq!(event.user.0, "user_00001");
    for (value, channel) in [("\"web\"", Channel::Web), ("\"mobile\"", Channel::Mobile), ("\"api\"", Channel::Api)] {
        assert_eq!(check(event_with(&[("channel", value)])).unwrap().channel, channel);
    }
    let withdrawal = check(event_with(&[("event_type", "\"withdrawal_completed\"")])).unwrap();
    assert_eq!(withdrawal.event_type, EventType::Withdrawal);
}

#[test]
fn curated_members_are_carried_only_when_asked_for() {
    for json in [event_with(&[]), event_after(r#""more": 1"#)] {
        let expected = Event { curated: None, ..check(&json).unwrap() };
        assert_eq!(plain_contract().check(&body(json.as_bytes()), ORIGIN), Ok(expected));
    }
}

#[test]
fn each_rule_alone() {
    for (rule, member, values) in BROKEN {
        for value in values {
            assert_eq!(reason(event_with(&[(member, value)])), Some(rule), "{member}: {value}");
        }
    }
}

#[test]
fn of_two_broken_rules_the_earlier_names_the_rejection() {
    let mut pairs = 0;
    for (i, (earlier, first, first_values)) in BROKEN.iter().enumerate() {
        for (_, second, second_values) in &BROKEN[i + 1..] {
            if first == second {
                continue;
            }
            for (a, b) in first_values.iter().flat_map(|a| second_values.iter().map(move |b| (a, b))) {
                let json = event_with(&[(first, a), (second, b)]);
                assert_eq!(reason(&json), Some(*earlier), "{json}");
                pairs += 1;
            }
        }
    }
    assert!(pairs > 1000, "{pairs}");
}

#[test]
fn a_malformed_body_is_nothing_else() {
    for (_, member, values) in BROKEN {
        let broken = event_with(&[(member, values[0])]);
        assert_eq!(reason(format!("{broken}x")), Some(Reason::MalformedEvent), "{broken}");
        assert_eq!(reason(&broken[..broken.len() - 1]), Some(Reason::MalformedEvent), "{broken}");
    }
    assert_eq!(reason("{}"), Some(Reason::NullEventId), "an empty object is an object");
}

#[test]
fn all_rules_broken_one_is_mended_after_the_other() {
    let mut changes: Vec<(&str, &str)> = vec![
        ("event_id", "null"),
        ("user_id", "null"),
        ("event_time", "null"),
        ("ingest_time", "null"),
        ("event_type", "null"),
        ("amount", "null"),
        ("currency", "null"),
        ("channel", "null"),
    ];
    for rule in &Reason::ALL[1..9] {
        assert_eq!(reason(event_with(&changes)), Some(*rule));
        // What follows is mended only so far that it is present: it still breaks a later rule.
        let (name, _) = changes[0];
        let present = match name {
            "event_type" | "currency" | "channel" => "\"no\"",
            "amount" => "-0.001",
            "event_time" => "\"9999-01-01T00:00:00Z\"",
            "event_id" | "user_id" => "\"x\"",
            _ => "\"2026-01-01T00:00:00Z\"",
        };
        changes.remove(0);
        changes.push((name, present));
    }
    for (rule, name, mended) in [
        (Reason::InvalidEventType, "event_type", "\"deposit_completed\""),
        (Reason::InvalidChannel, "channel", "\"api\""),
        (Reason::InvalidCurrency, "currency", "\"GBP\""),
        (Reason::NonPositiveAmount, "amount", "0.001"),
        (Reason::AmountNotRepresentable, "amount", "0.01"),
        (Reason::EventTimeInFuture, "event_time", "\"2026-01-01T00:00:00Z\""),
    ] {
        assert_eq!(reason(event_with(&changes)), Some(rule));
        changes.retain(|(changed, _)| *changed != name);
        changes.push((name, mended));
    }
    assert_eq!(reason(event_with(&changes)), None);
}

#[test]
fn a_rejection_carries_the_id_once_it_is_known_and_says_what_is_wrong() {
    let violation = check(event_with(&[("event_id", r#""caf\u00e9""#), ("channel", r#""fax""#)])).unwrap_err();
    assert_eq!(violation.event_id.as_deref(), Some("café"));
    assert_eq!(violation.to_string(), r#"R100_invalid_channel: "fax" is not web or mobile or api"#);
    let details = [
        (event_with(&[("event_id", "")]), "`event_id` is missing"),
        (event_with(&[("event_id", r#""""#)]), "`event_id` is empty"),
        (event_with(&[("user_id", "null")]), "`user_id` is null"),
        (event_with(&[("amount", "-3")]), "-3 is not above zero"),
        (event_with(&[("amount", "0.001")]), "0.001 is no whole number of pence below 10^17"),
        (
            event_with(&[("event_time", r#""2026-02-29T00:00:00Z""#)]),
            r#""2026-02-29T00:00:00Z" is no timestamp: no such day"#,
        ),
        (
            event_with(&[("event_time", r#""2026-01-01T11:00:00.000001Z""#)]),
            "3600000001 microseconds after the arrival, more than 3600000000",
        ),
    ];
    for (json, detail) in details {
        assert_eq!(check(json).unwrap_err().detail.as_deref(), Some(detail));
    }
}
