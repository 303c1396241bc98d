//! One folder of objects: create once, replace, read, list, delete.
//!
//! Calls block, and are made from plain threads; the [runtime](crate::io) does the work. Failures that may pass are met with
//! [`Patience`]. What the objects hold is the business of those who write them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use tokio::time::sleep;

use crate::disk::{self, Disk};
use crate::{BoxedError, Deadline, Error, Patience, Persistence, cause};

/// Requests under way at once in calls that make several.
const PARALLEL: usize = 16;
/// How often a name is found taken and then free before that is called a failure, and the pause in between.
const ROUNDS: u32 = 8;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);

/// A folder of objects. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Deadline,
    prefix: Key,
    /// The directory, if it is one of this machine.
    root: Option<PathBuf>,
    persistence: Persistence,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name, relative to the root of the store.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// What a request found under a name that was to be new, or as it was known.
enum Written {
    Now,
    Refused,
}

impl Store {
    /// A directory of this machine, created if need be. What [`Store::create`] and [`Store::replace`] have acknowledged
    /// survives a loss of power: file and directory are synced.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the directory cannot be created or synced.
    pub fn local(directory: &Path, patience: Patience) -> Result<Store, Error> {
        let disk = Disk::create(directory).map_err(|error| cannot_open(directory, error))?;
        Ok(Store::on_disk(disk, directory, patience))
    }

    /// A directory of this machine as it is, for those who only read; `None` where there is none. Nothing is created.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if it cannot be looked at.
    pub fn existing(directory: &Path, patience: Patience) -> Result<Option<Store>, Error> {
        match Disk::open(directory, true) {
            Ok(disk) => Ok(Some(Store::on_disk(disk, directory, patience))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_open(directory, error)),
        }
    }

    fn on_disk(disk: Disk, directory: &Path, patience: Patience) -> Store {
        let place = directory.display().to_string();
        Store::over(Arc::new(disk), "", Some(directory.to_owned()), place, patience)
    }

