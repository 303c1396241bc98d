//! A store whose requests end: each is answered in time, or has failed.
//!
//! A long answer may take its time, as long as it goes on: the limit is for the answer to begin, and for each piece of it.
//! What is sent gets a second more for each MiB. A request that was given up may still be carried out; the writer reckons
//! with that after any failure.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::time::timeout;

/// Slowest transfer that does not count as a stall.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// A store, and how long each of its requests may take.
#[derive(Debug, Clone)]
pub struct Deadline {
    store: Arc<dyn ObjectStore>,
    limit: Duration,
}

impl Deadline {
    /// Gives up requests that are not answered within `limit`, and pieces of long answers that do not come.
    pub fn new(store: Arc<dyn ObjectStore>, limit: Duration) -> Self {
        Deadline { store, limit }
    }

    fn each<T: Send + 'static>(&self, answers: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        within_each(self.limit, answers)
    }
}

fn for_bytes(limit: Duration, bytes: u64) -> Duration {
    limit.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND_MIN))
}

async fn within<T>(limit: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, request).await.unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> Error {
    let why = format!("no answer within {} ms", limit.as_millis());
    Error::Generic { store: "Deadline", source: io::Error::new(ErrorKind::TimedOut, why).into() }
}

/// Ends after the first answer that does not come. Fused, since some readers ask again after the end.
fn within_each<T: Send + 'static>(
    limit: Duration,
    answers: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match timeout(limit, answers.next()).await {
            Ok(answer) => answer.map(|answer| (answer, Some(answers))),
            Err(_) => Some((Err(late(limit)), None)),
        }
    })
    .fuse()
    .boxed()
}

impl fmt::Display for Deadline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Deadline({})", self.store)
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    limit: Duration,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let limit = for_bytes(self.limit, data.content_length() as u64);
        let part = self.inner.put_part(data);
        Box::pin(within(limit, part))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        within(self.limit, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        within(self.limit, self.inner.abort()).await
    }
}

#[async_trait]
impl ObjectStore for Deadline {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let limit = for_bytes(self.limit, payload.content_length() as u64);
        within(limit, self.store.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = within(self.limit, self.store.put_multipart_opts(path, options)).await?;
        Ok(Box::new(Upload { inner, limit: self.limit }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let mut found = within(self.limit, self.store.get_opts(path, options)).await?;
        found.payload = match found.payload {
            GetResultPayload::Stream(pieces) => GetResultPayload::Stream(self.each(pieces)),
            file @ GetResultPayload::File(..) if head => file,
            // Read here: afterwards nobody would look at the time.
            payload @ GetResultPayload::File(..) => {
                let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
                let limit = for_bytes(self.limit, range.end.saturating_sub(range.start));
                let bytes = within(limit, GetResult { payload, meta, range, attributes }.bytes()).await?;
                GetResultPayload::Stream(stream::once(future::ready(Ok(bytes))).boxed())
            }
        };
        Ok(found)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        within(for_bytes(self.limit, bytes), self.store.get_ranges(path, ranges)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.each(self.store.delete_stream(paths))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.each(self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.each(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        within(self.limit, self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        within(self.limit, self.store.copy_opts(from, to, options)).await
    }
}
