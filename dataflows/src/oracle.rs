//! What must come out, computed in the plainest way: one event after the other, in ordinary collections.
//!
//! It shares with the dataflows the types and the strict decoder, and nothing of how they compute. Tests compare the
//! two; it is slow on purpose and forgets nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use differential_dataflow::difference::Semigroup;

use crate::block::Body;
use crate::event::{Epoch, Event, Micros, PartitionId, Position};
use crate::metrics::{ByChannel, Key, Metric, Totals, Visit, each};
use crate::pipeline::Settings;
use crate::reason::Reason;
use crate::tally::Tally;
use crate::watermark::{self, Behind, EpochTimes, HeldBack, Progress};

/// Totals and the epoch that last changed them, by the bytes of a metric's keys.
pub type TotalsByKey = BTreeMap<Vec<u8>, (Totals, Epoch)>;

/// Counts an accepted event in each metric.
struct Count<'a> {
    totals: &'a mut BTreeMap<&'static str, TotalsByKey>,
    event: &'a Event,
    epoch: Epoch,
}

impl Visit for Count<'_> {
    fn metric<M: Metric>(&mut self) {
        let rows = self.totals.entry(M::NAME).or_default();
        let row = rows.entry(M::key(self.event).to_bytes().into_owned()).or_insert((Totals::NONE, self.epoch));
        row.0.plus_equals(&Totals::of(self.event));
        row.1 = self.epoch;
    }
}

/// The state after the epochs seen so far.
#[derive(Debug)]
pub struct Oracle {
    settings: Settings,
    event_time: EventTime,
    seen: HashMap<u128, Event>,
    /// The totals of each metric by the bytes of its keys, and the epoch that last changed each row.
    pub totals: BTreeMap<&'static str, TotalsByKey>,
    /// The tally of each epoch; epoch 1 comes first.
    pub epochs: Vec<Tally>,
    /// Event time as each epoch sees it.
    pub times: Vec<EpochTimes>,
    /// How far event time has come up to the end of each epoch.
    pub progress: Vec<Progress>,
    /// Position of each accepted event, with its epoch.
    pub accepted: Vec<(Epoch, Position)>,
    /// Position of each rejected event, with its epoch and the rule.
    pub rejected: Vec<(Epoch, Position, Reason)>,
}

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Oracle {
            event_time: EventTime::new(settings.of_watermark()),
            settings,
            seen: HashMap::new(),
            totals: BTreeMap::new(),
            epochs: Vec::new(),
            times: Vec::new(),
            progress: Vec::new(),
            accepted: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Takes one epoch: its bodies in the order of partition and offset, and the partitions that were behind at its end;
    /// none where the watermark does not wait for any.
    pub fn epoch<'a>(&mut self, bodies: impl IntoIterator<Item = Body<'a>>, behind: Option<&[Behind]>) {
        let epoch = self.epochs.len() as Epoch + 1;
        let watermark = self.event_time.progress.watermark;
        let mut times = Vec::new();
        let mut tally = Tally { watermark, ..Tally::default() };
        for body in bodies {
            tally.received += 1;
            let verdict = match self.settings.contract.check_strict(&body, 0) {
                Ok(event) => {
                    tally.newest = tally.newest.max(Some(event.time));
                    times.push((event.at.partition, event.time));
                    self.judge(event, epoch, watermark)
                }
                Err(violation) => Verdict::Rejected(violation.reason),
            };
            match verdict {
                Verdict::Accepted => {
                    tally.accepted += 1;
                    self.accepted.push((epoch, body.at));
                }
                Verdict::Duplicate => tally.duplicates += 1,
                Verdict::Rejected(reason) => {
                    tally.reject(reason, 1);
                    self.rejected.push((epoch, body.at, reason));
                }
            }
        }
        self.times.push(self.event_time.epoch(&times, behind));
        self.progress.push(self.event_time.progress.clone());
        tally.retained_ids = self.seen.values().filter(|event| self.remembers(event, watermark)).count() as u64;
        self.epochs.push(tally);
    }

    /// Totals of everything accepted.
    pub fn net_flow(&self) -> Totals {
        let mut all = Totals::NONE;
        self.of::<ByChannel>().for_each(|(_, totals, _)| all.plus_equals(&totals));
        all
    }

    /// The rows of a metric: key, totals, and the epoch that last changed them.
    pub fn of<M: Metric>(&self) -> impl Iterator<Item = (M::Key, Totals, Epoch)> {
        let rows = self.totals.get(M::NAME).into_iter().flatten();
        rows.filter_map(|(key, (totals, changed))| Some((M::Key::from_bytes(key)?, *totals, *changed)))
    }

    fn remembers(&self, event: &Event, watermark: Option<Micros>) -> bool {
        let retention_us = self.settings.index.horizon.dedup_retention_us;
        let bucket_us = (retention_us / 24).max(1_000_000);
        let forgotten_at = (event.time.0 / bucket_us + 1) * bucket_us + retention_us;
        watermark.is_none_or(|w| w.0 < forgotten_at)
    }

    fn judge(&mut self, event: Event, epoch: Epoch, watermark: Option<Micros>) -> Verdict {
        let facts = |e: &Event| (e.user.clone(), e.time, e.event_type, e.amount, e.channel);
        match self.seen.get(&event.id.0) {
            Some(first) if self.remembers(first, watermark) => {
                if facts(first) == facts(&event) {
                    Verdict::Duplicate
                } else {
                    Verdict::Rejected(Reason::ConflictingDuplicate)
                }
            }
            _ if watermark.is_some_and(|w| event.time <= w) => Verdict::Rejected(Reason::LateEvent),
            _ => {
                each(&mut Count { totals: &mut self.totals, event: &event, epoch });
                self.seen.insert(event.id.0, event);
                Verdict::Accepted
            }
        }
    }
}

