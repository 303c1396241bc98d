//! The log of a table as its writer knows it: what the last commit left, kept from commit to commit.
//!
//! A commit is one object, `_delta_log/<version>.json`, put only if there is none of that name: who puts it first has made
//! the version, and everybody else learns that they have not. So a commit asks for nothing: no listing, no reading. The
//! library reads the log when a table is opened, and in doubt; from then on the live files are counted here.
//!
//! Put-if-absent says nothing about a version whose log file has expired. So what is known counts for half of the least time
//! that log files live on; after that the log is read again before anything is put, and a commit that took so long is in doubt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use deltalake::kernel::LogicalFileView;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::{CommitOrBytes, LogStoreRef, commit_uri_from_version};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::damage::LogCheckpoint;
use crate::foreign::ForeignChanges;
use crate::lake::{Identity, Lake};
use crate::policy::RETENTION_MIN;
use crate::txn::Stamp;

/// How commits name the program that made them.
const ENGINE: &str = concat!("Tidemark/", env!("CARGO_PKG_VERSION"));

/// A file that is part of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LiveFile {
    /// Path below the table, as the log has it but for escapes.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// `numRecords`, `minValues`, `maxValues`, `nullCount`; null where the log has none.
    pub(crate) statistics: Value,
}

impl LiveFile {
    pub(crate) fn of(file: &LogicalFileView) -> DeltaResult<LiveFile> {
        let statistics = file.stats().map_or(Ok(Value::Null), |statistics| serde_json::from_str(&statistics));
        Ok(LiveFile {
            path: file.path().into_owned(),
            bytes: u64::try_from(file.size()).unwrap_or_default(),
            modified_ms: file.modification_time(),
            statistics: statistics?,
        })
    }

    /// Where it lies in the store of the table.
    pub(crate) fn place(&self) -> Path {
        Path::parse(&self.path).unwrap_or_else(|_| Path::from(self.path.as_str()))
    }

    /// Whether the log has the path as it is, without escapes, so that both name the same file to whoever reads a commit.
    pub(crate) fn is_plain(&self) -> bool {
        self.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=/".contains(&byte))
            && !self.path.starts_with('/')
    }

    /// What is wrong with its bytes, in words. Files that we write have a digest in their names: Parquet itself notices few
    /// changes inside of a page.
    pub(crate) fn damage(&self, bytes: &[u8]) -> Option<String> {
        let found = bytes.len() as u64;
        if found != self.bytes {
            return Some(format!("{} has {found} bytes instead of {}", self.path, self.bytes));
        }
        let told = self.digest()?;
        (told != digest(bytes)).then(|| format!("{} is not what was written", self.path))
    }

    /// The digest in its name; none in files of others, and of before.
    pub(crate) fn digest(&self) -> Option<&str> {
        let mut parts = self.path.strip_suffix(".zstd.parquet")?.rsplit('.');
        parts.next().filter(|part| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// How many rows it holds, as far as the log says.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.statistics["numRecords"].as_u64()
    }

    fn added(&self, data_change: bool) -> Value {
        json!({ "add": {
            "path": self.path,
            "partitionValues": {},
            "size": self.bytes,
            "modificationTime": self.modified_ms,
            "dataChange": data_change,
            "stats": self.statistics.to_string(),
        }})
    }

    fn removed(&self, data_change: bool, now_ms: i64) -> Value {
        json!({ "remove": {
            "path": self.path,
            "deletionTimestamp": now_ms,
            "dataChange": data_change,
            "extendedFileMetadata": true,
            "partitionValues": {},
            "size": self.bytes,
        }})
    }
}

/// What a commit is called, by the names that other engines use, and what it says of itself.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Texts by name: readers expect nothing else.
    pub(crate) parameters: Value,
    /// Whole numbers by name.
    pub(crate) metrics: Value,
}

impl Operation {
    /// The name of adding rows without looking at any.
    pub(crate) const APPEND: &str = "WRITE";

    /// A commit that holds no files.
    pub(crate) fn transaction_only(pipeline: &str, epoch: i64) -> Operation {
        let parameters = json!({ "outputMode": "Update", "queryId": pipeline, "epochId": epoch.to_string() });
        Operation { name: "STREAMING UPDATE", parameters, metrics: json!({}) }
    }
}

