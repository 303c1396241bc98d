//! A local disk whose every request can be judged by the test: passed on, failed, lost, repeated, held back, delivered late.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, Once};

use deltalake::ObjectStore;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};
use futures::future::{BoxFuture, pending};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use crate::points::{Point, changes};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Put,
    Begin,
    Part,
    Complete,
    Get,
    List,
    Delete,
}

impl Kind {
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Kind::Get | Kind::List | Kind::Delete)
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Pass,
    /// Fails, and has no effect.
    Fail(fn() -> StoreError),
    /// Takes effect, and is reported as failed.
    Lose(fn() -> StoreError),
    /// Fails for want of space, and half of it stays under the name that the store stages it by.
    Half,
    /// Takes effect twice, as if resent after a lost reply.
    Twice,
    /// Is never delivered, nor answered.
    Stall,
    /// Takes effect, opens the gate, and is never answered.
    Mute(Gate),
    /// Is delivered, and answered, once the gate is open.
    Hold(Gate),
    /// Is delivered once the gate is open, whatever has become of the caller; it is never answered.
    Late(Gate),
}

pub(crate) type Judge = dyn Fn(Kind, &str) -> Verdict + Send + Sync;

pub(crate) fn injected() -> StoreError {
    StoreError::Generic { store: "test", source: "injected".into() }
}

pub(crate) fn full() -> StoreError {
    StoreError::Generic { store: "test", source: io::Error::from_raw_os_error(28).into() }
}

pub(crate) fn refused() -> StoreError {
    StoreError::PermissionDenied { path: "p".to_owned(), source: "403".into() }
}

pub(crate) fn is_commit(path: &str) -> bool {
    path.contains("_delta_log/") && path.ends_with(".json")
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// The panics outside of the tests since the first [`Judged`] was made, whoever caught them: a release catches none.
pub(crate) fn panics() -> Vec<String> {
    PANICS.lock().unwrap().clone()
}

fn watch_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let ours = panic.location().is_some_and(|location| location.file().contains("tests/it"));
        // A thread of the library that listed the log when the runtime was dropped, as at the end of a test that left a
        // request without an answer.
        let dropped =
            panic.payload_as_str().is_some_and(|text| text == "TokioMultiThreadExecutor has crashed: RecvError");
        if !dropped {
            report(panic);
        }
        if !ours && !dropped {
            PANICS.lock().unwrap().push(panic.to_string());
        }
    }));
}

/// Closed until it is opened, once and for all.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Gate(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(crate) async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[derive(Clone)]
pub(crate) struct Judged {
    disk: Arc<LocalFileSystem>,
    judge: Arc<Mutex<Arc<Judge>>>,
    /// Late requests that have been delivered.
    pub(crate) late: watch::Sender<usize>,
}

impl Judged {
    pub(crate) fn new() -> Self {
        WATCH.call_once(watch_panics);
        let pass: Arc<Judge> = Arc::new(|_, _| Verdict::Pass);
        Judged {
            disk: Arc::new(LocalFileSystem::new()),
            judge: Arc::new(Mutex::new(pass)),
            late: watch::Sender::new(0),
        }
    }

