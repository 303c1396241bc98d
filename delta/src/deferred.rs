//! A store that reports the failed upload of a data file not at once, but when a commit names the file.
//!
//! It exists for a trap of the library. When the last step of an upload fails, `upload_parquet_file` (deltalake-core 1.1)
//! aborts the writer, and `BufWriter::abort` (object_store 0.13) panics by design once its shutdown has begun. The library
//! catches that panic, but a release is built with `panic = "abort"`: a full disk would end the process. So the library is
//! told that the upload is done, and goes on to the commit that adds the file. That commit is not sent; it fails with the
//! error of the upload, in a place where the library can bear it.
//!
//! What was remembered lives as long as the table handle, and a handle is replaced after each failure.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use deltalake::ObjectStore;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use futures::stream::BoxStream;
use tracing::warn;

type Bytes = <PutPayload as IntoIterator>::Item;

/// What an upload returns that was not made.
const NOTHING: PutResult = PutResult { e_tag: None, version: None };

/// Whether a path is that of a data file. Its name must stand in the commit as it is, without escapes: any other file
/// fails at once.
fn is_data(path: &Path) -> bool {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    path.filename().is_some_and(|name| name.ends_with(".parquet") && plain(name)) && !is_log(path)
}

fn is_log(path: &Path) -> bool {
    path.parts().any(|part| part.as_ref() == "_delta_log")
}

/// Errors by the name of the data file, which holds a random number of its own and is never used again.
#[derive(Debug, Clone, Default)]
struct Failures(Arc<Mutex<HashMap<String, Error>>>);

impl Failures {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Error>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of several errors of one file, such as of its parts, the first counts.
    fn remember(&self, path: &Path, error: Error) {
        warn!(%path, %error, "a data file could not be written, its commit will fail");
        self.lock().entry(path.filename().unwrap_or_default().to_owned()).or_insert(error);
    }

    fn contains(&self, path: &Path) -> bool {
        self.lock().contains_key(path.filename().unwrap_or_default())
    }

    /// Forgets the files that a commit names, and returns the error of one of them.
    fn take_named(&self, commit: &PutPayload) -> Option<Error> {
        let mut failures = self.lock();
        if failures.is_empty() {
            return None;
        }
        let commit: Vec<u8> = commit.iter().flatten().copied().collect();
        let named = |name: &str| commit.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        failures.extract_if(|name, _| named(name)).map(|(_, error)| error).reduce(|first, _| first)
    }
}

/// The store of one table handle.
#[derive(Debug, Clone)]
pub(crate) struct Deferred {
    store: Arc<dyn ObjectStore>,
    failures: Failures,
}

impl Deferred {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Deferred { store, failures: Failures::default() }
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let Some(error) = is_log(path).then(|| self.failures.take_named(&payload)).flatten() {
            return Err(error);
        }
        match self.store.put_opts(path, payload, options).await {
            Err(error) if is_data(path) => {
                self.failures.remember(path, error);
                Ok(NOTHING)
            }
            result => result,
        }
    }

    async fn upload(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.store.put_multipart_opts(path, options).await;
        if !is_data(path) {
            return begun;
        }
        let inner = begun.map_err(|error| self.failures.remember(path, error)).ok();
        Ok(Box::new(Upload { inner, path: path.clone(), failures: self.failures.clone() }))
    }
}

impl fmt::Display for Deferred {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Deferred({})", self.store)
    }
}

/// An upload in parts. It is none where it could not even begin.
#[derive(Debug)]
struct Upload {
    inner: Option<Box<dyn MultipartUpload>>,
    path: Path,
    failures: Failures,
}

impl Upload {
    async fn finish(&mut self) -> Result<PutResult> {
        let Some(inner) = &mut self.inner else {
            return Ok(NOTHING);
        };
        if !self.failures.contains(&self.path) {
            match inner.complete().await {
                Ok(done) => return Ok(done),
                Err(error) => self.failures.remember(&self.path, error),
            }
        }
        // Parts that stay are dropped by the object store, or by maintenance, later.
        let _ = inner.abort().await;
        Ok(NOTHING)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.as_mut().map(|inner| inner.put_part(data));
        let (path, failures) = (self.path.clone(), self.failures.clone());
        Box::pin(async move {
            if let Some(Err(error)) = futures::future::OptionFuture::from(part).await {
                failures.remember(&path, error);
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.finish().await
    }

    async fn abort(&mut self) -> Result<()> {
        match &mut self.inner {
            Some(inner) => inner.abort().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ObjectStore for Deferred {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.upload(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_that_name_a_failed_file_fail_and_only_once() {
        let failures = Failures::default();
        let data = Path::from("t/part-0-aa-c000.zstd.parquet");
        failures.remember(&data, Error::NotImplemented { operation: "first".into(), implementer: "x".into() });
        failures.remember(&data, Error::NotImplemented { operation: "second".into(), implementer: "x".into() });
        let commit = |name: &str| {
            PutPayload::from_iter(
                [r#"{"add":{"pa"#.to_owned(), format!(r#"th":"{name}""#)].map(|text| Bytes::from(text.into_bytes())),
            )
        };
        assert!(failures.take_named(&commit("part-0-bb-c000.zstd.parquet")).is_none());
        let error = failures.take_named(&commit("part-0-aa-c000.zstd.parquet"));
        assert!(error.is_some_and(|error| error.to_string().contains("first")));
        assert!(failures.take_named(&commit("part-0-aa-c000.zstd.parquet")).is_none() && !failures.contains(&data));
    }

    #[test]
    fn what_a_commit_might_escape_is_no_data_file() {
        for (path, expected) in [
            ("t/part-00000-0aB_c000.zstd.parquet", true),
            ("t/ab/part-0.parquet", true),
            ("t/_delta_log/00000000000000000002.checkpoint.parquet", false),
            ("t/_delta_log/00000000000000000002.json", false),
            ("t/deletion_vector_0.bin", false),
            ("t/part%0.parquet", false),
        ] {
            assert_eq!(is_data(&Path::from(path)), expected, "{path}");
        }
    }
}
