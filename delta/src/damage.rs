//! Damage to what is stored of a table: found, named, and, where the log says the same without it, passed over.
//!
//! A log checkpoint only repeats what the commits before it say. So one that cannot be read is hidden from the library, which
//! then reads the commits from the checkpoint before it on, or from the first, as long as all of them are there. Damage to
//! anything else is fatal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::{DeltaResult, DeltaTable, ObjectStore};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future, stream};
use serde_json::{Value, json};

use crate::lake::Identity;
use crate::log::{LiveFile, commit_digest, digest};
use crate::txn::FENCE;

type Bytes = <PutPayload as IntoIterator>::Item;

const LOG: &str = "_delta_log";
const HINT: &str = "_last_checkpoint";

/// How many log files are read at once.
const READ_AHEAD: usize = 16;

/// What is to be done about an object that nothing else stands for.
pub(crate) const REMEDY: &str =
    "put it back from a copy, with everything that is newer, or start anew with another output";

/// The files of a log, by version.
#[derive(Default)]
struct LogFiles {
    commits: BTreeSet<u64>,
    /// The parts of each checkpoint.
    checkpoints: BTreeMap<u64, Vec<String>>,
}

impl LogFiles {
    async fn list(store: &dyn ObjectStore) -> DeltaResult<LogFiles> {
        let mut files = LogFiles::default();
        let mut listed = store.list(Some(&Path::from(LOG)));
        while let Some(object) = listed.try_next().await? {
            let Some(name) = object.location.filename() else { continue };
            let Some(version) = name.split_once('.').and_then(|(version, _)| version.parse().ok()) else { continue };
            if name.contains(".checkpoint.") {
                files.checkpoints.entry(version).or_default().push(name.to_owned());
            } else if name == format!("{version:020}.json") {
                files.commits.insert(version);
            }
        }
        Ok(files)
    }

    /// The commits of these versions, of which there may be none.
    fn within(&self, versions: RangeInclusive<u64>) -> impl DoubleEndedIterator<Item = &u64> {
        self.commits.iter().filter(move |version| versions.contains(version))
    }

    /// Whether the commits up to `last` say what a checkpoint says: all since the one before it are there.
    fn repeats(&self, checkpoint: u64, last: u64) -> bool {
        let before = self.checkpoints.range(..checkpoint).next_back();
        let first = before.map_or(0, |(version, _)| version.saturating_add(1));
        first <= last && self.within(first..=last).count() as u64 == (last - first).saturating_add(1)
    }
}

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Log checkpoints, and what points to them: the log says the same without these files.
    Passable(BTreeSet<String>),
    /// The newest log checkpoint, and what points to it, which no commit vouches for, as the last one of a run, and those of
    /// tables of before: the one before it and the commits since say the same.
    Unvouched(BTreeSet<String>),
    /// An object without which nothing can be said, and what to do.
    Fatal(String),
}

pub(crate) fn named(name: &str) -> Path {
    Path::from_iter([LOG, name])
}

/// The newest checkpoint among files of a log: where several are passed over, it is why.
pub(crate) fn newest(files: &BTreeSet<String>) -> Option<&String> {
    files.iter().rev().find(|name| name.as_str() != HINT).or(files.first())
}

