//! Properties of a store, over stores that fail. Waits are a hundredth of the real ones.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult, Result,
};

use super::*;
use crate::{Watch, unfinished};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Throttled,
    LostReply,
    Stall,
    Full,
    Denied,
    ReadOnly,
    None,
}

/// A store in memory whose next reads and writes go as told.
#[derive(Debug, Default)]
struct Faulty {
    memory: InMemory,
    faults: Mutex<VecDeque<Fault>>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

fn failed(source: impl Into<BoxedError>) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: source.into() }
}

impl Faulty {
    async fn meet<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.faults.lock().unwrap().pop_front();
        match fault.unwrap_or(Fault::None) {
            Fault::None => request.await,
            Fault::Throttled => Err(failed("503 Server Busy")),
            Fault::LostReply => request.await.and_then(|_| Err(failed("connection reset"))),
            Fault::Stall => std::future::pending().await,
            Fault::Full => Err(failed(io::Error::from(ErrorKind::StorageFull))),
            Fault::ReadOnly => Err(failed(io::Error::from(ErrorKind::ReadOnlyFilesystem))),
            Fault::Denied => {
                Err(object_store::Error::PermissionDenied { path: "x".to_owned(), source: "403 Forbidden".into() })
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.meet(self.memory.put_opts(location, payload, opts)).await
    }
    async fn put_multipart_opts(&self, at: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(at, opts).await
    }
    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.meet(self.memory.get_opts(location, options)).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.memory.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

/// Writes down what a store tells.
#[derive(Default)]
struct Told(Mutex<Vec<&'static str>>);

impl Watch for Told {
    fn failing(&self, _: &str, _: &str) {
        let mut told = self.0.lock().unwrap();
        if told.last() != Some(&"failing") {
            told.push("failing");
        }
    }
    fn recovered(&self, _: &str) {
        self.0.lock().unwrap().push("recovered");
    }
}

struct Bench {
    store: Store,
    told: Arc<Told>,
    stop: Arc<AtomicBool>,
}

impl Bench {
    /// A store whose requests meet these faults, one after the other; then all goes well.
    fn new(faults: impl IntoIterator<Item = Fault>) -> Bench {
        let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
        let patience = Patience {
            give_up_after: Duration::from_millis(600),
            request_timeout: Duration::from_millis(300),
            watch: Arc::clone(&told) as Arc<dyn Watch>,
            stop: Some(Arc::clone(&stop)),
        };
        let objects = Faulty { faults: Mutex::new(faults.into_iter().collect()), ..Faulty::default() };
        Bench { store: Store::at(Arc::new(objects), "a/b", "faulty".to_owned(), patience), told, stop }
    }

    /// How much time a call takes, and what comes of it. The machine may be busy: only a least time means anything.
    fn timed<T>(&self, call: impl FnOnce() -> T) -> (Duration, T) {
        let began = Instant::now();
        let result = call();
        (began.elapsed(), result)
    }

    fn told(&self) -> Vec<&'static str> {
        self.told.0.lock().unwrap().clone()
    }
}

fn names(store: &Store, folder: &str) -> Vec<String> {
    store.list(folder).unwrap().into_iter().map(|listed| listed.name).collect()
}

fn keeps_objects(store: &Store) {
    assert_eq!(store.read("cuts/1/9").unwrap(), None);
    assert!(names(store, "cuts").is_empty());
    store.create("cuts/1/9", Bytes::from_static(b"nine")).unwrap();
    store.create("cuts/1/9", Bytes::from_static(b"nine")).unwrap();
    let taken = store.create("cuts/1/9", Bytes::from_static(b"ten"));
    assert!(matches!(taken, Err(Error::Taken { name }) if name == "cuts/1/9"));
    store.replace("lease", Bytes::from_static(b"old")).unwrap();
    store.replace("lease", Bytes::from_static(b"new")).unwrap();
    store.create("cuts/1/10", Bytes::new()).unwrap();
    store.create("cuts2", Bytes::new()).unwrap();
    assert_eq!(names(store, "cuts"), ["cuts/1/10", "cuts/1/9"]);
    assert_eq!(names(store, ""), ["cuts/1/10", "cuts/1/9", "cuts2", "lease"]);
    assert_eq!(store.list("cuts/1").unwrap()[1], Listed { name: "cuts/1/9".to_owned(), bytes: 4 });
    let read = store.read_all(&["lease".to_owned(), "none".to_owned(), "cuts/1/9".to_owned()]).unwrap();
    assert_eq!(read, [Some(Bytes::from_static(b"new")), None, Some(Bytes::from_static(b"nine"))]);
    store.delete(&["cuts/1/9".to_owned(), "cuts/1/9".to_owned(), "none".to_owned(), "cuts/1/10".to_owned()]).unwrap();
    assert_eq!(names(store, ""), ["cuts2", "lease"]);
    for name in ["", "a//b", "../up", "x#1"] {
        let refused = store.create(name, Bytes::new());
        assert!(matches!(refused, Err(Error::Unavailable { permanent: true, .. })), "'{name}'");
    }
}

#[test]
fn a_store_in_memory_and_a_directory_keep_objects_in_the_same_way() {
    keeps_objects(&Bench::new([]).store);
    let directory = tempfile::tempdir().unwrap();
    keeps_objects(&Store::local(&directory.path().join("made/here"), Patience::default()).unwrap());
}

#[test]
fn of_eight_writers_of_one_name_exactly_one_wins_and_its_bytes_stay() {
    let directory = tempfile::tempdir().unwrap();
    let local = Store::local(directory.path(), Patience::default()).unwrap();
    let memory = Store::new(Arc::new(InMemory::new()), "", Patience::default());
    for store in [local, memory] {
        for round in 0..20 {
            let name = format!("generations/{round}/claim");
            let write = |writer: u8| store.create(&name, Bytes::from(vec![writer; 1000]));
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..8).map(|writer| scope.spawn(move || write(writer))).collect();
                writers.into_iter().map(|writer| writer.join().unwrap()).collect()
            });
            let winner = outcomes.iter().position(Result::is_ok).unwrap();
            let lost = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Taken { .. }))).count();
            assert_eq!(lost, 7);
            assert_eq!(store.read(&name).unwrap().unwrap(), vec![u8::try_from(winner).unwrap(); 1000]);
        }
    }
    assert!(std::fs::read_dir(directory.path().join("generations/7")).unwrap().count() == 1, "nothing is left over");
}

