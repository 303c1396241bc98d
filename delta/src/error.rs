//! The one error type of this crate. Its variants are the domains that a caller acts on; the text says which table and why.
//! Messages of the Delta library are kept as text or as `source`, never matched by callers.

use deltalake::DeltaTableError;
use deltalake::logstore::object_store::Error as StoreError;

use tidemark_store::Cause;

use crate::cause;

/// What went wrong with a table, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage failed. Whether the operation took effect is not known, and need not be: the same call on the same writer finds
    /// out.
    #[error("table {table}: not available: {}", words(.source))]
    Unavailable {
        /// Name of the table below the root.
        table: String,
        /// The failure.
        source: Box<DeltaTableError>,
    },
    /// Another writer has taken the table over. This writer can commit nothing more.
    #[error("table {table}: taken over: it holds generation {held}, this writer has {ours}")]
    Fenced {
        /// Name of the table below the root.
        table: String,
        /// Generation that the table holds.
        held: i64,
        /// Generation of this writer.
        ours: i64,
    },
    /// What is stored does not fit the specification or the pipeline.
    #[error("table {table}: stored state does not fit: {what}")]
    StateMismatch {
        /// Name of the table below the root.
        table: String,
        /// The difference.
        what: String,
    },
    /// The rows break a rule of the table (a repeated key, a CHECK constraint). Nothing was written.
    #[error("table {table}: rows refused: {what}")]
    DataCheck {
        /// Name of the table below the root.
        table: String,
        /// The rule that was broken.
        what: String,
    },
    /// The caller or this crate broke a rule of its own.
    #[error("table {table}: bug: {what}")]
    Bug {
        /// Name of the table below the root.
        table: String,
        /// The rule that was broken.
        what: String,
    },
}

impl Error {
    /// Whether the same call, on the same writer, can still succeed. [`cause`](Error::cause) tells whether somebody has to
    /// act first.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }

    /// What is behind the error, by what can be done about it.
    pub fn cause(&self) -> Cause {
        match self {
            Error::Unavailable { source, .. } => tidemark_store::cause::of(source.as_ref()),
            _ => Cause::Lasting,
        }
    }

    /// Whether something that should be stored is missing or makes no sense, as opposed to storage that does not answer.
    /// For readers: a writer asks for the [cause](Error::cause).
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Unavailable { source, .. } => cause::is_damage(source.as_ref()),
            Error::StateMismatch { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn unavailable(table: &str, source: DeltaTableError) -> Self {
        Error::Unavailable { table: table.to_owned(), source: Box::new(source) }
    }

    /// A failure that may come of what is stored, as well as of storage.
    pub(crate) fn failed(table: &str, failure: DeltaTableError) -> Self {
        if is_damaged(&failure) {
            return Error::mismatch(table, format!("its log, or a file of it, is damaged: {failure}"));
        }
        Error::unavailable(table, failure)
    }

    /// A failure to read what is damaged, if that is known; else as [`Error::failed`].
    pub(crate) fn damaged(table: &str, damage: Option<&String>, failure: DeltaTableError) -> Self {
        damage.map_or_else(|| Error::failed(table, failure), |what| Error::mismatch(table, what.clone()))
    }

    pub(crate) fn mismatch(table: &str, what: impl Into<String>) -> Self {
        Error::StateMismatch { table: table.to_owned(), what: what.into() }
    }

    pub(crate) fn data(table: &str, what: impl Into<String>) -> Self {
        Error::DataCheck { table: table.to_owned(), what: what.into() }
    }

    pub(crate) fn bug(table: &str, what: impl Into<String>) -> Self {
        Error::Bug { table: table.to_owned(), what: what.into() }
    }
}

/// The library calls every failure of storage one of reading.
fn words(failure: &DeltaTableError) -> String {
    match failure {
        DeltaTableError::ObjectStore { source } => tidemark_store::explained::words(source),
        failure => failure.to_string(),
    }
}

/// Whether what is stored makes no sense, or a file that the log names is gone, however often it is read.
fn is_damaged(failure: &DeltaTableError) -> bool {
    match failure {
        DeltaTableError::ObjectStore { source: StoreError::NotFound { path, .. } } => path.ends_with(".parquet"),
        DeltaTableError::KernelError(_)
        | DeltaTableError::Arrow { .. }
        | DeltaTableError::Parquet { .. }
        | DeltaTableError::InvalidJsonLog { .. }
        | DeltaTableError::InvalidStatsJson { .. } => !cause::is_of_storage(failure),
        _ => false,
    }
}
