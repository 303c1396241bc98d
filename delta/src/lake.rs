//! Where the tables of one pipeline lie, and what they share: storage options, identity, policy.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use deltalake::logstore::{StorageConfig, object_store_factories};
use deltalake::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError, ObjectStore};
use url::Url;

use crate::deadline::Deadline;
use crate::durable::{self, Durable};
use crate::{Error, Policy};

/// The directory or container below which all tables lie.
#[derive(Clone)]
pub struct Location {
    root: Url,
    options: HashMap<String, String>,
    store: Option<Arc<dyn ObjectStore>>,
    sync: bool,
    request_timeout: Option<Duration>,
}

impl Location {
    /// A local path, or a URL such as `file:///data`. `options` go to the object store and may hold secrets.
    ///
    /// # Errors
    /// [`Error::Bug`] when the text is neither.
    pub fn parse(root: &str, options: HashMap<String, String>) -> Result<Self, Error> {
        let refuse = || Error::bug("*", format!("{root:?} is neither a path nor a URL"));
        let mut url = if root.contains("://") {
            Url::parse(root).map_err(|_| refuse())?
        } else {
            let path = std::path::absolute(root).map_err(|_| refuse())?;
            Url::from_directory_path(path).map_err(|()| refuse())?
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Location { root: url, options, store: None, sync: false, request_timeout: None })
    }

    /// Uses an object store that the caller has made; its `/` is the root of the URL's authority. All tables of one
    /// [`Lake`] must use the same store.
    pub fn with_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        // The library asks for a handler of the scheme, also where it is given the store.
        static AZURE: Once = Once::new();
        AZURE.call_once(|| deltalake::azure::register_handlers(None));
        self.store = Some(store);
        self
    }

    /// Gives up requests that are not answered for that long, and pieces of long answers that do not come.
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Whether it is a directory of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.root.scheme() == "file"
    }

    /// Makes what is written to a local disk durable before it counts as written.
    fn synced(mut self) -> Self {
        if self.is_local() && self.store.is_none() {
            self.store = Some(Arc::new(Durable::default()));
            self.sync = true;
        }
        self
    }

    /// The URL of a table.
    pub(crate) fn url(&self, table: &str) -> Result<Url, Error> {
        self.root.join(&format!("{table}/")).map_err(|error| Error::bug(table, error.to_string()))
    }

    /// A handle without state. A local table's directory is created.
    pub(crate) fn table(&self, name: &str) -> Result<DeltaTable, Error> {
        let url = self.url(name)?;
        if let Some(path) = local_path(&url) {
            let made = if self.sync { durable::create_dir_all(&path) } else { std::fs::create_dir_all(path) };
            made.map_err(|error| Error::unavailable(name, 1, error.into()))?;
        }
        self.handle(name, url)
    }

    /// A handle without state, unless a local table's directory is missing. Nothing is created.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<DeltaTable>, Error> {
        let url = self.url(name)?;
        let exists = local_path(&url).map_or(Ok(true), |path| path.try_exists());
        if !exists.map_err(|error| Error::unavailable(name, 1, error.into()))? {
            return Ok(None);
        }
        self.handle(name, url).map(Some)
    }

    fn handle(&self, name: &str, url: Url) -> Result<DeltaTable, Error> {
        let bug = |error: DeltaTableError| Error::bug(name, error.to_string());
        let builder = DeltaTableBuilder::from_url(url.clone()).map_err(bug)?;
        let (builder, store) = match &self.store {
            Some(store) => (builder, Arc::clone(store)),
            None => {
                let builder = builder.with_storage_options(self.options.clone());
                let store = made(&url, builder.storage_options()).map_err(bug)?;
                (builder, store)
            }
        };
        let store = match self.request_timeout {
            Some(timeout) => Arc::new(Deadline::new(store, timeout)) as Arc<dyn ObjectStore>,
            None => store,
        };
        builder.with_storage_backend(store, url).build().map_err(bug)
    }
}

/// The directory that a URL names on this machine. The conversion itself does not look at the scheme.
pub(crate) fn local_path(url: &Url) -> Option<PathBuf> {
    if url.scheme() == "file" { url.to_file_path().ok() } else { None }
}

/// The store that the library makes for a URL; its `/` is the root of the URL's authority.
fn made(url: &Url, options: HashMap<String, String>) -> DeltaResult<Arc<dyn ObjectStore>> {
    let unknown = || DeltaTableError::InvalidTableLocation(url.to_string());
    let scheme = Url::parse(&format!("{}://", url.scheme())).map_err(|_| unknown())?;
    let factory = object_store_factories().get(&scheme).map(|factory| Arc::clone(factory.value()));
    let (store, _) = factory.ok_or_else(unknown)?.parse_url_opts(url, &StorageConfig::parse_options(options)?)?;
    Ok(store)
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options may hold account keys.
        formatter.debug_struct("Location").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pipeline: part of the application ids, so it must never change.
    pub pipeline: String,
    /// Generation of this writer, greater than that of every writer before it.
    pub generation: i64,
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
        let path = |url| local_path(&Url::parse(url).unwrap());
        assert_eq!(path("file:///a/b/"), Some("/a/b/".into()));
        assert_eq!((path("memory:///a/b/"), path("memory://a/b/"), path("az://a/b/")), (None, None, None));
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let location = |root| Location::parse(root, HashMap::new()).unwrap();
        for root in ["file:///nowhere", "memory:///tables"] {
            assert!(location(root).handle("t", location(root).url("t").unwrap()).is_ok());
        }
        assert!(location("unknown://a/b").handle("t", Url::parse("unknown://a/b/").unwrap()).is_err());
    }
}
