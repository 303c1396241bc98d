//! A process with a number greater than 0: it reads its partitions and computes its part of the dataflow, while the leader
//! cuts epochs, and writes tables and manifests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use tidemark_checkpoint::journal;
use tidemark_checkpoint::records::Counters;
use tidemark_dataflows::event::{Offset, PartitionId, Position as At};
use tidemark_dataflows::watermark::Horizon;
use tidemark_store::Store;

use super::lanes::{Announcer, lanes};
use super::leader_link::{LEADER, LeaderLink, Mailbox, Stop};
use super::peers::Peers;
use super::reader::{IDLE, PartitionReader, Parts, ReadCounters};
use super::run_context::RunContext;
use super::threads::join;
use super::worker::Plan;
use super::workers::Workers;
use super::{RunError, RunStatus, Stores, build, clock, identity};
use crate::checkpoint::restore::Loaded;
use crate::checkpoint::writer::{CheckpointWriter, Options};
use crate::cluster::Error;
use crate::cluster::links::{Incoming, Links};
use crate::cluster::messages::{Message, Start};
use crate::config::Config;
use crate::sink::publisher::SinkError;
use crate::sink::tables::PartitionNames;
use crate::source::{Source, WithInbox};
use crate::storage::Storage;

/// Takes part in a pipeline until the leader says that it is done. `stop` asks the leader to end the run. `watch` is called
/// once, when the first event is about to be read.
///
/// # Errors
///
/// When the source, the checkpoint or the machine will not have it; see [`RunError`].
pub fn run(config: &Config, stop: &Arc<AtomicBool>, watch: impl FnOnce(RunStatus)) -> Result<u64, RunError> {
    let Some(peers) = Peers::join(config, stop)? else {
        return Err(Error::Setting("cluster.processes = 1: there is nobody to follow".to_owned()).into());
    };
    let links = peers.links;
    let followed = run_among(config, stop, peers, watch);
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

fn run_among(
    config: &Config,
    stop: &Arc<AtomicBool>,
    peers: Peers,
    watch: impl FnOnce(RunStatus),
) -> Result<u64, RunError> {
    let (Some(links), Some(incoming), data) = Peers::parts(Some(peers)) else { return Ok(0) };
    let start = await_start(links, &incoming, stop)?;
    let watched = RunContext::default();
    let (source, store, loaded) = take_up(config, &start, &watched)?;
    let workers = config.runtime.worker_count();
    let settings = build::settings(config, workers * config.cluster.processes, &start.identity, &start.positions);
    let (checkpoints, checkpointing) = runs_writer(config, &start, settings.index.horizon, store, &watched)?;
    let output = config.output.path.display().to_string();
    let manifest = build::manifest_text(config, &output, &source.identity());
    let plan = Plan {
        settings,
        curated: config.output.curated,
        partitions: PartitionNames::default(),
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
    let (mailbox, received) = Mailbox::new();
    let visible = Arc::new(AtomicU64::new(start.after));
    let (ended, all_marked) = channel();
    listen(incoming, feeder.announcer(), mailbox, Arc::clone(&visible), ended)?;
    let counters = Arc::new(ReadCounters::default());
    let told = (manifest.source, output, start.after);
    watch(RunStatus::of(&watched, source.as_ref(), Arc::clone(&counters), told));
    let faults = Arc::clone(&watched.faults);
    let stop = (Arc::clone(stop), AtomicBool::new(false));
    let link = LeaderLink::Remote { links, visible, faults, stop };
    let (limits, counted) = (build::limits(config), Arc::clone(&counters));
    let parts = Parts { source, feeder, limits, counters: counted, link, mailbox: received };
    let mut reader = PartitionReader::new(parts, start.after, start.positions);
    match reader.replay(&start.replay, start.held).and_then(|()| reader.follow()) {
        Ok(()) | Err(Stop::Drained) => {}
        Err(Stop::Failed(error)) => return Err(error),
    }
    let link = reader.end();
    while !matches!(all_marked.recv_timeout(IDLE), Ok(()) | Err(RecvTimeoutError::Disconnected)) {
        link.check()?;
    }
    // The lanes are closed now: the workers run dry, while this process may still fail.
    while !guards.have_ended() {
        link.check()?;
        std::thread::park_timeout(IDLE);
    }
    guards.join()?;
    checkpointing.map_or(Ok(()), |thread| join("the writer of runs", thread))?;
    link.check()?;
    Ok(counters.events.load(Ordering::Relaxed))
}

/// The thread that writes the runs of this process, if checkpoints are kept.
fn runs_writer(
    config: &Config,
    start: &Start,
    horizon: Horizon,
    store: Option<Store>,
    watched: &RunContext,
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

fn await_start(links: &Links, incoming: &Incoming, stop: &AtomicBool) -> Result<Start, RunError> {
    let (mut asked, mut replay) = (false, Vec::new());
    loop {
        match incoming.recv_timeout(IDLE) {
            Ok((LEADER, Message::Replay(cut))) => replay.push(*cut),
            Ok((LEADER, Message::Start(start))) => return Ok(Start { replay, ..*start }),
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
fn take_up(config: &Config, start: &Start, watched: &RunContext) -> Result<TakenUp, RunError> {
    let (mut store, mut loaded) = (None, Loaded::nothing());
    if let Some(nonce) = start.nonce {
        let opened = prove(config, start.generation, nonce, watched)?;
        if let Some(link) = &start.manifest {
            loaded = Loaded::from_manifest(&opened, &journal::manifest_of(&opened, link)?)?;
        }
        store = Some(opened);
    }
    let began = identity::generator_start(&start.identity);
    let mut source = build::source_share(config, began, &watched.health, build::assignment(config))?;
    source.settle(identity::source(&start.identity).as_ref())?;
    let mut source = order(source, start)?;
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

/// The source with the numbers that its partitions have for the leader, if it is what that one reads.
fn order(mut source: Box<dyn Source>, start: &Start) -> Result<Box<dyn Source>, RunError> {
    let stored = identity::source(&start.identity);
    let mut how = stored.map_or_else(Vec::new, |stored| source.identity().difference(&stored));
    if start.nonce.is_some() {
        source = Box::new(WithInbox::elsewhere(source));
    }
    if how.is_empty() {
        // What the leader has is there for all, unless nothing comes of it any more.
        let known: Vec<_> = start.positions.iter().map(|at| (at.partition.clone(), at.ended)).collect();
        how.extend(source.order(&known).err().map(|error| error.to_string()));
        let here = source.partitions().iter().map(|partition| partition.name.as_str());
        let there = start.positions.iter().map(|position| position.partition.as_str());
        if !here.clone().eq(there.clone()) {
            how.push(format!("{:?} here, {:?} there", here.collect::<Vec<_>>(), there.collect::<Vec<_>>()));
        }
    }
    if how.is_empty() {
        return Ok(source);
    }
    let how = how.join("; ");
    let problem = format!("the source is another one than that of process 0: {how}; give all processes the same");
    Err(Error::Setting(problem).into())
}

/// The checkpoint, if it is the one in which process 0 has just claimed a generation.
fn prove(config: &Config, generation: u64, nonce: u64, watched: &RunContext) -> Result<Store, RunError> {
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

/// Takes down what the leader says, and tells the workers and the reader, from now on. `ended` gets a message, or is
/// dropped, once nothing more is marked.
fn listen(
    incoming: Incoming,
    announcer: Announcer,
    mailbox: Mailbox,
    visible: Arc<AtomicU64>,
    ended: Sender<()>,
) -> Result<(), RunError> {
    let thread = std::thread::Builder::new().name("leader-says".to_owned());
    let mut announcer = Some(announcer);
    let started = thread.spawn(move || {
        for (_, message) in incoming.into_iter().filter(|(from, _)| *from == LEADER) {
            match message {
                Message::Mark(mark, behind) => {
                    let behind: Arc<[_]> = behind.into();
                    announcer.iter().for_each(|lanes| lanes.mark(mark, Arc::clone(&behind)));
                }
                Message::Checkpoint(epoch) => announcer.iter().for_each(|lanes| lanes.checkpoint(epoch)),
                Message::Visible(epoch) => {
                    visible.store(epoch, Ordering::Release);
                    mailbox.wake();
                }
                Message::End => {
                    // The lanes close once nobody announces anything any more.
                    announcer = None;
                    let _ = ended.send(());
                }
                message => mailbox.put(message),
            }
        }
    });
    started.map(drop).map_err(|error| SinkError::Start(error).into())
}