#[test]
fn a_lost_reply_to_a_creation_is_no_failure_but_other_bytes_under_the_name_are() {
    let bench = Bench::new([Fault::LostReply]);
    bench.store.create("x", Bytes::from_static(b"mine")).unwrap();
    assert_eq!(bench.told(), ["failing", "recovered"]);
    assert!(matches!(bench.store.create("x", Bytes::from_static(b"yours")), Err(Error::Taken { .. })));
}

#[test]
fn an_exchange_replaces_what_it_knows_and_nothing_else() {
    // A look, a write whose reply is lost, and the look that finds out.
    let bench = Bench::new([Fault::None, Fault::None, Fault::LostReply]);
    let store = &bench.store;
    let is = |known: &'static [u8]| move |now: &Bytes| now == known;
    store.create("x", Bytes::from_static(b"1")).unwrap();
    store.exchange("x", Bytes::from_static(b"2"), is(b"1")).unwrap();
    assert_eq!(bench.told(), ["failing", "recovered"]);
    let refused = store.exchange("x", Bytes::from_static(b"3"), is(b"1"));
    assert!(matches!(refused, Err(Error::Taken { name }) if name == "x"));
    // Somebody else writes between the look and the write: it looks again.
    let theirs = || store.replace("x", Bytes::from_static(b"theirs")).unwrap();
    let meanwhile = std::cell::Cell::new(true);
    let refused = store.exchange("x", Bytes::from_static(b"3"), |now| {
        if meanwhile.take() {
            std::thread::scope(|scope| scope.spawn(theirs).join().unwrap());
        }
        now == &b"2"[..]
    });
    assert!(matches!(refused, Err(Error::Taken { .. })));
    assert_eq!(store.read("x").unwrap().unwrap(), b"theirs"[..]);
    assert!(matches!(store.exchange("none", Bytes::new(), |_| true), Err(Error::Taken { .. })));
}

