//! Where the tables of one pipeline lie, and what they share: storage options, identity, policy.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use deltalake::logstore::{StorageConfig, object_store_factories};
use deltalake::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError, ObjectStore};
use tidemark_store::{Deadline, Disk, Patience, create_dir_all};
use url::Url;

use crate::damage::{self, Damage, LogCheckpoint, Without};
use crate::open::unreadable;
use crate::{Error, Policy, cause, log};

/// How long a failing read is repeated, unless somebody says otherwise.
const READING: Duration = Duration::from_secs(5);

/// The directory or container below which all tables lie.
///
/// A directory is the root of its own store, so that no part of its path is ever a part of a URL: any path will do.
#[derive(Clone)]
pub struct Location {
    root: Url,
    directory: Option<PathBuf>,
    options: HashMap<String, String>,
    store: Option<Arc<dyn ObjectStore>>,
    sync: bool,
    patience: Patience,
}

impl Location {
    /// A local path, or a URL such as `file:///data`. `options` go to the object store and may hold secrets.
    ///
    /// # Errors
    /// [`Error::Bug`] when the text is neither.
    pub fn parse(root: &str, options: HashMap<String, String>) -> Result<Self, Error> {
        let refuse = || Error::bug("*", format!("{root:?} is neither a path nor a URL"));
        let directory = match root.split_once("://") {
            None => Some(std::path::absolute(root).map_err(|_| refuse())?),
            Some(("file", _)) => {
                let path = Url::parse(root).ok().and_then(|url| url.to_file_path().ok());
                Some(path.ok_or_else(refuse)?)
            }
            Some(_) => None,
        };
        // The library looks itself whether the path of a file's URL exists. This one has none.
        let url = if directory.is_some() { "memory:///" } else { root };
        let mut url = Url::parse(url).map_err(|_| refuse())?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Location {
            root: url,
            directory,
            options,
            store: None,
            sync: false,
            patience: Patience { give_up_after: READING, ..Patience::default() },
        })
    }

    /// Uses an object store that the caller has made; its `/` is the root of the URL's authority. All tables of one
    /// [`Lake`] must use the same store.
    pub fn with_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        // The library asks for a handler of the scheme, also where it is given the store.
        static AZURE: Once = Once::new();
        AZURE.call_once(|| deltalake::azure::register_handlers(None));
        self.store = Some(store);
        // That store knows the whole path.
        let directory = self.directory.take().and_then(|directory| Url::from_directory_path(directory).ok());
        self.root = directory.unwrap_or(self.root);
        self
    }

    /// How failing reads are met, and how long a single request may take.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// The directory of a table on this machine; none in an object store.
    pub(crate) fn directory(&self, table: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(table))
    }

    /// Whether it is a directory of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.directory.is_some()
    }

    /// Makes what is written to a local disk durable before it counts as written.
    fn synced(self) -> Self {
        Location { sync: true, ..self }
    }

    /// The URL of a table.
    pub(crate) fn url(&self, table: &str) -> Result<Url, Error> {
        self.root.join(&format!("{table}/")).map_err(|error| Error::bug(table, error.to_string()))
    }

    /// A handle without state. A local table's directory is created.
    pub(crate) fn table(&self, name: &str) -> Result<DeltaTable, Error> {
        if let Some(path) = self.directory(name) {
            let made = create_dir_all(&path, self.sync);
            made.map_err(|error| Error::unavailable(name, error.into()))?;
        }
        self.handle(name, self.url(name)?)
    }

    /// A handle without state, unless a local table's directory is missing. Nothing is created.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<DeltaTable>, Error> {
        let exists = self.directory(name).map_or(Ok(true), |path| path.try_exists());
        if !exists.map_err(|error| Error::unavailable(name, error.into()))? {
            return Ok(None);
        }
        self.handle(name, self.url(name)?).map(Some)
    }

    /// The store of the directory, whose `/` is the directory itself.
    fn disk(&self, directory: &Path) -> DeltaResult<Arc<dyn ObjectStore>> {
        Ok(Arc::new(Disk::open(directory, self.sync)?))
    }

    /// Reads a table, as of a version or the newest. A damaged log checkpoint is passed over where the commits say the same: its
    /// files are returned.
    ///
    /// # Errors
    /// [`Error::StateMismatch`] for a protocol that is not known, and for damage, with the name of the object;
    /// [`Error::Unavailable`] when it cannot be read, with [`DeltaTableError::NotATable`] where there is none.
    pub(crate) async fn load(
        &self,
        name: &str,
        table: DeltaTable,
        version: Option<u64>,
    ) -> Result<(DeltaTable, BTreeSet<String>), Error> {
        let failure = match loaded(table.clone(), version).await {
            Err(failure) if is_the_log_to_blame(&failure) => failure,
            settled => {
                return settled.map(|table| (table, BTreeSet::new())).map_err(|failure| unreadable(name, failure));
            }
        };
        let unavailable = |failure| Error::unavailable(name, failure);
        let store = table.log_store().object_store(None);
        let hidden = match damage::of_log(store.as_ref()).await.map_err(unavailable)? {
            Some(Damage::Passable(hidden)) => hidden,
            Some(Damage::Fatal(what)) => return Err(Error::mismatch(name, what)),
            _ => return Err(unreadable(name, failure)),
        };
        let table = self.handle_without(name, self.url(name)?, &hidden)?;
        let table = loaded(table, version).await.map_err(|failure| unreadable(name, failure))?;
        tracing::warn!(table = name, files = ?hidden, error = %failure, "damaged, and passed over: the commits say the same");
        Ok((table, hidden))
    }

    /// Reads the newest version of a table, and looks whether it is what was written. A log checkpoint that is not is passed over
    /// like one that cannot be read.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(crate) async fn load_sound(&self, name: &str, table: DeltaTable) -> Result<Sound, Error> {
        let unavailable = |failure| Error::unavailable(name, failure);
        let (table, passed_over) = self.load(name, table, None).await?;
        let sound = |table, passed_over, damage, checkpoint| Ok(Sound { table, passed_over, damage, checkpoint });
        let found = damage::of_table(&table, false).await.map_err(unavailable)?;
        let unvouched = matches!(found, (Some(Damage::Unvouched(_)), _));
        let (hidden, checkpoint) = match found {
            (None, checkpoint) => return sound(table, passed_over, None, checkpoint),
            (Some(Damage::Fatal(what)), _) => return sound(table, passed_over, Some(what), None),
            (Some(Damage::Passable(hidden) | Damage::Unvouched(hidden)), checkpoint) => (hidden, checkpoint),
        };
        // The same version, as another instance may write the next one meanwhile.
        match self.load_without(name, &hidden, table.version()).await {
            Ok(again) if damage::of_table(&again, true).await.map_err(unavailable)?.0.is_none() => {
                // What else it holds is not compared: the commits are read in its place, and it is written anew.
                if !unvouched || !log::say_the_same(&table, &again).unwrap_or(false) {
                    tracing::warn!(table = name, files = ?hidden, "not what was written, and passed over: the commits say the same");
                }
                return sound(again, hidden, None, checkpoint);
            }
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
        let what = format!(
            "{} is damaged: {}",
            damage::named(damage::newest(&hidden).map_or("", String::as_str)),
            damage::REMEDY
        );
        sound(table, passed_over, Some(what), None)
    }

    /// Reads a table as if some files of its log were not there, with all others that are damaged.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(crate) async fn load_without(
        &self,
        name: &str,
        hidden: &BTreeSet<String>,
        version: Option<u64>,
    ) -> Result<DeltaTable, Error> {
        let table = self.handle_without(name, self.url(name)?, hidden)?;
        let store = table.log_store().object_store(None);
        let failure = match loaded(table, version).await {
            Err(failure) if is_the_log_to_blame(&failure) => failure,
            settled => return settled.map_err(|failure| unreadable(name, failure)),
        };
        // Those that are hidden already are not seen here.
        match damage::of_log(store.as_ref()).await.map_err(|failure| Error::unavailable(name, failure))? {
            Some(Damage::Passable(more)) => {
                let table = self.handle_without(name, self.url(name)?, &(hidden | &more))?;
                loaded(table, version).await.map_err(|failure| unreadable(name, failure))
            }
            Some(Damage::Fatal(what)) => Err(Error::mismatch(name, what)),
            _ => Err(unreadable(name, failure)),
        }
    }

    fn handle(&self, name: &str, url: Url) -> Result<DeltaTable, Error> {
        self.handle_without(name, url, &BTreeSet::new())
    }

    /// A handle to which some files of the log are not there.
    fn handle_without(&self, name: &str, url: Url, hidden: &BTreeSet<String>) -> Result<DeltaTable, Error> {
        let bug = |error: DeltaTableError| Error::bug(name, error.to_string());
        let builder = DeltaTableBuilder::from_url(url.clone()).map_err(bug)?;
        let (builder, store) = match (&self.store, &self.directory) {
            (Some(store), _) => (builder, Arc::clone(store)),
            (None, Some(directory)) => {
                (builder, self.disk(directory).map_err(|error| Error::unavailable(name, error))?)
            }
            (None, None) => {
                let builder = builder.with_storage_options(self.options.clone());
                let store = store_of(&url, builder.storage_options()).map_err(bug)?;
                (builder, store)
            }
        };
        let store: Arc<dyn ObjectStore> = Arc::new(Deadline::new(store, self.patience.request_timeout));
        let store = if hidden.is_empty() { store } else { Arc::new(Without::new(store, name, hidden)) };
        builder.with_storage_backend(store, url).build().map_err(bug)
    }
}

