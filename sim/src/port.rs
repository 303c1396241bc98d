//! The way from an instance to the stores. Whatever runs in a process asks through here, and blocks until it is answered.
//!
//! A job, such as a start or a checkpoint, runs in one of two ways. *Straight*, on the thread of the simulator: each request
//! is carried out as it is made, so nothing comes between two of them. *Interleaved*, on a thread of its own: each request
//! goes to the simulator, which decides when it arrives, what becomes of it and when the answer comes, and lets the thread go
//! on only then. Never do two threads run at once, so a seed is the same each time.

use std::cell::RefCell;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemark_checkpoint::names;
use tidemark_store::{Patience, Store};

use crate::durable::{Durable, Reply, Request};
use crate::jobs::Outcome;

/// What a thread says.
pub(crate) enum Said {
    /// It asks for something, and waits.
    Asks(Request),
    /// Its job is done.
    Done(Outcome),
}

enum Port {
    Straight(Arc<Mutex<Durable>>),
    Interleaved { asks: Sender<Said>, answers: Receiver<Option<Reply>>, gone: bool },
}

thread_local! {
    static PORT: RefCell<Option<Port>> = const { RefCell::new(None) };
    /// Later generations than this one are not seen in listings.
    static BLIND_AFTER: RefCell<Option<u64>> = const { RefCell::new(None) };
}

/// Asks for something, and waits for the answer. A process that has died is answered that everything fails.
pub(crate) fn ask(request: Request) -> Reply {
    PORT.with_borrow_mut(|port| match port {
        None => Reply::Failed,
        Some(Port::Straight(durable)) => durable.lock().unwrap_or_else(PoisonError::into_inner).apply(request),
        Some(Port::Interleaved { gone: true, .. }) => Reply::Failed,
        Some(Port::Interleaved { asks, answers, gone }) => {
            let answer = asks.send(Said::Asks(request)).ok().and_then(|()| answers.recv().ok()).flatten();
            *gone |= answer.is_none();
            answer.unwrap_or(Reply::Failed)
        }
    })
}

/// Does something on this thread, with the stores at hand.
pub(crate) fn straight<T>(durable: &Arc<Mutex<Durable>>, work: impl FnOnce() -> T) -> T {
    PORT.set(Some(Port::Straight(Arc::clone(durable))));
    let done = work();
    PORT.set(None);
    done
}

/// Does something that sees no generation after `ours`.
pub(crate) fn blind<T>(ours: u64, work: impl FnOnce() -> T) -> T {
    BLIND_AFTER.set(Some(ours));
    let done = work();
    BLIND_AFTER.set(None);
    done
}

/// A piece of work of an instance.
pub(crate) type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// A thread for jobs.
struct Worker {
    jobs: Sender<Job>,
    said: Receiver<Said>,
    answers: Sender<Option<Reply>>,
}

