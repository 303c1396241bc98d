//! The path for every body: one rule after the other, and a reason that a person can act on.

use std::fmt::Display;

use compact_str::CompactString;

use super::amount::{self, Amount};
use super::member::Member;
use super::members::{Members, Value};
use super::nesting::{self, Flaw, MAX_DEPTH};
use super::{Contract, MAX_ID_BYTES, Violation, identity, timestamp};
use crate::block::{Body, MAX_BODY_BYTES};
use crate::event::{Channel, CuratedMembers, Event, EventType, Micros, Pence, UserId};
use crate::reason::Reason;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// How many characters of a value a detail quotes.
const QUOTED_CHARS: usize = 48;

pub(super) fn check(contract: &Contract, body: &Body<'_>, origin: u16) -> Result<Event, Violation> {
    let members = well_formed(body).map_err(|detail| Violation::new(Reason::MalformedEvent, detail))?;
    let event_id = id(&members, Member::EventId).map_err(|detail| Violation::new(Reason::NullEventId, detail))?;
    let judged = Judge { contract, members: &members, event_id, body, origin }.judge();
    judged.map_err(|violation| Violation { event_id: Some(event_id.to_owned()), ..violation })
}

/// R000.
fn well_formed<'a>(body: &Body<'a>) -> Result<Members<'a>, String> {
    if let Some(section) = body.section {
        return Err(section.as_str().to_owned());
    }
    let length = body.whole_len.max(body.bytes.len() as u64);
    if length > MAX_BODY_BYTES as u64 {
        return Err(format!("{length} bytes, more than {MAX_BODY_BYTES}"));
    }
    let text = std::str::from_utf8(body.bytes).map_err(|e| format!("no UTF-8 from byte {} on", e.valid_up_to()))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err("starts with a byte order mark".to_owned());
    }
    // Asked here, since the parser would quote in full what it found instead.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err("no JSON object".to_owned());
    }
    let members = Members::parse(text).map_err(|e| e.to_string())?;
    nesting::check(text.as_bytes()).map_err(|flaw| match flaw {
        Flaw::TooDeep(at) => format!("nested over {MAX_DEPTH} levels at byte {at}"),
        Flaw::HalfSurrogatePair(at) => format!("half a surrogate pair at byte {at}"),
    })?;
    Ok(members)
}

/// The rules from R020 on.
struct Judge<'a> {
    contract: &'a Contract,
    members: &'a Members<'a>,
    event_id: &'a str,
    body: &'a Body<'a>,
    origin: u16,
}

impl Judge<'_> {
    fn judge(&self) -> Result<Event, Violation> {
        let user = self.rule(Reason::NullUserId, id(self.members, Member::UserId))?;
        let time = self.rule(Reason::NullEventTime, self.instant(Member::EventTime))?;
        let ingest_time = self.rule(Reason::NullIngestTime, self.instant(Member::IngestTime))?;
        let event_type = self.rule(Reason::NullEventType, text(self.members, Member::EventType))?;
        let amount = self.rule(Reason::NullAmount, self.number(Member::Amount))?;
        let currency = self.rule(Reason::NullCurrency, text(self.members, Member::Currency))?;
        let channel = self.rule(Reason::NullChannel, text(self.members, Member::Channel))?;

        let event_type = one_of(&EventType::ALL, EventType::as_str, event_type);
        let event_type = self.rule(Reason::InvalidEventType, event_type)?;
        let channel = self.rule(Reason::InvalidChannel, one_of(&Channel::ALL, Channel::as_str, channel))?;
        self.rule(Reason::InvalidCurrency, one_of(&["GBP"], |name| name, currency))?;
        let amount = self.pence(amount)?;
        self.rule(Reason::EventTimeInFuture, self.not_in_future(time))?;

        let curated = || Box::new(CuratedMembers { event_id: self.event_id.to_owned(), ingest_time });
        Ok(Event {
            id: identity::event_id(self.event_id.as_bytes(), self.contract.id_key),
            user: UserId(CompactString::from(user)),
            time,
            amount,
            at: self.body.at,
            origin: self.origin,
            event_type,
            channel,
            curated: self.contract.curated.then(curated),
        })
    }

    fn rule<T>(&self, reason: Reason, outcome: Result<T, String>) -> Result<T, Violation> {
        outcome.map_err(|detail| Violation::new(reason, detail))
    }

    fn instant(&self, member: Member) -> Result<Micros, String> {
        let text = text(self.members, member)?;
        timestamp::parse(text.as_bytes()).map_err(|e| format!("{} is no timestamp: {e}", quoted(text)))
    }

    fn number(&self, member: Member) -> Result<&str, String> {
        match self.members.get(member) {
            Value::Number(digits) => Ok(digits),
            other => Err(found(member, other.kind())),
        }
    }

    /// R120 and R130.
    fn pence(&self, number: &str) -> Result<Pence, Violation> {
        match amount::from_number(number) {
            Amount::Pence(pence) => Ok(pence),
            Amount::NonPositive => {
                Err(Violation::new(Reason::NonPositiveAmount, format!("{} is not above zero", shortened(number))))
            }
            Amount::NotRepresentable => {
                let detail = format!("{} is no whole number of pence below 10^17", shortened(number));
                Err(Violation::new(Reason::AmountNotRepresentable, detail))
            }
        }
    }

    /// R140.
    fn not_in_future(&self, time: Micros) -> Result<(), String> {
        let allowed = self.contract.max_future_skew_us;
        match self.contract.too_far_ahead(time, self.body.arrival) {
            Some(ahead) => Err(format!("{ahead} microseconds after the arrival, more than {allowed}")),
            None => Ok(()),
        }
    }
}

/// R010 and R020.
fn id<'a>(members: &'a Members<'_>, member: Member) -> Result<&'a str, String> {
    let id = text(members, member)?;
    match id.len() {
        0 => Err(found(member, "empty")),
        1..=MAX_ID_BYTES => Ok(id),
        length => Err(format!("`{}` has {length} bytes, more than {MAX_ID_BYTES}", member.name())),
    }
}

fn text<'a>(members: &'a Members<'_>, member: Member) -> Result<&'a str, String> {
    match members.get(member) {
        Value::Text(text) => Ok(text),
        other => Err(found(member, other.kind())),
    }
}

fn one_of<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, text: &str) -> Result<T, String> {
    let known = all.iter().copied().find(|value| name(*value) == text);
    known.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        format!("{} is not {}", quoted(text), names.join(" or "))
    })
}

fn found(member: Member, what: impl Display) -> String {
    format!("`{}` is {what}", member.name())
}

fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}\u{2026}", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
