//! Why a run failed, and what that means to whoever started it.

use tidemark_dataflows::event::Epoch;

use crate::exit::{ExitStatus, Failure};
use crate::sink::publisher::SinkError;
use crate::source::{SourceError, SourceErrorKind};
use crate::storage::StorageError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source could not be opened or read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tables could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The tables could not be opened.
    #[error(transparent)]
    Delta(#[from] tidemark_delta::Error),
    /// A store could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The output cannot be written.
    #[error("{output}: it cannot be written: {error}; choose another --output, or grant the right to it")]
    Output {
        /// The output.
        output: String,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// Publishing failed; the reason is in the publisher.
    #[error("publishing failed")]
    PublishingFailed,
    /// What is kept for a restart cannot be read or written, or another instance is there.
    #[error(transparent)]
    Checkpoint(#[from] tidemark_checkpoint::Error),
    /// The pipeline was started with other settings, or another source, that its results depend on.
    #[error(
        "this pipeline was started with other settings, and its results would not fit together:\n{}\nset them back, or start \
         a new pipeline with another --output",
        differences.join("\n")
    )]
    Changed {
        /// What was, and what is now.
        differences: Vec<String>,
    },
    /// Output and checkpoint are of two pipelines.
    #[error(
        "the output {output} and the checkpoint {checkpoint} do not belong together: {what}; nothing was changed. Name the \
         checkpoint that this output was written with (--checkpoint), or choose another --output"
    )]
    Strange {
        /// The tables.
        output: String,
        /// Where cuts and checkpoints should be.
        checkpoint: String,
        /// What does not fit, in words.
        what: String,
    },
    /// What says whose output it is cannot be read.
    #[error(
        "{lock} is damaged: {what}; it says whose output this is. Restore it from a copy, or, if no other pipeline writes there, \
         remove it: the next start writes it anew"
    )]
    LockDamaged {
        /// Where it is.
        lock: String,
        /// What is wrong with it.
        what: String,
    },
    /// A table is not there, though the checkpoint is that of a pipeline that had made it.
    #[error(
        "the checkpoint {checkpoint} is that of a pipeline that has begun, but there is no table {table} below {output}; restore \
         the tables from a copy, name the --output that this checkpoint was written with, or start a new pipeline \
         with another --checkpoint"
    )]
    TableMissing {
        /// The tables.
        output: String,
        /// Where cuts and checkpoints are.
        checkpoint: String,
        /// The table.
        table: String,
    },
    /// Somebody asked it to stop before it had begun.
    #[error("stopped before it had begun, while it waited: {0}")]
    Stopped(Box<RunError>),
    /// The tables hold more than the checkpoint knows of, or nothing is kept to go on from.
    #[error(
        "the tables below {output} hold epoch {epoch}, but {checkpoint} knows of {known}; restore it from a copy, with all of its \
         cuts and adoptions, or choose another --output"
    )]
    TablesAhead {
        /// The tables.
        output: String,
        /// The newest epoch in them.
        epoch: Epoch,
        /// Where cuts and checkpoints should be.
        checkpoint: String,
        /// What is there, in words.
        known: String,
    },
    /// The tables have lost epochs that a checkpoint relies on.
    #[error(
        "a checkpoint in {checkpoint} is of epoch {epoch}, but table {table} below {output} holds {held}, and its log ends before \
         {missing:020}.json; restore the tables from a copy, or start a new pipeline with another --output"
    )]
    TablesBehind {
        /// The tables.
        output: String,
        /// The table that has.
        table: String,
        /// The version after its newest one.
        missing: u64,
        /// What the table holds, in words.
        held: String,
        /// Where cuts and checkpoints are.
        checkpoint: String,
        /// The epoch of the checkpoint.
        epoch: Epoch,
    },
    /// There may not be as many threads as are needed.
    #[error(
        "this process may not have the {needed} threads that it needs: {error}; raise the limit (ulimit -u, TasksMax=, pids.max), or \
         use fewer workers"
    )]
    Threads {
        /// How many.
        needed: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// The machine gave no random numbers.
    #[error("cannot draw a random key: {0}")]
    Randomness(String),
    /// The processes did not come together.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// A worker thread could not be started, or panicked.
    #[error("a worker failed: {0}")]
    Worker(String),
}

impl From<tidemark_store::Error> for RunError {
    fn from(error: tidemark_store::Error) -> RunError {
        RunError::Checkpoint(error.into())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        if error.status() == ExitStatus::Done {
            tracing::info!("{error}");
            return Failure { status: ExitStatus::Done, lines: Vec::new() };
        }
        Failure::new(error.status(), error)
    }
}

impl RunError {
    /// The status that the program ends with.
    pub fn status(&self) -> ExitStatus {
        match self {
            RunError::Source(error) => match error.kind() {
                SourceErrorKind::Usage => ExitStatus::Usage,
                SourceErrorKind::Unavailable => ExitStatus::Unavailable,
                SourceErrorKind::Changed => ExitStatus::Corrupt,
                SourceErrorKind::Displaced => ExitStatus::Refused,
            },
            RunError::Sink(SinkError::Tripped(_)) => ExitStatus::CheckFailed,
            RunError::Sink(SinkError::Delta(error)) | RunError::Delta(error) => delta_status(error),
            RunError::Sink(SinkError::Rows(_)) | RunError::Worker(_) => ExitStatus::Bug,
            RunError::Sink(SinkError::Start(_))
            | RunError::Output { .. }
            | RunError::Threads { .. }
            | RunError::Randomness(_)
            | RunError::PublishingFailed => ExitStatus::Unavailable,
            RunError::Checkpoint(error) | RunError::Sink(SinkError::Displaced(error)) => checkpoint_status(error),
            RunError::Storage(error) => error.status(),
            RunError::Cluster(error) => error.status(),
            RunError::Changed { .. }
            | RunError::Strange { .. }
            | RunError::LockDamaged { .. }
            | RunError::TableMissing { .. }
            | RunError::TablesAhead { .. }
            | RunError::TablesBehind { .. } => ExitStatus::Corrupt,
            RunError::Stopped(_) => ExitStatus::Done,
        }
    }
}

fn delta_status(error: &tidemark_delta::Error) -> ExitStatus {
    use tidemark_delta::Error;
    match error {
        Error::Unavailable { .. } => ExitStatus::Unavailable,
        Error::Fenced { .. } => ExitStatus::Refused,
        Error::StateMismatch { .. } => ExitStatus::Corrupt,
        Error::DataCheck { .. } | Error::Bug { .. } => ExitStatus::Bug,
    }
}

fn checkpoint_status(error: &tidemark_checkpoint::Error) -> ExitStatus {
    use tidemark_checkpoint::Error;
    match error {
        Error::Store(tidemark_store::Error::Taken { .. })
        | Error::Held { .. }
        | Error::Lost { .. }
        | Error::Fenced { .. } => ExitStatus::Refused,
        Error::Damaged { .. } | Error::Missing { .. } | Error::Version { .. } => ExitStatus::Corrupt,
        _ => ExitStatus::Unavailable,
    }
}
