//! How a run begins: it looks at what is stored, compares, claims a generation, fences the tables, reads the past and adopts
//! it. The first two write nothing, so that whoever is refused there leaves no trace.
//!
//! The order is what makes take-overs safe; `tidemark-checkpoint` says why.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tidemark_checkpoint::Error;
use tidemark_checkpoint::inbox::{self, Inbox};
use tidemark_checkpoint::journal::{self, Bid, Claimed, CutLog, Journal, ManifestLog, Past, Restorable};
use tidemark_checkpoint::records::{Change, Claimant, Counters, Cut, Identity, Joined, Manifest, Position};
use tidemark_dataflows::event::{Epoch, Micros, Offset, PartitionId, Position as At};
use tidemark_store::Store;
use tidemark_store::failpoint;

use super::epochs::{CutRule, StartingPoint};
use super::guard::Guard;
use super::lineage::{Found, HeldByTable, check_tables};
use super::lock::host;
use super::run_context::RunContext;
use super::{RunError, Stores, build, clock, identity, older_rule, peers};
use crate::checkpoint::restore::Loaded;
use crate::config::{Config, Place, SourceKind};
use crate::exit::ExitStatus;
use crate::sink::opened::Tables;
use crate::sink::publisher::SinkError;
use crate::source::{PartitionInfo, Share, Source, SourceError, WithInbox};
use crate::storage::Storage;
use crate::telemetry::{Restore, Telemetry};

/// Generation of a writer where nothing is kept: such an output is never taken over.
const ONLY_GENERATION: u64 = 1;

/// Everything that a run goes on from.
pub(super) struct Recovered {
    /// Keeps other instances away.
    pub(super) lock: Guard,
    /// The source, resumed.
    pub(super) source: Box<dyn Source>,
    /// What the pipeline is.
    pub(super) identity: Identity,
    /// What was restored.
    pub(super) loaded: Loaded,
    /// The epoch that it is of; 0 before the first.
    pub(super) after: Epoch,
    /// Sums over the epochs up to that one.
    pub(super) counters: Counters,
    /// How far each partition had been read by then.
    pub(super) positions: Vec<Position>,
    /// Partitions among them that no cut knows, and that are not the first ones of the pipeline.
    pub(super) joined: Vec<Joined>,
    /// The epochs to compute again.
    pub(super) replay: Vec<Cut>,
    /// The generation that this process has won.
    pub(super) generation: u64,
    /// What stands in its claim; none where nothing is kept.
    pub(super) nonce: Option<u64>,
}

/// Where to write: the tables, fenced; and cuts and checkpoints, unless nothing is kept.
pub(super) type Outputs = (Tables, Option<Durable>);

/// Where cuts and checkpoints go.
pub(super) struct Durable {
    /// The folder.
    pub(super) store: Store,
    /// The cuts.
    pub(super) cuts: CutLog,
    /// The manifests.
    pub(super) manifests: ManifestLog,
}

/// What a run begins with, as long as nothing has been written.
struct Prepared {
    found: Found,
    source: Box<dyn Source>,
    identity: Identity,
}

/// Looks and compares: what does not fit is left as it was, and a wrong input leaves no trace.
///
/// # Errors
///
/// When what is stored does not belong together or does not fit, or the source cannot be opened.
fn prepare(config: &Config, context: &RunContext, storage: &Storage<'_>) -> Result<Prepared, RunError> {
    let share = build::assignment(config);
    let fresh_source = build::source_share(config, None, &context.health, share)?;
    for taken in [&config.output.path, &config.checkpoint_path()].into_iter().filter_map(Place::local) {
        let is_below_a_file = taken.ancestors().any(|folder| folder.is_file());
        if is_below_a_file {
            return Err(unwritable(config, ErrorKind::NotADirectory.into()));
        }
    }
    let found = Found::look(config, storage, context)?;
    found.check_lineage(config)?;
    let past = found.past.as_ref();
    let stored = past.map(|past| &past.identity);
    let mut source = settled(config, context, fresh_source, stored)?;
    let identity = identity::settle(config, &source.identity(), stored)?;
    found.check_progress(config)?;
    source.order(&known_at_a_look(past))?;
    // One stream alone is cut as it was, and could not be read twice.
    let one_stream = matches!(source.partitions(), [one] if one.bytes.is_none());
    if config.source.kind == SourceKind::File && !one_stream && past.is_some_and(older_rule::has_cut) {
        let again = build::source_share(config, None, &context.health, Share::WHOLE)?;
        older_rule::check_that_files_have_ended(again, past)?;
    }
    Ok(Prepared { found, source, identity })
}

