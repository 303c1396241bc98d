//! What a [`Store`](crate::Store) fails at, and what the person who reads of it should do.

use std::io;

use crate::cause;

/// The cause of an [`Error::Unavailable`].
pub type BoxedError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a store refuses or fails at.
#[derive(Debug, thiserror::Error)]
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
}

/// What helps, by what the operating system or the service says.
fn advice(permanent: bool, source: &(dyn std::error::Error + 'static)) -> &'static str {
    let of_system = cause::chain(source).filter_map(|error| error.downcast_ref::<io::Error>());
    match of_system.filter_map(remedy).last() {
        Some(remedy) => remedy,
        None if permanent => "check the place, its permissions and the credentials, then start again",
        None => "start again once the store can be reached; nothing that was acknowledged is lost",
    }
}

/// What helps against a failure of the operating system, where its number says so.
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    Some(match error.raw_os_error()? {
        23 | 24 => "raise the limit of open files (ulimit -n, LimitNOFILE=), then start again",
        1 | 13 => "grant this account the right to it, then start again",
        30 => "it is mounted read-only: mount it for writing, or choose another place",
        20 => "a part of the path is no directory: choose another place",
        28 | 122 => "make room, then start again; nothing that was acknowledged is lost",
        _ => return None,
    })
}

impl Error {
    /// A failure that nothing is repeated after.
    pub fn at_once(what: String, source: impl Into<BoxedError>) -> Self {
        Error::Unavailable { what, attempts: 1, permanent: true, source: source.into() }
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
