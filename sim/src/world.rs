//! The simulation: a queue of what is due, the instances, and what happens to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemark::cluster::messages::Message;
use tidemark::runtime::epochs::Event;
use tidemark_checkpoint::envelope::Digest;
use tidemark_checkpoint::{journal, names};
use tidemark_dataflows::arrangement::{Settings as IndexSettings, SweepRate};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::watermark::Horizon;

use crate::checks::Checks;
use crate::durable::{Durable, Reply, Request};
use crate::events::START_US;
use crate::instance::Instance;
use crate::jobs::Outcome;
use crate::orders::Order;
use crate::port::{Running, Threads, store, straight};
use crate::rng::Rng;
use crate::scenario::{FaultKind, MS, Place, SECOND, Scenario};
use crate::source::Source;
use crate::trace::{Trace, Who};

/// How long after the last fault everything must have come to its end.
const PATIENCE: u64 = 300 * SECOND;

/// Something that happens at a time.
pub(crate) enum Due {
    /// An instance is started, if none is there that could go on.
    Start,
    /// A message comes to process 0 of an instance.
    ToLeader(usize, usize, Message),
    /// A message comes to the reader of a process.
    ToReader(usize, usize, Message),
    /// A reader looks for something to do. Live ones do so again and again.
    Poll(usize, usize, bool),
    /// The protocol of epochs is woken.
    Tick(usize),
    /// The dataflow is stepped.
    Compute(usize),
    /// The publisher looks whether a group is due.
    Publish(usize),
    /// The outcome of a job comes to its instance.
    Finished(usize, Outcome),
    /// A request comes to the stores.
    Arrive(u64, usize, Request, Fate),
    /// An answer comes to a job.
    Answer(u64, Reply),
    /// Something goes wrong.
    Fault(FaultKind),
    /// The loss of a process is noticed.
    Notice(usize),
    /// A look whether all is done, once faults have ended.
    Settle,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is carried out and answered.
    Answered,
    /// It is carried out; what is answered is what the next attempt finds.
    Repeated,
    /// It is carried out, and the answer is that it failed.
    Doubtful,
    /// It is answered that it failed, and carried out later.
    Late,
    /// It gets lost.
    Lost,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) order: Order,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) clock_off: i64,
    base: Instant,
    queue: BTreeMap<(u64, u64), Due>,
    queued: u64,
    pub(crate) source: Arc<Source>,
    pub(crate) settings: Settings,
    pub(crate) durable: Arc<Mutex<Durable>>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) threads: Threads,
    pub(crate) running: BTreeMap<u64, (usize, Running)>,
    pub(crate) jobs: u64,
    pub(crate) slow_until: u64,
    pub(crate) lossy_until: u64,
    /// Where the next instance is stopped that comes there, and for how long.
    pub(crate) traps: Vec<(Place, u64)>,
    pub(crate) complete: bool,
    /// How many manifests could be restored at most, up to two, and by which generation's record.
    most_manifests: (u64, usize),
    /// What has happened.
    pub(crate) trace: Trace,
}

/// The settings of the dataflow in a scenario.
pub(crate) fn settings(scenario: &Scenario) -> Settings {
    let Scenario { delay_us, retention_us, witnesses, .. } = *scenario;
    let horizon = Horizon { watermark_delay_us: delay_us, dedup_retention_us: retention_us };
    Settings {
        contract: Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: false },
        index: IndexSettings { horizon, key: [3, 4], expected_ids: 16, sweep: SweepRate::default() },
        log_admissions: Some(8),
        payload_cap: PayloadCap(None),
        witnesses,
        uncounted: None,
    }
}

impl World {
    /// The world of a scenario, before anything has happened.
    pub(crate) fn new(scenario: &Scenario, order: Order, trace: Trace) -> World {
        let settings = settings(scenario);
        let source = Arc::new(Source::of(scenario, settings.contract.clone()));
        let checks = Checks::new(Arc::clone(&source), settings.clone());
        let mut world = World {
            rng: Rng::new(scenario.seed, 2 + scenario.draw),
            scenario: scenario.clone(),
            order,
            now: 0,
            clock_off: 0,
            base: Instant::now(),
            queue: BTreeMap::new(),
            queued: 0,
            source,
            settings,
            durable: Arc::new(Mutex::new(Durable::new(checks))),
            instances: Vec::new(),
            threads: Threads::default(),
            running: BTreeMap::new(),
            jobs: 0,
            slow_until: 0,
            lossy_until: 0,
            traps: Vec::new(),
            complete: false,
            most_manifests: (0, 0),
            trace,
        };
        for fault in &scenario.faults {
            world.at(fault.at, Due::Fault(fault.kind));
        }
        world.at(0, Due::Start);
        world.at(scenario.quiet_from, Due::Settle);
        world
    }

