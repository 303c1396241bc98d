//! Why a run failed, and what that means to whoever started it.

use tidemark_dataflows::event::Epoch;

use crate::exit::{ExitStatus, Failure};
use crate::sink::publisher::SinkError;
use crate::source::{SourceError, SourceErrorKind};

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
    /// Another process writes to the output now.
    #[error("{output}: another instance is running there ({holder}); end it first, or choose another --output")]
    OutputTaken {
        /// The output.
        output: String,
        /// Who holds it.
        holder: String,
    },
    /// The output belongs to an earlier run.
    #[error(
        "the tables below {output} already hold epoch {epoch} of an earlier run; choose another --output, or move them away"
    )]
    OutputInUse {
        /// The output.
        output: String,
        /// The newest epoch in it.
        epoch: Epoch,
    },
    /// The machine gave no random numbers.
    #[error("cannot draw a random key: {0}")]
    Randomness(String),
    /// A worker thread could not be started, or panicked.
    #[error("a worker failed: {0}")]
    Worker(String),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
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
            },
            RunError::Sink(SinkError::Delta(error)) | RunError::Delta(error) => delta_status(error),
            RunError::Sink(SinkError::Rows(_)) | RunError::Worker(_) => ExitStatus::Bug,
            RunError::Sink(SinkError::Start(_))
            | RunError::Output { .. }
            | RunError::Randomness(_)
            | RunError::PublishingFailed => ExitStatus::Unavailable,
            RunError::OutputTaken { .. } => ExitStatus::Refused,
            RunError::OutputInUse { .. } => ExitStatus::Corrupt,
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
