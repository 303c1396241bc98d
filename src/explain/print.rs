//! The answer in words.

use std::fmt::Write;

use super::{Arrival, Explanation, Memory, Place, Verdict};
use crate::report::numbers::{counted, instant};
use crate::report::terminal::printable;

/// Characters of a name that are shown.
const NAME_CHARS: usize = 64;

/// Characters of a detail that are shown.
const DETAIL_CHARS: usize = 160;

impl Explanation {
    /// The answer in sentences.
    pub(super) fn conclude(&self) -> Vec<String> {
        let mut said = Vec::new();
        let accepted: Vec<&Arrival> = self.arrivals.iter().filter(|a| a.verdict == Verdict::Accepted).collect();
        said.extend(accepted.iter().map(|arrival| format!("accepted {}", at(arrival))));
        let duplicates = |arrival: &&Arrival| matches!(arrival.verdict, Verdict::Duplicate { .. });
        let duplicates = self.arrivals.iter().filter(duplicates).count() as u64;
        if duplicates > 0 {
            said.push(format!("delivered again as it was, and not counted again: {}", counted(duplicates, "time")));
        }
        let rejected = self.arrivals.iter().filter(|a| matches!(a.verdict, Verdict::Rejected { .. }));
        said.extend(rejected.map(|arrival| format!("rejected {}: {}", at(arrival), words(&arrival.verdict))));
        let remembered = self.memory.as_ref().is_some_and(|memory| memory.entry.is_some());
        if accepted.is_empty() && remembered {
            said.push("accepted in an epoch that cannot be told any more: a checkpoint holds its id".to_owned());
        } else if said.is_empty() && self.arrivals.iter().any(|a| a.verdict == Verdict::Unread) {
            said.push("not read yet".to_owned());
        } else if said.is_empty() && !self.arrivals.is_empty() {
            said.push("it arrived, and whether it was accepted cannot be told any more".to_owned());
        } else if said.is_empty() {
            said.push("nothing was found".to_owned());
        }
        said
    }

    /// Everything, for a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", printable(&self.event_id, NAME_CHARS));
        // Writing to a string cannot fail.
        for line in &self.conclusion {
            let _ = writeln!(text, "  {line}");
        }
        if !self.arrivals.is_empty() {
            text.push_str("\narrivals\n");
        }
        for arrival in &self.arrivals {
            let (place, verdict, found) = (at(arrival), words(&arrival.verdict), arrival.found_in.join(", "));
            let _ = writeln!(text, "  {place}: {verdict} ({found})");
        }
        if let Some(memory) = &self.memory {
            let _ = writeln!(text, "\nid\n  {}", memory.words());
        }
        text.push_str("\nnot searched\n");
        for what in &self.not_searched {
            let _ = writeln!(text, "  {}", printable(what, 400));
        }
        text
    }
}

impl Memory {
    fn words(&self) -> String {
        let watermark = self.watermark_us.map_or("none".to_owned(), instant);
        let as_of = format!("as of epoch {}, watermark {watermark}", self.as_of_epoch);
        match &self.entry {
            Some(entry) if entry.remembered => {
                format!("remembered {as_of}, until the watermark reaches {}", instant(entry.forgotten_at_us))
            }
            Some(entry) => {
                format!("forgotten {as_of}: since the watermark reached {}", instant(entry.forgotten_at_us))
            }
            None => format!("not remembered {as_of}: never accepted by then, or forgotten and cleared away"),
        }
    }
}

fn at(arrival: &Arrival) -> String {
    let place = named(&arrival.place);
    match (arrival.epoch, &arrival.verdict) {
        (Some(epoch), _) => format!("in epoch {epoch} at {place}"),
        (None, Verdict::Unread) => format!("at {place}"),
        (None, _) => format!("in an unknown epoch at {place}"),
    }
}

fn named(place: &Place) -> String {
    format!("{}:{}", printable(&place.partition, NAME_CHARS), place.offset)
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted => "accepted".to_owned(),
        Verdict::Duplicate { of } => format!("duplicate of {}", named(of)),
        Verdict::Unread => "not read yet".to_owned(),
        Verdict::AcceptedOrDuplicate => "accepted or a duplicate".to_owned(),
        Verdict::NotAccepted => "a duplicate: another arrival was accepted".to_owned(),
        Verdict::Rejected { reason, detail, late_by_us, watermark_us, conflicts_with } => {
            let mut words = printable(reason, NAME_CHARS);
            if let (Some(late), Some(watermark)) = (late_by_us, watermark_us) {
                let (seconds, fraction) = (late / 1_000_000, late % 1_000_000);
                words += &format!(", late by {seconds}.{fraction:06} s behind the watermark {}", instant(*watermark));
            } else if let Some(place) = conflicts_with {
                words += &format!(", another event with this id was accepted at {}", named(place));
            } else if let Some(detail) = detail {
                words += &format!(", {}", printable(detail, DETAIL_CHARS));
            }
            words
        }
    }
}
