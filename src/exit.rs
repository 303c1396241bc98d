//! How the program ends: the exit statuses, and the failure that a verb hands to `main`.

use crate::config::Problems;
use std::{fmt, io, process::ExitCode};

/// The exit statuses. A process that a signal ended has 128 plus the number of the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done.
    Done = 0,
    /// A data check failed.
    CheckFailed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Something outside is unavailable: a source, a store, a disk. Trying again may help.
    Unavailable = 3,
    /// Refused or fenced because of another instance.
    Refused = 4,
    /// Stored state is corrupt or does not fit this configuration.
    Corrupt = 5,
    /// A bug in Tidemark.
    Bug = 70,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why a verb could not do its work, for the user: an exit status, and one line for each problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status to end with.
    pub status: ExitStatus,
    /// The problems, without line feeds. None where there is nobody left to tell.
    pub lines: Vec<String>,
}

impl Failure {
    /// A failure with one problem.
    pub fn new(status: ExitStatus, problem: impl fmt::Display) -> Failure {
        Failure { status, lines: problem.to_string().lines().map(str::to_owned).collect() }
    }

    /// Standard output could not be written. A reader that went away, like `head`, is no failure.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { status: ExitStatus::Done, lines: Vec::new() },
            _ => Failure::new(ExitStatus::Unavailable, format_args!("standard output: {error}")),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Failure {
        Failure::new(ExitStatus::Usage, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(gone, Failure { status: ExitStatus::Done, lines: Vec::new() });
        assert_eq!(Failure::output(io::ErrorKind::StorageFull.into()).status, ExitStatus::Unavailable);
    }
}
