//! A directory as a store. Where it is asked to, what is written survives a power failure: content first, then the name.
//!
//! `object_store` links or renames files into place without syncing either, so after a power failure an object may be gone, or
//! be there and empty. Reading and deleting are left to it; a deletion that comes undone harms nothing. Listings are in the
//! order of names, as those of object stores are: the Delta library relies on it.
//!
//! A file that was not finished has a name of its own, which no two writers draw and no listing shows.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt, TryStreamExt, future};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use uuid::Uuid;

/// Names of unfinished files begin so: readers of tables take none of that kind for data, nor for log.
const UNFINISHED: &str = "_upload_";

/// A directory, whose `/` it is.
#[derive(Debug, Clone)]
pub struct Disk {
    files: Arc<LocalFileSystem>,
    sync: bool,
}

impl fmt::Display for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Disk")
    }
}

/// A new name beside `path` that no other writer uses.
pub fn unfinished(path: &FilePath) -> PathBuf {
    path.with_file_name(format!("{UNFINISHED}{}.tmp", Uuid::new_v4()))
}

/// Whether a name is that of a file that a killed process may have left. `object_store` calls them `name#digits`, and so did
/// versions of before; the Delta library has another way.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let digits = name.rsplit_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        || name.starts_with(UNFINISHED)
        || (name.starts_with("_commit_") && name.ends_with(".tmp"))
}

/// Removes unfinished files below a directory that were last written to before `expired`; others may still be written. Tells
/// how many there were.
///
/// # Errors
///
/// When the directory cannot be read, or a file not be removed.
pub fn clean_unfinished(directory: &FilePath, expired: SystemTime) -> io::Result<usize> {
    let mut removed = 0;
    walk(directory, &mut |path, is_folder| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !is_folder && is_unfinished(name) && fs::metadata(path)?.modified()? < expired {
            fs::remove_file(path)?;
            removed += 1;
        }
        Ok(())
    })?;
    Ok(removed)
}

/// Visits everything below a folder, and the folder itself last; what vanishes meanwhile is passed over.
fn walk(folder: &FilePath, visit: &mut dyn FnMut(&FilePath, bool) -> io::Result<()>) -> io::Result<()> {
    let unless_gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_folder = match entry.file_type() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            kind => kind?.is_dir(),
        };
        unless_gone(if is_folder { walk(&entry.path(), visit) } else { visit(&entry.path(), false) })?;
    }
    unless_gone(visit(folder, true))
}

/// Like [`fs::create_dir_all`], and each new directory is synced into its parent if `sync` says so.
///
/// # Errors
///
/// When one cannot be made or synced.
pub fn create_dir_all(path: &FilePath, sync: bool) -> io::Result<()> {
    if !sync {
        return fs::create_dir_all(path);
    }
    if path.try_exists()? {
        return Ok(());
    }
    let parent = path.parent();
    parent.map_or(Ok(()), |parent| create_dir_all(parent, sync))?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }?;
    parent.map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
///
/// When it cannot be opened or synced.
#[cfg(unix)]
pub fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems know no such thing.
///
/// # Errors
///
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_: &FilePath) -> io::Result<()> {
    Ok(())
}

fn failed(source: io::Error) -> Error {
    Error::Generic { store: "Disk", source: source.into() }
}

fn not_offered(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "Disk".to_owned() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(failed)
}

/// Writes and syncs under another name, then gives the file its own, in one step: who sees it sees the whole of it.
fn put(path: &FilePath, payload: &PutPayload, create: bool, sync: bool) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    create_dir_all(folder, sync)?;
    let staged = unfinished(path);
    let written = write(&staged, payload, sync)
        .and_then(|()| if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) });
    if create || written.is_err() {
        // If this fails, it is cleaned away later.
        let _ = fs::remove_file(&staged);
    }
    let exists = |error: &io::Error| error.kind() == ErrorKind::AlreadyExists;
    if sync && written.as_ref().map_or_else(exists, |()| true) {
        // A name that somebody else has just made is relied upon as well.
        sync_folder(folder)?;
    }
    written
}

