//! Whose output this is, and whose checkpoint: looked at and compared before anything is written.
//!
//! A pipeline has a lineage, a number that is drawn once. It stands in the claims of its checkpoint, in a property of each
//! table, and in the lock of the output. What does not belong together is refused and left as it was, so that an instance
//! that runs there does not notice.

use futures::future::join_all;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::journal::{self, Past};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{OutputLock, Record};
use tidemark_dataflows::event::Epoch;
use tidemark_delta::{Identity, Location, OnForeignChanges, Standing};
use tidemark_store::Store;

use super::run_context::RunContext;
use super::{RunError, clock};
use crate::config::{Config, Place};
use crate::sink::publisher::SinkError;
use crate::sink::tables::specs;
use crate::storage::Storage;

/// What is stored at an output and at a checkpoint, as far as it tells whose they are.
pub(super) struct Found {
    /// What the checkpoint holds.
    pub(super) past: Option<Past>,
    /// The greatest generation that was claimed there; 0 before the first.
    pub(super) generation: u64,
    lineage: Option<u64>,
    /// The epoch of the newest manifest, before the tables were looked at; none where no generation had adopted a past by then.
    manifest: Option<Epoch>,
    tables: Vec<(String, Option<Standing>)>,
    lock: Option<OutputLock>,
}

impl Found {
    /// Looks at checkpoint, tables and the lock of the output. Nothing is written.
    ///
    /// An instance that runs meanwhile goes on: the manifest is looked at before the tables, and, where they do not fit, cuts
    /// and lineage after them. So it is never mistaken for a stranger.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn look(config: &Config, storage: &Storage<'_>, context: &RunContext) -> Result<Found, RunError> {
        let store = storage.existing_checkpoint(context.patience(config))?;
        let (past, generation, lineage) = stored(store.as_ref())?;
        let manifest = past.as_ref().map(newest_manifest);
        let tables = standings(config, &storage.tables(context.patience(config))?)?;
        let lock = output_lock(config, storage, context)?;
        let mut found = Found { past, generation, lineage, manifest, tables, lock };
        if found.check_lineage(config).and_then(|()| found.check_progress(config)).is_err() {
            let store = storage.existing_checkpoint(context.patience(config))?;
            (found.past, found.generation, found.lineage) = stored(store.as_ref())?;
        }
        Ok(found)
    }

    /// Looks and compares, for those who write nothing.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or do not belong together or do not fit.
    pub(super) fn compared(config: &Config, storage: &Storage<'_>, context: &RunContext) -> Result<Found, RunError> {
        let found = Found::look(config, storage, context)?;
        found.check_lineage(config)?;
        found.check_progress(config)?;
        Ok(found)
    }

    /// The lineage of the checkpoint, as tables have it; none before there was one.
    pub(super) fn lineage_text(&self) -> Option<String> {
        self.lineage.map(Identity::lineage_text)
    }

    /// The same for somebody who goes on from nothing.
    pub(super) fn without_past(self) -> Found {
        Found { past: None, ..self }
    }

    /// The greatest generation that has taken a table over; 0 where none has.
    pub(super) fn fence(&self) -> u64 {
        self.standings().filter_map(|(_, standing)| standing.fence).max().unwrap_or(0)
    }

    /// Whether there are tables.
    pub(super) fn has_tables(&self) -> bool {
        self.standings().next().is_some()
    }

    fn standings(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.tables.iter().filter_map(|(name, standing)| Some((name.as_str(), standing.as_ref()?)))
    }

    /// Whose they are, as far as a lineage tells.
    ///
    /// # Errors
    ///
    /// When output and checkpoint are of two pipelines.
    pub(super) fn check_lineage(&self, config: &Config) -> Result<(), RunError> {
        // Of a checkpoint that is empty the tables tell more: how far they have come.
        if self.lineage.is_none() {
            self.check_epochs(config)?;
        }
        if let Some(OutputLock { pipeline, lineage, checkpoint, .. }) = &self.lock
            && Some(*lineage) != self.lineage
        {
            let what = format!("the output belongs to the pipeline {pipeline:?} whose checkpoint was {checkpoint}");
            return Err(strange(config, what));
        }
        let other = |standing: &Standing| standing.lineage.is_some() && standing.lineage != self.lineage;
        match self.standings().find(|(_, standing)| other(standing)) {
            Some((name, _)) => {
                Err(strange(config, format!("table {name} belongs to another pipeline of the same name")))
            }
            None => Ok(()),
        }
    }

    /// Whether tables and checkpoint are sound, and fit, by generations and epochs. A table of before, without a lineage, is
    /// known by them.
    ///
    /// # Errors
    ///
    /// When they are not, or do not.
    pub(super) fn check_progress(&self, config: &Config) -> Result<(), RunError> {
        let damaged = self.standings().find_map(|(name, standing)| Some((name, standing.damage.as_ref()?)));
        if let Some((table, what)) = damaged {
            return Err(tidemark_delta::Error::StateMismatch { table: table.to_owned(), what: what.clone() }.into());
        }
        let refused = config.sink.foreign_changes == OnForeignChanges::Refuse && !config.accept_changes;
        let changed = self.standings().find_map(|(name, standing)| Some((name, standing.foreign.as_ref()?)));
        if let Some((table, changes)) = changed.filter(|_| refused) {
            let spec = specs(config.output.curated).into_iter().find(|spec| spec.name == table);
            let remedy = spec.map_or("", |spec| OnForeignChanges::Refuse.remedy(&spec.shape));
            let what = format!("{changes}; {remedy}");
            return Err(tidemark_delta::Error::StateMismatch { table: table.to_owned(), what }.into());
        }
        for (name, standing) in self.standings() {
            let what = match (standing.fence, standing.lineage) {
                (None, _) => format!("table {name} was not made by a pipeline {:?}", config.pipeline.name),
                (Some(fence), None) if fence > self.generation => {
                    let known = self.generation;
                    format!(
                        "generation {fence} has taken over table {name}, and the checkpoint knows of none after {known}"
                    )
                }
                _ => continue,
            };
            return Err(strange(config, what));
        }
        // Every table is there before a generation adopts anything.
        let missing = self.tables.iter().find(|(_, standing)| self.manifest.is_some() && standing.is_none());
        if let Some((table, _)) = missing {
            let (output, checkpoint) = (config.output.path.to_string(), config.checkpoint_path().to_string());
            return Err(RunError::TableMissing { output, checkpoint, table: table.clone() });
        }
        self.check_epochs(config)
    }

    fn check_epochs(&self, config: &Config) -> Result<(), RunError> {
        let held = self.tables.iter().map(|(table, standing)| {
            let (epoch, version) = standing.as_ref().map_or((None, 0), |found| (found.epoch, found.version));
            HeldByTable { table, epoch, version }
        });
        check_tables(config, held, self.past.as_ref(), self.manifest.unwrap_or(0))
    }

    /// Puts a lock on the output, unless it has one, for the pipeline of that lineage.
    ///
    /// # Errors
    ///
    /// When another pipeline was faster, or it cannot be written.
    pub(super) fn lock_output(
        &self,
        config: &Config,
        storage: &Storage<'_>,
        context: &RunContext,
        lineage: u64,
    ) -> Result<(), RunError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let checkpoint = config.checkpoint_path().to_string();
        let since_us = clock::now().0;
        let lock = OutputLock { pipeline: config.pipeline.name.clone(), lineage, checkpoint, since_us };
        let store = storage.folder(&place(config), context.patience(config))?;
        match store.create(OutputLock::NAME, lock.to_object(OutputLock::NAME)?) {
            Err(tidemark_store::Error::Taken { .. }) => {
                let lock = output_lock(config, storage, context)?;
                Found { lineage: Some(lineage), lock, tables: Vec::new(), past: None, generation: 0, manifest: None }
                    .check_lineage(config)
            }
            written => Ok(written?),
        }
    }
}

