//! What became of the events: sums over the epochs that this process has seen closed.
//!
//! One thread adds, any number read. A reader gets the sums as of the end of one epoch, all of them: it reads again when an
//! epoch was added in the meantime, and never makes the writer wait.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::{EpochSummary, Tally};

use super::NEVER;

/// The sums.
#[derive(Debug)]
pub struct Outcomes {
    /// Odd while an epoch is being added.
    sequence: AtomicU64,
    counts: [AtomicU64; COUNTS],
    times: [AtomicI64; 4],
}

/// Received, accepted, duplicates, missing, epochs, remembered ids, newest epoch, and the rejected ones by rule.
const COUNTS: usize = 7 + Reason::COUNT;

impl Default for Outcomes {
    fn default() -> Self {
        Outcomes {
            sequence: AtomicU64::new(0),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            times: std::array::from_fn(|_| AtomicI64::new(NEVER)),
        }
    }
}

/// Sums over epochs, and where event time stands at the end of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Events that came in.
    pub received: u64,
    /// Events counted in the metrics.
    pub accepted: u64,
    /// Events that repeat an accepted one.
    pub duplicates: u64,
    /// Rejected events by rule, in the order of [`Reason::ALL`].
    pub rejected: [u64; Reason::COUNT],
    /// Events that were missing in the source.
    pub missing: u64,
    /// Number of epochs.
    pub epochs: u64,
    /// Ids remembered after the newest epoch.
    pub remembered_ids: u64,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Its watermark.
    pub watermark: Option<Micros>,
    /// Greatest event time of those that passed R000 to R140.
    pub newest: Option<Micros>,
    /// When the newest epoch was closed.
    pub closed: Option<Micros>,
    /// The greatest event time of the newest epoch.
    pub newest_in_epoch: Option<Micros>,
}

impl Decided {
    /// Events rejected for any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// These sums and those of later epochs.
    #[must_use]
    pub fn with(&self, later: &Decided) -> Decided {
        let mut rejected = self.rejected;
        rejected.iter_mut().zip(later.rejected).for_each(|(sum, more)| *sum += more);
        let newer = if later.epochs > 0 { later } else { self };
        Decided {
            received: self.received + later.received,
            accepted: self.accepted + later.accepted,
            duplicates: self.duplicates + later.duplicates,
            rejected,
            missing: self.missing + later.missing,
            epochs: self.epochs + later.epochs,
            remembered_ids: newer.remembered_ids,
            epoch: newer.epoch,
            watermark: self.watermark.max(later.watermark),
            newest: self.newest.max(later.newest),
            closed: newer.closed,
            newest_in_epoch: newer.newest_in_epoch,
        }
    }

    fn pack(&self) -> ([u64; COUNTS], [i64; 4]) {
        let Decided { received, accepted, duplicates, missing, epochs, remembered_ids, epoch, .. } = self;
        let mut counts = [0; COUNTS];
        counts[..7].copy_from_slice(&[*received, *accepted, *duplicates, *missing, *epochs, *remembered_ids, *epoch]);
        counts[7..].copy_from_slice(&self.rejected);
        let times = [self.watermark, self.newest, self.closed, self.newest_in_epoch];
        (counts, times.map(|time| time.map_or(NEVER, |time| time.0)))
    }

    fn unpack(counts: [u64; COUNTS], times: [i64; 4]) -> Decided {
        let [received, accepted, duplicates, missing, epochs, remembered_ids, epoch, rejected @ ..] = counts;
        let [watermark, newest, closed, newest_in_epoch] =
            times.map(|time| Some(time).filter(|time| *time != NEVER).map(Micros));
        Decided {
            received,
            accepted,
            duplicates,
            rejected,
            missing,
            epochs,
            remembered_ids,
            epoch,
            watermark,
            newest,
            closed,
            newest_in_epoch,
        }
    }
}

