//! What the next events of a partition say of event time.

use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::reason::Reason;

use crate::source::{Head, Standing};

/// How many of the next events are looked at for each one that is to decide.
const EVENTS_FOR_EACH_WITNESS: usize = 10;

/// Bytes that one event is taken to have before any is read.
const EXPECTED_EVENT_BYTES: usize = 256;

/// Judges bodies before they are cut.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    contract: Contract,
    witnesses: usize,
}

impl Judge {
    pub(super) fn new(max_future_skew_us: i64, witnesses: usize) -> Self {
        Self { contract: Contract { max_future_skew_us, id_key: [0, 0], curated: false }, witnesses: witnesses.max(1) }
    }

    /// Whether a body is an event at all, be it a wrong one: whether it breaks no R000.
    pub(super) fn is_whole(&self, body: Body<'_>) -> bool {
        let judged = self.contract.check(&Body { arrival: Micros(i64::MAX), ..body }, 0);
        judged.err().is_none_or(|violation| violation.reason != Reason::MalformedEvent)
    }

    /// About how many bytes a look at the next events needs.
    pub(super) fn expected_bytes(&self) -> usize {
        self.most().saturating_mul(EXPECTED_EVENT_BYTES)
    }

    fn most(&self) -> usize {
        self.witnesses.saturating_mul(EVENTS_FOR_EACH_WITNESS)
    }
}

/// A look at the next events of a partition, one after the other.
pub(super) struct Sight<'a> {
    judge: &'a Judge,
    opened: Micros,
    seen: usize,
    passed: usize,
    head: Head,
}

impl<'a> Sight<'a> {
    /// A look for an epoch that is opened at `opened`.
    pub(super) fn new(judge: &'a Judge, opened: Micros) -> Self {
        Self { judge, opened, seen: 0, passed: 0, head: Head::NONE }
    }

    /// Takes in the next event.
    pub(super) fn add(&mut self, body: Body<'_>) {
        let judged = |arrival| self.judge.contract.check(&Body { arrival, ..body }, 0);
        self.seen += 1;
        match judged(self.opened) {
            Ok(event) => {
                self.passed += 1;
                self.head.time = Some(self.head.time.map_or(event.time, |least| least.min(event.time)));
            }
            Err(violation) if violation.reason == Reason::EventTimeInFuture => {
                if let Ok(event) = judged(Micros(i64::MAX)) {
                    let valid_from = event.time.0.saturating_sub(self.judge.contract.max_future_skew_us);
                    self.head.until = self.head.until.min(Micros(valid_from));
                }
            }
            Err(_) => {}
        }
    }

    /// Takes in events until it is done. Returns whether it is.
    pub(super) fn add_all<'b>(&mut self, bodies: impl Iterator<Item = Body<'b>>) -> bool {
        for body in bodies {
            if self.is_done() {
                break;
            }
            self.add(body);
        }
        self.is_done()
    }

    /// Whether no further event can change the head.
    pub(super) fn is_done(&self) -> bool {
        self.passed >= self.judge.witnesses || self.seen >= self.judge.most()
    }

    /// What has been seen: nothing is left where nothing was.
    pub(super) fn standing(&self) -> Standing {
        if self.seen == 0 { Standing::CaughtUp } else { Standing::Behind(self.head) }
    }
}

/// What was found of a partition, and for which question.
#[derive(Copy, Clone, Debug)]
pub(super) struct Found {
    pub(super) next: u64,
    pub(super) opened: Micros,
    pub(super) standing: Standing,
}

impl Found {
    /// Whether it also answers this question.
    pub(super) fn answers(&self, next: u64, opened: Micros) -> bool {
        let lasts = match self.standing {
            Standing::CaughtUp => true,
            Standing::Behind(head) => self.opened <= opened && opened < head.until,
        };
        self.next == next && lasts
    }
}
