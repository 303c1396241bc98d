//! A store on local disk that fails on purpose: which requests, and how, a test says.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::future::{Either, pending, ready};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemark::health::Health;

/// `ENOSPC`.
const NO_SPACE: i32 = 28;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing has happened.
    Error,
    /// It is carried out, and fails.
    LostReply,
    /// It is refused because there are too many.
    Throttled,
    /// It is never answered.
    Stall,
    /// Writing it fails until somebody has been told; then there is room.
    Full,
    /// It is refused, now and for ever.
    Denied,
}

/// Which requests fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    /// The first one, counted from 0.
    pub(crate) from: u64,
    /// How many in a row.
    pub(crate) row: u64,
    /// So many requests later, again.
    pub(crate) period: u64,
}

impl Plan {
    /// No request fails.
    pub(crate) const NOTHING: Plan = Plan { fault: Fault::Error, from: 0, row: 0, period: u64::MAX };

    /// Every request from that one on.
    pub(crate) fn ever_after(fault: Fault, from: u64) -> Plan {
        Plan { fault, from, row: u64::MAX, period: u64::MAX }
    }

    fn strikes(&self, number: u64) -> bool {
        number >= self.from && (number - self.from) % self.period < self.row
    }
}

/// A directory whose requests go as planned.
pub(crate) struct Faulty {
    disk: LocalFileSystem,
    plan: Plan,
    /// Only requests below a folder of this name count.
    only: Option<&'static str>,
    requests: AtomicU64,
    struck: AtomicU64,
    /// Who is told when there is no room.
    health: OnceLock<Arc<Health>>,
    room: AtomicBool,
    /// Asked for by the third failure.
    stop: OnceLock<Arc<AtomicBool>>,
}

impl Faulty {
    /// The file system below `root`.
    pub(crate) fn new(root: &FilePath, only: Option<&'static str>, plan: Plan) -> Arc<Faulty> {
        Arc::new(Faulty {
            disk: LocalFileSystem::new_with_prefix(root).unwrap(),
            plan,
            only,
            requests: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            health: OnceLock::new(),
            room: AtomicBool::new(false),
            stop: OnceLock::new(),
        })
    }

    /// Requests that counted.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that failed.
    pub(crate) fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    /// Whether it was seen that there is no room.
    pub(crate) fn was_shown(&self) -> bool {
        self.room.load(Ordering::Relaxed)
    }

    /// Where it is to be seen.
    pub(crate) fn watch(&self, health: &Arc<Health>) {
        let _ = self.health.set(Arc::clone(health));
    }

    /// Has the third failure ask for a stop.
    pub(crate) fn stop_at_third(&self, stop: &Arc<AtomicBool>) {
        let _ = self.stop.set(Arc::clone(stop));
    }

    /// What becomes of the next request; nothing special for most.
    fn next(&self, at: Option<&Path>, writes: bool) -> Option<Fault> {
        let counts = |path: &Path| self.only.is_none_or(|only| path.parts().any(|part| part.as_ref() == only));
        if !at.map_or(self.only.is_none(), counts) {
            return None;
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.plan.strikes(number) || self.plan.fault == Fault::Full && !(writes && self.is_full()) {
            return None;
        }
        if let (2, Some(stop)) = (self.struck.fetch_add(1, Ordering::Relaxed), self.stop.get()) {
            stop.store(true, Ordering::Relaxed);
        }
        Some(self.plan.fault)
    }

    /// Somebody makes room once it is shown that there is none; before anything can be shown, at the third attempt.
    fn is_full(&self) -> bool {
        let shown = match self.health.get() {
            Some(health) => health.failing().values().any(|why| why.contains("No space left")),
            None => self.struck() >= 3,
        };
        !(self.room.fetch_or(shown, Ordering::Relaxed) || shown)
    }

    async fn meet<T>(&self, at: &Path, writes: bool, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.next(Some(at), writes) {
            None => request.await,
            Some(Fault::LostReply) => request.await.and_then(|_| Err(refusal(Fault::LostReply, at))),
            Some(Fault::Stall) => pending().await,
            Some(fault) => Err(refusal(fault, at)),
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        at: Option<&Path>,
        answers: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let fault = self.next(at, false);
        let place = at.cloned().unwrap_or_default();
        match fault {
            None => answers,
            Some(Fault::LostReply) => answers.map(move |_| Err(refusal(Fault::LostReply, &place))).boxed(),
            Some(Fault::Stall) => stream::once(Either::<_, std::future::Ready<_>>::Left(pending())).boxed(),
            Some(fault) => stream::once(ready(Err(refusal(fault, &place)))).boxed(),
        }
    }
}

fn refusal(fault: Fault, at: &Path) -> Error {
    let generic = |source: Box<dyn StdError + Send + Sync>| Error::Generic { store: "faulty", source };
    match fault {
        Fault::Throttled => generic("503 Server Busy".into()),
        Fault::Full => generic(io::Error::from_raw_os_error(NO_SPACE).into()),
        Fault::Denied => Error::PermissionDenied { path: at.to_string(), source: "403 Forbidden".into() },
        Fault::Error | Fault::LostReply | Fault::Stall => generic("connection reset".into()),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("plan", &self.plan).finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.meet(at, true, self.disk.put_opts(at, payload, options)).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.meet(at, true, self.disk.put_multipart_opts(at, options)).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.meet(at, false, self.disk.get_opts(at, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.stream(None, self.disk.delete_stream(paths))
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(folder, self.disk.list(folder))
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.meet(&folder.cloned().unwrap_or_default(), false, self.disk.list_with_delimiter(folder)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.meet(to, true, self.disk.copy_opts(from, to, options)).await
    }
}
