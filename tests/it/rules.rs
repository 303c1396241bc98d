//! The contract through the whole program: each rule by an example of its own, amounts, money beyond a double, R140,
//! and the window of deduplication.

use std::collections::BTreeMap;

use crate::cells::Cell;
use crate::data::{Event, HOUR_US, START_US, instant, quoted};
use crate::oracle::{Partition, Rules, check, nearest};
use crate::program::Case;
use crate::tables::{CHANNELS, CURATED, HEALTH, NET_FLOW, REJECTED, Tables, USER_METRICS};

/// Runs the program over one file of these lines, and compares the tables with the oracle.
fn tables_of(lines: &[String], rules: Rules, more: &[&str]) -> Tables {
    let case = Case::of(&[lines.to_vec()]);
    let flags = rules.flags();
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    case.run("out", &args);
    check(&case.path("out"), &Partition::of_directory(&case.path("in")), rules)
}

#[test]
fn each_rule_has_its_reason() {
    let ok = || Event::new("a", 0);
    let null = || "null".to_owned();
    let deep =
        |levels: usize| ok().line().replace('{', &format!("{{\"x\":{}{},", "[".repeat(levels), "]".repeat(levels)));
    let with = |member: &str| ok().line().replace('{', &format!("{{{member},"));
    let cases = [
        ("R000", "not json".to_owned()),
        ("R000", "[]".to_owned()),
        ("R000", format!("{} x", ok().line())),
        ("R000", format!("\u{feff}{}", ok().line())),
        ("R000", with(r#""\u0075ser_id":"bob""#)),
        ("R000", with(r#""note":"\ud800""#)),
        ("R000", with(r#""note":"\q""#)),
        ("R000", ok().amount("NaN").line()),
        ("R000", ok().amount("010").line()),
        ("R000", deep(64)),
        ("R010", Event { id: null(), ..ok() }.line()),
        ("R010", Event { id: "7".to_owned(), ..ok() }.line()),
        ("R010", Event { id: quoted(&"i".repeat(1025)), ..ok() }.line()),
        ("R020", ok().user("").line()),
        ("R030", ok().at("2025-01-01").line()),
        ("R030", ok().at("2025-06-30T23:59:60Z").line()),
        ("R030", ok().at("1969-12-31T23:59:59Z").line()),
        ("R040", ok().line().replace("ingest_time", "ingested")),
        ("R050", Event { kind: "1".to_owned(), ..ok() }.line()),
        ("R060", ok().amount("\"10\"").line()),
        ("R070", Event { currency: null(), ..ok() }.line()),
        ("R080", Event { channel: null(), ..ok() }.line()),
        ("R090", Event { kind: quoted("Deposit_completed"), ..ok() }.line()),
        ("R100", Event { channel: quoted("branch"), ..ok() }.line()),
        ("R110", Event { currency: quoted("gbp"), ..ok() }.line()),
        ("R120", ok().amount("0").line()),
        ("R120", ok().amount("-1e400").line()),
        ("R130", ok().amount("0.001").line()),
        ("R130", ok().amount("1e15").line()),
        ("R130", ok().amount("1e400").line()),
        ("R140", ok().at("9999-12-31T23:59:59.999999Z").line()),
    ];
    let mut lines: Vec<String> = cases.iter().map(|(_, line)| line.clone()).collect();
    // These are not rejected.
    lines.extend([deep(63), format!(" \t{}\r", Event::new("b", 1).line()), with(r#""note":"\ud83d\ude00""#)]);
    let tables = tables_of(&lines, Rules::default(), &["--curated"]);
    let reasons: Vec<String> = tables.texts(&REJECTED, "rejection_reason").iter().map(|r| r[..4].to_owned()).collect();
    assert_eq!(reasons, cases.each_ref().map(|(rule, _)| (*rule).to_owned()));
    assert_eq!(tables.texts(&REJECTED, "raw_payload"), cases.map(|(_, line)| line));
    assert_eq!(tables.texts(&CURATED, "event_id"), ["a", "b"]);
    let ids = tables.column(&REJECTED, "event_id");
    assert_eq!(ids.iter().filter(|id| **id == Cell::from("a")).count(), 18, "{ids:?}");
    assert!(ids[..13].iter().all(|id| *id == Cell::Null), "{ids:?}");
}

#[test]
fn amounts_are_read_from_their_digits() {
    let amounts = [
        ("10", 1_000),
        ("10.5", 1_050),
        ("10.50", 1_050),
        ("1.05e1", 1_050),
        ("1050E-2", 1_050),
        ("1e3", 100_000),
        ("0.1e+2", 1_000),
        ("5e-2", 5),
        ("0.010", 1),
        ("0.29", 29),
        ("1.15", 115),
        ("4.35000000000000000000000000000000000000000000", 435),
        ("999999999999999.99", 99_999_999_999_999_999),
        ("9.9999999999999999e14", 99_999_999_999_999_999),
        ("0.00000000000000000000001e23", 100),
    ];
    let event =
        |(index, (amount, _)): (usize, &(&str, i128))| Event::new(&format!("e{index}"), 0).amount(amount).line();
    let lines: Vec<String> = amounts.iter().enumerate().map(event).collect();
    let tables = tables_of(&lines, Rules::epochs_of(4), &["--curated"]);
    assert_eq!(tables.wholes(&CURATED, "amount"), amounts.map(|(_, pence)| pence));
    let sum: i128 = amounts.iter().map(|(_, pence)| pence).sum();
    assert_eq!(tables.wholes(&NET_FLOW, "net_flow"), [sum]);
}

#[test]
fn sums_stay_exact_beyond_doubles_and_64_bits() {
    let line = |index: i32| match (index, Event::new(&format!("e{index}"), 0)) {
        (0, event) => event.amount("0.01").line(),
        (1, event) => event.amount("0.01").withdrawal().line(),
        (_, event) if index % 3 == 0 => event.amount("999999999999996").withdrawal().line(),
        (_, event) => event.amount("999999999999996.14").line(),
    };
    let lines: Vec<String> = (0..3_002).map(line).collect();
    let tables = tables_of(&lines, Rules::epochs_of(700), &["--workers", "2"]);
    let (deposits, withdrawals) = (2_000 * 99_999_999_999_999_614 + 1, 1_000 * 99_999_999_999_999_600 + 1);
    assert!(deposits > i128::from(u64::MAX));
    let money = |shape, column| tables.wholes(shape, column);
    assert_eq!(money(&NET_FLOW, "total_deposits"), [deposits]);
    assert_eq!(money(&NET_FLOW, "total_withdrawals"), [withdrawals]);
    assert_eq!(money(&NET_FLOW, "net_flow"), [deposits - withdrawals]);
    assert_eq!(money(&USER_METRICS, "total_deposits"), [deposits]);
    assert_eq!(money(&CHANNELS, "total_amount"), [deposits, withdrawals]);
    // The sums were chosen so that doubles all along would round to another result.
    let fractions = [
        ("avg_deposit", deposits, 200_100),
        ("avg_withdrawal", withdrawals, 100_100),
        ("deposit_to_withdrawal_ratio", deposits, withdrawals),
    ];
    for (column, numerator, denominator) in fractions {
        let exact = nearest(numerator, denominator);
        assert_eq!(tables.column(&NET_FLOW, column), [Cell::from(exact)]);
        assert_ne!(exact, numerator as f64 / denominator as f64, "{column}");
    }
}

#[test]
fn an_event_at_the_watermark_is_late() {
    let day = 24 * 3600;
    let at = |id: &str, us: i64| Event::new(id, 0).at(&instant(START_US + us)).line();
    let lines = [at("a", 0), at("b", -day * 1_000_000), at("c", -day * 1_000_000 + 1), at("d", -day * 1_000_000 - 1)];
    let tables = tables_of(&lines, Rules { witnesses: 1, ..Rules::epochs_of(1) }, &["--curated"]);
    assert_eq!(tables.texts(&CURATED, "event_id"), ["a", "c"]);
    assert_eq!(tables.texts(&REJECTED, "rejection_reason"), ["R200_late_event"; 2]);
}

#[test]
fn an_event_from_the_future_does_not_move_the_watermark() {
    let now = START_US;
    let late = Event::new("late", -48 * 3600);
    let lines: Vec<String> = [
        Event::new("a", 0),
        Event::new("future", 0).at("9999-06-01T00:00:00Z"),
        Event::new("b", -3600),
        Event::new("c", -23 * 3600),
        late,
        Event::new("d", 60),
    ]
    .iter()
    .map(Event::line)
    .collect();
    let tables = tables_of(&lines, Rules { witnesses: 1, ..Rules::epochs_of(2) }, &[]);
    let watermark = Cell::from(now - 24 * HOUR_US);
    assert_eq!(tables.column(&HEALTH, "watermark"), [Cell::Null, watermark.clone(), watermark]);
    let reasons: Vec<String> = tables.texts(&REJECTED, "rejection_reason");
    assert_eq!(reasons, ["R140_event_time_in_future", "R200_late_event"]);
    assert_eq!(tables.wholes(&HEALTH, "late_events"), [0, 0, 1]);
    assert_eq!(tables.texts(&HEALTH, "rejected_by_reason")[0], r#"{"R140_event_time_in_future":1}"#);
}

#[test]
fn the_future_begins_after_the_skew() {
    // The opening time of the epoch is some moment after this one, and long before the end of the test.
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let event = |id, ahead_us| Event::new(id, 0).at(&instant(now + ahead_us)).line();
    let lines = [event("in", HOUR_US / 2), event("out", 3 * HOUR_US / 2)];
    let tables = tables_of(&lines, Rules::default(), &[]);
    assert_eq!(tables.column(&REJECTED, "event_id"), [Cell::from("out")]);
    let skew = Rules { max_future_skew_us: 2 * HOUR_US, ..Rules::default() };
    let tables = tables_of(&lines, skew, &[]);
    assert_eq!(tables.wholes(&NET_FLOW, "deposit_count"), [2]);
    assert_eq!(tables.wholes(&HEALTH, "lag_seconds"), [0]);
}

#[test]
fn ids_are_remembered_for_exactly_their_time() {
    let horizon = Rules { watermark_delay_us: HOUR_US, dedup_retention_us: 24 * HOUR_US, ..Rules::epochs_of(1) };
    let rules = Rules { witnesses: 1, ..horizon };
    // At 08:20; remembered until the watermark reaches 09:00 of the next day, which is an hour behind.
    let first = Event::new("x", 8 * 3600 + 1200);
    let clock = |id: &str, us| Event::new(id, 0).at(&instant(START_US + us)).line();
    let end_us = (24 + 10) * HOUR_US;
    let lines = [
        first.line(),
        clock("t1", end_us - 1),
        first.line(),
        first.clone().user("bob").line(),
        first.clone().at(&instant(START_US + end_us - 1)).line(),
        clock("t2", end_us),
        first.line(),
        first.clone().at(&instant(START_US + end_us)).line(),
        first.line(),
    ];
    let tables = tables_of(&lines, rules, &["--workers", "2"]);
    let health = |column| tables.wholes(&HEALTH, column);
    assert_eq!(health("events_valid"), [1, 1, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(health("duplicate_events"), [0, 0, 1, 0, 0, 0, 0, 0, 0]);
    // Once the id is forgotten, an identical redelivery is late; once it is taken anew, another event is a conflict.
    assert_eq!(health("late_events"), [0, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(health("events_rejected"), [0, 0, 0, 1, 1, 0, 1, 0, 1]);
    assert_eq!(health("retained_ids"), [1, 2, 2, 2, 2, 3, 2, 3, 3]);
}

#[test]
fn users_may_be_any_text_of_up_to_1024_bytes() {
    let users = ["ann", "Ann", "ann ", "Åsa", "A\u{30a}sa", "😀", "\u{0}", "o'hara \"\\", "\u{7f}\u{85}", "用户"];
    let long = ["é".repeat(512), "x".repeat(1024), format!("{}y", "x".repeat(1023))];
    let users: Vec<&str> = users.into_iter().chain(long.iter().map(String::as_str)).collect();
    let mut lines = Vec::new();
    for round in 0..3 {
        let event = |(i, user): (usize, &&str)| Event::new(&format!("{round}.{i}"), 0).user(user).amount("0.01").line();
        lines.extend(users.iter().enumerate().map(event));
    }
    // Escaped, it is the same user.
    lines.push(Event { user: r#""\u0061nn""#.to_owned(), ..Event::new("escaped", 0) }.line());
    let tables = tables_of(&lines, Rules::epochs_of(13), &["--workers", "3"]);
    let counts = tables.texts(&USER_METRICS, "user_id").into_iter().zip(tables.wholes(&USER_METRICS, "deposit_count"));
    let mut expected: BTreeMap<String, i128> = users.iter().map(|user| ((*user).to_owned(), 3)).collect();
    expected.insert("ann".to_owned(), 4);
    assert_eq!(counts.collect::<BTreeMap<_, _>>(), expected);
}
