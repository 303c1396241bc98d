//! What is to happen in one seed: the input, the settings and the faults. Drawn once, and then cut down where a failure is
//! shrunk; how long each request and message takes is drawn while it runs.

use std::collections::BTreeSet;

use tidemark_checkpoint::names;

use crate::durable::Request;
use crate::events;
use crate::rng::Rng;

/// A second, in the microseconds of all times here.
pub const SECOND: u64 = 1_000_000;
/// A thousandth of it.
pub const MS: u64 = 1_000;

/// Everything that is decided before the first step.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number that it was drawn from.
    pub seed: u64,
    /// Which draw of how long everything takes.
    pub draw: u64,
    /// Settings that the source has.
    pub source: SourceKind,
    /// The partitions, and since when each of them is there.
    pub partitions: Vec<u64>,
    /// The events, in the order in which they come.
    pub arrivals: Vec<Arrival>,
    /// What goes wrong, or is asked for, in order of time.
    pub faults: Vec<Fault>,
    /// How many processes the first start has, the second, and so on, from the front again.
    pub processes: Vec<usize>,
    /// n: how many event times decide the watermark.
    pub witnesses: usize,
    /// How far the watermark lies behind.
    pub delay_us: i64,
    /// How long ids are remembered.
    pub retention_us: i64,
    /// Time between two checkpoints.
    pub checkpoints_us: u64,
    /// Shortest time between two publications.
    pub publications_us: u64,
    /// Share of the jobs whose requests are interleaved with whatever else happens, in percent.
    pub interleaved: u64,
    /// When faults end: from then on everything is to come to its end.
    pub quiet_from: u64,
}

/// What the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Files, in the order of event time.
    Files {
        /// Events of an epoch.
        epoch_events: u64,
        /// How far head times of files that are read together lie apart.
        alignment_us: i64,
    },
    /// Live partitions.
    Live {
        /// From opening to closing of an epoch.
        trigger_us: u64,
        /// Most events that a reader holds of one.
        full_at: u64,
        /// How far a partition is read on beyond others.
        alignment_us: i64,
        /// Whether its partitions come to an end by themselves.
        ends: bool,
    },
}

/// An event of the source.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it is there.
    pub at: u64,
    /// Its partition.
    pub partition: usize,
    /// Its body.
    pub body: String,
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: u64,
    /// What.
    pub kind: FaultKind,
}

/// What can happen. It happens to the newest instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// All of its processes die.
    Crash,
    /// One of its processes dies; the others notice a little later.
    CrashOne(usize),
    /// A link between process 0 and another carries nothing any more; both notice a little later.
    LoseLink(usize),
    /// It is stopped, and wakes after so long. Nothing else is started in its place.
    Pause(u64),
    /// It is stopped, and another is started at once; it wakes after so long as a zombie.
    Displace(u64),
    /// The next instance that comes to that place is stopped there, and another is started at once; it wakes after so long.
    DisplaceAt(Place, u64),
    /// Another instance is started beside it.
    TakeOver,
    /// Somebody starts with the checkpoint of another pipeline.
    Stranger,
    /// It is asked to drain.
    Stop,
    /// The wall clock is set forward or back by so much.
    Clock(i64),
    /// For so long, requests take ten times as long.
    Slow(u64),
    /// For so long, requests and replies get lost.
    Lossy(u64),
}

/// A place at which an instance can be stopped: before it sends that request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has read the past, and adopts it.
    Adopting,
    /// It makes a cut durable.
    Cutting,
    /// It commits to a table.
    Committing,
    /// It publishes a manifest.
    Publishing,
    /// It prunes.
    Pruning,
}

impl Place {
    const ALL: [Place; 5] = [Place::Adopting, Place::Cutting, Place::Committing, Place::Publishing, Place::Pruning];

    /// Whether a request is made there.
    pub(crate) fn is_at(self, request: &Request) -> bool {
        let puts = |folder: &str| matches!(request, Request::Put { name, .. } if name.starts_with(folder));
        match self {
            Place::Adopting => puts(names::ADOPTIONS),
            Place::Cutting => puts(names::CUTS),
            Place::Committing => matches!(request, Request::Commit(_)),
            Place::Publishing => puts(names::MANIFESTS),
            Place::Pruning => matches!(request, Request::Delete(_)),
        }
    }
}

