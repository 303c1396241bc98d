//! A process with a number greater than 0: it reads its share of the partitions and computes its share of the dataflow,
//! while process 0 cuts epochs, and writes tables and manifests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::journal;
use tidemark_checkpoint::records::Counters;
use tidemark_checkpoint::store::Store;
use tidemark_dataflows::event::{Epoch, Micros, Offset, PartitionId, Position as At};
use tidemark_dataflows::watermark::Horizon;

use super::coordinator::CutRule;
use super::crew::Workers;
use super::feed::{Announcer, lanes};
use super::flight::Reached;
use super::others::Others;
use super::share::{Halt, IDLE, Intake, Parts, Rest, Share, Surroundings};
use super::start::Watched;
use super::threads::join;
use super::worker::Plan;
use super::{RunError, Stores, Vitals, build, clock, identity};
use crate::checkpoint::restore::Loaded;
use crate::checkpoint::writer::{CheckpointWriter, Faults, Options};
use crate::cluster::Error;
use crate::cluster::links::{Incoming, Links};
use crate::cluster::messages::{Message, Start};
use crate::config::Config;
use crate::sink::publisher::SinkError;
use crate::source::Source;
use crate::storage::Storage;

/// The process that cuts epochs and writes tables.
const LEADER: usize = 0;

/// Takes part in a pipeline until process 0 says that it is done. `stop` asks that process to end the run. `watch` is called
/// once, when the first event is about to be read.
///
/// # Errors
///
/// When the source, the checkpoint or the machine will not have it; see [`RunError`].
pub fn follow(config: &Config, stop: &Arc<AtomicBool>, watch: impl FnOnce(Vitals)) -> Result<u64, RunError> {
    let Some(others) = Others::join(config, stop)? else {
        return Err(Error::Setting("cluster.processes = 1: there is nobody to follow".to_owned()).into());
    };
    let links = others.links;
    let followed = follow_on(config, stop, others, watch);
    match &followed {
        Err(error) => links.fail(error.status(), &error.to_string()),
        Ok(_) => {
            links.say_done();
            // Until then nobody takes the end of this process for a loss; after that, nobody needs it.
            links.await_done();
        }
    }
    followed
}

fn follow_on(
    config: &Config,
    stop: &Arc<AtomicBool>,
    others: Others,
    watch: impl FnOnce(Vitals),
) -> Result<u64, RunError> {
    let (Some(links), Some(incoming), data) = Others::parts(Some(others)) else { return Ok(0) };
    let start = await_start(links, &incoming, stop)?;
    let watched = Watched::default();
    let (source, store, loaded) = take_up(config, &start, &watched)?;
    let workers = config.runtime.worker_count();
    let settings = build::settings(config, workers * config.cluster.processes, &start.identity);
    let (checkpoints, checkpointing) = runs_writer(config, &start, settings.index.horizon, store, &watched)?;
    let output = config.output.path.display().to_string();
    let manifest = build::manifest_text(config, &output, &source.identity());
    let plan = Plan {
        settings,
        curated: config.output.curated,
        partitions: Vec::new().into(),
        manifest: manifest.clone(),
        publisher: None,
        gathered: Some(workers),
        checkpoints,
        loaded,
        after: start.after,
        counters: Counters::default(),
        telemetry: Arc::clone(&watched.telemetry),
    };
    super::meter::index(&watched.telemetry, workers);
    let (feeder, lanes) = lanes(workers);
    let guards = Workers::start(lanes, plan, data.map(|data| (data, config.cluster.process)))?;
    let told = Arc::new(Told::new(start.after));
    listen(incoming, feeder.announcer(), &told)?;
    let intake = Arc::new(Intake::default());
    watch(Vitals {
        intake: Arc::clone(&intake),
        health: Arc::clone(&watched.health),
        telemetry: Arc::clone(&watched.telemetry),
        partitions: source.statuses(),
        total_bytes: source.total_bytes(),
        source: manifest.source,
        output,
        resumed_after: start.after,
    });
    let faults = Arc::clone(&watched.faults);
    let around = Outside {
        links,
        told: Arc::clone(&told),
        faults: Arc::clone(&faults),
        stop: Arc::clone(stop),
        asked: AtomicBool::new(false),
    };
    let around = Arc::new(around);
    let parts = Parts {
        source,
        feeder,
        limits: build::limits(config),
        intake: Arc::clone(&intake),
        around: Box::new(Arc::clone(&around)),
    };
    let share = Share::new(parts, start.after, start.positions);
    read(share, &around, &start.replay, start.held, build::cut_rule(config))?;
    // The lanes are closed now: the workers run dry, while this process may still fail.
    while !guards.have_ended() {
        around.stop_if_asked();
        around.check_faults()?;
        std::thread::park_timeout(IDLE);
    }
    guards.join()?;
    checkpointing.map_or(Ok(()), |thread| join("the writer of runs", thread))?;
    around.check_faults()?;
    Ok(intake.events.load(Ordering::Relaxed))
}

