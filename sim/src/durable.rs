//! What outlives every process: the objects of the checkpoint and the tables. One request is carried out at a time, whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemark_dataflows::event::Epoch;

use crate::checks::Checks;
use crate::tables::{Change, Table};

/// Tables of a pipeline: the second and the third by the names of their metrics.
pub(crate) const TABLES: [&str; 7] =
    ["net_flow", "users", "channels", "transactions", "rejected", "stream_health", "publications"];

/// What somebody asks of the stores.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Write an object; only where there is none of that name, if it is to be new.
    Put {
        /// Its name.
        name: String,
        /// Its bytes.
        bytes: Bytes,
        /// Whether it is to be new.
        new: bool,
    },
    /// Read an object.
    Get(String),
    /// List the objects below a folder.
    List(String),
    /// Delete an object.
    Delete(String),
    /// Read the newest state of a table.
    Load(usize),
    /// Commit to a table.
    Commit(Commit),
}

/// A commit: made for the version after `base` or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// The table.
    pub(crate) table: usize,
    /// The version that its writer knows.
    pub(crate) base: u64,
    /// The generation of the writer.
    pub(crate) generation: u64,
    /// Whether the writer came with the checkpoint of another pipeline.
    pub(crate) stranger: bool,
    /// The fence that it carries.
    pub(crate) fence: u64,
    /// The epoch that it carries.
    pub(crate) epoch: Epoch,
    /// What it changes.
    pub(crate) change: Change,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// There is an object of that name.
    Exists,
    /// The object, if there is one.
    Object(Option<Bytes>),
    /// Names and sizes.
    Listed(Vec<(String, u64)>),
    /// Version, fence and epoch of a table.
    Held(u64, u64, Epoch),
    /// Somebody else has committed since.
    Conflict,
    /// The store did not do it, or says so.
    Failed,
}

/// Objects and tables.
pub(crate) struct Durable {
    /// The objects of the checkpoint, by name.
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// The tables.
    pub(crate) tables: Vec<Table>,
    /// What must be true of them.
    pub(crate) checks: Checks,
    /// Whether something has changed that a look at the whole checkpoint is due for.
    pub(crate) look_due: bool,
}

impl Durable {
    /// Nothing yet.
    pub(crate) fn new(checks: Checks) -> Durable {
        let tables = TABLES.iter().map(|_| Table::default()).collect();
        Durable { objects: BTreeMap::new(), tables, checks, look_due: false }
    }

    /// Carries out a request.
    pub(crate) fn apply(&mut self, request: Request) -> Reply {
        match request {
            Request::Put { name, bytes, new } => {
                if new && self.objects.contains_key(&name) {
                    return Reply::Exists;
                }
                self.checks.put(&name, &bytes, &self.tables);
                self.look_due |= name.starts_with("manifests") || name.starts_with("adoptions");
                self.objects.insert(name, bytes);
                Reply::Done
            }
            Request::Get(name) => Reply::Object(self.objects.get(&name).cloned()),
            Request::List(folder) => {
                let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
                let listed = self.objects.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
                Reply::Listed(listed.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
            }
            Request::Delete(name) => {
                self.look_due |= self.objects.remove(&name).is_some();
                Reply::Done
            }
            Request::Load(table) => {
                let Table { version, fence, epoch, .. } = self.tables[table];
                Reply::Held(version, fence, epoch)
            }
            Request::Commit(commit) => self.commit(commit),
        }
    }

    /// Every commit carries both the epoch and the fence, so of two for the same version one is refused.
    fn commit(&mut self, commit: Commit) -> Reply {
        if self.tables[commit.table].version != commit.base {
            return Reply::Conflict;
        }
        self.checks.before(&commit, &self.tables);
        self.tables[commit.table].apply(&commit);
        self.checks.after(&commit, &self.tables);
        Reply::Done
    }

    /// How far each table has come, in a few letters: the epochs, from the least to the greatest.
    pub(crate) fn tables_in_short(&self) -> String {
        let epochs = self.tables.iter().map(|table| table.epoch);
        let (least, most) = (epochs.clone().min().unwrap_or(0), epochs.max().unwrap_or(0));
        let fences = self.tables.iter().map(|table| table.fence);
        let (low, high) = (fences.clone().min().unwrap_or(0), fences.max().unwrap_or(0));
        format!("e{least}{} f{low}{}", upto(least, most), upto(low, high))
    }

    /// How much the checkpoint holds, in a few letters.
    pub(crate) fn objects_in_short(&self) -> String {
        let count = |folder: &str| self.objects.keys().filter(|name| name.starts_with(folder)).count();
        format!("g{} c{} m{} r{}", count("generations"), count("cuts"), count("manifests"), count("runs"))
    }
}

fn upto(least: u64, most: u64) -> String {
    if least == most { String::new() } else { format!("-{most}") }
}