impl Scenario {
    /// Draws one.
    pub fn of(seed: u64) -> Scenario {
        let mut rng = Rng::new(seed, 1);
        let source = if rng.chance(40) {
            let alignment_us = rng.between(0, 3).cast_signed() * SECOND.cast_signed();
            SourceKind::Files { epoch_events: rng.between(2, 12), alignment_us }
        } else {
            SourceKind::Live {
                trigger_us: rng.between(50, 800) * MS,
                full_at: rng.between(3, 30),
                alignment_us: rng.between(1, 8).cast_signed() * SECOND.cast_signed(),
                ends: rng.chance(25),
            }
        };
        let length = rng.between(2, 8) * SECOND;
        let mut partitions = vec![0; usize::try_from(rng.between(1, 4)).unwrap_or(1)];
        for _ in 0..rng.below(3) {
            partitions.push(rng.below(length));
        }
        partitions.sort_unstable();
        let count = if rng.chance(20) { rng.between(60, 160) } else { rng.between(5, 60) };
        let arrivals = events::arrivals(&mut rng, source, &partitions, length, count);
        let faults = faults(seed, &mut rng, length);
        Scenario {
            seed,
            draw: 0,
            source,
            partitions,
            arrivals,
            faults,
            processes: (0..4).map(|_| usize::try_from(rng.between(1, 4)).unwrap_or(1)).collect(),
            witnesses: usize::try_from(rng.between(1, 4)).unwrap_or(1),
            delay_us: rng.between(0, 4).cast_signed() * SECOND.cast_signed(),
            retention_us: rng.between(0, 4).cast_signed() * SECOND.cast_signed(),
            checkpoints_us: rng.between(100, 1500) * MS,
            publications_us: if rng.chance(50) { 0 } else { rng.between(1, 500) * MS },
            interleaved: *rng.pick(&[5, 30, 100]).unwrap_or(&30),
            quiet_from: length + SECOND,
        }
    }

    /// A part of it.
    #[must_use]
    pub fn reduced(&self, to: &Reduction) -> Scenario {
        let mut reduced = self.clone();
        if let Some(kept) = &to.faults {
            let numbered = self.faults.iter().enumerate();
            reduced.faults = numbered.filter(|(number, _)| kept.contains(number)).map(|(_, fault)| *fault).collect();
        }
        reduced.arrivals.truncate(to.events.unwrap_or(usize::MAX));
        if let Some(processes) = to.processes {
            reduced.processes = vec![processes];
        }
        if to.straight {
            reduced.interleaved = 0;
        }
        reduced.draw = to.draw;
        reduced
    }
}

/// What of a scenario happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// The faults, by their place in the list; all of them, if none are named.
    pub faults: Option<BTreeSet<usize>>,
    /// So many events, the first ones.
    pub events: Option<usize>,
    /// Every instance has so many processes.
    pub processes: Option<usize>,
    /// No job is interleaved with others, as long as no fault asks for it.
    pub straight: bool,
    /// Another draw of how long everything takes.
    pub draw: u64,
}

fn faults(seed: u64, rng: &mut Rng, length: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = 0;
    for _ in 0..rng.below(12) {
        // Often one comes right after the other: into a start, a commit or a checkpoint.
        at = if rng.chance(40) { at + rng.below(300) * MS } else { rng.below(length) };
        faults.push(Fault { at, kind: fault(rng) });
    }
    // Drawn apart, so that all other faults of a seed stay what they were.
    let mut apart = Rng::new(seed, 3);
    for _ in 0..apart.below(7).saturating_sub(4) {
        faults.push(Fault { at: apart.below(length), kind: FaultKind::Stranger });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn fault(rng: &mut Rng) -> FaultKind {
    let pause = |rng: &mut Rng| if rng.chance(50) { rng.below(300) * MS } else { rng.between(1, 6_000) * MS };
    let place = |rng: &mut Rng| *rng.pick(&Place::ALL).unwrap_or(&Place::Adopting);
    match rng.below(24) {
        20..24 => FaultKind::DisplaceAt(place(rng), pause(rng)),
        0..4 => FaultKind::Crash,
        4 | 5 => FaultKind::CrashOne(usize::try_from(rng.below(4)).unwrap_or(0)),
        6 => FaultKind::LoseLink(usize::try_from(rng.between(1, 3)).unwrap_or(1)),
        7 => FaultKind::Pause(pause(rng)),
        8..12 => FaultKind::Displace(pause(rng)),
        12 | 13 => FaultKind::TakeOver,
        14 => FaultKind::Stop,
        15 | 16 => FaultKind::Clock(rng.around(10_000 * SECOND)),
        17 => FaultKind::Slow(rng.between(100, 2_000) * MS),
        _ => FaultKind::Lossy(rng.between(50, 1_500) * MS),
    }
}
