//! How fast things go, and how they went over the last hour: taken from counters once a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tidemark_dataflows::event::{Epoch, Micros};

use super::answers::{History, Newest, Point, Rates, Usage};
use super::usage;
use crate::runtime::RunStatus;
use crate::telemetry::Stage;

use std::sync::atomic::Ordering::Relaxed;

/// Seconds between two steps of the history.
const STEP: u32 = 2;

/// Steps that are kept: an hour.
const STEPS: usize = 1_800;

/// Bounds of the time that rates are taken over.
const WINDOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Counters at one instant.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    events: u64,
    bytes: u64,
    received: u64,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    rows: u64,
    publications: u64,
}

impl Counters {
    fn of(vitals: &RunStatus) -> Counters {
        let decided = vitals.telemetry.outcomes.read();
        let tables = vitals.telemetry.tables.get().into_iter().flatten();
        Counters {
            events: vitals.counters.events.load(Relaxed),
            bytes: vitals.counters.bytes.load(Relaxed),
            received: decided.received,
            accepted: decided.accepted,
            duplicates: decided.duplicates,
            rejected: decided.rejected_total(),
            rows: tables.map(|table| table.rows.load(Relaxed)).sum(),
            publications: vitals.telemetry.publications.took.read().count,
        }
    }
}

/// When a stage finished its newest epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    epoch: Epoch,
    behind_since: Option<Instant>,
}

/// What there was at an instant, with the seconds of processor time that the process had used, where that is known.
type Sample = (Instant, Counters, Option<f64>);

/// Takes down how far everything has come.
pub(super) struct Sampler {
    window: Duration,
    samples: VecDeque<Sample>,
    history: VecDeque<Point>,
    /// The counters at the end of the newest step of the history.
    step: Option<(Instant, Counters)>,
    until_us: i64,
    seconds: u32,
    longest: Option<f64>,
    moved: [Moved; Stage::ALL.len()],
    usage: Usage,
}

impl Sampler {
    /// Nothing yet. Rates are taken over at least two epochs of `trigger`, or they would jump.
    pub(super) fn new(trigger: Duration) -> Sampler {
        Sampler {
            window: (trigger * 2).clamp(WINDOW.0, WINDOW.1),
            samples: VecDeque::new(),
            history: VecDeque::new(),
            step: None,
            until_us: 0,
            seconds: 0,
            longest: None,
            moved: [Moved { epoch: 0, behind_since: None }; Stage::ALL.len()],
            usage: Usage::default(),
        }
    }

    /// Takes down where everything stands.
    pub(super) fn take(&mut self, now: Instant, clock: Micros, vitals: Option<&RunStatus>) {
        let Some(vitals) = vitals else { return };
        let counters = Counters::of(vitals);
        self.usage = usage::of_this_process();
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(at, ..)| now - *at >= self.window) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, counters, self.usage.cpu_seconds));
        self.usage.cpu_cores = self.cores();
        self.note_stages(now, vitals);
        self.note_step(now, clock, counters, vitals);
    }

    /// Notes since when stages have been behind without finishing an epoch.
    fn note_stages(&mut self, now: Instant, vitals: &RunStatus) {
        let stages = vitals.telemetry.stages.read();
        for (at, (stage, epoch)) in stages.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|before| stages.get(before)).map_or(*epoch, |(_, epoch)| *epoch);
            let Some(moved) = self.moved.get_mut(at) else { continue };
            let behind = behind(*stage, *epoch, before) > 0;
            let since = moved.behind_since.filter(|_| moved.epoch == *epoch).unwrap_or(now);
            *moved = Moved { epoch: *epoch, behind_since: behind.then_some(since) };
        }
    }

    fn note_step(&mut self, now: Instant, clock: Micros, counters: Counters, vitals: &RunStatus) {
        let (begun, before) = *self.step.get_or_insert((now, counters));
        // A step without a publication has no latency, though the last one is still known.
        let publications = &vitals.telemetry.publications;
        if self.samples.iter().rev().nth(1).is_some_and(|(_, last, _)| last.publications < counters.publications) {
            let latency = Duration::from_micros(publications.last_latency_us.load(Relaxed)).as_secs_f64();
            self.longest = Some(self.longest.map_or(latency, |longest| longest.max(latency)));
        }
        self.seconds += 1;
        if self.seconds < STEP {
            return;
        }
        self.seconds = 0;
        let took = (now - begun).as_secs_f64();
        let rate = |after: u64, before: u64| per_second(after, before, took);
        let read = rate(counters.events, before.events);
        let (accepted, rejected) = (rate(counters.accepted, before.accepted), rate(counters.rejected, before.rejected));
        self.history.push_back(Point { read, accepted, rejected, latency: self.longest.take() });
        while self.history.len() > STEPS {
            self.history.pop_front();
        }
        (self.step, self.until_us) = (Some((now, counters)), clock.0);
    }

    /// The oldest sample of the window and the newest one.
    fn ends(&self) -> Option<(&Sample, &Sample)> {
        Some((self.samples.front()?, self.samples.back()?))
    }

    fn cores(&self) -> Option<f64> {
        let ((from, _, before), (to, _, after)) = self.ends()?;
        let took = (*to - *from).as_secs_f64();
        (took > 0.0).then(|| after.zip(*before).map(|(after, before)| (after - before) / took)).flatten()
    }

    /// Speed at the moment.
    pub(super) fn rates(&self) -> Rates {
        let Some(((from, before, _), (to, after, _))) = self.ends() else { return Rates::default() };
        let took = (*to - *from).as_secs_f64();
        let rate = |of: fn(&Counters) -> u64| per_second(of(after), of(before), took);
        Rates {
            window_seconds: took,
            read_per_second: rate(|c| c.events),
            bytes_per_second: rate(|c| c.bytes),
            decided_per_second: rate(|c| c.received),
            accepted_per_second: rate(|c| c.accepted),
            duplicates_per_second: rate(|c| c.duplicates),
            rejected_per_second: rate(|c| c.rejected),
            rows_per_second: rate(|c| c.rows),
            publications_per_second: rate(|c| c.publications),
        }
    }

    /// What the process takes of the machine.
    pub(super) fn usage(&self) -> Usage {
        self.usage.clone()
    }

    /// How long a stage has been behind without finishing an epoch, if it is still at `epoch`.
    pub(super) fn waiting(&self, stage: Stage, epoch: Epoch) -> Duration {
        let moved = self.moved[stage as usize];
        moved.behind_since.filter(|_| moved.epoch == epoch).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The last hour.
    pub(super) fn history(&self) -> History {
        let points = self.history.iter().copied().collect();
        History { step_seconds: f64::from(STEP), until: self.until_us as f64 / 1e6, points }
    }

    /// The newest step.
    pub(super) fn newest(&self) -> Newest {
        Newest { at: self.until_us as f64 / 1e6, point: self.history.back().copied().unwrap_or_default() }
    }
}

/// Epochs that a stage is behind the one before it. An epoch that is still being read does not count.
pub(super) fn behind(stage: Stage, epoch: Epoch, before: Epoch) -> u64 {
    let behind = before.saturating_sub(epoch);
    if stage == Stage::Cut { behind.saturating_sub(1) } else { behind }
}

fn per_second(after: u64, before: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
}