/// The thread that writes the runs of this process, if checkpoints are kept.
fn runs_writer(
    config: &Config,
    start: &Start,
    horizon: Horizon,
    store: Option<Store>,
    watched: &Watched,
) -> Result<(Option<CheckpointWriter>, Option<JoinHandle<()>>), RunError> {
    let Some(store) = store else { return Ok((None, None)) };
    let options = Options {
        store,
        log: None,
        generation: start.generation,
        process: config.cluster.process,
        identity: start.identity.clone(),
        horizon,
        restored: None,
        keep: config.checkpoint.keep,
        permit: watched.permit.clone(),
        now: clock::now,
        telemetry: Arc::clone(&watched.telemetry),
    };
    let (writer, thread) = CheckpointWriter::start(options, Arc::clone(&watched.faults)).map_err(SinkError::Start)?;
    Ok((Some(writer), Some(thread)))
}

/// Reads this share of the source to its end, or until process 0 wants nothing more; then waits until it has told of all
/// epochs.
fn read(
    mut share: Share,
    around: &Outside,
    replay: &[tidemark_checkpoint::records::Cut],
    held: Epoch,
    rule: CutRule,
) -> Result<(), RunError> {
    let done = share.replay(replay, held).and_then(|()| {
        around.told.lock().replayed = true;
        match rule {
            CutRule::Events(count) => by_events(&mut share, around, count),
            CutRule::Trigger(_) => by_time(&mut share, around),
        }
    });
    match done {
        Ok(()) | Err(Halt::Drained) => {}
        Err(Halt::Failed(error)) => return Err(error),
    }
    while !around.told.lock().ended {
        around.stop_if_asked();
        around.check_faults()?;
        std::thread::park_timeout(IDLE);
    }
    Ok(())
}

/// Reads so many events of each partition into each epoch, as soon as it is open.
fn by_events(share: &mut Share, around: &Outside, count: u64) -> Result<(), Halt> {
    loop {
        if share.is_over() {
            around.links.send(LEADER, Message::Over);
            return Ok(());
        }
        let opened = around.await_open(share.epoch())?;
        share.open_at(opened);
        let mut wanted = share.wanted(count);
        while share.awaits(&wanted) {
            share.check()?;
            if !share.read_wanted(&mut wanted)? {
                std::thread::park_timeout(IDLE);
            }
        }
        let report = share.report();
        around.links.send(LEADER, Message::Report(report));
    }
}

/// Reads whatever comes into the epoch that is open, and has one opened if there is none.
fn by_time(share: &mut Share, around: &Outside) -> Result<(), Halt> {
    let (mut over, mut rest) = (false, Rest::default());
    loop {
        share.check()?;
        if share.opened().is_none()
            && let Some(opened) = around.told.lock().opened(share.epoch())
        {
            share.open_at(opened);
        }
        if around.told.lock().closed >= share.epoch() {
            let report = share.report();
            around.links.send(LEADER, Message::Report(report));
            continue;
        }
        let read = share.read_all()?;
        if share.is_over() && !over {
            over = true;
            around.links.send(LEADER, Message::Over);
        }
        if let Some(rest) = rest.after(read) {
            std::thread::park_timeout(rest);
        }
    }
}

