//! What an instance does with the stores: it starts, makes cuts durable, and commits groups. Each is one job, written as the
//! program has it, one request after the other; `tidemark::runtime::start`, `tidemark::checkpoint::cuts` and
//! `tidemark::sink::writer` are the originals. Checkpoints are in [`checkpoint`](crate::checkpoint).

use tidemark::checkpoint::restore::Loaded;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::journal::{self, Bid, Claimed, CutLog, Journal, Past};
use tidemark_checkpoint::records::{Claimant, Counters, Cut, Identity, Joined, Manifest, Position, Run};
use tidemark_dataflows::event::Epoch;

use crate::checkpoint::{CheckpointWriter, List};
use crate::durable::{Reply, Request, TABLES};
use crate::events::START_US;
use crate::orders::Order;
use crate::port::{ask, store, strange_store};
use crate::tables::{Change, Refusal, TableWriter};

/// Why a job has not done what it should.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Somebody has taken over, or the store has failed: the instance ends, and that is as it should be.
    Ends(String),
    /// What was found cannot be.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        match error {
            Error::Fenced { by, .. } => Trouble::Ends(format!("fenced by g{by}")),
            Error::Store(tidemark_store::Error::Unavailable { what, .. }) => {
                Trouble::Ends(what.replace(" in the simulated store/", ""))
            }
            other => Trouble::Wrong(other.to_string()),
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        match refusal {
            Refusal::Fenced => Trouble::Ends("fenced".to_owned()),
            Refusal::Unavailable => Trouble::Ends("a table is unavailable".to_owned()),
            Refusal::Mismatch(what) => Trouble::Wrong(what),
        }
    }
}

/// What came of a job, and what it worked with.
pub(crate) enum Outcome {
    /// A start.
    Started(Result<Box<Recovered>, Trouble>),
    /// A start with the checkpoint of another pipeline.
    Refused(Result<(), Trouble>),
    /// Cuts.
    Cut(CutLog, Result<(), Trouble>),
    /// A group of commits, as of that epoch.
    Published(Vec<TableWriter>, Epoch, Result<(), Trouble>),
    /// The runs of one process, for a checkpoint as of that epoch.
    Wrote(Epoch, Result<Vec<(List, Run)>, Trouble>),
    /// A checkpoint as of that epoch.
    Completed(Box<CheckpointWriter>, Epoch, Result<(), Trouble>),
}

/// What a start needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The order of durable effects.
    pub(crate) order: Order,
    /// Drawn for this start.
    pub(crate) nonce: u64,
    /// The partitions that the source has.
    pub(crate) names: Vec<String>,
}

/// Everything that an instance goes on from.
pub(crate) struct Recovered {
    /// The generation that was won.
    pub(crate) generation: u64,
    /// What the pipeline is.
    pub(crate) identity: Identity,
    /// The two logs.
    pub(crate) journal: Journal,
    /// The tables.
    pub(crate) tables: Vec<TableWriter>,
    /// The restored state.
    pub(crate) loaded: Loaded,
    /// The epoch that it is of.
    pub(crate) after: Epoch,
    /// Sums over the epochs up to that one.
    pub(crate) counters: Counters,
    /// How far each partition had been read by then.
    pub(crate) positions: Vec<Position>,
    /// Partitions that no cut knows.
    pub(crate) joined: Vec<Joined>,
    /// The epochs to compute again.
    pub(crate) replay: Vec<Cut>,
}

/// Begins a run: look, claim, fence, read, restore, adopt.
pub(crate) fn start(plan: &Start) -> Outcome {
    Outcome::Started(begin(plan).map(Box::new))
}

fn begin(plan: &Start) -> Result<Recovered, Trouble> {
    let store = store();
    journal::look(&store)?;
    let by = Claimant { host: "h".to_owned(), pid: 1, started_us: 0, program: "t".to_owned() };
    let claimed = journal::claim(&store, &Bid::unlocked(&by, plan.nonce))?;
    let generation = claimed.generation();
    let open = || (0..TABLES.len()).map(|table| TableWriter::open(table, generation, plan.order)).collect();
    let (tables, past): (Result<Vec<TableWriter>, Refusal>, _);
    if plan.order == Order::AdoptionBeforeFences {
        past = claimed.read()?;
        let mut recovered = take_up(plan, claimed, past, Vec::new())?;
        tables = open();
        recovered.tables = tables?;
        return Ok(recovered);
    }
    tables = open();
    let tables = tables?;
    past = claimed.read()?;
    take_up(plan, claimed, past, tables)
}

/// A start with the checkpoint of another pipeline: it looks, compares, and is refused. In a wrong order it has claimed or
/// fenced by then. Tables that are not there yet belong to nobody, and are left to those whose they will be.
pub(crate) fn intrude(plan: &Start) -> Outcome {
    Outcome::Refused(look_at_others(plan))
}