async fn read(store: &dyn ObjectStore, name: &str) -> DeltaResult<Option<Bytes>> {
    match store.get(&named(name)).await {
        Ok(found) => Ok(Some(found.bytes().await?)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks for what keeps the log of a table from being read; none where nothing does. As it cannot be read, a newest checkpoint
/// that no commit vouches for is to blame, if the commits say the same.
pub(crate) async fn of_log(store: &dyn ObjectStore) -> DeltaResult<Option<Damage>> {
    let files = LogFiles::list(store).await?;
    let told = told_checkpoint(store, files.commits.iter()).await?;
    let mut hidden = BTreeSet::new();
    let mut base = None;
    for (version, parts) in files.checkpoints.iter().rev() {
        let vouched = told.as_ref().is_some_and(|told| told.version == *version);
        let last = files.commits.last().copied().unwrap_or(0);
        let newest = hidden.is_empty();
        let mut whole = vouched || !newest || !files.repeats(*version, last);
        for part in parts {
            let told = told.as_ref().filter(|told| LogCheckpoint::name(told.version) == *part);
            let sound =
                |bytes: Bytes| told.is_none_or(|told| told.digest == digest(&bytes)) && is_readable(part, bytes);
            whole &= read(store, part).await?.is_some_and(sound);
        }
        if whole {
            base = Some(*version);
            break;
        }
        hidden.extend(parts.iter().cloned());
    }
    if let Some(hint) = read(store, HINT).await? {
        let version = serde_json::from_slice::<Value>(&hint).ok().and_then(|hint| hint["version"].as_u64());
        if version.is_none_or(|version| Some(version) != base && base.is_none_or(|base| base < version)) {
            hidden.insert(HINT.to_owned());
        }
    }
    let first = base.map_or(0, |base| base.saturating_add(1));
    let last = files.commits.last().copied().unwrap_or(0);
    if let Some(what) = in_commits(store, first..=last, None).await? {
        let names: Vec<&str> = hidden.iter().map(String::as_str).collect();
        let unreadable =
            if names.is_empty() { String::new() } else { format!("{LOG}/{} cannot be read, and ", names.join(", ")) };
        return Ok(Some(Damage::Fatal(unreadable + &what)));
    }
    Ok((!hidden.is_empty()).then_some(Damage::Passable(hidden)))
}

/// A parquet file of which every row can be read, or JSON.
fn is_readable(name: &str, bytes: Bytes) -> bool {
    if name.ends_with(".json") {
        return serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().all(|action| action.is_ok());
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    reader.is_ok_and(|mut batches| batches.all(|batch| batch.is_ok()))
}

/// The actions of the commit of a version; none where it is no JSON, empty, or not what was written: what we write has a digest,
/// and the lineage of the table.
pub(crate) fn actions(version: u64, bytes: &[u8], lineage: Option<&str>) -> Option<Vec<Value>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let actions: Vec<Value> = lines.map(|line| serde_json::from_slice(line).ok()).collect::<Option<_>>()?;
    let says_something = |action: &Value| action.as_object().is_some_and(|action| !action.is_empty());
    if actions.is_empty() || !actions.iter().all(says_something) {
        return None;
    }
    let metadata = user_metadata(&actions);
    // Every commit of ours says of itself what it is.
    let fenced = |action: &Value| action["txn"]["appId"].as_str().is_some_and(|app| app.ends_with(FENCE));
    if metadata.is_none() && actions.iter().any(fenced) {
        return None;
    }
    let metadata = metadata.flatten().unwrap_or_default();
    let rest =
        bytes.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| bytes.get(end + 1..).unwrap_or_default());
    let told = metadata["digest"].as_str().filter(|_| metadata["pipeline"].is_string());
    let ours = lineage.is_none_or(|lineage| metadata["lineage"].as_str().is_none_or(|told| told == lineage));
    (ours && told.is_none_or(|told| told == commit_digest(version, rest))).then_some(actions)
}

/// What a commit says of itself: none without a `commitInfo`, an inner none for one without metadata that is JSON.
fn user_metadata(actions: &[Value]) -> Option<Option<Value>> {
    let info = actions.iter().find_map(|action| action.get("commitInfo"))?;
    Some(info["userMetadata"].as_str().and_then(|text| serde_json::from_str(text).ok()))
}

/// The newest of these commits that is ours names the last log checkpoint that was made before it.
async fn told_checkpoint(
    store: &dyn ObjectStore,
    versions: impl DoubleEndedIterator<Item = &u64>,
) -> DeltaResult<Option<LogCheckpoint>> {
    for &version in versions.rev() {
        let Some(bytes) = read(store, &format!("{version:020}.json")).await? else { continue };
        let metadata = actions(version, &bytes, None).and_then(|actions| user_metadata(&actions).flatten());
        if let Some(metadata) = metadata.filter(|metadata| metadata["pipeline"].is_string()) {
            return Ok(LogCheckpoint::of(&metadata));
        }
    }
    Ok(None)
}

/// Which of these commits is missing or damaged, in words: the library takes an empty one for one that changes nothing.
async fn in_commits(
    store: &dyn ObjectStore,
    versions: RangeInclusive<u64>,
    lineage: Option<&str>,
) -> DeltaResult<Option<String>> {
    let look = async |version| -> DeltaResult<Option<String>> {
        let name = format!("{version:020}.json");
        Ok(match read(store, &name).await? {
            None => Some(format!("{LOG}/{name} is missing: {REMEDY}")),
            Some(bytes) if actions(version, &bytes, lineage).is_none() => {
                Some(format!("{LOG}/{name} is damaged: {REMEDY}"))
            }
            Some(_) => None,
        })
    };
    let looks = stream::iter(versions).map(look).buffered(READ_AHEAD);
    let mut found = std::pin::pin!(looks.try_filter_map(future::ok));
    found.try_next().await
}

/// What is wrong with what the library has read: a commit that says nothing, a log checkpoint that is not what was written, or a
/// data file that is gone or of another size. And what commits say of the newest log checkpoint. One that no commit vouches for
/// is told, unless it is to be `trusting`: each is held against the one before it.
pub(crate) async fn of_table(
    table: &DeltaTable,
    trusting: bool,
) -> DeltaResult<(Option<Damage>, Option<LogCheckpoint>)> {
    let (state, store) = (table.snapshot()?, table.log_store().object_store(None));
    let version = state.version();
    let files = LogFiles::list(store.as_ref()).await?;
    let base = files.checkpoints.range(..=version).next_back().map(|(version, _)| version.saturating_add(1));
    // Commits before the last checkpoint are read by nobody.
    let first = base.unwrap_or(0).max(files.commits.first().copied().unwrap_or(0));
    let lineage = state.metadata().configuration().get(Identity::LINEAGE);
    if let Some(what) = in_commits(store.as_ref(), first..=version, lineage.map(String::as_str)).await? {
        return Ok((Some(Damage::Fatal(what)), None));
    }
    let told = told_checkpoint(store.as_ref(), files.within(first..=version)).await?;
    let is_base =
        |told: &&LogCheckpoint| base == told.version.checked_add(1) && files.checkpoints[&told.version].len() == 1;
    if let Some(told) = told.as_ref().filter(is_base)
        && let Some(files) = told.damaged(store.as_ref()).await?
    {
        return Ok((Some(Damage::Passable(files)), Some(told.clone())));
    }
    if let Some(version) = base.and_then(|first| first.checked_sub(1))
        && !trusting
        && told.as_ref().is_none_or(|told| told.version != version)
        && files.repeats(version, state.version())
    {
        let parts = files.checkpoints[&version].iter().cloned();
        let hidden = parts.chain([HINT.to_owned()]).collect();
        return Ok((Some(Damage::Unvouched(hidden)), told));
    }
    let gone = |what: String| Ok((Some(Damage::Fatal(format!("{what}: {REMEDY}"))), None));
    let mut sizes = BTreeMap::new();
    let mut listed = store.list(None);
    while let Some(object) = listed.try_next().await? {
        sizes.insert(object.location, object.size);
    }
    for file in state.log_data().iter() {
        let file = LiveFile::of(&file)?;
        match sizes.get(&file.place()) {
            None => return gone(format!("{} is gone", file.path)),
            Some(size) if *size != file.bytes => {
                return gone(format!("{} has {size} bytes instead of {}", file.path, file.bytes));
            }
            Some(_) => {}
        }
    }
    Ok((None, told))
}

/// A checkpoint of the log that we have made. Commits after it hold its digest: Parquet itself notices few changes, and what
/// it says of files decides which of them are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogCheckpoint {
    pub(crate) version: u64,
    digest: String,
}

impl LogCheckpoint {
    fn name(version: u64) -> String {
        format!("{version:020}.checkpoint.parquet")
    }

    /// The one that was just made; none where it is called something else.
    pub(crate) async fn made(store: &dyn ObjectStore, version: u64) -> DeltaResult<Option<LogCheckpoint>> {
        let bytes = read(store, &LogCheckpoint::name(version)).await?;
        Ok(bytes.map(|bytes| LogCheckpoint { version, digest: digest(&bytes) }))
    }

    /// Its files, if it is not what was written, or gone.
    pub(crate) async fn damaged(&self, store: &dyn ObjectStore) -> DeltaResult<Option<BTreeSet<String>>> {
        let name = LogCheckpoint::name(self.version);
        let is = read(store, &name).await?.map(|bytes| digest(&bytes));
        Ok((is.as_ref() != Some(&self.digest)).then(|| [name, HINT.to_owned()].into()))
    }

    fn of(metadata: &Value) -> Option<LogCheckpoint> {
        let told = &metadata["logCheckpoint"];
        Some(LogCheckpoint { version: told["version"].as_u64()?, digest: told["digest"].as_str()?.to_owned() })
    }

    /// As commits have it.
    pub(crate) fn to_value(&self) -> Value {
        json!({ "version": self.version, "digest": self.digest })
    }
}

/// A store in which some files of a table's log are not there.
#[derive(Debug)]
pub(crate) struct Without {
    store: Arc<dyn ObjectStore>,
    /// Ends of their paths.
    hidden: Vec<String>,
}

impl Without {
    /// Hides files of the log of a table.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, table: &str, hidden: &BTreeSet<String>) -> Without {
        let path = |name: &String| format!("{table}/{LOG}/{name}");
        Without { store, hidden: hidden.iter().map(path).collect() }
    }

    fn hides(&self, path: &Path) -> bool {
        self.hidden.iter().any(|hidden| path.as_ref().ends_with(hidden))
    }

    fn shown(
        &self,
        listed: BoxStream<'static, StoreResult<ObjectMeta>>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let hidden = Without { store: Arc::clone(&self.store), hidden: self.hidden.clone() };
        listed.try_filter(move |object| future::ready(!hidden.hides(&object.location))).boxed()
    }
}

impl fmt::Display for Without {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Without({})", self.store)
    }
}

#[async_trait]
impl ObjectStore for Without {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if self.hides(path) {
            return Err(StoreError::NotFound { path: path.to_string(), source: "it is damaged".into() });
        }
        self.store.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.shown(self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.shown(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| !self.hides(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.store.copy_opts(from, to, options).await
    }
}