/// What a commit changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) added: Vec<LiveFile>,
    pub(crate) removed: Vec<LiveFile>,
    /// Whether rows change, and not only the files that hold them.
    pub(crate) rows: bool,
    /// The metadata from then on, where it changes.
    pub(crate) metadata: Option<Value>,
    /// The protocol from then on, of a table that comes into being.
    pub(crate) protocol: Option<Value>,
}

/// The log, as far as its writer knows it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) store: LogStoreRef,
    pub(crate) version: u64,
    /// The `metaData` action in force.
    pub(crate) metadata: Value,
    /// The `protocol` action in force.
    pub(crate) protocol: Value,
    files: BTreeMap<String, LiveFile>,
    /// The newest checkpoint, if we know its digest.
    pub(crate) checkpoint: Option<LogCheckpoint>,
    /// What others have changed, and nobody has settled.
    pub(crate) foreign: Option<ForeignChanges>,
    /// A live file of which somebody has deleted rows, if there is one.
    pub(crate) with_deletion_vector: Option<String>,
    /// When that was known: by a clock that never jumps, and by one that goes on while a machine sleeps. None in doubt.
    known: Option<(Instant, SystemTime)>,
    good_for: Duration,
    /// The table's directory, on a local disk.
    directory: Option<PathBuf>,
}

impl Log {
    /// What the library has read, which began at `asked`. It counts for half of the least time that a writer of this table may
    /// let log files live on, as a successor may have another one than ours: `retention`, where that is even less.
    pub(crate) fn of(table: &DeltaTable, asked: (Instant, SystemTime), lake: &Lake, name: &str) -> DeltaResult<Log> {
        let state = table.snapshot()?;
        let (mut files, mut with_deletion_vector) = (BTreeMap::new(), None);
        for file in state.log_data().iter() {
            if file.deletion_vector_descriptor().is_some() {
                with_deletion_vector = Some(file.path().into_owned());
            }
            let file = LiveFile::of(&file)?;
            files.insert(file.path.clone(), file);
        }
        Ok(Log {
            store: table.log_store(),
            version: state.version(),
            metadata: serde_json::to_value(state.metadata())?,
            protocol: serde_json::to_value(state.protocol())?,
            files,
            checkpoint: None,
            foreign: None,
            with_deletion_vector,
            known: Some(asked),
            good_for: lake.policy.log_retention.min(RETENTION_MIN) / 2,
            directory: lake.location.directory(name),
        })
    }

    /// The present, for [`Log::of`].
    pub(crate) fn now() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    /// The table's own id, which no other table has.
    pub(crate) fn table_id(&self) -> &str {
        self.metadata["id"].as_str().unwrap_or_default()
    }

    /// The files that are part of the table, in the order of their paths.
    pub(crate) fn files(&self) -> impl ExactSizeIterator<Item = &LiveFile> {
        self.files.values()
    }