fn await_start(links: &Links, incoming: &Incoming, stop: &AtomicBool) -> Result<Start, RunError> {
    let mut asked = false;
    loop {
        match incoming.recv_timeout(IDLE) {
            Ok((LEADER, Message::Start(start))) => return Ok(*start),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::Worker("the control links have ended".to_owned()));
            }
        }
        if stop.load(Ordering::Acquire) && !asked {
            asked = true;
            links.send(LEADER, Message::Stop);
        }
    }
}

/// The source, the checkpoint if one is kept, and what was restored from it.
type TakenUp = (Box<dyn Source>, Option<Store>, Loaded);

/// Opens what process 0 has opened: the same checkpoint, the same state, the same source.
fn take_up(config: &Config, start: &Start, watched: &Watched) -> Result<TakenUp, RunError> {
    let (mut store, mut loaded) = (None, Loaded::nothing());
    if let Some(nonce) = start.nonce {
        let opened = prove(config, start.generation, nonce, watched)?;
        if let Some(link) = &start.manifest {
            loaded = Loaded::from_manifest(&opened, &journal::manifest_of(&opened, link)?)?;
        }
        store = Some(opened);
    }
    let began = identity::generator_start(&start.identity);
    let mut source = build::source_share(config, began, &watched.health, build::share(config))?;
    source.settle(identity::source(&start.identity).as_ref())?;
    compare(source.as_ref(), start)?;
    for position in start.positions.iter().filter(|position| position.next > 0) {
        let partition = PartitionId(position.index);
        if position.index as usize >= source.partitions().len() || !source.reads(partition) {
            continue;
        }
        let digest = position.digest.as_ref().map(|digest| digest.parse()).transpose();
        let digest = digest.map_err(|error| RunError::Worker(format!("a digest that is none: {error}")))?;
        source.resume(At { partition, offset: Offset(position.next) }, digest)?;
    }
    source.start(start.generation)?;
    Ok((source, store, loaded))
}

/// Whether the source is what process 0 reads, partition by partition.
fn compare(source: &dyn Source, start: &Start) -> Result<(), RunError> {
    let stored = identity::source(&start.identity);
    let mut how = stored.map_or_else(Vec::new, |stored| source.identity().difference(&stored));
    let here: Vec<&str> = source.partitions().iter().map(|partition| partition.name.as_str()).collect();
    let mut there: Vec<&str> = start.positions.iter().map(|position| position.partition.as_str()).collect();
    if start.nonce.is_some() && there.last() == Some(&inbox::PARTITION) {
        there.pop();
    }
    if how.is_empty() && here != there {
        how.push(format!("{here:?} here, {there:?} there"));
    }
    if how.is_empty() {
        return Ok(());
    }
    let how = how.join("; ");
    let problem = format!("the source is another one than that of process 0: {how}; give all processes the same");
    Err(Error::Setting(problem).into())
}

/// The checkpoint, if it is the one in which process 0 has just claimed a generation.
fn prove(config: &Config, generation: u64, nonce: u64, watched: &Watched) -> Result<Store, RunError> {
    let storage = Storage::with(config, Stores::default());
    let patience = || build::patience(config, &watched.health);
    let seen = storage.existing_checkpoint(patience())?;
    let claim = seen.map_or(Ok(None), |store| journal::claim_of(&store, generation))?;
    if claim.is_none_or(|claim| claim.nonce != nonce) {
        let place = config.checkpoint_path();
        let problem = format!(
            "the checkpoint {place} is not the one of process 0: generation {generation}, which that process has just \
             claimed, is not there; give all processes the same --output and --checkpoint, on storage that they share"
        );
        return Err(Error::Setting(problem).into());
    }
    Ok(storage.checkpoint(patience())?)
}

/// What process 0 has told.
struct Told {
    state: Mutex<State>,
    visible: AtomicU64,
    reader: Thread,
}

struct State {
    /// The first of the epochs whose opening times follow.
    first: Epoch,
    opened: std::collections::VecDeque<Micros>,
    /// The newest epoch that is closed.
    closed: Epoch,
    /// Nothing more is wanted.
    drained: bool,
    /// All epochs have been told of.
    ended: bool,
    /// What was cut before has been read again; until then nothing is left out.
    replayed: bool,
}