fn look_at_others(plan: &Start) -> Result<(), Trouble> {
    let store = strange_store();
    journal::look(&store)?;
    let mut above = 0;
    for table in 0..TABLES.len() {
        match ask(Request::Load(table)) {
            Reply::Held(version, fence, _) if version > 0 => above = above.max(fence),
            _ => return Ok(()),
        }
    }
    if !matches!(plan.order, Order::ClaimBeforeComparison | Order::FencesBeforeComparison) {
        return Ok(());
    }
    let by = Claimant { host: "h".to_owned(), pid: 1, started_us: 0, program: "t".to_owned() };
    let claimed = journal::claim(&store, &Bid { above, ..Bid::unlocked(&by, plan.nonce) })?;
    if plan.order == Order::FencesBeforeComparison {
        for table in 0..TABLES.len() {
            TableWriter::open_as(table, claimed.generation(), plan.order, true)?;
        }
    }
    Ok(())
}

/// Restores what was read, and adopts it.
fn take_up(plan: &Start, claimed: Claimed, past: Option<Past>, tables: Vec<TableWriter>) -> Result<Recovered, Trouble> {
    let generation = claimed.generation();
    let (loaded, damage) = match &past {
        Some(past) => Loaded::newest(&store(), past)?,
        None => (Loaded::nothing(), Vec::new()),
    };
    if let Some(error) = past.iter().flat_map(|past| &past.warnings).chain(&damage).next() {
        return Err(Trouble::Wrong(error.to_string()));
    }
    let manifest = loaded.from.as_ref().map(|from| &from.manifest);
    let after = manifest.map_or(0, |manifest| manifest.epoch);
    let replay = past.as_ref().map_or(Ok(Vec::new()), |past| past.cuts_after(after))?;
    check_tables(&tables, past.as_ref(), after)?;
    let identity = past.as_ref().map_or_else(|| first_identity(plan), |past| past.identity.clone());
    let (positions, joined) = resumed(plan, past.as_ref(), manifest, &replay);
    let counters = manifest.map(|manifest| manifest.counters.clone()).unwrap_or_default();
    let journal = claimed.adopt(identity.clone(), past.as_ref(), loaded.from.as_ref().map(|from| &from.link))?;
    Ok(Recovered { generation, identity, journal, tables, loaded, after, counters, positions, joined, replay })
}

/// Tables never hold what was not cut, and always hold what a checkpoint says.
fn check_tables(tables: &[TableWriter], past: Option<&Past>, after: Epoch) -> Result<(), Trouble> {
    let last_cut = past.map_or(0, |past| past.last_cut);
    let most = tables.iter().map(|table| table.epoch).max().unwrap_or(0);
    if most > last_cut {
        return Err(Trouble::Wrong(format!("the tables are at epoch {most}, and no epoch after {last_cut} was cut")));
    }
    let least = tables.iter().map(|table| table.epoch).min().unwrap_or(after);
    if least < after {
        return Err(Trouble::Wrong(format!("the tables are at epoch {least}, and the checkpoint at {after}")));
    }
    Ok(())
}

fn first_identity(plan: &Start) -> Identity {
    Identity {
        pipeline: "p".to_owned(),
        lineage: plan.nonce,
        created_us: START_US,
        id_key: [1, 2],
        index_key: [3, 4],
        settings: [].into(),
        source: serde_json::json!(plan.names),
    }
}

/// How far each partition had been read as of the manifest, and which no cut knows. Numbers stay what they were.
fn resumed(
    plan: &Start,
    past: Option<&Past>,
    manifest: Option<&Manifest>,
    replay: &[Cut],
) -> (Vec<Position>, Vec<Joined>) {
    let first = |past: &Past| serde_json::from_value(past.identity.source.clone()).unwrap_or_default();
    let mut names: Vec<String> = match manifest {
        Some(manifest) => manifest.positions.iter().map(|at| at.partition.clone()).collect(),
        None => past.map(first).unwrap_or_default(),
    };
    names.extend(replay.iter().flat_map(|cut| &cut.joined).map(|joined| joined.partition.clone()));
    let known = names.len();
    let new = plan.names.iter().filter(|name| !names.contains(name)).cloned();
    let new: Vec<String> = new.collect();
    names.extend(new);
    let first = |(index, partition)| Position { partition, index, next: 0, digest: None, ended: false };
    let mut positions: Vec<Position> = (0..).zip(names).map(first).collect();
    let joins = positions.iter().skip(known).filter(|_| known > 0);
    let join = |at: &Position| Joined { partition: at.partition.clone(), index: at.index, from: at.next };
    let joined = joins.map(join).collect();
    for (at, stored) in positions.iter_mut().zip(manifest.map_or(&[][..], |manifest| &manifest.positions)) {
        *at = stored.clone();
    }
    (positions, joined)
}

/// Makes cuts durable.
pub(crate) fn append(mut log: CutLog, cuts: Vec<Cut>) -> Outcome {
    let appended = log.append(cuts).map_err(Trouble::from);
    Outcome::Cut(log, appended)
}

/// Brings all tables to an epoch, in any order but for the last one.
pub(crate) fn publish(mut tables: Vec<TableWriter>, turns: &[usize], epoch: Epoch, change: &Change) -> Outcome {
    let mut published = Ok(());
    for turn in turns {
        if published.is_ok() {
            published = tables[*turn].publish(epoch, &change.of_table(*turn)).map_err(Trouble::from);
        }
    }
    Outcome::Published(tables, epoch, published)
}
