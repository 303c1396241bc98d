//! A lock on a directory of this machine, which the operating system gives back however the process ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tidemark_store::{sync_folder, unfinished};

use super::{Holder, wall_clock};
use crate::Error;

/// Name of the file in the directory.
const FILE: &str = "lock";
/// The text is filled up to this length, so that writing it anew is one write that changes no length.
const TEXT_BYTES: usize = 512;
/// How often a file that is replaced while it is being locked is looked for again.
const ATTEMPTS: usize = 16;

/// Holds a directory for as long as it lives.
#[derive(Debug)]
pub struct LocalLock {
    file: File,
    path: PathBuf,
    holder: Holder,
}

impl LocalLock {
    /// Takes the directory, which exists, for this process.
    ///
    /// # Errors
    ///
    /// [`Error::Held`] while another process has it, [`Error::Store`] if the lock cannot be written.
    pub fn take(directory: &Path, holder: Holder) -> Result<LocalLock, Error> {
        let path = directory.join(FILE);
        for _ in 0..ATTEMPTS {
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = opened.map_err(|error| unavailable(&path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(&path, read_holder(file))),
                Err(TryLockError::Error(error)) => return Err(unavailable(&path, error)),
            }
            // Between opening and locking it, somebody may have put another file in its place.
            if names(&path, &file).map_err(|error| unavailable(&path, error))? {
                let lock = LocalLock { file, path, holder };
                lock.write().map_err(|error| unavailable(&lock.path, error))?;
                return Ok(lock);
            }
        }
        Err(held(&path, None))
    }

    /// Takes the directory, by force if it is held and `take_over` says so.
    ///
    /// # Errors
    ///
    /// As for [`LocalLock::take`] and [`LocalLock::take_over`].
    pub fn take_or_over(directory: &Path, holder: Holder, take_over: bool) -> Result<LocalLock, Error> {
        match LocalLock::take(directory, holder.clone()) {
            Err(Error::Held { .. }) if take_over => LocalLock::take_over(directory, holder),
            taken => taken,
        }
    }

    /// Who holds the directory, if another process does. Nothing is written.
    pub fn held_by_another(directory: &Path) -> Option<Error> {
        let path = directory.join(FILE);
        let file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(held(&path, read_holder(file))),
            _ => None,
        }
    }

    /// Takes the directory whoever has it, by putting a new file in the place of the old one. A stopped process that
    /// still locks the old file finds out by [`LocalLock::still_ours`].
    ///
    /// # Errors
    ///
    /// [`Error::Held`] if another process takes over at the same time, [`Error::Store`] if the lock cannot be
    /// written.
    pub fn take_over(directory: &Path, holder: Holder) -> Result<LocalLock, Error> {
        let path = directory.join(FILE);
        let unavailable = |error| unavailable(&path, error);
        let staged = unfinished(&path);
        let file = File::options().read(true).write(true).create_new(true).open(&staged).map_err(unavailable)?;
        let lock = LocalLock { file, path: path.clone(), holder };
        let installed = lock
            .file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| lock.write())
            .and_then(|()| fs::rename(&staged, &path))
            .and_then(|()| sync_folder(directory));
        if let Err(error) = installed {
            let _ = fs::remove_file(&staged);
            return Err(unavailable(error));
        }
        if lock.still_ours() { Ok(lock) } else { Err(held(&path, File::open(&path).ok().and_then(read_holder))) }
    }

    /// Writes that this process is alive. For people only: the lock does not depend on it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the file cannot be written.
    pub fn refresh(&mut self) -> Result<(), Error> {
        self.holder.heartbeat = wall_clock();
        self.write().map_err(|error| unavailable(&self.path, error))
    }

    /// Writes which generation this process has won.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the file cannot be written.
    pub fn set_generation(&mut self, generation: u64) -> Result<(), Error> {
        self.holder.generation = Some(generation);
        self.refresh()
    }

    /// Whether nobody has taken over. If the file cannot be looked at, the answer is no.
    pub fn still_ours(&self) -> bool {
        names(&self.path, &self.file).unwrap_or(false)
    }

    fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_string(&self.holder)?.into_bytes();
        text.resize(text.len().max(TEXT_BYTES - 1), b' ');
        text.push(b'\n');
        self.file.write_all_at(&text, 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// Whether the path names this open file.
fn names(path: &Path, file: &File) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        named => named?,
    };
    let open = file.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

fn read_holder(mut file: File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn held(path: &Path, holder: Option<Holder>) -> Error {
    Error::Held { place: format!("'{}'", path.display()), holder: holder.map(Box::new) }
}

fn unavailable(path: &Path, error: io::Error) -> Error {
    tidemark_store::Error::at_once(format!("locking '{}'", path.display()), error).into()
}
