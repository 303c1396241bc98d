//! The way from an instance to the store: requests may stay on it, and arrive when the instance is long displaced.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemark_checkpoint::envelope::Digest;

/// What an instance is told whose request is on its way for good.
pub(crate) const NEVER_ANSWERED: &str = "never answered";

/// A write that has not arrived.
#[derive(Debug)]
enum Held {
    Put(Path, PutPayload, PutOptions),
    Delete(Path),
}

/// All writes that have not arrived, of whomever.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<Vec<Held>>);

impl InFlight {
    /// Lets one of them arrive.
    pub(crate) fn deliver(&self, objects: &Arc<InMemory>, which: usize) {
        // A store in memory answers at once.
        self.arrive(objects, which).now_or_never().unwrap();
    }

    async fn arrive(&self, objects: &Arc<InMemory>, which: usize) {
        let held = {
            let mut all = self.0.lock().unwrap();
            if all.is_empty() {
                return;
            }
            let which = which % all.len();
            all.remove(which)
        };
        // Nobody waits for the answer.
        match held {
            Held::Put(at, payload, options) => drop(objects.put_opts(&at, payload, options).await),
            Held::Delete(at) => drop(objects.delete(&at).await),
        }
    }
}

/// One instance's way.
#[derive(Debug)]
pub(crate) struct Wire {
    objects: Arc<InMemory>,
    in_flight: Arc<InFlight>,
    /// The format version that the instance writes.
    version: u16,
    /// Writes that still pass before all are held; none are where there is no number.
    passing: Mutex<Option<u64>>,
    /// Requests before something that was held arrives.
    interruption: Mutex<Option<u64>>,
}

impl Wire {
    pub(crate) fn new(objects: &Arc<InMemory>, in_flight: &Arc<InFlight>, version: u16) -> Wire {
        Wire {
            version,
            objects: Arc::clone(objects),
            in_flight: Arc::clone(in_flight),
            passing: Mutex::default(),
            interruption: Mutex::default(),
        }
    }

    /// After so many more writes, nothing arrives by itself any more.
    pub(crate) fn hold(&self, writes: u64) {
        *self.passing.lock().unwrap() = Some(writes);
    }

    /// Before that many more requests, something held arrives.
    pub(crate) fn interrupt(&self, after: u64) {
        *self.interruption.lock().unwrap() = Some(after);
    }

    /// An object in the format of the instance.
    pub(crate) fn as_written(&self, object: Bytes) -> Bytes {
        let mut bytes = object[..object.len() - 32].to_vec();
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        bytes.into()
    }

    fn holds(&self) -> bool {
        match &mut *self.passing.lock().unwrap() {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    async fn others(&self) {
        let now = {
            let mut interruption = self.interruption.lock().unwrap();
            let now = *interruption == Some(0);
            *interruption = if now { None } else { interruption.map(|left| left - 1) };
            now
        };
        if now {
            self.in_flight.arrive(&self.objects, 0).await;
        }
    }

    fn keep(&self, held: Held) -> Error {
        self.in_flight.0.lock().unwrap().push(held);
        // Refused for good, so that the caller ends at once instead of trying again.
        Error::PermissionDenied { path: String::new(), source: NEVER_ANSWERED.into() }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wire")
    }
}

#[async_trait]
impl ObjectStore for Wire {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.others().await;
        let payload = PutPayload::from(self.as_written(payload.into()));
        if self.holds() {
            return Err(self.keep(Held::Put(at.clone(), payload, options)));
        }
        self.objects.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.others().await;
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if !self.holds() {
            return self.objects.delete_stream(paths);
        }
        let paths = paths.collect::<Vec<_>>().now_or_never().unwrap();
        let kept = paths.into_iter().flatten().map(|path| Err(self.keep(Held::Delete(path))));
        stream::iter(kept.collect::<Vec<_>>()).boxed()
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(folder)
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(folder).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
