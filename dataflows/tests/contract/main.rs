//! The contract, rule by rule and edge by edge, and the agreement of its two paths.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edges;
mod malformed;
mod paths;
mod rules;

use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::{Contract, Violation};
use tidemark_dataflows::event::{Event, Micros, Offset, PartitionId, Position};
use tidemark_dataflows::reason::Reason;

/// 2026-01-01T10:00:00Z.
const ARRIVAL: Micros = Micros(1_767_261_600_000_000);

const AT: Position = Position { partition: PartitionId(3), offset: Offset(77) };

const ORIGIN: u16 = 5;

/// The members of a valid event, in the usual order, by name and JSON value.
const VALID: [(&str, &str); 8] = [
    ("event_id", r#""9f1c2f6e-0d4b-4c7a-8f55-2f1f0f9f8a11""#),
    ("user_id", r#""user_00001""#),
    ("event_time", r#""2026-01-01T09:59:58.123456+00:00""#),
    ("ingest_time", r#""2026-01-01T09:59:59.5Z""#),
    ("event_type", r#""deposit_completed""#),
    ("amount", "12.34"),
    ("currency", r#""GBP""#),
    ("channel", r#""web""#),
];

fn contract() -> Contract {
    Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: true }
}

fn plain_contract() -> Contract {
    Contract { curated: false, ..contract() }
}

fn body(bytes: &[u8]) -> Body<'_> {
    Body { bytes, whole_len: bytes.len() as u64, at: AT, arrival: ARRIVAL, section: None }
}

/// The verdict, after seeing that it is the same on each path, with the curated members or without, and that a violation
/// is fit to be stored.
fn check(json: impl AsRef<[u8]>) -> Result<Event, Violation> {
    let body = body(json.as_ref());
    let verdict = contract().check(&body, ORIGIN);
    assert_eq!(contract().check_strict(&body, ORIGIN), verdict, "the strict path alone");
    if let Some(event) = contract().check_fast(&body, ORIGIN) {
        assert_eq!(Ok(event), verdict, "the fast path alone");
    }
    let without = verdict.clone().map(|event| Event { curated: None, ..event });
    assert_eq!(plain_contract().check(&body, ORIGIN), without, "without the curated members");
    assert_eq!(
        plain_contract().check_strict(&body, ORIGIN),
        without,
        "without the curated members, the strict path alone"
    );
    if let Err(violation) = &verdict {
        let no_id = matches!(violation.reason, Reason::MalformedEvent | Reason::NullEventId);
        assert_eq!(violation.event_id.is_none(), no_id, "{violation}");
        let detail = violation.detail.as_deref().expect("every rejection is explained");
        assert!((1..=600).contains(&detail.len()), "{} bytes of detail", detail.len());
    }
    verdict
}

fn reason(json: impl AsRef<[u8]>) -> Option<Reason> {
    check(json).err().map(|violation| violation.reason)
}

/// An object of the given members, as Python's `json.dumps` spells it.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}

/// A valid event, but for the members in `changes`; an empty value leaves the member out.
fn event_with(changes: &[(&str, &str)]) -> String {
    let change = |name| changes.iter().find(|(changed, _)| *changed == name).map(|(_, value)| *value);
    let members = VALID.map(|(name, value)| (name, change(name).unwrap_or(value)));
    object(members.into_iter().filter(|(_, value)| !value.is_empty()))
}

/// A valid event with `extra` (members, without a comma at the ends) before the first of the eight.
fn event_after(extra: &str) -> String {
    event_with(&[]).replacen('{', &format!("{{{extra}, "), 1)
}