/// The source of a pipeline that has been started before, or that source as it is: a generated stream began when it was
/// started first.
fn settled(
    config: &Config,
    context: &RunContext,
    fresh: Box<dyn Source>,
    stored: Option<&Identity>,
) -> Result<Box<dyn Source>, RunError> {
    let mut source = match stored.and_then(identity::generator_start) {
        Some(start) => build::source_share(config, Some(start), &context.health, build::assignment(config))?,
        None => fresh,
    };
    source.settle(stored.and_then(identity::source).as_ref())?;
    Ok(source)
}

/// Begins a run: looks, compares, claims, fences, reads, adopts. The first two write nothing.
///
/// # Errors
///
/// When another instance is there, what is stored does not fit, or source, tables or checkpoint cannot be opened.
pub(super) fn begin(
    config: &Config,
    workers: usize,
    take_over: bool,
    context: &RunContext,
    stores: Stores,
) -> Result<(Recovered, Outputs), RunError> {
    if stores.are_dry() {
        return begin_dry(config, workers, context, stores);
    }
    let storage = Storage::with(config, stores);
    let mut prepared = prepare(config, context, &storage).map_err(|error| Guard::blamed(config, take_over, error))?;
    let folder = config.checkpoint_path();
    for made in [&config.output.path, &folder].into_iter().filter_map(Place::local) {
        fs::create_dir_all(made).map_err(|error| unwritable(config, error))?;
    }
    let lock = Guard::take(config, &storage, take_over, context)?;
    let store = storage.checkpoint(context.patience(config))?;
    if journal::newest_generation(&store)? != prepared.found.generation {
        // Somebody has been here before we had the lock.
        prepared = prepare(config, context, &storage)?;
    }
    if !config.checkpoint.enabled {
        return without_checkpoints(config, workers, context, (lock, prepared), &storage);
    }
    let nonce = random()?;
    let bid = Bid {
        by: &claimant(),
        nonce,
        lineage: prepared.identity.lineage,
        above: prepared.found.fence(),
        still_held: &|| lock.still_held(),
    };
    let claimed = journal::claim(&store, &bid)?;
    let generation = claimed.generation();
    lock.set_generation(generation);
    failpoint("generation-claimed");
    let won = (lock, claimed, nonce);
    go_on(config, workers, context, (&storage, &store), won, prepared)
        .map_err(|error| displaced(error, &store, generation))
}

