//! Several generations of one pipeline at once, and what must be true of them after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object_store::memory::InMemory;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::envelope::{self, Digest, Kind};
use tidemark_checkpoint::journal::{self, Bid, Claimed, Journal, Past};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Behind, Claimant, Counters, Cut, EventTimes, Identity, Manifest, Run};
use tidemark_store::{Patience, Store};

use crate::wire::{InFlight, Wire};

/// How far an instance has come. There are a few at a time.
#[allow(clippy::large_enum_variant)]
enum Stage {
    Claimed(Claimed),
    Read(Claimed, Option<Past>),
    Adopted(Box<Journal>),
    /// A request of it never came back.
    Stuck,
}

/// One instance of the program.
struct Instance {
    generation: u64,
    store: Store,
    wire: Arc<Wire>,
    stage: Stage,
    /// The cuts it knows to be durable, from the first epoch on, by what is in them.
    cuts: Vec<i64>,
    /// The runs of its newest manifest.
    runs: Vec<Run>,
    next_run: u64,
    /// The greatest epoch of its manifests, or of the one that it restored.
    checkpointed: u64,
    /// Whether a later generation has read the past that this one adopted.
    sealed: bool,
}

/// All instances, the store, and the tables.
pub(crate) struct World {
    objects: Arc<InMemory>,
    in_flight: Arc<InFlight>,
    instances: Vec<Instance>,
    looker: Store,
    /// The generation that the tables are fenced with.
    fence: u64,
    /// What the tables hold of each epoch.
    tables: Vec<i64>,
    claimed: BTreeSet<u64>,
    drawn: i64,
    /// Whether instances that claim from now on write the format of today.
    upgraded: bool,
    /// The last generation before that, and what the cuts hold that such generations wrote.
    old_generation: u64,
    old_cuts: BTreeSet<i64>,
    adopted_any: bool,
}

/// What happens next. `who` is any of the instances.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Claim,
    /// Instances that come from now on are of a later version of the program, and write a later format.
    Upgrade,
    /// Fences the tables and reads, adopts what was read, whatever comes next on the way to writing.
    Advance {
        who: usize,
    },
    Cut {
        who: usize,
        count: u64,
    },
    Publish {
        who: usize,
        back: u64,
    },
    Prune {
        who: usize,
    },
    /// Its next write stays on its way, and the instance with it.
    Hold {
        who: usize,
        writes: u64,
    },
    /// A write that was held arrives.
    Deliver {
        which: usize,
    },
    /// One arrives in the middle of what somebody else does next, before that many of its requests.
    DeliverDuring {
        who: usize,
        after: u64,
    },
}

fn store(wire: &Arc<Wire>) -> Store {
    Store::new(Arc::clone(wire) as _, "", Patience::default())
}

pub(crate) fn identity() -> Identity {
    Identity {
        pipeline: "p".to_owned(),
        lineage: 7,
        created_us: 0,
        id_key: [1, 2],
        index_key: [3, 4],
        settings: [].into(),
        source: serde_json::Value::Null,
    }
}

impl World {
    pub(crate) fn new() -> World {
        let (objects, in_flight) = (Arc::new(InMemory::new()), Arc::new(InFlight::default()));
        let wire = Arc::new(Wire::new(&objects, &in_flight, envelope::VERSION));
        World {
            looker: store(&wire),
            objects,
            in_flight,
            instances: Vec::new(),
            fence: 0,
            tables: Vec::new(),
            claimed: BTreeSet::new(),
            drawn: 0,
            upgraded: false,
            old_generation: 0,
            old_cuts: BTreeSet::new(),
            adopted_any: false,
        }
    }

    /// Number of objects in the store.
    pub(crate) fn objects(&self) -> usize {
        self.looker.list("").unwrap().len()
    }

    /// The newest instance.
    pub(crate) fn newest(&self) -> usize {
        self.instances.len().saturating_sub(1)
    }

    pub(crate) fn epochs(&self) -> usize {
        self.tables.len()
    }

    pub(crate) fn step(&mut self, step: Step) {
        if let Step::Claim = step {
            self.claim();
        } else if !self.instances.is_empty() {
            let count = self.instances.len();
            match step {
                Step::Claim => {}
                Step::Upgrade => self.upgraded = true,
                Step::Advance { who } => self.advance(who % count),
                Step::Cut { who, count: epochs } => self.cut(who % count, epochs),
                Step::Publish { who, back } => self.publish(who % count, back),
                Step::Prune { who } => self.prune(who % count),
                Step::Hold { who, writes } => self.instances[who % count].wire.hold(writes),
                Step::Deliver { which } => self.in_flight.deliver(&self.objects, which),
                Step::DeliverDuring { who, after } => self.instances[who % count].wire.interrupt(after),
            }
        }
        self.check();
    }

