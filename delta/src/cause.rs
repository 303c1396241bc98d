//! Why storage failed, by what can be done about it. It classifies; whoever calls decides how long to wait.
//!
//! Errors cross the Delta library, its kernel and the object store, and each wraps the one below it. The types along the chain
//! decide; text does where a layer has kept nothing else, as the kernel does.

use std::error::Error;
use std::io::{self, ErrorKind};

use deltalake::logstore::object_store::Error as StoreError;

/// What is behind an [`Error`](crate::Error).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No space is left, or a quota is used up. The same call succeeds once somebody has made room.
    Full,
    /// Storage knows us and refuses, or does not know us: permissions, credentials, a read-only file system.
    Refused,
    /// Timeouts, throttling, lost connections, server errors, commits of others: what passes by itself. Whatever is not
    /// recognised counts as such.
    Passing,
    /// No storage failure: no repetition helps.
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

/// Never [`Cause::Lasting`].
pub(crate) fn of(failure: &(dyn Error + 'static)) -> Cause {
    let links = || std::iter::successors(Some(failure), |error| inner(*error));
    links().find_map(by_type).or_else(|| links().find_map(by_text)).unwrap_or(Cause::Passing)
}

/// Whether a file that was named is missing, or what was read makes no sense. Where storage is to blame, its error says so
/// somewhere along the chain.
pub(crate) fn is_damage(failure: &(dyn Error + 'static)) -> bool {
    let links = || std::iter::successors(Some(failure), |error| inner(*error));
    let says = |error: &(dyn Error + 'static)| {
        if let Some(StoreError::NotFound { .. }) = error.downcast_ref() {
            return Some(true);
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Some(true),
            ErrorKind::Other => None,
            _ => Some(false),
        }
    };
    let lost = |error: &(dyn Error + 'static)| {
        let text = error.to_string().to_lowercase();
        ["not found", "no such file", "range was invalid"].iter().any(|word| text.contains(word))
    };
    links().find_map(says).unwrap_or_else(|| links().any(lost) || !is_of_storage(failure))
}

/// Whether storage is to blame. The kernel and the readers of Parquet show no source of their errors: they have words alone
/// for those of storage.
pub(crate) fn is_of_storage(failure: &(dyn Error + 'static)) -> bool {
    let mut links = std::iter::successors(Some(failure), |error| inner(*error));
    links.any(|error| {
        let text = error.to_string().to_lowercase();
        error.downcast_ref::<StoreError>().is_some() || text.contains("object store") || text.contains("(os error")
    })
}

/// The `source` of an I/O error is that of the error it wraps, so the wrapped one would be passed over.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn by_type(error: &(dyn Error + 'static)) -> Option<Cause> {
    if let Some(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }) = error.downcast_ref() {
        return Some(Cause::Refused);
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(Cause::Full),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(Cause::Refused),
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
    use deltalake::DeltaTableError;

    use super::*;

    fn store(source: impl Into<Box<dyn Error + Send + Sync>>) -> DeltaTableError {
        StoreError::Generic { store: "test", source: source.into() }.into()
    }

    fn kernel(source: impl Into<Box<dyn Error + Send + Sync>>) -> DeltaTableError {
        DeltaTableError::KernelError(StoreError::Generic { store: "test", source: source.into() }.into())
    }

    fn denied() -> StoreError {
        StoreError::PermissionDenied { path: "p".to_owned(), source: "403".into() }
    }

    #[test]
    fn the_chain_is_searched_to_its_end() {
        let full = || io::Error::from_raw_os_error(28);
        for (failure, cause) in [
            (store(full()), Cause::Full),
            (DeltaTableError::Io { source: full() }, Cause::Full),
            (DeltaTableError::GenericError { source: Box::new(store(full())) }, Cause::Full),
            (store(io::Error::from(ErrorKind::QuotaExceeded)), Cause::Full),
            (store(io::Error::from_raw_os_error(30)), Cause::Refused),
            (DeltaTableError::Io { source: io::Error::other(denied()) }, Cause::Refused),
            (denied().into(), Cause::Refused),
            (store(io::Error::from(ErrorKind::TimedOut)), Cause::Passing),
            (store("429 Too Many Requests"), Cause::Passing),
        ] {
            assert_eq!(of(&failure), cause, "{failure:?}");
        }
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_damage() {
        let missing = || StoreError::NotFound { path: "p".to_owned(), source: "404".into() };
        for (failure, damage) in [
            (missing().into(), true),
            (DeltaTableError::GenericError { source: Box::new(missing()) }, true),
            (DeltaTableError::Generic("External error: Object at location p not found: 404".to_owned()), true),
            (DeltaTableError::Generic("Parquet error: corrupt footer".to_owned()), true),
            (store(io::Error::from(ErrorKind::TimedOut)), false),
            (store("429 Too Many Requests"), false),
            (DeltaTableError::Generic("Failed to fetch metadata: Object Store error: no answer".to_owned()), false),
            (denied().into(), false),
            (kernel(io::Error::from(ErrorKind::ConnectionReset)), false),
            (DeltaTableError::KernelError(missing().into()), true),
            (DeltaTableError::Generic("IO error: Too many open files (os error 24)".to_owned()), false),
        ] {
            assert_eq!(is_damage(&failure), damage, "{failure:?}");
        }
    }

    #[test]
    fn text_decides_where_nothing_else_is_left() {
        let text = |error: io::Error| DeltaTableError::Generic(format!("External error: {error}"));
        assert_eq!(of(&text(io::Error::from_raw_os_error(28))), Cause::Full);
        assert_eq!(of(&text(io::Error::from_raw_os_error(13))), Cause::Refused);
        assert_eq!(of(&DeltaTableError::Generic(denied().to_string())), Cause::Refused);
        assert_eq!(of(&DeltaTableError::Generic("connection reset".to_owned())), Cause::Passing);
    }
}