/// A table as it was read, and what is known of how it is stored.
pub(crate) struct Sound {
    pub(crate) table: DeltaTable,
    /// The files of a log checkpoint that was not read: it is to be written anew.
    pub(crate) passed_over: BTreeSet<String>,
    /// What is wrong with it, in words.
    pub(crate) damage: Option<String>,
    /// What commits say of the newest log checkpoint: those to come say it too, until there is another.
    pub(crate) checkpoint: Option<LogCheckpoint>,
}

async fn loaded(mut table: DeltaTable, version: Option<u64>) -> DeltaResult<DeltaTable> {
    match version {
        Some(version) => table.load_version(version).await?,
        None => table.load().await?,
    }
    Ok(table)
}

/// Whether a log that can be had makes no sense, or lacks a file.
fn is_the_log_to_blame(failure: &DeltaTableError) -> bool {
    !matches!(failure, DeltaTableError::NotATable(_)) && cause::is_damage(failure)
}

/// The store that the library makes for a URL; its `/` is the root of the URL's authority.
fn store_of(url: &Url, options: HashMap<String, String>) -> DeltaResult<Arc<dyn ObjectStore>> {
    let unknown = || DeltaTableError::InvalidTableLocation(url.to_string());
    let scheme = Url::parse(&format!("{}://", url.scheme())).map_err(|_| unknown())?;
    let factory = object_store_factories().get(&scheme).map(|factory| Arc::clone(factory.value()));
    let (store, _) = factory.ok_or_else(unknown)?.parse_url_opts(url, &StorageConfig::parse_options(options)?)?;
    Ok(store)
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options may hold account keys.
        let directory = &self.directory;
        formatter
            .debug_struct("Location")
            .field("root", &self.root.as_str())
            .field("directory", directory)
            .finish_non_exhaustive()
    }
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pipeline: part of the application ids, so it must never change.
    pub pipeline: String,
    /// Generation of this writer, greater than that of every writer before it.
    pub generation: i64,
    /// Drawn once for each pipeline, so that two of one name are told apart. It stands in a property of every table.
    pub lineage: u64,
}

