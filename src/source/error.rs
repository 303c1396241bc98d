//! What can go wrong with an input, said so that the reader knows what to do next.

use std::io;
use std::sync::Arc;

/// What to do about a file that is not what it was.
pub(super) const RESTORE_FILE: &str = "restore the file, or start with another output";

/// What to do about a stream that is not what it was.
pub(super) const FEED_AGAIN: &str = "feed the same bytes again from the first on, or start with another output";

/// Who has to act, which also decides the exit status.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The caller named something that cannot be meant: no retry helps.
    Usage,
    /// The input exists no more, or cannot be reached or read: a retry can help.
    Unavailable,
    /// The input is not the one that was read before: no retry helps.
    Changed,
    /// Another instance reads it, and keeps others away.
    Displaced,
}

/// An input that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{input}: {problem}; {remedy}")]
pub struct SourceError {
    kind: SourceErrorKind,
    input: String,
    problem: String,
    remedy: String,
    /// Shared, because a partition that has failed fails again whenever it is asked.
    #[source]
    cause: Option<Arc<io::Error>>,
}

impl SourceError {
    /// Who has to act.
    pub fn kind(&self) -> SourceErrorKind {
        self.kind
    }

    /// The input as the user named it.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// The error of the operating system behind it, if there is one.
    pub fn cause(&self) -> Option<&io::Error> {
        self.cause.as_deref()
    }

    pub(crate) fn usage(input: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::Usage, input.into(), problem.into(), remedy.into(), None)
    }

    pub(crate) fn changed(input: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::Changed, input.into(), problem.into(), remedy.into(), None)
    }

    pub(crate) fn displaced(input: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::Displaced, input.into(), problem.into(), remedy.into(), None)
    }

    pub(crate) fn unreachable(input: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::Unavailable, input.into(), problem.into(), remedy.into(), None)
    }

    /// `what` completes the sentence "it cannot be …".
    pub(crate) fn unavailable(input: impl Into<String>, what: &str, cause: io::Error) -> Self {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => "check the spelling and the directory that the path starts from",
            _ => tidemark_store::remedy(&cause).unwrap_or("check the disk or mount behind it"),
        };
        let problem = format!("it cannot be {what}: {cause}");
        Self::new(SourceErrorKind::Unavailable, input.into(), problem, remedy.into(), Some(Arc::new(cause)))
    }

    fn new(
        kind: SourceErrorKind,
        input: String,
        problem: String,
        remedy: String,
        cause: Option<Arc<io::Error>>,
    ) -> Self {
        Self { kind, input, problem, remedy, cause }
    }
}
