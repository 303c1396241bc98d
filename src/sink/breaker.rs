//! The breaker: ends a run once more of an epoch is rejected than the configuration bears.
//!
//! It only judges. That the epoch is still published, and nothing after it, is for the writer to see to.

use std::fmt;

use tidemark_dataflows::event::Epoch;
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::{EpochSummary, Tally};

/// Reasons that are named.
const NAMED: usize = 3;

/// What an epoch may be like.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Greatest share of rejected events.
    pub max_rejected_share: f64,
    /// Epochs with fewer events are not judged.
    pub min_events: u64,
    /// What is left behind, and what to do: the end of the message.
    pub advice: Advice,
}

/// What whoever reads the message can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Look at the rejected events below this output, and start again.
    Look(String),
    /// Nothing was written.
    Nothing,
}

/// An epoch that broke the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Tripped {
    /// The epoch.
    pub epoch: Epoch,
    tally: Tally,
    bound: f64,
    advice: Advice,
}

impl Breaker {
    /// The epoch with its figures, if more of it is rejected than may be. Every reason counts, those of the stream as well:
    /// late and conflicting events are rejected, duplicates are not.
    pub fn judge(&self, summary: &EpochSummary) -> Option<Tripped> {
        let EpochSummary { mark, tally, .. } = summary;
        let (received, rejected) = (tally.received, tally.rejected_total());
        // Both the quotient and the setting are the double next to a fraction, so equal fractions are equal here.
        let exceeds = received > 0 && rejected as f64 / received as f64 > self.max_rejected_share;
        (exceeds && received >= self.min_events).then(|| Tripped {
            epoch: mark.epoch,
            tally: tally.clone(),
            bound: self.max_rejected_share,
            advice: self.advice.clone(),
        })
    }
}

impl fmt::Display for Tripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tripped { epoch, tally, bound, advice } = self;
        let (received, rejected) = (tally.received, tally.rejected_total());
        // Rounded up, so that it never looks like the bound itself.
        let share = (u128::from(rejected) * 10_000).div_ceil(u128::from(received.max(1)));
        let share = share as f64 / 10_000.0;
        let mut reasons: Vec<(u64, Reason)> = Reason::ALL.map(|reason| (tally.rejected_for(reason), reason)).into();
        reasons.retain(|(count, _)| *count > 0);
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let others: u64 = reasons.iter().skip(NAMED).map(|(count, _)| count).sum();
        let mut named: Vec<String> =
            reasons.iter().take(NAMED).map(|(count, reason)| format!("{count} {reason}")).collect();
        named.extend((others > 0).then(|| format!("{others} for other reasons")));
        write!(
            f,
            "the breaker has ended the run: {rejected} of {received} events of epoch {epoch} are rejected, a share of {share}, \
             and breaker.max_rejected_share is {bound} ({}); ",
            named.join(", ")
        )?;
        match advice {
            Advice::Look(output) => write!(
                f,
                "epoch {epoch} is published and nothing after it: look at the events with `tidemark quarantine list --since \
                 {epoch} --output {output}`, mend the producer or raise the bound, and start again, which goes on after it"
            ),
            Advice::Nothing => f.write_str("nothing was written: this was a dry run"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidemark_dataflows::event::{EpochMark, Micros};

    fn epoch(received: u64, rejected: &[(Reason, u64)]) -> EpochSummary {
        let mut tally = Tally { received, ..Tally::default() };
        rejected.iter().for_each(|(reason, count)| tally.reject(*reason, *count));
        EpochSummary {
            mark: EpochMark { epoch: 7, opened: Micros(0), closed: Micros(1), missing: 0, waits: true },
            tally,
            next_watermark: None,
            held_back: None,
        }
    }

    fn breaker(max_rejected_share: f64, min_events: u64) -> Breaker {
        Breaker { max_rejected_share, min_events, advice: Advice::Look("out".to_owned()) }
    }

    #[test]
    fn the_bound_itself_is_allowed_whatever_its_fraction() {
        for (rejected, received, share) in [(29, 100, 0.29), (7, 100, 0.07), (1, 3, 1.0 / 3.0), (0, 5, 0.0)] {
            let of = |rejected| epoch(received, &[(Reason::LateEvent, rejected)]);
            assert_eq!(breaker(share, 0).judge(&of(rejected)), None, "{rejected} of {received}");
            assert!(breaker(share, 0).judge(&of(rejected + 1)).is_some(), "{rejected} of {received} and one more");
        }
        assert_eq!(breaker(1.0, 0).judge(&epoch(3, &[(Reason::NullAmount, 3)])), None);
        assert_eq!(breaker(0.0, 0).judge(&epoch(0, &[])), None, "an epoch without events");
    }

    #[test]
    fn few_events_are_not_judged() {
        let all = |received| epoch(received, &[(Reason::MalformedEvent, received)]);
        assert_eq!(breaker(0.5, 100).judge(&all(99)), None);
        assert!(breaker(0.5, 100).judge(&all(100)).is_some());
    }

    #[test]
    fn the_message_says_how_much_why_and_what_to_do() {
        use Reason::{ConflictingDuplicate, InvalidCurrency, LateEvent, NullAmount};
        let rejected = [(InvalidCurrency, 9), (LateEvent, 20), (NullAmount, 1), (ConflictingDuplicate, 2)];
        let text = breaker(0.05, 1).judge(&epoch(639, &rejected)).unwrap().to_string();
        for words in [
            "32 of 639 events of epoch 7",
            "a share of 0.0501",
            "breaker.max_rejected_share is 0.05 ",
            "(20 R200_late_event, 9 R110_invalid_currency, 2 R210_conflicting_duplicate, 1 for other reasons)",
            "quarantine list --since 7 --output out",
        ] {
            assert!(text.contains(words), "{words:?} not in {text:?}");
        }
        assert!(!text.contains('\n'));
    }
}
