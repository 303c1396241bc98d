//! Opens what tables and checkpoint lie in: directories of this machine, or containers of Azure Storage.
//!
//! The one place that makes clients, with one configuration. Tables and checkpoint in the same container share one
//! client, its connections and its tokens.

mod azure;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tidemark_checkpoint::names;
use tidemark_delta::Location;
use tidemark_store::{Patience, Store};

use crate::config::place::AzurePlace;
use crate::config::{Config, Place};
use crate::exit::ExitStatus;

/// Stores in the place of those that are configured. Local folders are still made, and locked.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// Of the tables; its root is that of the file system or container.
    pub tables: Option<Arc<dyn ObjectStore>>,
    /// Of cuts and checkpoints; its root is the folder.
    pub checkpoint: Option<Arc<dyn ObjectStore>>,
    /// Of the tables of a dry run, which has no other place: what is configured is neither read nor written.
    pub dry: Option<Arc<dyn ObjectStore>>,
}

impl Stores {
    /// Tables in memory and nothing else, for a dry run.
    pub fn in_memory() -> Stores {
        Stores { dry: Some(Arc::new(InMemory::new())), ..Stores::default() }
    }

    /// Whether nothing may be written anywhere else.
    pub fn are_dry(&self) -> bool {
        self.dry.is_some()
    }
}

/// Where the tables of a dry run lie. It is no place on any disk, so no directory is made for it.
const DRY_ROOT: &str = "memory:///dry-run";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A setting leads nowhere.
    #[error("{0}")]
    Setting(String),
    /// The service was asked, and nobody else needs to ask it again.
    #[error("{place}: {problem}")]
    Refused {
        /// Where that is.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The text is no place for tables, or the store cannot be used: see there.
    #[error(transparent)]
    Tables(#[from] tidemark_delta::Error),
    /// The folder of the checkpoint cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] tidemark_store::Error),
}

impl StorageError {
    /// The status that the program ends with.
    pub fn status(&self) -> ExitStatus {
        match self {
            StorageError::Setting(_) => ExitStatus::Usage,
            StorageError::Refused { .. } | StorageError::Checkpoint(_) => ExitStatus::Unavailable,
            StorageError::Tables(_) => ExitStatus::Bug,
        }
    }
}

/// A client for each container, by account and name.
type Clients = Vec<((Option<String>, String), Arc<dyn ObjectStore>)>;

/// What a configuration names, opened as it is needed.
pub struct Storage<'a> {
    config: &'a Config,
    given: Stores,
    clients: Mutex<Clients>,
}

impl<'a> Storage<'a> {
    /// The storage of a configuration. Nothing is opened yet.
    pub fn new(config: &'a Config) -> Storage<'a> {
        Storage::with(config, Stores::default())
    }

    /// The same, with stores that the caller has made.
    pub fn with(config: &'a Config, given: Stores) -> Storage<'a> {
        Storage { config, given, clients: Mutex::default() }
    }

    /// Whether nothing may be written.
    pub fn is_dry(&self) -> bool {
        self.given.are_dry()
    }

    /// Where the tables lie, and how failing reads of them are met.
    ///
    /// # Errors
    ///
    /// When the account refuses us or cannot be reached, or a setting leads nowhere.
    pub fn tables(&self, patience: Patience) -> Result<Location, StorageError> {
        if let Some(store) = &self.given.dry {
            return Ok(Location::parse(DRY_ROOT, HashMap::new())?.with_store(Arc::clone(store)));
        }
        let place = &self.config.output.path;
        let location = match place {
            Place::Local(path) => Location::parse(&path.to_string_lossy(), HashMap::new())?,
            // Whatever form the URL had: the store knows the account.
            Place::Azure(AzurePlace { container, path, .. }) => {
                Location::parse(&format!("az://{container}/{path}"), HashMap::new())?
            }
        };
        let location = match (&self.given.tables, place.azure()) {
            (Some(store), _) => location.with_store(Arc::clone(store)),
            (None, Some(azure)) => location.with_store(self.container(azure)?),
            (None, None) => location,
        };
        Ok(location.with_patience(patience))
    }

    /// The folder of cuts and checkpoints, to write to. A local one is created.
    ///
    /// # Errors
    ///
    /// As for [`Self::tables`], and when a folder cannot be created.
    pub fn checkpoint(&self, patience: Patience) -> Result<Store, StorageError> {
        let place = self.config.checkpoint_path();
        match (&self.given.checkpoint, &place) {
            (Some(objects), _) => Ok(Store::at(Arc::clone(objects), "", place.to_string(), patience)),
            (None, place) => self.folder(place, patience),
        }
    }

    /// Any place as a folder of objects, to write to. A local one is created.
    ///
    /// # Errors
    ///
    /// As for [`Self::checkpoint`].
    pub fn folder(&self, place: &Place, patience: Patience) -> Result<Store, StorageError> {
        match place {
            Place::Local(folder) => Ok(Store::local(folder, patience)?),
            Place::Azure(azure) => Ok(Store::at(self.container(azure)?, &azure.path, place.to_string(), patience)),
        }
    }

    /// The folder as it is, for those who only read; `None` where nothing was ever put there. Nothing is created.
    ///
    /// # Errors
    ///
    /// As for [`Self::tables`], and when it cannot be looked at.
    pub fn existing_checkpoint(&self, patience: Patience) -> Result<Option<Store>, StorageError> {
        let store = match (&self.given.checkpoint, self.config.checkpoint_path()) {
            (Some(_), _) => self.checkpoint(patience)?,
            (None, Place::Local(folder)) => return Ok(Store::existing(&folder, patience)?),
            (None, place @ Place::Azure(_)) => self.folder(&place, patience)?,
        };
        let begun = !store.list(names::GENERATIONS)?.is_empty() || !store.list(names::ADOPTIONS)?.is_empty();
        Ok(begun.then_some(store))
    }

    /// Any place as a folder of objects, for those who only read; `None` where there is no such directory. Nothing is created.
    ///
    /// # Errors
    ///
    /// As for [`Self::existing_checkpoint`].
    pub fn existing(&self, place: &Place, patience: Patience) -> Result<Option<Store>, StorageError> {
        match place {
            Place::Local(folder) => Ok(Store::existing(folder, patience)?),
            Place::Azure(_) => self.folder(place, patience).map(Some),
        }
    }

    /// A client for a container, that has been answered once.
    fn container(&self, place: &AzurePlace) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let key = (place.account.clone(), place.container.clone());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(client));
        }
        let client = azure::open(self.config, place)?;
        clients.push((key, Arc::clone(&client)));
        Ok(client)
    }
}
