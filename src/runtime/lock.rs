//! One instance per output: a lock on a file below it, which the operating system gives back however the process ends.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::RunError;

/// Where the lock lies below the output.
const LOCK_FILE: &str = "_tidemark/lock";

/// Holds the output for as long as it lives.
#[derive(Debug)]
pub(super) struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Takes the output for this process.
    ///
    /// # Errors
    ///
    /// [`RunError::OutputTaken`] while another process holds it, [`RunError::Output`] when the lock cannot be written.
    pub(super) fn take(output: &Path) -> Result<Self, RunError> {
        let place = output.join(LOCK_FILE);
        let unwritable = |error| RunError::Output { output: output.display().to_string(), error };
        fs::create_dir_all(place.parent().unwrap_or(output)).map_err(unwritable)?;
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&place);
        let mut file = opened.map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy: the refusal does not depend on it.
                let _ = file.read_to_string(&mut holder);
                return Err(RunError::OutputTaken { output: output.display().to_string(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        file.set_len(0).map_err(unwritable)?;
        write!(file, "process {}", std::process::id()).map_err(unwritable)?;
        Ok(OutputLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::{OutputLock, RunError};

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let output = tempfile::tempdir().unwrap();
        let first = OutputLock::take(output.path()).unwrap();
        match OutputLock::take(output.path()) {
            Err(RunError::OutputTaken { holder, .. }) => assert_eq!(holder, format!("process {}", std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        OutputLock::take(output.path()).unwrap();
    }
}
