//! What can go wrong with what survives a crash, and what the person who reads of it should do.

use std::io;

use crate::envelope::OLDEST_VERSION;
use crate::lease::Holder;

/// The cause of an [`Error::Unavailable`].
pub type BoxedError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Everything that this crate refuses or fails at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store did not do what it was asked.
    #[error("{what} failed after {attempts} attempt(s): {source}; {}", advice(*.permanent, .source.as_ref()))]
    Unavailable {
        /// The request, with the place it went to.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// Whether trying again is useless before somebody has changed something.
        permanent: bool,
        /// What the store said last.
        source: BoxedError,
    },

    /// Another process has written other bytes under a name that is given once only.
    #[error(
        "'{name}' exists already with other contents: another instance writes to the same checkpoint; end one of the two"
    )]
    Taken {
        /// The name.
        name: String,
    },

    /// An object is not what was written.
    #[error("'{name}' is damaged: {what}; restore it from a copy, or start from an older checkpoint")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        what: String,
    },

    /// An object that others name is not there.
    #[error("{what} is missing; restore it from a copy, or start from an older checkpoint")]
    Missing {
        /// The object.
        what: String,
    },

    /// A later generation has taken over. This one can make nothing durable any more.
    #[error("taken over: generation {by} has begun, and this instance has generation {ours}")]
    Fenced {
        /// The later generation.
        by: u64,
        /// Ours.
        ours: u64,
    },

    /// An object of a format that this program does not know.
    #[error(
        "'{name}' has format version {found}, and this program knows versions {} to {known} only: \
         run the version of the program that wrote it, or a newer one",
        OLDEST_VERSION
    )]
    Version {
        /// The object.
        name: String,
        /// The version it names.
        found: u16,
        /// The newest version that can be read.
        known: u16,
    },

    /// Another process is at work.
    #[error("{place} is in use by {}: end that process first, or take over explicitly", in_words(.holder.as_deref()))]
    Held {
        /// The lock or lease.
        place: String,
        /// Who holds it, if that can be read.
        holder: Option<Box<Holder>>,
    },

    /// The lock or lease was ours and is not any more.
    #[error("{place} is lost: {what}; this process must stop, and may be started again once the other one has ended")]
    Lost {
        /// The lock or lease.
        place: String,
        /// How that was noticed.
        what: String,
    },
}

/// What helps, by what the operating system or the service says.
fn advice(permanent: bool, source: &(dyn std::error::Error + 'static)) -> &'static str {
    let causes = std::iter::successors(Some(source), |error| error.source());
    let of_system = causes.filter_map(|error| error.downcast_ref::<io::Error>());
    match of_system.filter_map(io::Error::raw_os_error).last() {
        Some(23 | 24) => "raise the limit of open files (ulimit -n, LimitNOFILE=), then start again",
        Some(1 | 13) => "grant this account the right to it, then start again",
        Some(30) => "it is mounted read-only: mount it for writing, or choose another place",
        Some(20) => "a part of the path is no directory: choose another place",
        Some(28 | 122) => "make room, then start again; nothing that was acknowledged is lost",
        _ if permanent => "check the place, its permissions and the credentials, then start again",
        _ => "start again once the store can be reached; nothing that was acknowledged is lost",
    }
}

fn in_words(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

impl Error {
    /// An object that is not what was written.
    pub fn damaged(name: &str, what: impl Into<String>) -> Self {
        Error::Damaged { name: name.to_owned(), what: what.into() }
    }

    /// Whether the same call may succeed later without anybody doing anything here.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { permanent: false, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_from_what_the_system_says() {
        let advised = |code: i32, permanent| {
            let source: BoxedError = io::Error::from_raw_os_error(code).into();
            Error::Unavailable { what: "x".to_owned(), attempts: 1, permanent, source }.to_string()
        };
        for (code, words) in
            [(24, "ulimit -n"), (13, "grant"), (30, "read-only"), (28, "make room"), (20, "no directory")]
        {
            let text = advised(code, true);
            assert!(text.contains(words) && !text.contains("credentials"), "{text}");
        }
        assert!(advised(110, false).contains("can be reached"));
    }
}
