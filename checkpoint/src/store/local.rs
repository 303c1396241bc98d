//! A directory whose files are synced before they are acknowledged.
//!
//! `object_store` links or renames files into place without syncing them: safe when the process is killed, not when
//! power is lost. Here the bytes are synced before a name points to them, and the directory before the call returns.
//! A file that was not finished is called `name#digits`: `object_store` knows that convention and never shows it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// A directory as an object store.
#[derive(Debug)]
pub(super) struct SyncedFiles {
    files: LocalFileSystem,
    root: PathBuf,
}

impl SyncedFiles {
    /// Opens a directory, creating it if need be, and syncs all folders in it: a process that was killed may have left
    /// names that are visible but not durable yet.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let root = directory.canonicalize()?;
        if let Some(parent) = root.parent() {
            sync_folder(parent)?;
        }
        walk(&root, &mut |path, is_folder| if is_folder { sync_folder(path) } else { Ok(()) })?;
        sync_folder(&root)?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?.with_automatic_cleanup(true);
        Ok(SyncedFiles { files, root })
    }

    /// A directory that is there already, for those who only read: nothing is created or synced.
    pub(super) fn look_at(directory: &Path) -> io::Result<Self> {
        let root = directory.canonicalize()?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        Ok(SyncedFiles { files, root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

/// Writes a file beside its place, syncs it, moves it there and syncs the folder.
fn write(root: &Path, path: &Path, payload: &PutPayload, create: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(root);
    make_folder(root, folder)?;
    let staged = unfinished(path);
    let mut outcome = stage(&staged, payload);
    if outcome.is_ok() {
        outcome = if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) };
    }
    if create || outcome.is_err() {
        // Whatever stays behind is hidden, and cleaned away later.
        let _ = fs::remove_file(&staged);
    }
    let exists = |error: &io::Error| error.kind() == ErrorKind::AlreadyExists;
    if outcome.as_ref().map_or_else(exists, |()| true) {
        // A name that somebody else has just made is relied upon as well.
        sync_folder(folder)?;
    }
    outcome
}

fn stage(staged: &Path, payload: &PutPayload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(staged)?;
    payload.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

/// A name beside `path` that no other writer uses.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(path.as_os_str());
    name.push(format!("#{nanos}{:07}{count:06}", std::process::id()));
    name.into()
}

/// Makes a folder below `root`. Its name is durable once the folder that holds it is synced, so all are.
fn make_folder(root: &Path, folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    folder.ancestors().skip(1).take_while(|above| above.starts_with(root)).try_for_each(sync_folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Visits everything below a folder; what vanishes meanwhile is passed over.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool) -> io::Result<()>) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let entries = match fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = match entry.file_type() {
            Err(error) if gone(&error) => continue,
            kind => kind?,
        };
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, visit)?;
        }
        match visit(&path, kind.is_dir()) {
            Err(error) if gone(&error) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Removes unfinished files that nobody has written to for `older_than`.
pub(super) fn clean_leftovers(root: &Path, older_than: Duration) -> io::Result<usize> {
    let mut removed = 0;
    walk(root, &mut |path, is_folder| {
        if is_folder || !is_unfinished(path) {
            return Ok(());
        }
        let age = SystemTime::now().duration_since(fs::metadata(path)?.modified()?).unwrap_or(Duration::ZERO);
        if age >= older_than {
            fs::remove_file(path)?;
            removed += 1;
        }
        Ok(())
    })?;
    Ok(removed)
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    name.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for SyncedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

fn not_offered(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "SyncedFiles".to_owned() }
}

#[async_trait]
impl ObjectStore for SyncedFiles {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_offered("put_opts with mode Update")),
        };
        let (root, path) = (self.root.clone(), self.files.path_to_filesystem(location)?);
        let written = tokio::task::spawn_blocking(move || write(&root, &path, &payload, create)).await?;
        match written {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(error) })
            }
            Err(error) => Err(Error::Generic { store: "SyncedFiles", source: Box::new(error) }),
        }
    }

    async fn put_multipart_opts(&self, _: &Key, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_offered("put_multipart_opts"))
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        Err(not_offered("copy_opts"))
    }

    async fn rename_opts(&self, _: &Key, _: &Key, _: RenameOptions) -> Result<()> {
        Err(not_offered("rename_opts"))
    }
}