impl Outcomes {
    /// Adds an epoch. To be called by one thread only.
    pub fn add(&self, summary: &EpochSummary) {
        let EpochSummary { mark: EpochMark { epoch, closed, missing, .. }, tally, .. } = summary;
        let Tally { received, accepted, duplicates, rejected, retained_ids, newest, watermark } = tally;
        let more = Decided {
            received: *received,
            accepted: *accepted,
            duplicates: *duplicates,
            rejected: *rejected,
            missing: *missing,
            epochs: 1,
            remembered_ids: *retained_ids,
            epoch: *epoch,
            watermark: *watermark,
            newest: *newest,
            closed: Some(*closed),
            newest_in_epoch: *newest,
        };
        self.write(&self.load().with(&more));
    }

    /// The sums as of the end of the newest epoch. An addition takes less than a microsecond and comes once an epoch, so
    /// there is hardly ever anything to wait for; a writer that is preempted half-way gets the processor.
    pub fn read(&self) -> Decided {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let read = self.load();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return read;
            }
            std::thread::yield_now();
        }
    }

    fn load(&self) -> Decided {
        let counts = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        Decided::unpack(counts, std::array::from_fn(|at| self.times[at].load(Ordering::Relaxed)))
    }

    fn write(&self, decided: &Decided) {
        let (counts, times) = decided.pack();
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.counts.iter().zip(counts).for_each(|(to, count)| to.store(count, Ordering::Relaxed));
        self.times.iter().zip(times).for_each(|(to, time)| to.store(time, Ordering::Relaxed));
        self.sequence.store(sequence + 2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn epoch(epoch: Epoch, newest: Option<i64>) -> EpochSummary {
        let mark = EpochMark { epoch, opened: Micros(1), closed: Micros(2), missing: 1, waits: true };
        let mut tally = Tally { received: 6, accepted: 3, duplicates: 1, retained_ids: epoch, ..Tally::default() };
        tally.reject(Reason::MalformedEvent, 1);
        tally.reject(Reason::LateEvent, 1);
        EpochSummary {
            mark,
            tally: Tally { newest: newest.map(Micros), ..tally },
            next_watermark: None,
            held_back: None,
        }
    }

    #[test]
    fn epochs_add_up_on_what_came_before() {
        let outcomes = Outcomes::default();
        outcomes.add(&epoch(7, Some(50)));
        outcomes.add(&epoch(8, None));
        let sums = outcomes.read();
        assert_eq!((sums.received, sums.accepted, sums.duplicates, sums.rejected_total()), (12, 6, 2, 4));
        assert_eq!((sums.epochs, sums.epoch, sums.remembered_ids, sums.missing), (2, 8, 8, 2));
        assert_eq!((sums.newest, sums.newest_in_epoch, sums.closed), (Some(Micros(50)), None, Some(Micros(2))));
        let before = Decided { received: 100, newest: Some(Micros(60)), epoch: 6, epochs: 6, ..Decided::default() };
        let all = before.with(&sums);
        assert_eq!((all.received, all.epochs, all.epoch, all.newest), (112, 8, 8, Some(Micros(60))));
        assert_eq!(before.with(&Decided::default()), before, "nothing yet changes nothing");
    }

    #[test]
    fn a_reader_never_sees_an_epoch_half() {
        let (outcomes, done) = (Outcomes::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0_u64;
                while !done.load(Ordering::Acquire) {
                    let sums = outcomes.read();
                    assert_eq!(sums.received, 6 * sums.epochs);
                    assert_eq!(sums.received, sums.accepted + sums.duplicates + sums.rejected_total());
                    seen = seen.max(sums.epochs);
                }
                seen
            });
            let mut number = 0;
            // Until the reader has had a chance to see half an epoch, however threads are scheduled.
            while number < 50_000 {
                number += 1;
                outcomes.add(&epoch(number, None));
            }
            done.store(true, Ordering::Release);
            assert!(reader.join().unwrap() <= 50_000);
        });
        assert_eq!(outcomes.read().epochs, 50_000);
    }
}