fn strange(config: &Config, what: String) -> RunError {
    let (output, checkpoint) = (config.output.path.to_string(), config.checkpoint_path().to_string());
    RunError::Strange { output, checkpoint, what }
}

/// How far a table has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldByTable<'a> {
    /// The table.
    pub(super) table: &'a str,
    /// The epoch that it holds.
    pub(super) epoch: Option<Epoch>,
    /// Its version.
    pub(super) version: u64,
}

/// Tables never hold what was not cut, and always hold what a checkpoint says.
///
/// # Errors
///
/// When they do not.
pub(super) fn check_tables<'a>(
    config: &Config,
    held: impl Iterator<Item = HeldByTable<'a>> + Clone,
    past: Option<&Past>,
    after: Epoch,
) -> Result<(), RunError> {
    let output = config.output.path.display().to_string();
    let checkpoint = config.checkpoint_path().display().to_string();
    let last_cut = past.map_or(0, |past| past.last_cut);
    if let Some(epoch) = held.clone().filter_map(|held| held.epoch).max().filter(|held| *held > last_cut) {
        let known = if past.is_some() { format!("no epoch after {last_cut}") } else { "no epoch at all".to_owned() };
        return Err(RunError::TablesAhead { output, epoch, checkpoint, known });
    }
    match held.min_by_key(|held| held.epoch).filter(|held| after > 0 && held.epoch < Some(after)) {
        Some(HeldByTable { table, epoch, version }) => {
            let held = epoch.map_or("none".to_owned(), |epoch| format!("epoch {epoch} only"));
            let (table, missing) = (table.to_owned(), version.saturating_add(1));
            Err(RunError::TablesBehind { output, table, missing, held, checkpoint, epoch: after })
        }
        None => Ok(()),
    }
}

/// The past of a checkpoint, the greatest generation in it, and its lineage.
fn stored(store: Option<&Store>) -> Result<(Option<Past>, u64, Option<u64>), RunError> {
    let Some(store) = store else { return Ok((None, 0, None)) };
    Ok((journal::look(store)?, journal::newest_generation(store)?, journal::lineage(store)?))
}

fn newest_manifest(past: &Past) -> Epoch {
    past.manifests.first().map_or(0, |found| found.link.epoch)
}

/// What each table says of who wrote it, in the order in which they are opened.
fn standings(config: &Config, location: &Location) -> Result<Vec<(String, Option<Standing>)>, RunError> {
    let look = async |name: String| {
        let found = tidemark_delta::standing(location, &config.pipeline.name, &name).await;
        found.map(|found| (name, found))
    };
    let names = specs(config.output.curated).into_iter().map(|spec| spec.name);
    // All of them to their end: the library panics where a read is dropped half-way.
    let found = tidemark_store::io().map_err(SinkError::Start)?.block_on(join_all(names.map(look)));
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}

fn place(config: &Config) -> Place {
    config.output.path.join(names::IN_OUTPUT)
}

fn output_lock(config: &Config, storage: &Storage<'_>, context: &RunContext) -> Result<Option<OutputLock>, RunError> {
    let Some(store) = storage.existing(&place(config), context.patience(config))? else { return Ok(None) };
    let Some(object) = store.read(OutputLock::NAME)? else { return Ok(None) };
    match OutputLock::of_object(OutputLock::NAME, &object) {
        Err(Error::Damaged { what, .. }) => {
            let lock = format!("{}/{}", store.describe(), OutputLock::NAME);
            Err(RunError::LockDamaged { lock, what })
        }
        lock => Ok(Some(lock?)),
    }
}
