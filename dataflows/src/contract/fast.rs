//! The path for nearly every body: one pass over the bytes of the shape that producers send.
//!
//! It accepts only what it understands completely: the eight members, each once, in any order, strings without escapes,
//! amounts in plain pounds and pence. Each `?` below means "leave it to the strict path", never "invalid". UTF-8 is
//! checked where the bytes are kept as text; all else that it accepts is ASCII by being equal to something.

use compact_str::CompactString;

use super::member::Member;
use super::{Contract, MAX_ID_BYTES, identity, timestamp};
use crate::block::{Body, MAX_BODY_BYTES};
use crate::event::{Channel, CuratedMembers, Event, EventType, Micros, Pence, UserId};

/// Most digits before the point that fit the contract.
const MAX_POUND_DIGITS: usize = 15;

#[inline]
pub(super) fn check(contract: &Contract, body: &Body<'_>, origin: u16) -> Option<Event> {
    if body.whole_len > MAX_BODY_BYTES as u64 || body.bytes.len() > MAX_BODY_BYTES || body.section.is_some() {
        return None;
    }
    let found = Found::scan(body.bytes)?;
    let event_id = str::from_utf8(found.event_id?).ok()?;
    let time = found.event_time?;
    let ingest_time = found.ingest_time?;
    found.currency?;
    if contract.too_far_ahead(time, body.arrival).is_some() {
        return None;
    }
    let curated = || Box::new(CuratedMembers { event_id: event_id.to_owned(), ingest_time });
    Some(Event {
        id: identity::event_id(event_id.as_bytes(), contract.id_key),
        user: UserId(CompactString::from_utf8(found.user_id?).ok()?),
        time,
        amount: found.amount?,
        at: body.at,
        origin,
        event_type: found.event_type?,
        channel: found.channel?,
        curated: contract.curated.then(curated),
    })
}

/// The members found so far.
#[derive(Default)]
struct Found<'a> {
    event_id: Option<&'a [u8]>,
    user_id: Option<&'a [u8]>,
    event_time: Option<Micros>,
    ingest_time: Option<Micros>,
    event_type: Option<EventType>,
    amount: Option<Pence>,
    currency: Option<()>,
    channel: Option<Channel>,
}

impl<'a> Found<'a> {
    #[inline]
    fn scan(body: &'a [u8]) -> Option<Found<'a>> {
        let mut found = Found::default();
        let mut cursor = Cursor { rest: body };
        cursor.token(b'{')?;
        let mut usual = Member::ALL.into_iter();
        loop {
            cursor.token(b'"')?;
            let member = cursor.name(usual.next()?)?;
            cursor.token(b':')?;
            cursor.skip_space();
            found.member(member, &mut cursor)?;
            cursor.skip_space();
            match cursor.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        cursor.skip_space();
        cursor.rest.is_empty().then_some(found)
    }

    #[inline]
    fn member(&mut self, member: Member, cursor: &mut Cursor<'a>) -> Option<()> {
        if member == Member::Amount {
            return once(&mut self.amount, cursor.amount()?);
        }
        if cursor.next()? != b'"' {
            return None;
        }
        let text = cursor.string()?;
        match member {
            Member::EventId => once(&mut self.event_id, id(text)?),
            Member::UserId => once(&mut self.user_id, id(text)?),
            Member::EventTime => once(&mut self.event_time, timestamp::parse(text).ok()?),
            Member::IngestTime => once(&mut self.ingest_time, timestamp::parse(text).ok()?),
            Member::EventType => once(&mut self.event_type, event_type(text)?),
            Member::Currency => once(&mut self.currency, (text == b"GBP").then_some(())?),
            Member::Channel => once(&mut self.channel, channel(text)?),
            Member::Amount => None,
        }
    }
}

/// A member given twice is R000. (It would also leave one of the eight missing, since a ninth member ends the scan.)
#[inline]
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

#[inline]
fn id(text: &[u8]) -> Option<&[u8]> {
    ((1..=MAX_ID_BYTES).contains(&text.len()) && is_plain(text)).then_some(text)
}

#[inline]
fn event_type(text: &[u8]) -> Option<EventType> {
    match text {
        b"deposit_completed" => Some(EventType::Deposit),
        b"withdrawal_completed" => Some(EventType::Withdrawal),
        _ => None,
    }
}

#[inline]
fn channel(text: &[u8]) -> Option<Channel> {
    match text {
        b"web" => Some(Channel::Web),
        b"mobile" => Some(Channel::Mobile),
        b"api" => Some(Channel::Api),
        _ => None,
    }
}

/// What is still to be read.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    #[inline]
    fn skip_space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// One byte of the grammar, with white space before it.
    #[inline]
    fn token(&mut self, expected: u8) -> Option<()> {
        self.skip_space();
        (self.next()? == expected).then_some(())
    }

    /// What stands before the next quote, which is read too: the rest of a string whose opening quote has been read, if
    /// it holds no escapes. To see to that is the caller's business.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = self.rest.split_at_checked(memchr::memchr(b'"', self.rest)?)?;
        self.rest = rest.get(1..)?;
        Some(text)
    }

    /// A member's name. The one expected is compared in place, which is cheaper than finding where it ends.
    #[inline]
    fn name(&mut self, expected: Member) -> Option<Member> {
        if let Some(rest) = expected.strip_name(self.rest) {
            self.rest = rest;
            return Some(expected);
        }
        Member::from_name(self.string()?)
    }

    /// Pounds with at most two decimals, above zero. What follows the number is for the caller to judge, so that
    /// `1.234` fails there at the `4`, `1e2` at the `e` and `01` at the `1`.
    #[inline]
    fn amount(&mut self) -> Option<Pence> {
        let before = self.rest.len();
        let leading_zero = self.rest.first() == Some(&b'0');
        let mut pence = self.digits(if leading_zero { 1 } else { MAX_POUND_DIGITS }, 0);
        if before == self.rest.len() {
            return None;
        }
        let mut decimals = 0;
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            pence = self.digits(2, pence);
            decimals = rest.len() - self.rest.len();
            if decimals == 0 {
                return None;
            }
        }
        let pence = pence * [100, 10, 1].get(decimals)?;
        (pence > 0).then_some(Pence(pence))
    }

    /// Appends up to `most` decimal digits to `value`.
    #[inline]
    fn digits(&mut self, most: usize, mut value: i64) -> i64 {
        for _ in 0..most {
            let [digit @ b'0'..=b'9', rest @ ..] = self.rest else { break };
            value = value * 10 + i64::from(digit - b'0');
            self.rest = rest;
        }
        value
    }
}

/// Whether `text` stands for itself in a JSON string: no escapes, no control characters.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & (*byte >= 0x20) & (*byte != b'\\'))
}