    /// The objects below a prefix of an object store. How durable they are is up to that store.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str, patience: Patience) -> Store {
        let place = format!("{objects}/{prefix}");
        Store::at(objects, prefix, place, patience)
    }

    /// The same, called `place` in messages.
    pub fn at(objects: Arc<dyn ObjectStore>, prefix: &str, place: String, patience: Patience) -> Store {
        Store::over(objects, prefix, None, place, patience)
    }

    fn over(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        root: Option<PathBuf>,
        place: String,
        patience: Patience,
    ) -> Store {
        let objects = Deadline::new(objects, patience.request_timeout);
        let persistence = Persistence::new(place, patience);
        Store { shared: Arc::new(Shared { objects, prefix: Key::from(prefix), root, persistence }) }
    }

    /// Writes an object under a name that nobody has used. If it is there already with exactly these bytes, that is
    /// success as well: the reply to an earlier attempt was lost.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] if the name holds other bytes, else [`Error::Unavailable`].
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let key = self.key(name)?;
        let what = format!("creating '{name}'");
        self.block_on(async {
            for round in 1..=ROUNDS {
                if let Written::Now = self.put(&what, &key, &bytes, PutMode::Create).await? {
                    return Ok(());
                }
                match self.get(&what, &key).await? {
                    Some((known, _)) if known == bytes => return Ok(()),
                    Some(_) => return Err(Error::Taken { name: name.to_owned() }),
                    // Deleted since; or the store has another conflict with the request.
                    None => sleep(BETWEEN_ROUNDS * round).await,
                }
            }
            Err(self.undecided(&what, "the store says that it exists, and that it does not"))
        })
    }

    /// Writes an object in place of one that `expected` knows again, unless somebody else writes it at the same time:
    /// then it is looked at anew. A request that was given up as stalled comes to nothing later. For stores that know
    /// versions of an object, which a directory does not.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] if there is something else or nothing, else [`Error::Unavailable`].
    pub fn exchange(&self, name: &str, bytes: Bytes, expected: impl Fn(&Bytes) -> bool) -> Result<(), Error> {
        let key = self.key(name)?;
        let what = format!("exchanging '{name}'");
        self.block_on(async {
            for round in 1..=ROUNDS {
                match self.get(&what, &key).await? {
                    // The reply to an earlier attempt was lost.
                    Some((known, _)) if known == bytes => return Ok(()),
                    Some((known, version)) if expected(&known) => {
                        if let Written::Now = self.put(&what, &key, &bytes, PutMode::Update(version)).await? {
                            return Ok(());
                        }
                    }
                    _ => return Err(Error::Taken { name: name.to_owned() }),
                }
                sleep(BETWEEN_ROUNDS * round).await;
            }
            Err(self.undecided(&what, "others write it faster than it can be looked at"))
        })
    }

    /// Writes an object, whatever was there. A request that was given up as stalled may still be carried out later, so
    /// this is for names with one writer, to whom an older value does no harm.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn replace(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let key = self.key(name)?;
        let what = format!("writing '{name}'");
        self.block_on(async { self.put(&what, &key, &bytes, PutMode::Overwrite).await.map(|_| ()) })
    }

    /// The bytes of an object as they are, or nothing if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let key = self.key(name)?;
        self.block_on(async { Ok(self.get(&format!("reading '{name}'"), &key).await?.map(|(bytes, _)| bytes)) })
    }

    /// The bytes of several objects, in the order of their names, read at the same time.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn read_all(&self, names: &[String]) -> Result<Vec<Option<Bytes>>, Error> {
        let keys = self.keys(names)?;
        self.block_on(async {
            let reads = keys.iter().map(async |(name, key)| {
                Ok(self.get(&format!("reading '{name}'"), key).await?.map(|(bytes, _)| bytes))
            });
            stream::iter(reads).buffered(PARALLEL).try_collect().await
        })
    }

    /// All objects below a folder (or below the root, if it is empty), in the order of their names.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        let below = if folder.is_empty() { self.shared.prefix.clone() } else { self.key(folder)? };
        let what = format!("listing '{folder}'");
        let mut listed: Vec<Listed> = self.block_on(self.persist(&what, async || {
            let objects = self.shared.objects.list(Some(&below));
            let listed = objects.try_filter_map(async |object| Ok(self.listed(&object.location, object.size)));
            listed.try_collect().await
        }))?;
        listed.sort_unstable();
        Ok(listed)
    }

    /// Deletes objects; what is not there is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn delete(&self, names: &[String]) -> Result<(), Error> {
        let keys = self.keys(names)?;
        self.block_on(async {
            let deletions = keys.iter().map(async |(name, key)| {
                self.persist(&format!("deleting '{name}'"), async || self.delete_one(key).await).await
            });
            stream::iter(deletions).buffered(PARALLEL).try_collect::<Vec<()>>().await.map(|_| ())
        })
    }

    /// Removes what writers that were killed have left behind and no listing shows. Only those older than `older_than`
    /// are touched, as others may still be written. Returns how many there were; does nothing in object stores, which
    /// leave nothing behind.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub fn clean_leftovers(&self, older_than: Duration) -> Result<usize, Error> {
        let Some(root) = &self.shared.root else { return Ok(0) };
        let expired = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
        disk::clean_unfinished(root, expired).map_err(|source| Error::Unavailable {
            what: format!("cleaning '{}'", root.display()),
            attempts: 1,
            permanent: false,
            source: source.into(),
        })
    }

    /// Where it is, for messages.
    pub fn describe(&self) -> String {
        self.shared.persistence.place().to_owned()
    }

    fn undecided(&self, what: &str, why: &str) -> Error {
        Error::Unavailable {
            what: format!("{what} in {}", self.describe()),
            attempts: ROUNDS,
            permanent: false,
            source: why.into(),
        }
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime = crate::io().map_err(|error| Error::at_once(format!("asking {}", self.describe()), error))?;
        runtime.block_on(work)
    }

    async fn persist<T>(&self, what: &str, attempt: impl AsyncFnMut() -> object_store::Result<T>) -> Result<T, Error> {
        let persisted = self.shared.persistence.persist(what, |error| cause::of(error), attempt).await;
        persisted.map_err(|gave_up| Error::Unavailable {
            what: format!("{what} in {}", self.describe()),
            attempts: gave_up.attempts,
            permanent: matches!(gave_up.cause, cause::Cause::Refused | cause::Cause::Lasting),
            source: gave_up.error.into(),
        })
    }

    async fn put(&self, what: &str, key: &Key, bytes: &Bytes, mode: PutMode) -> Result<Written, Error> {
        let attempt = async || {
            let payload = PutPayload::from_bytes(bytes.clone());
            match self.shared.objects.put_opts(key, payload, PutOptions::from(mode.clone())).await {
                Ok(_) => Ok(Written::Now),
                // Stores differ in how they say that the name is taken.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
                    if mode != PutMode::Overwrite =>
                {
                    Ok(Written::Refused)
                }
                Err(object_store::Error::NotFound { .. }) if matches!(mode, PutMode::Update(_)) => Ok(Written::Refused),
                Err(error) => Err(error),
            }
        };
        self.persist(what, attempt).await
    }

    async fn get(&self, what: &str, key: &Key) -> Result<Option<(Bytes, UpdateVersion)>, Error> {
        let read = async || match self.shared.objects.get(key).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            found => {
                let found = found?;
                let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                Ok(Some((found.bytes().await?, version)))
            }
        };
        self.persist(what, read).await
    }

    async fn delete_one(&self, key: &Key) -> object_store::Result<()> {
        match self.shared.objects.delete(key).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    fn keys<'a>(&self, names: &'a [String]) -> Result<Vec<(&'a String, Key)>, Error> {
        names.iter().map(|name| Ok((name, self.key(name)?))).collect()
    }

    /// The place of a name in the object store.
    fn key(&self, name: &str) -> Result<Key, Error> {
        let unusable = |source: BoxedError| Error::Unavailable {
            what: format!("using '{name}' as a name"),
            attempts: 0,
            permanent: true,
            source,
        };
        if name.contains('#') || disk::is_unfinished(name.rsplit('/').next().unwrap_or(name)) {
            return Err(unusable("it is that of a file that is still being written".into()));
        }
        let relative = Key::parse(name).map_err(|error| unusable(error.into()))?;
        if relative.as_ref().is_empty() {
            return Err(unusable("a name cannot be empty".into()));
        }
        Ok(self.shared.prefix.parts().chain(relative.parts()).collect())
    }

    fn listed(&self, location: &Key, bytes: u64) -> Option<Listed> {
        let parts: Vec<_> = location.prefix_match(&self.shared.prefix)?.collect();
        let name = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
        Some(Listed { name, bytes })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.describe())
    }
}

fn cannot_open(directory: &Path, error: io::Error) -> Error {
    Error::at_once(format!("opening '{}'", directory.display()), error)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