    /// From now on requests are judged like this.
    pub(crate) fn judge(&self, judge: impl Fn(Kind, &str) -> Verdict + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    pub(crate) fn pass(&self) {
        self.judge(|_, _| Verdict::Pass);
    }

    /// The request at `point`, of those that are still to come, is judged so, the others pass. The gate opens when it is
    /// made.
    pub(crate) fn judge_only(&self, point: Point, verdict: Verdict) -> Gate {
        let (reached, count) = (Gate::closed(), Mutex::new(0));
        let opened = reached.clone();
        self.judge(move |kind, _| {
            if changes(kind) != point.writes {
                return Verdict::Pass;
            }
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count != point.number + 1 {
                return Verdict::Pass;
            }
            opened.open();
            verdict.clone()
        });
        reached
    }

    fn of(&self, kind: Kind, path: &str) -> Verdict {
        let judge = Arc::clone(&self.judge.lock().unwrap());
        judge(kind, path)
    }

    /// Carries out a request as it is judged.
    async fn request<T, F>(&self, verdict: Verdict, act: impl Fn() -> F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: Future<Output = StoreResult<T>> + Send + 'static,
    {
        match verdict {
            Verdict::Pass => act().await,
            Verdict::Fail(error) => Err(error()),
            Verdict::Half => Err(full()),
            Verdict::Lose(error) => {
                act().await?;
                Err(error())
            }
            Verdict::Twice => {
                act().await?;
                act().await
            }
            Verdict::Stall => pending().await,
            Verdict::Mute(done) => {
                // Its own outcome is nobody's business.
                let _ = act().await;
                done.open();
                pending().await
            }
            Verdict::Hold(gate) => {
                gate.passed().await;
                act().await
            }
            Verdict::Late(gate) => {
                let (request, late) = (act(), self.late.clone());
                tokio::spawn(async move {
                    gate.passed().await;
                    let _ = request.await;
                    late.send_modify(|late| *late += 1);
                });
                pending().await
            }
        }
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let verdict = self.of(Kind::Put, path.as_ref());
        if matches!(verdict, Verdict::Half) {
            let bytes: Vec<u8> = payload.iter().flat_map(|bytes| bytes.to_vec()).collect();
            let mut staged = self.disk.path_to_filesystem(path)?.into_os_string();
            staged.push("#1");
            std::fs::write(staged, &bytes[..bytes.len() / 2]).unwrap();
        }
        let act = || {
            let (disk, path, payload, options) =
                (Arc::clone(&self.disk), path.clone(), payload.clone(), options.clone());
            async move { disk.put_opts(&path, payload, options).await }
        };
        self.request(verdict, act).await
    }

    async fn begin(&self, path: &Path, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        let act = || {
            let (disk, path, options) = (Arc::clone(&self.disk), path.clone(), options.clone());
            async move { disk.put_multipart_opts(&path, options).await }
        };
        let inner = self.request(self.of(Kind::Begin, path.as_ref()), act).await?;
        let inner = Arc::new(tokio::sync::Mutex::new(inner));
        Ok(Box::new(Upload { store: self.clone(), path: path.clone(), inner }))
    }

    async fn get(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let act = || {
            let (disk, path, options) = (Arc::clone(&self.disk), path.clone(), options.clone());
            async move { disk.get_opts(&path, options).await }
        };
        self.request(self.of(Kind::Get, path.as_ref()), act).await
    }

    async fn delete(&self, path: Path) -> StoreResult<Path> {
        let act = || {
            let (disk, path) = (Arc::clone(&self.disk), path.clone());
            async move { disk.delete(&path).await.map(|()| path) }
        };
        self.request(self.of(Kind::Delete, path.as_ref()), act).await
    }

    /// The listing starts once the request has been let through.
    fn listed(
        &self,
        prefix: Option<&Path>,
        list: impl FnOnce(&LocalFileSystem) -> BoxStream<'static, StoreResult<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (store, verdict) = (self.clone(), self.of(Kind::List, prefix.map_or("", Path::as_ref)));
        let let_through = async move { store.request(verdict, || async { Ok(()) }).await.map(|()| store) };
        let files = let_through.map(move |through| match through {
            Ok(store) => list(&store.disk),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        });
        files.flatten_stream().boxed()
    }
}

impl fmt::Debug for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Judged")
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Judged")
    }
}

#[derive(Debug)]
struct Upload {
    store: Judged,
    path: Path,
    inner: Arc<tokio::sync::Mutex<Box<dyn MultipartUpload>>>,
}

impl MultipartUpload for Upload {
    /// The order of the calls is that of the parts, so the part is made here, whenever it is delivered.
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, verdict) = (self.store.clone(), self.store.of(Kind::Part, self.path.as_ref()));
        let part = Mutex::new(Some(self.inner.try_lock().unwrap().put_part(data)));
        Box::pin(async move {
            let act = || {
                let part = part.lock().unwrap().take();
                async move { futures::future::OptionFuture::from(part).await.unwrap_or(Ok(())) }
            };
            store.request(verdict, act).await
        })
    }

    fn complete<'a, 'c>(&'a mut self) -> BoxFuture<'c, StoreResult<PutResult>>
    where
        'a: 'c,
        Self: 'c,
    {
        let verdict = self.store.of(Kind::Complete, self.path.as_ref());
        Box::pin(async move {
            let act = || {
                let inner = Arc::clone(&self.inner);
                async move { inner.lock().await.complete().await }
            };
            self.store.request(verdict, act).await
        })
    }

    fn abort<'a, 'c>(&'a mut self) -> BoxFuture<'c, StoreResult<()>>
    where
        'a: 'c,
        Self: 'c,
    {
        Box::pin(async move { self.inner.lock().await.abort().await })
    }
}

// Written out without the macro crate for async traits: boxed futures are what it makes.
impl ObjectStore for Judged {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, StoreResult<PutResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.put(path, payload, options))
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, StoreResult<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.begin(path, options))
    }

    fn get_opts<'a, 'b, 'c>(&'a self, path: &'b Path, options: GetOptions) -> BoxFuture<'c, StoreResult<GetResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.get(path, options))
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let store = self.clone();
        let deleted = paths.then(move |path| {
            let store = store.clone();
            async move { store.delete(path?).await }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let owned = prefix.cloned();
        self.listed(prefix, move |disk| disk.list(owned.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (owned, offset) = (prefix.cloned(), offset.clone());
        self.listed(prefix, move |disk| disk.list_with_offset(owned.as_ref(), &offset))
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, StoreResult<ListResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let act = move || {
            let (disk, prefix) = (Arc::clone(&self.disk), prefix.cloned());
            async move { disk.list_with_delimiter(prefix.as_ref()).await }
        };
        let verdict = self.of(Kind::List, prefix.map_or("", Path::as_ref));
        Box::pin(async move { self.request(verdict, act).await })
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> BoxFuture<'c, StoreResult<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.disk.copy_opts(from, to, options)
    }
}