    /// Whether a file is part of the table.
    pub(crate) fn is_live(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether the files are those that the library reads at the same version.
    pub(crate) fn agrees_with(&self, table: &DeltaTable) -> DeltaResult<bool> {
        let state = table.snapshot()?;
        let theirs = state.log_data();
        let same = |file: LogicalFileView| self.is_live(&file.path());
        Ok(state.version() == self.version && theirs.num_files() == self.files.len() && theirs.iter().all(same))
    }

    /// From now on nothing is known, until the log was read again.
    pub(crate) fn doubt(&mut self) {
        self.known = None;
    }

    /// Whether the log must be read before it is written: there is doubt, or log files that came after ours may have expired.
    pub(crate) fn is_stale(&self) -> bool {
        // A clock that was set back says nothing.
        self.known
            .is_none_or(|(instant, time)| instant.elapsed().max(time.elapsed().unwrap_or_default()) >= self.good_for)
    }

    /// Whether the log file of our version is where it was. On a local disk this costs no request; in an object store only
    /// the next reading of the log tells.
    fn is_there(&self) -> bool {
        let path = self.directory.as_ref();
        path.is_none_or(|path| path.join(commit_uri_from_version(Some(self.version)).as_ref()).exists())
    }

    /// Makes the next version, or fails and changes nothing here; whether the log has it then is not known.
    pub(crate) async fn commit(
        &mut self,
        identity: &Identity,
        stamp: Stamp,
        operation: Operation,
        changes: Changes,
    ) -> DeltaResult<()> {
        let version = self.version + 1;
        let asked = Log::now();
        if !self.is_there() {
            return Err(DeltaTableError::generic(format!("the log of version {} is gone", self.version)));
        }
        let bytes = entry(identity, stamp, operation, &changes, Some(self));
        put(&self.store, version, bytes).await?;
        if self.is_stale() {
            return Err(DeltaTableError::generic(format!(
                "version {version} was put after the log may have expired, or in doubt"
            )));
        }
        self.version = version;
        self.known = Some(asked);
        for file in changes.removed {
            self.files.remove(&file.path);
        }
        self.files.extend(changes.added.into_iter().map(|file| (file.path.clone(), file)));
        if let Some(metadata) = changes.metadata {
            self.metadata = metadata;
        }
        Ok(())
    }
}

/// Whether two readings of a table found the same: metadata, protocol, and live files with what is said of them. An error where
/// one of them makes no sense.
pub(crate) fn say_the_same(one: &DeltaTable, other: &DeltaTable) -> DeltaResult<bool> {
    let said = |table: &DeltaTable| -> DeltaResult<_> {
        let state = table.snapshot()?;
        let data = state.log_data();
        let files = data.iter().map(|file| LiveFile::of(&file).map(|file| (file.path.clone(), file)));
        let files = files.collect::<DeltaResult<BTreeMap<_, _>>>()?;
        Ok((serde_json::to_value(state.metadata())?, serde_json::to_value(state.protocol())?, files))
    };
    Ok(said(one)? == said(other)?)
}

/// Makes version 0 of a table.
pub(crate) async fn create(
    store: &LogStoreRef,
    identity: &Identity,
    stamp: Stamp,
    protocol: Value,
    metadata: Value,
) -> DeltaResult<()> {
    let operation = Operation { name: "CREATE TABLE", parameters: json!({}), metrics: json!({}) };
    let changes = Changes { metadata: Some(metadata), protocol: Some(protocol), ..Changes::default() };
    put(store, 0, entry(identity, stamp, operation, &changes, None)).await
}

/// The commit of a version. What it says of itself comes first, where readers look for it.
fn entry(identity: &Identity, stamp: Stamp, operation: Operation, changes: &Changes, before: Option<&Log>) -> String {
    let now_ms = now_ms();
    let mut info = json!({
        "timestamp": now_ms,
        "operation": operation.name,
        "operationParameters": operation.parameters,
        "operationMetrics": operation.metrics,
        "isolationLevel": "Serializable",
        "isBlindAppend": operation.name == Operation::APPEND,
        "engineInfo": ENGINE,
    });
    if let Some(before) = before {
        info["readVersion"] = before.version.into();
    }
    let mut actions: Vec<Value> = changes.protocol.iter().map(|protocol| json!({ "protocol": protocol })).collect();
    actions.extend(changes.metadata.iter().map(|metadata| json!({ "metaData": metadata })));
    actions.extend(identity.transactions(stamp));
    actions.extend(changes.removed.iter().map(|file| file.removed(changes.rows, now_ms)));
    actions.extend(changes.added.iter().map(|file| file.added(changes.rows)));
    let rest: String = actions.iter().map(|action| format!("{action}\n")).collect();
    let version = before.map_or(0, |before| before.version + 1);
    info["userMetadata"] = identity.user_metadata(stamp, &commit_digest(version, rest.as_bytes()), before).into();
    format!("{}\n{rest}", json!({ "commitInfo": info }))
}

/// The digest of a commit: of its version, and of all that it holds but what it says of itself, in which the digest stands.
pub(crate) fn commit_digest(version: u64, rest: &[u8]) -> String {
    digest(&[&version.to_le_bytes(), rest].concat())
}

async fn put(store: &LogStoreRef, version: u64, bytes: String) -> DeltaResult<()> {
    let entry = CommitOrBytes::LogBytes(bytes.into());
    Ok(store.write_commit_entry(version, entry, Uuid::new_v4()).await?)
}

/// What tells one content from another: 32 hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().as_str().chars().take(32).collect()
}

/// The present, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