/// Fences the tables, reads the past behind the fences, and adopts it.
fn go_on(
    config: &Config,
    workers: usize,
    context: &RunContext,
    (storage, store): (&Storage<'_>, &Store),
    (lock, claimed, nonce): (Guard, Claimed, u64),
    prepared: Prepared,
) -> Result<(Recovered, Outputs), RunError> {
    let Prepared { found, mut source, identity } = prepared;
    let (generation, lineage) = (claimed.generation(), claimed.lineage());
    found.lock_output(config, storage, context, lineage)?;
    let tables = Tables::open(build::publishing(config, workers, (generation, lineage), context, storage)?)?;
    let mut past = claimed.read()?;
    let identity = match &mut past {
        Some(past) => {
            if found.past.is_none() {
                // Somebody else was here since the look, and has begun what we go on with.
                source = settled(config, context, source, Some(&past.identity))?;
            }
            gone_on_with(config, source.as_ref(), past)?
        }
        None => Identity { lineage, ..identity },
    };
    let read = Instant::now();
    let loaded = load(store, past.as_ref())?;
    let took = read.elapsed();
    let manifest = loaded.from.as_ref().map(|from| &from.manifest);
    let after = manifest.map_or(0, |manifest| manifest.epoch);
    let replay = past.as_ref().map_or(Ok(Vec::new()), |past| past.cuts_after(after))?;
    let held = tables.held().map(|(table, epoch, version)| HeldByTable { table, epoch, version });
    check_tables(config, held, past.as_ref(), after)?;
    let counters = manifest.map(|manifest| manifest.counters.clone()).unwrap_or_default();
    let source = WithInbox::new(source, Inbox::new(store.clone())).map_err(SinkError::Start)?;
    let (mut source, positions, joined) = resumed(Box::new(source), past.as_ref(), manifest, &replay)?;
    let replay = in_place(replay, &positions)?;
    restored(&context.telemetry, manifest, &replay, took);
    let link = loaded.from.as_ref().map(|from| &from.link);
    failpoint("before-adoption");
    let Journal { cuts, manifests } = claimed.adopt(identity.clone(), past.as_ref(), link)?;
    failpoint("adopted");
    source.start(generation)?;
    let durable = Some(Durable { store: store.clone(), cuts, manifests });
    let nonce = Some(nonce);
    let recovered =
        Recovered { lock, source, identity, loaded, after, counters, positions, joined, replay, generation, nonce };
    Ok((recovered, (tables, durable)))
}

/// What is stored changes under an instance that a later one has displaced: then that is why it does not fit.
fn displaced(error: RunError, store: &Store, generation: u64) -> RunError {
    match journal::check_newest(store, generation) {
        Err(fenced @ Error::Fenced { .. }) if error.status() == ExitStatus::Corrupt => fenced.into(),
        _ => error,
    }
}

fn unwritable(config: &Config, error: io::Error) -> RunError {
    RunError::Output { output: config.output.path.to_string(), error }
}

fn random() -> Result<u64, RunError> {
    getrandom::u64().map_err(|error| RunError::Randomness(error.to_string()))
}
/// The identity of a pipeline that goes on, and in `past` what it takes up from now on.
fn gone_on_with(config: &Config, source: &dyn Source, past: &mut Past) -> Result<Identity, RunError> {
    let identity = identity::settle(config, &source.identity(), Some(&past.identity))?;
    let epoch = past.last_cut + 1;
    let added = identity::unknown_to(config, &past.identity).into_iter();
    past.changes.extend(added.map(|(setting, after)| Change { epoch, setting, before: None, after: Some(after) }));
    Ok(identity)
}

/// A dry run begins with nothing, whatever is there, and reads beside all others.
fn begin_dry(
    config: &Config,
    workers: usize,
    context: &RunContext,
    stores: Stores,
) -> Result<(Recovered, Outputs), RunError> {
    let found = Found::compared(config, &Storage::new(config), context)?;
    let mut source = build::source_beside(config, &context.health)?;
    source.settle(None)?;
    let identity = identity::settle(config, &source.identity(), None)?;
    let storage = Storage::with(config, stores);
    let prepared = Prepared { found: found.without_past(), source, identity };
    without_checkpoints(config, workers, context, (Guard::Nobody, prepared), &storage)
}

/// A run of which nothing is kept writes to an output of its own.
fn without_checkpoints(
    config: &Config,
    workers: usize,
    context: &RunContext,
    (lock, prepared): (Guard, Prepared),
    storage: &Storage<'_>,
) -> Result<(Recovered, Outputs), RunError> {
    let Prepared { found, source, identity } = prepared;
    let refused = |epoch, known: &str| RunError::TablesAhead {
        output: config.output.path.display().to_string(),
        epoch,
        checkpoint: "a run without checkpoints".to_owned(),
        known: known.to_owned(),
    };
    if found.past.is_some() {
        return Err(refused(0, "no other run's"));
    }
    if !storage.is_dry() {
        found.lock_output(config, storage, context, identity.lineage)?;
    }
    let by = (ONLY_GENERATION, identity.lineage);
    let tables = Tables::open(build::publishing(config, workers, by, context, storage)?)?;
    if let Some(epoch) = tables.in_any() {
        return Err(refused(epoch, "none"));
    }
    let (mut source, positions, joined) = resumed(source, None, None, &[])?;
    source.start(ONLY_GENERATION)?;
    let (loaded, counters, replay) = (Loaded::nothing(), Counters::default(), Vec::new());
    let (generation, nonce) = (ONLY_GENERATION, None);
    let recovered =
        Recovered { lock, source, identity, loaded, after: 0, counters, positions, joined, replay, generation, nonce };
    Ok((recovered, (tables, None)))
}

fn claimant() -> Claimant {
    let program = format!("tidemark {}", env!("CARGO_PKG_VERSION"));
    Claimant { host: host(), pid: std::process::id(), started_us: clock::now().0, program }
}

/// The newest state that can be restored. What is damaged is told of, and passed over where that is safe.
fn load(store: &Store, past: Option<&Past>) -> Result<Loaded, Error> {
    let Some(past) = past else { return Ok(Loaded::nothing()) };
    let started = Instant::now();
    let (loaded, damage) = Loaded::newest(store, past)?;
    for error in past.warnings.iter().chain(&damage) {
        tracing::warn!(%error, "passed over");
    }
    if let Some(Restorable { manifest, .. }) = &loaded.from {
        let runs = manifest.runs().count();
        let bytes: u64 = manifest.runs().map(|run| run.bytes).sum();
        tracing::info!(
            epoch = manifest.epoch,
            ids = manifest.counters.retained_ids,
            runs,
            bytes,
            took_ms = started.elapsed().as_millis(),
            "checkpoint read"
        );
    }
    Ok(loaded)
}

/// Notes what was restored.
fn restored(telemetry: &Telemetry, manifest: Option<&Manifest>, replay: &[Cut], took: Duration) {
    let Some(manifest) = manifest else { return };
    let (bytes, rows) = manifest.runs().fold((0, 0), |(bytes, rows), run| (bytes + run.bytes, rows + run.rows));
    telemetry.checkpoints.describe(Micros(manifest.written_us), bytes, rows, manifest.runs().count());
    let ids = manifest.counters.retained_ids;
    let replayed = replay.len() as u64;
    telemetry.restore.get_or_init(|| Restore { epoch: manifest.epoch, ids, bytes, took, replayed });
}

/// What is known of partitions: their names in the order of their numbers, and which of them are not needed any more. One
/// that has ended is, where it is read again.
pub(super) fn known(positions: &[Position], replay: &[Cut]) -> Vec<(String, bool)> {
    let again: BTreeSet<u32> = replay.iter().flat_map(|cut| &cut.ranges).map(|range| range.index).collect();
    let done = |at: &Position| (at.ended || at.next == 0) && !again.contains(&at.index);
    positions.iter().map(|at| (at.partition.clone(), done(at))).collect()
}

/// The partitions that earlier runs knew, as far as they had been read in the end.
pub(super) fn known_partitions(identity: &Identity, manifest: Option<&Manifest>, replay: &[Cut]) -> Vec<Position> {
    let mut known = match manifest {
        Some(manifest) => manifest.positions.clone(),
        None => first_partitions(identity),
    };
    if !known.iter().any(|at| at.partition == inbox::PARTITION) {
        let index = u32::try_from(known.len()).unwrap_or(u32::MAX);
        known.push(Position { partition: inbox::PARTITION.to_owned(), index, next: 0, digest: None, ended: false });
    }
    for cut in replay {
        for Joined { partition, index, from } in &cut.joined {
            let (partition, index) = (partition.clone(), *index);
            known.push(Position { partition, index, next: *from, digest: None, ended: false });
        }
        for range in &cut.ranges {
            let place = known.binary_search_by_key(&range.index, |at| at.index);
            let at = place.ok().and_then(|place| known.get_mut(place)).filter(|at| at.partition == range.partition);
            at.into_iter().for_each(|at| at.next = at.next.max(range.to));
        }
    }
    // Each cut says of all partitions which were behind.
    if let Some(behind) = replay.iter().rev().find_map(|cut| cut.behind.as_ref()) {
        let is_behind = |at: &Position| behind.binary_search_by_key(&at.index, |behind| behind.index).is_ok();
        known.iter_mut().for_each(|at| at.ended = !is_behind(at));
    }
    known
}

/// The partitions of the source that a pipeline knows, as far as a look without a claim tells.
pub(super) fn known_at_a_look(past: Option<&Past>) -> Vec<(String, bool)> {
    let Some(past) = past else { return Vec::new() };
    let manifest = past.manifests.first().map(|found| &found.manifest);
    let replay = past.cuts_after(manifest.map_or(0, |manifest| manifest.epoch)).unwrap_or_default();
    let mut known = known(&known_partitions(&past.identity, manifest, &replay), &replay);
    known.retain(|(name, _)| name != inbox::PARTITION);
    known
}

/// The partitions of the first start, and the inbox.
fn first_partitions(identity: &Identity) -> Vec<Position> {
    let names = identity::source(identity).map(|source| source.partition_names()).unwrap_or_default();
    let names = names.into_iter().chain([inbox::PARTITION.to_owned()]);
    let first = |(index, partition)| Position { partition, index, next: 0, digest: None, ended: false };
    (0..).zip(names).map(first).collect()
}

/// A source at the place where reading goes on, how far each of its partitions has been read, and which of them no cut
/// knows.
type Resumed = (Box<dyn Source>, Vec<Position>, Vec<Joined>);

/// The source at the positions of a manifest, or at its beginning.
fn resumed(
    mut source: Box<dyn Source>,
    past: Option<&Past>,
    manifest: Option<&Manifest>,
    replay: &[Cut],
) -> Result<Resumed, RunError> {
    let before = past.map_or(Vec::new(), |past| known_partitions(&past.identity, manifest, replay));
    source.order(&known(&before, replay))?;
    let beginning = |(index, info): (u32, &PartitionInfo)| {
        let next = source.beginning(PartitionId(index)).0;
        Position { partition: info.name.clone(), index, next, digest: None, ended: info.is_gone() }
    };
    let mut positions: Vec<Position> = (0..).zip(source.partitions()).map(beginning).collect();
    let joined = positions.iter().skip(before.len()).filter(|_| !before.is_empty());
    let join = |at: &Position| Joined { partition: at.partition.clone(), index: at.index, from: at.next };
    let joined = joined.map(join).collect();
    for stored in manifest.map_or(&[][..], |manifest| &manifest.positions[..]) {
        let index = place_of(&positions, &stored.partition, stored.index)?;
        let Some(position) = positions.get_mut(index as usize) else { continue };
        *position = Position { index, ended: stored.ended || position.ended, ..stored.clone() };
        if stored.next > 0 {
            let at = At { partition: PartitionId(index), offset: Offset(stored.next) };
            let digest = stored.digest.as_ref().map(|digest| digest.parse());
            let digest = digest.transpose().map_err(|error| Error::damaged("a manifest", format!("{error}")))?;
            source.resume(at, digest)?;
        }
    }
    Ok((source, positions, joined))
}

impl Recovered {
    /// Where the protocol of epochs goes on.
    pub(super) fn starting_point(&self, rule: CutRule) -> StartingPoint {
        let closed = self.counters.last_closed_us.into_iter().chain(self.replay.last().map(|cut| cut.closed_us));
        StartingPoint {
            epoch: self.replay.last().map_or(self.after, |cut| cut.epoch),
            positions: peers::at_end(&self.positions, &self.replay, matches!(rule, CutRule::Files { .. })),
            joined: self.joined.clone(),
            closed: Micros(closed.max().unwrap_or(0)),
        }
    }
}

/// Cuts whose partitions have the places that they have now.
fn in_place(mut cuts: Vec<Cut>, positions: &[Position]) -> Result<Vec<Cut>, RunError> {
    for range in cuts.iter_mut().flat_map(|cut| &mut cut.ranges) {
        range.index = place_of(positions, &range.partition, range.index)?;
    }
    Ok(cuts)
}

/// Which place a partition has that had `index` once: the same, or a later one, where partitions were added before it.
/// In checkpoints of format 1 several files may have one name, so the name alone does not tell.
fn place_of(positions: &[Position], partition: &str, index: u32) -> Result<u32, RunError> {
    let named = |position: &&Position| position.partition == partition;
    let same = positions.get(index as usize).filter(named);
    let found = same.or_else(|| positions.iter().skip(index as usize).find(named));
    found.map(|position| position.index).ok_or_else(|| {
        let problem = "it was read by an earlier run and is not there any more";
        SourceError::changed(partition, problem, "give the same inputs again").into()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidemark_checkpoint::records::Range;

    fn positions(names: &[&str]) -> Vec<Position> {
        let position = |(index, name): (u32, &&str)| {
            let partition = (*name).to_owned();
            Position { partition, index, next: 0, digest: None, ended: false }
        };
        (0..).zip(names).map(position).collect()
    }

    #[test]
    fn partitions_that_were_added_move_those_behind_them() {
        let now = positions(&["0", "1", "2", "replay"]);
        assert_eq!(place_of(&now, "1", 1).unwrap(), 1);
        assert_eq!(place_of(&now, "replay", 2).unwrap(), 3);
        assert!(place_of(&now, "3", 1).is_err());
        // Of several files with one name the place tells.
        let files = positions(&["a", "a", "replay"]);
        assert_eq!((place_of(&files, "a", 0).unwrap(), place_of(&files, "a", 1).unwrap()), (0, 1));
        let range = Range { partition: "replay".to_owned(), index: 2, from: 0, to: 4, digest: None };
        let cut = Cut { epoch: 1, opened_us: 0, closed_us: 1, ranges: vec![range], behind: None, joined: Vec::new() };
        assert_eq!(in_place(vec![cut], &now).unwrap()[0].ranges[0].index, 3);
    }
}