    /// Runs to the end. Returns what is wrong, if anything is.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), due)) = self.queue.pop_first() {
            self.now = at;
            if self.now > self.scenario.quiet_from + PATIENCE {
                let (received, events) = (self.stores().checks.received(), self.source.events());
                self.wrong(&format!("it does not come to its end: {received} of {events} events have had an effect"));
            }
            self.happen(due);
            self.look();
            let broken = self.stores().checks.broken.take();
            if let Some(broken) = broken {
                self.give_up();
                return Err(broken);
            }
        }
        let mut stores = self.stores();
        let Durable { checks, tables, .. } = &mut *stores;
        checks.end(tables);
        checks.broken.take().map_or(Ok(()), Err)
    }

    /// Lets go of all threads.
    fn give_up(&mut self) {
        for (_, running) in std::mem::take(&mut self.running).into_values() {
            self.threads.abandon(running);
        }
    }

    /// The stores.
    pub(crate) fn stores(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something happen at a time.
    pub(crate) fn at(&mut self, at: u64, due: Due) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), due);
    }

    /// Has something happen within so long.
    pub(crate) fn within(&mut self, most: u64, due: Due) {
        let delay = self.rng.below(most + 1);
        self.at(self.now + delay, due);
    }

    /// The monotonic clock.
    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    /// How long after the beginning an instant is.
    pub(crate) fn time_of(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.base).as_micros() as u64
    }

    /// The wall clock.
    pub(crate) fn wall(&self) -> Micros {
        Micros(START_US + self.now.cast_signed() + self.clock_off)
    }

    /// Notes that something is wrong.
    pub(crate) fn wrong(&mut self, what: &str) {
        self.stores().checks.must(false, || what.to_owned());
    }

    /// Notes a step of an instance, or of the world.
    pub(crate) fn note(&mut self, instance: Option<usize>, process: Option<usize>, act: impl FnOnce() -> String) {
        let generation = instance.and_then(|at| self.instances[at].generation);
        let instance = instance.map(|at| at + 1);
        let durable = &self.durable;
        let stores = || {
            let stores = durable.lock().unwrap_or_else(PoisonError::into_inner);
            (stores.objects_in_short(), stores.tables_in_short())
        };
        self.trace.step(self.now, Who { instance, process, generation }, act, stores);
    }

    /// The newest instance.
    pub(crate) fn newest(&self) -> Option<usize> {
        self.instances.iter().rposition(|instance| !instance.stranger)
    }

    /// The greatest generation that was claimed.
    pub(crate) fn claimed(&self) -> u64 {
        let stores = self.stores();
        let claims = stores
            .objects
            .range(names::GENERATIONS.to_owned()..)
            .map_while(|(name, _)| name.starts_with(names::GENERATIONS).then(|| names::number(name)).flatten());
        claims.max().unwrap_or(0)
    }

    /// The instance that nobody has displaced, as far as that is known while instances start.
    pub(crate) fn current(&self) -> Option<usize> {
        let claimed = self.claimed();
        let current = |instance: &Instance| {
            !instance.stranger && instance.lives() && instance.generation.is_none_or(|own| own == claimed)
        };
        self.instances.iter().rposition(current)
    }

    /// The instance that something is due for.
    fn whose(due: &Due) -> Option<usize> {
        match due {
            Due::ToLeader(at, ..) | Due::ToReader(at, ..) | Due::Poll(at, ..) | Due::Tick(at) => Some(*at),
            Due::Compute(at) | Due::Publish(at) | Due::Finished(at, _) | Due::Notice(at) => Some(*at),
            _ => None,
        }
    }

    fn happen(&mut self, due: Due) {
        if let Some(at) = World::whose(&due) {
            let instance = &self.instances[at];
            if !instance.lives() {
                return;
            }
            if instance.paused_until > self.now {
                let until = instance.paused_until;
                return self.at(until, due);
            }
        }
        match due {
            Due::Start => {
                if !self.complete && self.current().is_none() {
                    self.start();
                }
            }
            Due::ToLeader(at, from, message) => self.lead(at, from, message),
            Due::ToReader(at, process, message) => self.follow(at, process, message),
            Due::Poll(at, process, again) => self.poll(at, process, again),
            Due::Tick(at) => self.tick(at),
            Due::Compute(at) => self.compute(at),
            Due::Publish(at) => self.publish(at),
            Due::Finished(at, outcome) => self.finished(at, outcome),
            Due::Arrive(job, at, request, fate) => self.arrive(job, at, request, fate),
            Due::Answer(job, reply) => self.answer(job, reply),
            Due::Fault(fault) => self.fault(fault),
            Due::Notice(at) => self.end(at, "it has lost a process"),
            Due::Settle => self.settle(),
        }
    }

    fn fault(&mut self, fault: FaultKind) {
        let newest = self.newest().filter(|at| self.instances[*at].lives());
        self.note(None, None, || format!("** {fault:?}"));
        match fault {
            FaultKind::Clock(by) => self.clock_off += by,
            FaultKind::Slow(long) => self.slow_until = self.now + long,
            FaultKind::Lossy(long) => self.lossy_until = self.now + long,
            FaultKind::TakeOver => self.start(),
            FaultKind::Stranger => self.intrude(),
            FaultKind::DisplaceAt(place, long) => self.traps.push((place, long)),
            _ => {}
        }
        let Some(at) = newest else { return };
        match fault {
            FaultKind::Crash => self.end(at, "killed"),
            FaultKind::CrashOne(0) => self.end(at, "process 0 was killed"),
            FaultKind::CrashOne(process) | FaultKind::LoseLink(process) if process < self.instances[at].processes => {
                self.instances[at].lost.insert(process);
                self.within(200 * MS, Due::Notice(at));
            }
            FaultKind::Pause(long) => self.pause(at, long),
            FaultKind::Displace(long) => {
                self.pause(at, long);
                self.start();
            }
            FaultKind::Stop => self.stop(at),
            _ => {}
        }
    }

    /// Stops an instance for so long. One that is stopped already wakes no sooner: what it was sent comes in order.
    pub(crate) fn pause(&mut self, at: usize, long: u64) {
        let until = &mut self.instances[at].paused_until;
        *until = (*until).max(self.now + long);
    }

    /// Asks an instance to drain.
    pub(crate) fn stop(&mut self, at: usize) {
        let run = self.instances[at].run.as_mut();
        if run.is_some_and(|run| !std::mem::replace(&mut run.stopping, true)) {
            self.note(Some(at), None, || "is asked to stop".to_owned());
            self.protocol(at, Event::Stop);
        }
    }

    /// Ends an instance. What it has sent is still on its way.
    pub(crate) fn end(&mut self, at: usize, why: &str) {
        self.note(Some(at), None, || format!("ends: {why}"));
        self.instances[at].ended = Some(why.to_owned());
        self.instances[at].run = None;
        let (own, others) = std::mem::take(&mut self.running).into_iter().partition(|(_, (of, _))| *of == at);
        self.running = others;
        for (_, running) in BTreeMap::into_values(own) {
            self.threads.abandon(running);
        }
        let restart = self.rng.between(20, 400) * MS;
        self.at(self.now + restart, Due::Start);
    }

    /// Once faults have ended: whether all that came is in the tables. Asks a live pipeline to stop then.
    fn settle(&mut self) {
        if self.complete {
            return;
        }
        let (received, events) = (self.stores().checks.received(), self.source.events());
        match self.current() {
            Some(at) if received == events => self.stop(at),
            Some(_) => {}
            None => self.start(),
        }
        self.at(self.now + 250 * MS, Due::Settle);
    }

    /// Whoever came now would find everything that has had an effect, in a state that can be restored.
    fn look(&mut self) {
        if !std::mem::take(&mut self.stores().look_due) {
            return;
        }
        let durable = Arc::clone(&self.durable);
        let found = straight(&durable, || journal::look(&store()));
        let past = match found {
            Ok(Some(past)) => past,
            Ok(None) => return,
            Err(error) => return self.wrong(&format!("nothing can be found: {error}")),
        };
        let manifests = past.manifests.len();
        // Two are kept from then on that there are two, of those that the newest generation has adopted or written.
        let adopted = self.stores().checks.adopted_manifests(past.generation());
        let (of, before) = self.most_manifests;
        let before = if of == past.generation() { before } else { adopted };
        let most = before.max(manifests).min(2);
        self.most_manifests = (past.generation(), most);
        let mut stores = self.stores();
        let Durable { objects, checks, .. } = &mut *stores;
        checks.must(past.warnings.is_empty(), || format!("{:?}", past.warnings));
        checks.must(manifests >= most, || format!("{manifests} manifests are left that could be restored"));
        let applied = checks.applied();
        checks.must(past.last_cut >= applied, || format!("{} cuts, {applied} have had an effect", past.last_cut));
        let oldest: Vec<u64> = past.manifests.iter().take(2).map(|found| found.link.epoch).collect();
        for found in past.manifests.iter().take(2) {
            for run in found.manifest.runs() {
                let there = objects.get(&run.name).is_some_and(|object| Digest::of_object(object) == run.digest);
                checks
                    .must(there, || format!("{} is gone, and the manifest of {} names it", run.name, found.link.epoch));
            }
        }
        for after in if oldest.is_empty() { vec![0] } else { oldest } {
            match past.cuts_after(after) {
                Ok(cuts) => {
                    let other = cuts.iter().find(|cut| checks.cut(cut.epoch).is_some_and(|known| known != *cut));
                    let other = other.map(|cut| cut.epoch);
                    checks.must(other.is_none(), || format!("the cut of epoch {other:?} is another than its effects"));
                }
                Err(error) => checks.must(false, || format!("after epoch {after}: {error}")),
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.give_up();
    }
}
