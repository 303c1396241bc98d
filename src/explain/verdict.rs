//! The verdict on each arrival: what the tables say, else what the rules of the stream say once more.

use std::collections::BTreeMap;

use serde::Serialize;
use tidemark_dataflows::block::Body;
use tidemark_dataflows::event::{Event, Micros, Offset, PartitionId, Position};
use tidemark_dataflows::reason::Reason;

use super::tables::rule;
use super::{Arrival, Search};

/// Where an event stands in its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Name of the partition.
    pub partition: String,
    /// Its place in it.
    pub offset: u64,
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It repeats an accepted event, and was counted as that alone.
    Duplicate {
        /// The accepted one.
        of: Place,
    },
    /// A rule rejected it.
    Rejected {
        /// The rule.
        reason: String,
        /// What was wrong.
        detail: Option<String>,
        /// Of a late event: how far it lies behind the watermark, in microseconds.
        late_by_us: Option<i64>,
        /// Of a late event: the watermark of its epoch, in microseconds since 1970.
        watermark_us: Option<i64>,
        /// Of a conflicting event: the accepted one.
        conflicts_with: Option<Place>,
    },
    /// It is in the source, and no epoch has taken it yet.
    Unread,
    /// No rule about the event rejects it; which epoch took it cannot be told any more, and so nothing else.
    AcceptedOrDuplicate,
    /// Another arrival was accepted, and no table has this one.
    NotAccepted,
}

/// What was found of an arrival.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its epoch, where that can still be told.
    pub(super) epoch: Option<u64>,
    /// Index of its partition, where it is known.
    pub(super) number: Option<u32>,
    /// Its body, where all of it is there.
    pub(super) body: Option<Vec<u8>>,
    /// It is in the quarantine, for this reason and detail.
    pub(super) rejected: Option<(String, Option<String>)>,
    /// It is in the curated table.
    pub(super) accepted: bool,
    /// It is in the source or the inbox.
    pub(super) in_source: bool,
    /// No epoch has taken it yet.
    pub(super) unread: bool,
    /// When its epoch was opened.
    pub(super) opened: Option<Micros>,
    /// The watermark of its epoch, where the table of epochs has it.
    pub(super) watermark: Option<Option<Micros>>,
}

/// The verdicts, in the order of the stream. What no epoch is known of comes last.
pub(super) fn decide(search: &Search<'_>, found: BTreeMap<Place, Found>) -> Vec<Arrival> {
    let mut found: Vec<(Place, Found)> = found.into_iter().collect();
    let order = |(place, at): &(Place, Found)| {
        let epoch = at.epoch.unwrap_or(u64::MAX);
        (at.unread, epoch, at.number, place.clone())
    };
    found.sort_by_key(order);
    let known_accepted = found.iter().any(|(_, at)| at.accepted);
    let mut stream = Stream { search, first: None };
    let arrival = |(place, at): (Place, Found)| {
        let verdict = match stream.judge(&place, &at) {
            Verdict::AcceptedOrDuplicate if known_accepted => Verdict::NotAccepted,
            verdict => verdict,
        };
        let found_in = [("quarantine", at.rejected.is_some()), ("curated", at.accepted), ("source", at.in_source)];
        Arrival {
            epoch: at.epoch,
            place,
            verdict,
            found_in: found_in.into_iter().filter_map(|(name, is)| is.then_some(name)).collect(),
        }
    };
    found.into_iter().map(arrival).collect()
}

/// The stream of arrivals of one id, in order.
struct Stream<'a> {
    search: &'a Search<'a>,
    /// The newest accepted one, and what it said, where its body is there.
    first: Option<(Place, Option<Event>)>,
}

impl Stream<'_> {
    fn judge(&mut self, place: &Place, at: &Found) -> Verdict {
        if at.unread {
            return Verdict::Unread;
        }
        let event = at.body.as_deref().map(|body| self.check(body, at));
        if let Some((reason, detail)) = &at.rejected {
            return self.rejected(reason, detail.clone(), event.and_then(Result::ok).as_ref(), at);
        }
        if at.accepted {
            self.first = Some((place.clone(), event.and_then(Result::ok)));
            return Verdict::Accepted;
        }
        match event {
            Some(Err((reason, detail))) => self.rejected(reason.as_str(), detail, None, at),
            Some(Ok(event)) => self.by_the_stream(place, event, at),
            None => Verdict::AcceptedOrDuplicate,
        }
    }

    /// The rules about the event. Without the opening time of its epoch, it does not come from the future.
    fn check(&self, body: &[u8], at: &Found) -> Result<Event, (Reason, Option<String>)> {
        let position = Position { partition: PartitionId(0), offset: Offset(0) };
        let arrival = at.opened.unwrap_or(Micros(i64::MAX));
        let body = Body { bytes: body, whole_len: body.len() as u64, at: position, arrival, section: None };
        self.search.contract.check(&body, 0).map_err(|violation| (violation.reason, violation.detail))
    }

    /// The rules about the stream.
    fn by_the_stream(&mut self, place: &Place, event: Event, at: &Found) -> Verdict {
        let Some(watermark) = at.watermark else { return Verdict::AcceptedOrDuplicate };
        let forgotten = |time| watermark.is_some_and(|watermark| self.search.horizon.forgotten_at(time) <= watermark);
        match &self.first {
            Some((of, Some(first))) if !forgotten(first.time) => {
                let facts = |e: &Event| (e.user.clone(), e.time, e.event_type, e.amount, e.channel);
                return if facts(first) == facts(&event) {
                    Verdict::Duplicate { of: of.clone() }
                } else {
                    self.rejected(Reason::ConflictingDuplicate.as_str(), None, Some(&event), at)
                };
            }
            // What it said is gone. Had this one been accepted or rejected as well, a table would have it.
            Some((of, None)) => return Verdict::Duplicate { of: of.clone() },
            _ => {}
        }
        if watermark.is_some_and(|watermark| event.time <= watermark) {
            return self.rejected(Reason::LateEvent.as_str(), None, Some(&event), at);
        }
        self.first = Some((place.clone(), Some(event)));
        // What was not searched may hold one before it.
        if self.search.whole { Verdict::Accepted } else { Verdict::AcceptedOrDuplicate }
    }

    fn rejected(&self, reason: &str, detail: Option<String>, event: Option<&Event>, at: &Found) -> Verdict {
        let known = rule(reason);
        let watermark = at.watermark.flatten().filter(|_| known == Some(Reason::LateEvent));
        let late_by = watermark.zip(event).map(|(watermark, event)| watermark.0.saturating_sub(event.time.0));
        let conflicting = known == Some(Reason::ConflictingDuplicate);
        Verdict::Rejected {
            reason: reason.to_owned(),
            detail,
            late_by_us: late_by,
            watermark_us: watermark.map(|watermark| watermark.0),
            conflicts_with: self.first.as_ref().filter(|_| conflicting).map(|(place, _)| place.clone()),
        }
    }
}
