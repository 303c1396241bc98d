//! Damage to what is stored of a table: found, named, and, where the log says the same without it, passed over.
//!
//! A log checkpoint only repeats what the commits before it say. So one that cannot be read is hidden from the library, which
//! then reads the commits from the checkpoint before it on, or from the first, as long as all of them are there. Nothing else
//! can be done without.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
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
use serde_json::Value;

use crate::lake::Identity;
use crate::log::{LiveFile, commit_digest};

type Bytes = <PutPayload as IntoIterator>::Item;

const LOG: &str = "_delta_log";
const HINT: &str = "_last_checkpoint";

/// How many log files are read at once.
const READ_AHEAD: usize = 16;

/// What is to be done about an object that nothing else stands for.
const REMEDY: &str = "put it back from a copy, with everything that is newer, or start anew with another output";

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
}

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Log checkpoints, and what points to them: the log says the same without these files.
    Passable(BTreeSet<String>),
    /// An object without which nothing can be said, and what to do.
    Fatal(String),
}

fn named(name: &str) -> Path {
    Path::from_iter([LOG, name])
}

async fn read(store: &dyn ObjectStore, name: &str) -> DeltaResult<Option<Bytes>> {
    match store.get(&named(name)).await {
        Ok(found) => Ok(Some(found.bytes().await?)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks for what keeps the log of a table from being read; none where nothing does.
pub(crate) async fn of_log(store: &dyn ObjectStore) -> DeltaResult<Option<Damage>> {
    let files = LogFiles::list(store).await?;
    let mut hidden = BTreeSet::new();
    let mut base = None;
    for (version, parts) in files.checkpoints.iter().rev() {
        let mut whole = true;
        for part in parts {
            whole &= read(store, part).await?.is_some_and(|bytes| is_readable(part, bytes));
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
    let first = base.map_or(0, |base| base + 1);
    let last = files.commits.last().copied().unwrap_or(0);
    if base.is_none() && !files.commits.contains(&0) && !hidden.is_empty() {
        let names: Vec<&str> = hidden.iter().map(String::as_str).collect();
        let lost = format!("{LOG}/{} cannot be read, and the log before it is gone: {REMEDY}", names.join(", "));
        return Ok(Some(Damage::Fatal(lost)));
    }
    if let Some(what) = in_commits(store, first..last + 1, None).await? {
        return Ok(Some(Damage::Fatal(what)));
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
    let info = actions.iter().find_map(|action| action.get("commitInfo"));
    let metadata = info.and_then(|info| info["userMetadata"].as_str());
    let metadata = metadata.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    let rest =
        bytes.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| bytes.get(end + 1..).unwrap_or_default());
    let told = metadata["digest"].as_str().filter(|_| metadata["pipeline"].is_string());
    let ours = lineage.is_none_or(|lineage| metadata["lineage"].as_str().is_none_or(|told| told == lineage));
    (ours && told.is_none_or(|told| told == commit_digest(version, rest))).then_some(actions)
}

/// Which of these commits is missing or damaged, in words: the library takes an empty one for one that changes nothing.
async fn in_commits(
    store: &dyn ObjectStore,
    versions: Range<u64>,
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

/// What is wrong with what the library has read, in words: a commit that says nothing, or a data file that is gone or of another
/// size.
pub(crate) async fn of_table(table: &DeltaTable) -> DeltaResult<Option<String>> {
    let (state, store) = (table.snapshot()?, table.log_store().object_store(None));
    let version = state.version();
    let files = LogFiles::list(store.as_ref()).await?;
    let base = files.checkpoints.range(..=version).next_back().map(|(version, _)| version + 1);
    // Commits before the last checkpoint are read by nobody.
    let first = base.unwrap_or(0).max(files.commits.first().copied().unwrap_or(0));
    let lineage = state.metadata().configuration().get(Identity::LINEAGE);
    if let Some(what) = in_commits(store.as_ref(), first..version + 1, lineage.map(String::as_str)).await? {
        return Ok(Some(what));
    }
    let mut sizes = BTreeMap::new();
    let mut listed = store.list(None);
    while let Some(object) = listed.try_next().await? {
        sizes.insert(object.location, object.size);
    }
    for file in state.log_data().iter() {
        let file = LiveFile::of(&file)?;
        match sizes.get(&file.place()) {
            None => return Ok(Some(format!("{} is gone: {REMEDY}", file.path))),
            Some(size) if *size != file.bytes => {
                return Ok(Some(format!("{} has {size} bytes instead of {}: {REMEDY}", file.path, file.bytes)));
            }
            Some(_) => {}
        }
    }
    Ok(None)
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
