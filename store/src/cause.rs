//! Why storage failed, by what can be done about it. It classifies; the caller decides how long to wait.
//!
//! Errors cross the Delta library, its kernel and the object store, and each wraps the one below it. The types along the chain
//! decide; text does where a layer has kept nothing else, as the kernel does.

use std::error::Error;
use std::io::{self, ErrorKind};

/// What is behind a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No space is left, or a quota is used up. The same call succeeds once somebody has made room.
    Full,
    /// Storage knows us and refuses, or does not know us: permissions, credentials, a read-only file system.
    Refused,
    /// Timeouts, throttling, lost connections, server errors, commits of others: what passes by itself. Whatever is not
    /// recognised counts as such.
    Passing,
    /// No repetition helps: what was asked for cannot be had there.
    Lasting,
}

const FULL: [&str; 5] =
    ["no space left on device", "(os error 28)", "(os error 122)", "quota exceeded", "insufficient storage"];
const REFUSED: [&str; 6] = [
    "permission denied",
    "(os error 13)",
    "read-only file system",
    "(os error 30)",
    "lacked the necessary privileges",
    "lacked valid authentication",
];

/// What is behind a failure of storage.
pub fn of(failure: &(dyn Error + 'static)) -> Cause {
    chain(failure).find_map(by_type).or_else(|| chain(failure).find_map(by_text)).unwrap_or(Cause::Passing)
}

/// A failure and what caused it. The `source` of an I/O error is that of the error it wraps, so the wrapped one would be
/// passed over.
pub fn chain<'a>(failure: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(failure), |error| below(*error))
}

fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn by_type(error: &(dyn Error + 'static)) -> Option<Cause> {
    use object_store::Error as E;
    match error.downcast_ref() {
        Some(E::PermissionDenied { .. } | E::Unauthenticated { .. }) => return Some(Cause::Refused),
        Some(
            E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::InvalidPath { .. }
            | E::UnknownConfigurationKey { .. },
        ) => return Some(Cause::Lasting),
        _ => {}
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(Cause::Full),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(Cause::Refused),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename | ErrorKind::Unsupported => {
            Some(Cause::Lasting)
        }
        _ => None,
    }
}

fn by_text(error: &(dyn Error + 'static)) -> Option<Cause> {
    let text = error.to_string().to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&FULL) {
        return Some(Cause::Full);
    }
    says(&REFUSED).then_some(Cause::Refused)
}

#[cfg(test)]
mod tests {
    use object_store::Error as StoreError;

    use super::*;

    fn store(source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError::Generic { store: "test", source: source.into() }
    }

    fn denied() -> StoreError {
        StoreError::PermissionDenied { path: "p".to_owned(), source: "403".into() }
    }

    #[test]
    fn the_chain_is_searched_to_its_end() {
        let full = || io::Error::from_raw_os_error(28);
        for (failure, cause) in [
            (store(full()), Cause::Full),
            (store(io::Error::other(store(full()))), Cause::Full),
            (store(store(io::Error::from(ErrorKind::QuotaExceeded))), Cause::Full),
            (store(io::Error::from_raw_os_error(30)), Cause::Refused),
            (store(io::Error::other(denied())), Cause::Refused),
            (denied(), Cause::Refused),
            (store(io::Error::from(ErrorKind::NotADirectory)), Cause::Lasting),
            (store(io::Error::from(ErrorKind::TimedOut)), Cause::Passing),
            (store("429 Too Many Requests"), Cause::Passing),
        ] {
            assert_eq!(of(&failure), cause, "{failure:?}");
        }
    }

    #[test]
    fn text_decides_where_nothing_else_is_left() {
        let text = |error: io::Error| store(format!("External error: {error}"));
        assert_eq!(of(&text(io::Error::from_raw_os_error(28))), Cause::Full);
        assert_eq!(of(&text(io::Error::from_raw_os_error(13))), Cause::Refused);
        assert_eq!(of(&store(denied().to_string())), Cause::Refused);
        assert_eq!(of(&store("connection reset")), Cause::Passing);
    }
}