impl State {
    fn opened(&self, epoch: Epoch) -> Option<Micros> {
        let index = usize::try_from(epoch.checked_sub(self.first)?).ok()?;
        self.opened.get(index).copied()
    }
}

impl Told {
    fn new(visible: Epoch) -> Told {
        let state = State {
            first: 0,
            opened: std::collections::VecDeque::new(),
            closed: 0,
            drained: false,
            ended: false,
            replayed: false,
        };
        Told { state: Mutex::new(state), visible: AtomicU64::new(visible), reader: std::thread::current() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, epoch: Epoch, at: Micros) {
        let mut state = self.lock();
        if state.opened.is_empty() {
            state.first = epoch;
        }
        state.opened.push_back(at);
        // What was marked long ago is not asked for any more.
        while state.opened.len() > OPENED_KEPT {
            state.opened.pop_front();
            state.first += 1;
        }
    }
}

/// More opening times than epochs can be in flight.
const OPENED_KEPT: usize = 1 << 18;

/// Takes down what process 0 says, and tells the workers, from now on.
fn listen(incoming: Incoming, announcer: Announcer, told: &Arc<Told>) -> Result<(), RunError> {
    let told = Arc::clone(told);
    let thread = std::thread::Builder::new().name("others".to_owned());
    let mut announcer = Some(announcer);
    let started = thread.spawn(move || {
        for (_, message) in incoming.into_iter().filter(|(from, _)| *from == LEADER) {
            match message {
                Message::Open(epoch, at) => told.open(epoch, at),
                Message::Close(epoch) => told.lock().closed = epoch,
                Message::Mark(mark) => announcer.iter().for_each(|lanes| lanes.mark(mark)),
                Message::Checkpoint(epoch) => announcer.iter().for_each(|lanes| lanes.checkpoint(epoch)),
                Message::Visible(epoch) => told.visible.store(epoch, Ordering::Release),
                Message::Drain => told.lock().drained = true,
                Message::End => {
                    // The lanes close once nobody announces anything any more.
                    announcer = None;
                    told.lock().ended = true;
                }
                _ => continue,
            }
            told.reader.unpark();
        }
    });
    started.map(drop).map_err(|error| SinkError::Start(error).into())
}

/// What the partitions of this process depend on: process 0.
struct Outside {
    links: &'static Links,
    told: Arc<Told>,
    faults: Arc<Faults>,
    stop: Arc<AtomicBool>,
    asked: AtomicBool,
}

impl Outside {
    /// A signal to this process ends the whole run.
    fn stop_if_asked(&self) {
        if self.stop.load(Ordering::Acquire) && !self.asked.swap(true, Ordering::AcqRel) {
            self.links.send(LEADER, Message::Stop);
        }
    }

    fn check_faults(&self) -> Result<(), RunError> {
        self.faults.take().map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn await_open(&self, epoch: Epoch) -> Result<Micros, Halt> {
        loop {
            if let Some(opened) = self.told.lock().opened(epoch) {
                return Ok(opened);
            }
            self.check()?;
            std::thread::park_timeout(IDLE);
        }
    }
}

impl Surroundings for Arc<Outside> {
    fn check(&self) -> Result<(), Halt> {
        Outside::check(self)
    }

    fn reached(&self) -> Reached {
        Reached { visible: self.told.visible.load(Ordering::Acquire), ..Reached::default() }
    }

    fn hurry(&self) {
        self.links.send(LEADER, Message::Hurry);
    }

    fn open(&self, epoch: Epoch) -> Result<Micros, Halt> {
        self.links.send(LEADER, Message::Wanted(epoch));
        self.await_open(epoch)
    }
}

impl Outside {
    fn check(&self) -> Result<(), Halt> {
        self.stop_if_asked();
        self.check_faults()?;
        let state = self.told.lock();
        if state.drained && state.replayed { Err(Halt::Drained) } else { Ok(()) }
    }
}
