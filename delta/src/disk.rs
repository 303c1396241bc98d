//! A directory as a store. Where it is asked to, what is written survives a power failure: content first, then the name.
//!
//! The library's own store links a file under its name without syncing either, so after a power failure a commit may be
//! gone, or be there and empty. Reading and deleting are left to it; a deletion that comes undone harms nothing. Listings are in
//! the order of names, as those of object stores are: the library relies on it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::ObjectStore;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use uuid::Uuid;

/// Names of unfinished uploads: not listed as data, nor as log.
const UPLOAD: &str = "_upload_";

/// A directory, whose `/` it is.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    files: Arc<LocalFileSystem>,
    sync: bool,
}

impl fmt::Display for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Disk")
    }
}

/// Whether a file name is that of an upload that a killed process may have left.
pub(crate) fn is_upload(name: &str) -> bool {
    name.starts_with(UPLOAD)
}

/// Like [`fs::create_dir_all`], and each new directory is synced into its parent if `sync` says so.
pub(crate) fn create_dir_all(path: &FilePath, sync: bool) -> io::Result<()> {
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
    parent.map_or(Ok(()), sync_directory)
}

#[cfg(unix)]
fn sync_directory(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Other systems know no such thing.
#[cfg(not(unix))]
fn sync_directory(_: &FilePath) -> io::Result<()> {
    Ok(())
}

/// A new file name beside `path`.
fn beside(path: &FilePath) -> PathBuf {
    path.with_file_name(format!("{UPLOAD}{}.tmp", Uuid::new_v4()))
}

fn failed(source: io::Error) -> Error {
    Error::Generic { store: "Disk", source: source.into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(failed)
}

/// Writes and syncs under another name, then gives the file its own, in one step: whoever sees it sees the whole of it.
fn put(path: &FilePath, payload: &PutPayload, create: bool, sync: bool) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    create_dir_all(directory, sync)?;
    let staged = beside(path);
    let written = write(&staged, payload, sync)
        .and_then(|()| if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) });
    if create || written.is_err() {
        // If this fails, maintenance deletes it later.
        let _ = fs::remove_file(&staged);
    }
    written?;
    if sync { sync_directory(directory) } else { Ok(()) }
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

impl Upload {
    async fn finish(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        let (staged, path, sync) = (self.staged.clone(), self.path.clone(), self.sync);
        blocking(move || {
            if !sync {
                return fs::rename(&staged, &path);
            }
            File::open(&staged)?.sync_all()?;
            fs::rename(&staged, &path)?;
            path.parent().map_or(Ok(()), sync_directory)
        })
        .await?;
        Ok(done)
    }
}

/// The objects in the order of their names; an error ends it.
fn in_order(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = listed.try_collect::<Vec<_>>().map_ok(|mut objects| {
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        stream::iter(objects.into_iter().map(Ok))
    });
    sorted.try_flatten_stream().boxed()
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.finish().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

impl Disk {
    /// What is written to these files, made durable if `sync` says so.
    pub(crate) fn of(files: LocalFileSystem, sync: bool) -> Disk {
        Disk { files: Arc::new(files), sync }
    }

    async fn put(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "update".to_owned(), implementer: self.to_string() });
            }
        };
        let path = self.files.path_to_filesystem(location)?;
        let sync = self.sync;
        let put = tokio::task::spawn_blocking(move || put(&path, &payload, create, sync));
        match put.await? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: error.into() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn upload(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let staged = beside(&path);
        let name = staged.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let parts = location.parts().collect::<Vec<_>>();
        let directory = parts.iter().take(parts.len().saturating_sub(1)).cloned();
        let beside = Path::from_iter(directory.chain([name.into()]));
        let parent = path.parent().map(FilePath::to_owned).unwrap_or_default();
        let sync = self.sync;
        blocking(move || create_dir_all(&parent, sync)).await?;
        let inner = self.files.put_multipart_opts(&beside, options).await?;
        Ok(Box::new(Upload { inner, staged, path, sync }))
    }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.upload(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
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
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}