impl Worker {
    fn start() -> std::io::Result<Worker> {
        let (jobs, received) = channel::<Job>();
        let (asks, said) = channel();
        let (answers, answered) = channel();
        std::thread::Builder::new().name("job".to_owned()).spawn(move || {
            PORT.set(Some(Port::Interleaved { asks: asks.clone(), answers: answered, gone: false }));
            for job in received {
                let outcome = job();
                PORT.with_borrow_mut(|port| {
                    if let Some(Port::Interleaved { gone, .. }) = port {
                        *gone = false;
                    }
                });
                if asks.send(Said::Done(outcome)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Worker { jobs, said, answers })
    }
}

/// Threads that wait for jobs.
#[derive(Default)]
pub(crate) struct Threads {
    idle: Vec<Worker>,
}

/// A job on a thread of its own, which waits for an answer.
pub(crate) struct Running(Worker);

/// What a job does after it was begun or answered. There are a few at a time.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Step {
    /// It asks, and waits.
    Asks(Request, Running),
    /// It is done, and its thread with it.
    Done(Outcome),
    /// Its thread is gone, which only a panic brings about.
    Lost,
}

impl Threads {
    /// Begins a job.
    pub(crate) fn begin(&mut self, job: Job) -> Step {
        let worker = self.idle.pop().map_or_else(Worker::start, Ok);
        match worker {
            Ok(worker) if worker.jobs.send(job).is_ok() => self.listen(worker),
            _ => Step::Lost,
        }
    }

    /// Answers a job.
    pub(crate) fn answer(&mut self, Running(worker): Running, reply: Reply) -> Step {
        match worker.answers.send(Some(reply)) {
            Ok(()) => self.listen(worker),
            Err(_) => Step::Lost,
        }
    }

    /// Ends a job whose process has died.
    pub(crate) fn abandon(&mut self, Running(worker): Running) {
        if worker.answers.send(None).is_ok() {
            self.listen(worker);
        }
    }

    fn listen(&mut self, worker: Worker) -> Step {
        match worker.said.recv() {
            Ok(Said::Asks(request)) => Step::Asks(request, Running(worker)),
            Ok(Said::Done(outcome)) => {
                self.idle.push(worker);
                Step::Done(outcome)
            }
            Err(_) => Step::Lost,
        }
    }
}

/// The store of the journal, whoever asks.
pub(crate) fn store() -> Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    let patience = Patience { give_up_after: Duration::ZERO, ..Patience::default() };
    STORE.get_or_init(|| Store::new(Arc::new(Wire), "", patience)).clone()
}

/// The store of another pipeline's journal.
pub(crate) fn strange_store() -> Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    let patience = Patience { give_up_after: Duration::ZERO, ..Patience::default() };
    STORE.get_or_init(|| Store::new(Arc::new(Wire), STRANGE, patience)).clone()
}

/// Folder of the objects of another pipeline.
pub(crate) const STRANGE: &str = "strange";

/// The object store behind the journal: every request goes through [`ask`].
#[derive(Debug)]
struct Wire;

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated store")
    }
}

/// For good, so that the caller does not try again: when that helps is decided by the simulator.
fn failed(at: &Path) -> Error {
    Error::PermissionDenied { path: at.to_string(), source: "the request failed".into() }
}

fn unused<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: "the simulator".to_owned() })
}

fn meta(name: &str, size: u64) -> ObjectMeta {
    ObjectMeta { location: Path::from(name), last_modified: Default::default(), size, e_tag: None, version: None }
}

#[async_trait]
impl ObjectStore for Wire {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let new = matches!(options.mode, PutMode::Create);
        match ask(Request::Put { name: at.to_string(), bytes: Bytes::from(payload), new }) {
            Reply::Done => Ok(PutResult { e_tag: None, version: None }),
            Reply::Exists => Err(Error::AlreadyExists { path: at.to_string(), source: "it exists".into() }),
            _ => Err(failed(at)),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unused("multipart")
    }

    async fn get_opts(&self, at: &Path, _: GetOptions) -> Result<GetResult> {
        match ask(Request::Get(at.to_string())) {
            Reply::Object(Some(bytes)) => {
                let size = bytes.len() as u64;
                let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
                let (meta, range) = (meta(at.as_ref(), size), 0..size);
                Ok(GetResult { payload, meta, range, attributes: Default::default() })
            }
            Reply::Object(None) => Err(Error::NotFound { path: at.to_string(), source: "it is not there".into() }),
            _ => Err(failed(at)),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let delete = |path: Result<Path>| {
            let path = path?;
            match ask(Request::Delete(path.to_string())) {
                Reply::Done => Ok(path),
                _ => Err(failed(&path)),
            }
        };
        paths.map(delete).boxed()
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = folder.map(Path::to_string).unwrap_or_default();
        let claims = folder == names::GENERATIONS || folder == names::ADOPTIONS;
        let at = Path::from(folder.as_str());
        let Reply::Listed(listed) = ask(Request::List(folder)) else {
            return stream::iter([Err(failed(&at))]).boxed();
        };
        let unseen = BLIND_AFTER.with_borrow(|ours| ours.filter(|_| claims));
        let seen = |name: &str| unseen.is_none_or(|ours| names::number(name).is_none_or(|number| number <= ours));
        let seen: Vec<_> =
            listed.into_iter().filter(|(name, _)| seen(name)).map(|(name, size)| Ok(meta(&name, size))).collect();
        stream::iter(seen).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unused("list with delimiter")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unused("copy")
    }
}
