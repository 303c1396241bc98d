//! Whether storage is to blame for what the Delta library reports.

use std::error::Error;
use std::io::{self, ErrorKind};

use deltalake::logstore::object_store::Error as StoreError;
use tidemark_store::cause::chain;

/// Whether a file that was named is missing, or what was read makes no sense. Where storage is to blame, its error says so
/// somewhere along the chain.
pub(crate) fn is_damage(failure: &(dyn Error + 'static)) -> bool {
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
    chain(failure).find_map(says).unwrap_or_else(|| chain(failure).any(lost) || !is_of_storage(failure))
}

/// Whether storage is to blame. The kernel and the readers of Parquet show no source of their errors: they have words alone
/// for those of storage.
pub(crate) fn is_of_storage(failure: &(dyn Error + 'static)) -> bool {
    chain(failure).any(|error| {
        let text = error.to_string().to_lowercase();
        error.downcast_ref::<StoreError>().is_some() || text.contains("object store") || text.contains("(os error")
    })
}

#[cfg(test)]
mod tests {
    use deltalake::DeltaTableError;
    use tidemark_store::{Cause, cause};

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
    fn causes_are_found_below_the_library() {
        let full = || io::Error::from_raw_os_error(28);
        for (failure, cause) in [
            (store(full()), Cause::Full),
            (DeltaTableError::Io { source: full() }, Cause::Full),
            (DeltaTableError::GenericError { source: Box::new(store(full())) }, Cause::Full),
            (DeltaTableError::Io { source: io::Error::other(denied()) }, Cause::Refused),
            (denied().into(), Cause::Refused),
            (DeltaTableError::Generic(denied().to_string()), Cause::Refused),
            (store("429 Too Many Requests"), Cause::Passing),
        ] {
            assert_eq!(cause::of(&failure), cause, "{failure:?}");
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
}