    fn claim(&mut self) {
        let version = if self.upgraded { envelope::VERSION } else { envelope::OLDEST_VERSION };
        let wire = Arc::new(Wire::new(&self.objects, &self.in_flight, version));
        let store = store(&wire);
        let by = Claimant { host: "h".to_owned(), pid: 1, started_us: 0, program: "t".to_owned() };
        self.drawn += 1;
        let claimed = journal::claim(&store, &Bid::unlocked(&by, self.drawn.cast_unsigned())).unwrap();
        let generation = claimed.generation();
        assert!(self.claimed.insert(generation), "generation {generation} was claimed twice");
        assert_eq!(self.claimed.last(), Some(&generation), "a generation before others");
        if !self.upgraded {
            self.old_generation = generation;
        }
        self.instances.push(Instance {
            generation,
            store,
            wire,
            stage: Stage::Claimed(claimed),
            cuts: Vec::new(),
            runs: Vec::new(),
            next_run: 1,
            checkpointed: 0,
            sealed: false,
        });
    }

    fn advance(&mut self, who: usize) {
        let instance = &mut self.instances[who];
        match std::mem::replace(&mut instance.stage, Stage::Stuck) {
            Stage::Claimed(claimed) => {
                if self.fence > instance.generation {
                    return;
                }
                self.fence = instance.generation;
                match claimed.read() {
                    Ok(past) => {
                        let displaced = past.as_ref().map_or(0, Past::generation);
                        instance.stage = Stage::Read(claimed, past);
                        self.sound(who);
                        let displaced = self.instances.iter_mut().filter(|other| other.generation == displaced);
                        displaced.for_each(|other| other.sealed = true);
                    }
                    Err(error) => told(&error),
                }
            }
            Stage::Read(claimed, past) => {
                let newest = past.as_ref().and_then(|past| past.manifests.first());
                instance.checkpointed = newest.map_or(0, |found| found.link.epoch);
                instance.runs = newest.map_or(Vec::new(), |found| found.manifest.ids.clone());
                // What the restored manifest covers is known by its sum alone; the tables held it.
                let known = usize::try_from(instance.checkpointed).unwrap();
                instance.cuts = self.tables[..known].to_vec();
                let after = past.as_ref().map_or(Vec::new(), |past| past.cuts_after(instance.checkpointed).unwrap());
                instance.cuts.extend(after.iter().map(|cut| cut.opened_us));
                match claimed.adopt(identity(), past.as_ref(), newest.map(|found| &found.link)) {
                    Ok(journal) => {
                        instance.stage = Stage::Adopted(Box::new(journal));
                        self.adopted_any = true;
                        self.apply(who);
                    }
                    Err(error) => told(&error),
                }
            }
            other => instance.stage = other,
        }
    }

    /// What is durable has its effect, if the tables still are this instance's.
    fn apply(&mut self, who: usize) {
        let instance = &self.instances[who];
        if self.fence == instance.generation && instance.cuts.len() > self.tables.len() {
            assert!(instance.cuts.starts_with(&self.tables), "generation {} replays otherwise", instance.generation);
            self.tables.clone_from(&instance.cuts);
        }
    }

    fn cut(&mut self, who: usize, epochs: u64) {
        let instance = &mut self.instances[who];
        let Stage::Adopted(journal) = &mut instance.stage else { return };
        let first = journal.cuts.next();
        let mut cuts = Vec::new();
        for epoch in first..first + epochs {
            self.drawn += 1;
            let (opened_us, closed_us, ranges) = (self.drawn, self.drawn, Vec::new());
            if instance.generation <= self.old_generation {
                self.old_cuts.insert(opened_us);
            }
            let behind = (instance.generation > self.old_generation)
                .then(|| vec![Behind { index: 0, head_us: Some(opened_us) }]);
            cuts.push(Cut { epoch, opened_us, closed_us, ranges, behind, joined: Vec::new() });
        }
        let contents: Vec<i64> = cuts.iter().map(|cut| cut.opened_us).collect();
        match journal.cuts.append(cuts) {
            Ok(()) => {
                assert!(!instance.sealed, "generation {} cuts at a sealed place", instance.generation);
                instance.cuts.extend(contents);
                self.apply(who);
            }
            Err(error) => {
                told(&error);
                instance.stage = Stage::Stuck;
            }
        }
    }