#[test]
fn throttling_is_met_with_growing_waits_until_patience_ends() {
    let bench = Bench::new([Fault::Throttled; 4]);
    let (took, outcome) = bench.timed(|| bench.store.replace("x", Bytes::new()));
    outcome.unwrap();
    // 1 + 2 + 4 + 8 ms, up to a half less.
    assert!(took > Duration::from_millis(7), "{took:?}");

    let bench = Bench::new([Fault::Throttled; 1000]);
    let (took, outcome) = bench.timed(|| bench.store.replace("x", Bytes::new()));
    let Err(Error::Unavailable { attempts, permanent: false, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert!((2..25).contains(&attempts), "{attempts}");
    assert_eq!(bench.told(), ["failing"]);
}

#[test]
fn a_stalled_request_ends_at_its_deadline_and_is_made_again() {
    for call in [|store: &Store| store.replace("x", Bytes::new()), |store: &Store| store.read("x").map(|_| ())] {
        let bench = Bench::new([Fault::Stall]);
        let (took, outcome) = bench.timed(|| call(&bench.store));
        outcome.unwrap();
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_full_disk_is_waited_for_beyond_all_patience() {
    let bench = Bench::new([Fault::Full; 50]);
    let (took, outcome) = bench.timed(|| bench.store.create("x", Bytes::new()));
    outcome.unwrap();
    assert!(took > Duration::from_millis(600), "{took:?}");
    assert_eq!(bench.told(), ["failing", "recovered"]);
}

#[test]
fn the_success_of_one_call_is_no_recovery_while_another_still_fails() {
    // The first of three reads fails, the second goes well, the third fails: one bad time and not two.
    let bench = Bench::new([Fault::Full, Fault::None, Fault::Throttled]);
    bench.store.read_all(&["a".to_owned(), "b".to_owned(), "c".to_owned()]).unwrap();
    assert_eq!(bench.told(), ["failing", "recovered"]);
}

#[test]
fn missing_permission_ends_a_call_at_once() {
    for fault in [Fault::Denied, Fault::ReadOnly] {
        let bench = Bench::new([fault]);
        let outcome = bench.store.read("x");
        assert!(matches!(outcome, Err(Error::Unavailable { attempts: 1, permanent: true, .. })), "{outcome:?}");
        bench.store.read("x").unwrap();
        assert_eq!(bench.told(), ["failing", "recovered"]);
    }
}

#[test]
fn a_stop_ends_waiting_even_for_a_full_disk() {
    let bench = Bench::new([Fault::Full; 1000]);
    bench.stop.store(true, Ordering::Relaxed);
    let outcome = bench.store.create("x", Bytes::new());
    assert!(matches!(outcome, Err(Error::Unavailable { attempts: 1, permanent: false, .. })), "{outcome:?}");
}

#[test]
fn leftovers_of_killed_writers_are_never_listed_and_cleaned_once_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::local(directory.path(), Patience::default()).unwrap();
    store.create("cuts/1", Bytes::from_static(b"whole")).unwrap();
    std::fs::write(directory.path().join("cuts/2#17"), b"half").unwrap();
    std::fs::write(unfinished(&directory.path().join("cuts/3")), b"half").unwrap();
    assert_eq!(names(&store, ""), ["cuts/1"]);
    assert_eq!(store.clean_leftovers(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(store.clean_leftovers(Duration::ZERO).unwrap(), 2);
    assert_eq!(std::fs::read_dir(directory.path().join("cuts")).unwrap().count(), 1);
    store.create("cuts/2", Bytes::new()).unwrap();
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_told_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path(), Patience::default()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
    assert!(made.success());
    let refused = store.read("pipe").unwrap_err().to_string();
    assert!(refused.contains("no regular file"), "{refused}");
}