/// The rule of the watermark, computed anew after each epoch from all event times so far.
#[derive(Debug)]
pub struct EventTime {
    settings: watermark::Settings,
    /// Partition and time of each event that counts.
    counted: Vec<(PartitionId, Micros)>,
    /// How far event time has come up to the end of the epoch that was taken last.
    pub progress: Progress,
}

impl EventTime {
    /// Before the first epoch.
    pub fn new(settings: watermark::Settings) -> Self {
        EventTime { settings, counted: Vec::new(), progress: Progress::default() }
    }

    /// Takes one epoch: partition and time of each event that passed R000 to R140, and the partitions that were behind at
    /// its end; none where the watermark does not wait for any.
    pub fn epoch(&mut self, times: &[(PartitionId, Micros)], behind: Option<&[Behind]>) -> EpochTimes {
        let watermark = self.progress.watermark;
        let newest_in_epoch = times.iter().map(|(_, time)| *time).max();
        let newest = self.progress.newest.max(newest_in_epoch);
        let uncounted = self.settings.uncounted;
        if behind.is_some() {
            self.counted.extend(times.iter().filter(|(partition, _)| Some(*partition) != uncounted));
        }
        let (reached, held_back) = behind.map_or((newest, None), |behind| self.reached(behind));
        let next = reached.map(|reached| Micros(reached.0 - self.settings.horizon.watermark_delay_us));
        let next_watermark = watermark.max(next);
        let partitions: BTreeSet<PartitionId> = self.counted.iter().map(|(partition, _)| *partition).collect();
        self.progress = Progress {
            watermark: next_watermark,
            newest,
            overall: self.greatest(None),
            partitions: partitions.into_iter().map(|partition| (partition, self.greatest(Some(partition)))).collect(),
        };
        EpochTimes { watermark, newest_in_epoch, next_watermark, held_back }
    }

    /// The n greatest times of a partition, or of all, ascending.
    fn greatest(&self, of: Option<PartitionId>) -> Vec<Micros> {
        let times = self.counted.iter().filter(|(partition, _)| of.is_none_or(|of| of == *partition));
        let mut times: Vec<Micros> = times.map(|(_, time)| *time).collect();
        times.sort_unstable();
        times.split_off(times.len().saturating_sub(self.settings.witnesses))
    }

    /// The n-th greatest time of a partition, or of all.
    fn nth(&self, of: Option<PartitionId>) -> Option<Micros> {
        let greatest = self.greatest(of);
        greatest.first().filter(|_| greatest.len() == self.settings.witnesses).copied()
    }

    /// How far event time has come, and the partition that it waits for.
    fn reached(&self, behind: &[Behind]) -> (Option<Micros>, Option<HeldBack>) {
        let mut least = (self.nth(None), None);
        let mut waited_for: Vec<_> = behind.iter().filter(|p| Some(p.partition) != self.settings.uncounted).collect();
        waited_for.sort_by_key(|p| p.partition);
        for Behind { partition, head } in waited_for {
            let time = self.nth(Some(*partition)).or(*head);
            let held_back = Some(HeldBack { partition: *partition, time });
            if time.is_none() {
                return (None, held_back);
            }
            if time < least.0 {
                least = (time, held_back);
            }
        }
        least
    }
}

enum Verdict {
    Accepted,
    Duplicate,
    Rejected(Reason),
}