fn write(path: &FilePath, payload: &PutPayload, sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
    if sync { file.sync_all() } else { Ok(()) }
}

/// An upload to another name; completing it syncs, renames and syncs again.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    staged: PathBuf,
    path: PathBuf,
    sync: bool,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        let (staged, path, sync) = (self.staged.clone(), self.path.clone(), self.sync);
        blocking(move || {
            if !sync {
                return fs::rename(&staged, &path);
            }
            File::open(&staged)?.sync_all()?;
            fs::rename(&staged, &path)?;
            path.parent().map_or(Ok(()), sync_folder)
        })
        .await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Whether a listing may show it.
fn is_whole(object: &ObjectMeta) -> bool {
    object.location.filename().is_none_or(|name| !is_unfinished(name))
}

/// The objects in the order of their names; an error ends it.
fn in_order(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let whole = listed.try_filter(|object| future::ready(is_whole(object)));
    let sorted = whole.try_collect::<Vec<_>>().map_ok(|mut objects| {
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        stream::iter(objects.into_iter().map(Ok))
    });
    sorted.try_flatten_stream().boxed()
}

impl Disk {
    /// A directory that is there; nothing is created. What is written to it is made durable if `sync` says so.
    ///
    /// # Errors
    ///
    /// When it cannot be found.
    pub fn open(directory: &FilePath, sync: bool) -> io::Result<Disk> {
        let files = LocalFileSystem::new_with_prefix(directory.canonicalize()?).map_err(io::Error::other)?;
        Ok(Disk { files: Arc::new(files), sync })
    }

    /// A directory that this process alone writes to, created if need be, whose folders go once they are empty. All of them are
    /// synced: a process that was killed may have left names that are visible but not durable yet.
    ///
    /// # Errors
    ///
    /// When it cannot be created or synced.
    pub fn create(directory: &FilePath) -> io::Result<Disk> {
        fs::create_dir_all(directory)?;
        let root = directory.canonicalize()?;
        walk(&root, &mut |path, is_folder| if is_folder { sync_folder(path) } else { Ok(()) })?;
        root.parent().map_or(Ok(()), sync_folder)?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?.with_automatic_cleanup(true);
        Ok(Disk { files: Arc::new(files), sync: true })
    }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_offered("put_opts with mode Update")),
        };
        let (path, sync) = (self.files.path_to_filesystem(location)?, self.sync);
        match tokio::task::spawn_blocking(move || put(&path, &payload, create, sync)).await? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: error.into() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (path, sync) = (self.files.path_to_filesystem(location)?, self.sync);
        let staged = unfinished(&path);
        let name = staged.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let parts = location.parts().collect::<Vec<_>>();
        let directory = parts.iter().take(parts.len().saturating_sub(1)).cloned();
        let beside = Path::from_iter(directory.chain([name.into()]));
        let parent = path.parent().map(FilePath::to_owned).unwrap_or_default();
        blocking(move || create_dir_all(&parent, sync)).await?;
        let inner = self.files.put_multipart_opts(&beside, options).await?;
        Ok(Box::new(Upload { inner, staged, path, sync }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        // To open a pipe waits for somebody who writes to it.
        let kind = tokio::fs::metadata(self.files.path_to_filesystem(path)?).await;
        if kind.is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err(failed(io::Error::new(ErrorKind::Unsupported, format!("{path} is no regular file"))));
        }
        self.files.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.files.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.files.list_with_delimiter(prefix).await?;
        listed.objects.retain(is_whole);
        Ok(listed)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_offered("copy_opts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unfinished_names_match() {
        for name in ["00000000000000000007.json#1", "part-0.zstd.parquet#12", "_commit_ab.json.tmp", "_upload_7_1.tmp"]
        {
            assert!(is_unfinished(name), "{name}");
        }
        for name in ["00000000000000000007.json", "part-0.zstd.parquet", "part#x.parquet", "_last_checkpoint"] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
