//! The threads beside the workers: they write tables, cuts and checkpoints.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::journal::{self, CutLog};
use tidemark_checkpoint::records::Manifest;
use tidemark_dataflows::watermark::Horizon;
use tidemark_delta::OnForeignChanges;
use tidemark_store::Store;

use super::RunError;
use super::clock;
use super::lanes::{Announcer, behind_of};
use super::run_context::RunContext;
use super::start::{Durable, Recovered};
use crate::checkpoint::cuts::{Announced, CutWriter};
use crate::checkpoint::restore::StoredTotals;
use crate::checkpoint::writer::{CheckpointWriter, Options};
use crate::cluster::links::Links;
use crate::cluster::messages::Message;
use crate::config::Config;
use crate::sink::opened::Tables;
use crate::sink::publisher::{Progress, Publisher, SinkError};
use crate::sink::repair::{Repair, State};
use crate::sink::tables::ManifestText;
use crate::telemetry::Stage;

/// The threads that write.
pub(super) struct Writers {
    /// Writes tables.
    pub(super) publisher: Publisher,
    /// Writes checkpoints, if any are kept.
    pub(super) checkpoints: Option<CheckpointWriter>,
    cut_log: Option<CutLog>,
    linger: Duration,
    context: RunContext,
    publishing: Option<JoinHandle<()>>,
    checkpointing: Option<JoinHandle<()>>,
}

impl Writers {
    /// Starts the threads that write tables and checkpoints.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(
        config: &Config,
        horizon: Horizon,
        recovered: &Recovered,
        (tables, durable): (Tables, Option<Durable>),
        manifest: &ManifestText,
        context: &RunContext,
    ) -> Result<Writers, RunError> {
        let (mut cut_log, mut checkpoints, mut checkpointing, mut repair) = (None, None, None, None);
        if let Some(Durable { store, cuts, manifests }) = durable {
            if config.sink.foreign_changes == OnForeignChanges::Repair {
                let (store, manifest) = (store.clone(), manifest.clone());
                repair = Some(Repair { state: Box::new(move || newest_state(&store)), manifest });
            }
            let options = Options {
                store,
                generation: manifests.generation(),
                log: Some(manifests),
                process: config.cluster.process,
                identity: recovered.identity.clone(),
                horizon,
                restored: recovered.loaded.from.as_ref().map(|from| from.manifest.clone()),
                keep: config.checkpoint.keep,
                permit: context.permit.clone(),
                now: clock::now,
                telemetry: Arc::clone(&context.telemetry),
            };
            let (writer, thread) =
                CheckpointWriter::start(options, Arc::clone(&context.faults)).map_err(SinkError::Start)?;
            (cut_log, checkpoints, checkpointing) = (Some(cuts), Some(writer), Some(thread));
        }
        let (publisher, publishing) =
            Publisher::start(tables, Progress::after(recovered.after, &recovered.counters), repair)?;
        let publishing = Some(publishing);
        let linger = config.cut_linger();
        Ok(Writers { publisher, checkpoints, cut_log, linger, context: context.clone(), publishing, checkpointing })
    }

    /// Starts the thread that makes cuts durable before it tells the workers of them, here and in other processes.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn cut(
        &mut self,
        announcer: Announcer,
        links: Option<&'static Links>,
    ) -> Result<(CutWriter, JoinHandle<()>), RunError> {
        let tell = move |message| {
            if let Some(links) = links {
                links.broadcast(&message);
            }
        };
        let telemetry = Arc::clone(&self.context.telemetry);
        let announce = move |entry: &Announced| match entry {
            Announced::Cut(cut, missing) => {
                telemetry.stages.reached(Stage::Cut, cut.epoch);
                let (mark, behind) = (cut.mark(*missing), behind_of(cut));
                tell(Message::Mark(mark, behind.to_vec()));
                announcer.mark(mark, behind);
            }
            Announced::Checkpoint(epoch) => {
                announcer.checkpoint(*epoch);
                tell(Message::Checkpoint(*epoch));
            }
        };
        let started = CutWriter::start(
            self.cut_log.take(),
            self.linger,
            self.context.permit.clone(),
            Arc::clone(&self.context.faults),
            announce,
        );
        Ok(started.map_err(SinkError::Start)?)
    }

    /// Waits until everything is written. The workers have ended.
    ///
    /// # Errors
    ///
    /// What kept anything from being written.
    pub(super) fn finish(&mut self) -> Result<(), RunError> {
        drop(self.checkpoints.take());
        let checkpointed = self.checkpointing.take().map_or(Ok(()), |thread| join("the writer of checkpoints", thread));
        // With the last checkpoint tables can still be written anew.
        self.publisher.finish();
        if let Some(thread) = self.publishing.take() {
            join("the writer of the tables", thread)?;
        }
        checkpointed?;
        self.failure()
    }

    /// Whether anything has kept cuts or checkpoints from being written so far.
    pub(super) fn have_failed(&self) -> bool {
        self.context.faults.any()
    }

    /// What has kept anything from being written so far.
    ///
    /// # Errors
    ///
    /// That, if there is anything.
    pub(super) fn failure(&self) -> Result<(), RunError> {
        match (self.publisher.take_failure(), self.context.faults.take()) {
            // Whoever lost the lease knows more than those who were then given no leave to write.
            (Some(SinkError::Displaced(_)) | None, Some(fault)) => Err(fault.into()),
            (Some(failure), _) => Err(failure.into()),
            (None, None) => Ok(()),
        }
    }
}

/// The newest state that is kept, for tables that are written anew.
fn newest_state(store: &Store) -> Result<Option<State>, Error> {
    let manifests = journal::look(store)?.map(|past| past.manifests).unwrap_or_default();
    let Some(newest) = manifests.first() else { return Ok(None) };
    let totals = StoredTotals::read(store, &newest.manifest)?;
    let Manifest { epoch, counters, .. } = &newest.manifest;
    Ok(Some(State { epoch: *epoch, totals, counters: counters.clone() }))
}

/// Waits for a thread to end.
pub(super) fn join(name: &str, thread: JoinHandle<()>) -> Result<(), RunError> {
    thread.join().map_err(|_| RunError::Worker(format!("{name} ended by a panic")))
}