    /// A manifest as of an epoch that the tables hold, with a run of its own.
    fn publish(&mut self, who: usize, back: u64) {
        let instance = &mut self.instances[who];
        let Stage::Adopted(journal) = &mut instance.stage else { return };
        let held = self.tables.len().min(instance.cuts.len()) as u64;
        let epoch = held.saturating_sub(back).max(instance.checkpointed + 1);
        if epoch > held {
            return;
        }
        let object = instance.wire.as_written(envelope::wrap(Kind::Ids, &instance.generation.to_le_bytes()));
        let name = names::run(instance.generation, 0, instance.next_run, "ids");
        instance.next_run += 1;
        let (bytes, digest) = (object.len() as u64, Digest::of_object(&object));
        let written = instance.store.create(&name, object);
        instance.runs.push(Run { name, rows: 1, bytes, digest, newest_bucket: None });
        // Every fourth time all become one.
        if instance.runs.len() > 4 {
            instance.runs.drain(..4);
        }
        let sum = instance.cuts[..usize::try_from(epoch).unwrap()].iter().sum::<i64>().cast_unsigned();
        let manifest = Manifest {
            generation: 0,
            sequence: 0,
            epoch,
            pipeline: "p".to_owned(),
            lineage: 7,
            written_us: 0,
            positions: Vec::new(),
            counters: Counters { received: sum, ..Counters::default() },
            event_times: (instance.generation > self.old_generation).then(EventTimes::default),
            ids: instance.runs.clone(),
            metrics: BTreeMap::new(),
            changes: Vec::new(),
            previous: None,
        };
        match written.map_err(Error::from).and_then(|()| journal.manifests.publish(manifest)) {
            Ok(_) => {
                assert!(!instance.sealed, "generation {} publishes at a sealed place", instance.generation);
                instance.checkpointed = epoch;
            }
            Err(error) => {
                told(&error);
                instance.stage = Stage::Stuck;
            }
        }
    }

    fn prune(&mut self, who: usize) {
        let instance = &mut self.instances[who];
        let Stage::Adopted(journal) = &mut instance.stage else { return };
        if let Err(error) = journal.manifests.prune(2, Vec::new()) {
            told(&error);
            instance.stage = Stage::Stuck;
        }
    }

    /// What an instance has read goes on from what the tables hold.
    fn sound(&self, who: usize) {
        match &self.instances[who].stage {
            Stage::Read(_, Some(past)) => self.goes_on(past),
            Stage::Read(_, None) => assert!(self.tables.is_empty(), "effects without a past"),
            _ => {}
        }
    }

    /// Whoever came now would find everything that has had an effect, in a state that can be restored.
    fn check(&self) {
        match journal::look(&self.looker).unwrap() {
            Some(past) => self.goes_on(&past),
            None => assert!(!self.adopted_any && self.tables.is_empty(), "nothing is found"),
        }
    }

    fn goes_on(&self, past: &Past) {
        assert!(past.warnings.is_empty(), "{:?}", past.warnings);
        let applied = self.tables.len() as u64;
        assert!(past.last_cut >= applied, "epoch {applied} is in the tables, {} was cut", past.last_cut);
        // The newest two can be restored: with all their runs, and with all cuts after them.
        for found in past.manifests.iter().take(2) {
            let epoch = found.link.epoch;
            assert!(epoch <= applied, "a manifest of epoch {epoch}, tables of {applied}");
            let old = found.link.generation <= self.old_generation;
            let name = names::linked(&found.link);
            let (version, _) =
                envelope::open(Kind::Manifest, &name, &self.looker.read(&name).unwrap().unwrap()).unwrap();
            assert_eq!((version < 2, found.manifest.event_times.is_none()), (old, old), "{name}");
            let sum = self.tables[..usize::try_from(epoch).unwrap()].iter().sum::<i64>().cast_unsigned();
            assert_eq!(found.manifest.counters.received, sum, "a manifest of other epochs");
            for run in found.manifest.runs() {
                assert!(self.looker.read(&run.name).unwrap().is_some(), "{} is gone, {:?}", run.name, found.link);
            }
            self.cuts_match(past, epoch);
        }
        if past.manifests.is_empty() {
            self.cuts_match(past, 0);
        }
    }

    fn cuts_match(&self, past: &Past, after: u64) {
        let cuts = past.cuts_after(after).unwrap_or_else(|error| panic!("after {after}: {error}"));
        for (cut, applied) in cuts.iter().zip(&self.tables[usize::try_from(after).unwrap()..]) {
            assert_eq!(cut.opened_us, *applied, "epoch {} is another than that in the tables", cut.epoch);
            let old = self.old_cuts.contains(applied);
            let behind = (!old).then(|| vec![Behind { index: 0, head_us: Some(*applied) }]);
            assert_eq!(cut.behind, behind, "epoch {}", cut.epoch);
        }
    }
}

/// Only that somebody else has come, or that the answer never came, ends an instance.
fn told(error: &Error) {
    let expected = matches!(error, Error::Fenced { .. } | Error::Store(tidemark_store::Error::Taken { .. }))
        || error.to_string().contains(crate::wire::NEVER_ANSWERED);
    assert!(expected, "{error:?}");
}