impl Identity {
    /// The table property that holds the lineage.
    pub const LINEAGE: &str = "tidemark.lineage";

    /// A lineage as tables have it: 16 hexadecimal digits.
    pub fn lineage_text(lineage: u64) -> String {
        format!("{lineage:016x}")
    }
}

/// All tables of one pipeline below one root.
#[derive(Debug, Clone)]
pub struct Lake {
    pub(crate) location: Location,
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
}

impl Lake {
    /// No I/O.
    ///
    /// # Errors
    /// [`Error::Bug`] for a policy out of bounds.
    pub fn new(location: Location, identity: Identity, policy: Policy) -> Result<Self, Error> {
        policy.validate()?;
        let location = if policy.sync { location.synced() } else { location };
        Ok(Lake { location, identity, policy })
    }

    /// Where the tables lie.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Who writes.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_files_are_local() {
        let path = |root| Location::parse(root, HashMap::new()).unwrap().directory("t");
        assert_eq!(path("file:///a/b"), Some("/a/b/t".into()));
        assert_eq!(path("/a/b %20/../c"), Some("/a/b %20/../c/t".into()));
        assert_eq!((path("memory:///a/b/"), path("memory://a/b/"), path("az://a/b/")), (None, None, None));
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let location = |root| Location::parse(root, HashMap::new()).unwrap();
        for root in ["file:///", "memory:///tables", "."] {
            assert!(location(root).handle("t", location(root).url("t").unwrap()).is_ok());
        }
        assert!(location("unknown://a/b").handle("t", Url::parse("unknown://a/b/").unwrap()).is_err());
    }
}
