//! Commits whose reply is wrong, and commits of others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use deltalake::ObjectStore;
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use deltalake::protocol::{DeltaOperation, OutputMode};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tempfile::TempDir;
use tidemark_delta::{Error, Lake, Outcome, Policy, TableSpec, TableWriter};

use crate::support::*;

const WELL: u8 = 0;
const REPLY_LOST: u8 = 1;
const REPEATED: u8 = 2;
const CHECKPOINT_FAILS: u8 = 3;
const COMMIT_FAILS_ONCE: u8 = 4;
const COMMIT_FAILS: u8 = 5;

/// A local disk that fails on demand.
#[derive(Debug, Clone)]
struct Faulty {
    disk: Arc<LocalFileSystem>,
    fault: Arc<AtomicU8>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Faulty")
    }
}

fn injected() -> StoreError {
    StoreError::Generic { store: "faulty", source: "injected".into() }
}

impl Faulty {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let name = path.as_ref();
        let fault = self.fault.load(SeqCst);
        if name.contains("checkpoint") && fault == CHECKPOINT_FAILS {
            return Err(injected());
        }
        if !(name.contains("_delta_log/") && name.ends_with(".json")) {
            return self.disk.put_opts(path, payload, options).await;
        }
        match fault {
            REPLY_LOST => {
                self.disk.put_opts(path, payload, options).await?;
                self.fault.store(WELL, SeqCst);
                Err(injected())
            }
            REPEATED => {
                self.fault.store(WELL, SeqCst);
                self.disk.put_opts(path, payload.clone(), options.clone()).await?;
                self.disk.put_opts(path, payload, options).await
            }
            COMMIT_FAILS_ONCE => {
                self.fault.store(WELL, SeqCst);
                Err(injected())
            }
            COMMIT_FAILS => Err(injected()),
            _ => self.disk.put_opts(path, payload, options).await,
        }
    }
}

// Written out without the macro crate for async traits: boxed futures are what it makes.
impl ObjectStore for Faulty {
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
        if path.as_ref().contains("checkpoint") && self.fault.load(SeqCst) == CHECKPOINT_FAILS {
            return Box::pin(async { Err(injected()) });
        }
        self.disk.put_multipart_opts(path, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, path: &'b Path, options: GetOptions) -> BoxFuture<'c, StoreResult<GetResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.disk.get_opts(path, options)
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.disk.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.disk.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.disk.list_with_offset(prefix, offset)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, StoreResult<ListResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.disk.list_with_delimiter(prefix)
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

/// A writer on a faulty disk, and its switch.
async fn faulty(dir: &TempDir, spec: TableSpec) -> (TableWriter, Arc<AtomicU8>) {
    let fault = Arc::new(AtomicU8::new(WELL));
    let store = Faulty { disk: Arc::new(LocalFileSystem::new()), fault: Arc::clone(&fault) };
    let policy = Policy { checkpoint_interval_commits: 2, ..policy() };
    let ours = lake(dir, 1);
    let location = ours.location().clone().with_store(Arc::new(store));
    let lake = Lake::new(location, ours.identity().clone(), policy).unwrap();
    (TableWriter::open_or_create(&lake, spec).await.unwrap(), fault)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_commit_is_recognised_whatever_its_reply() {
    for fault in [REPLY_LOST, REPEATED, CHECKPOINT_FAILS] {
        let dir = TempDir::new().unwrap();
        let (mut writer, switch) = faulty(&dir, appended()).await;
        switch.store(fault, SeqCst);
        let published = writer.publish(1, None, Some(&rejected([(1, 0), (1, 1)]))).await.unwrap();
        assert_eq!((published.version, published.outcome), (1, Outcome::Recovered), "fault {fault}");
        switch.store(WELL, SeqCst);
        let published = writer.publish(2, None, Some(&rejected([(2, 0)]))).await.unwrap();
        assert_eq!((published.version, published.outcome), (2, Outcome::Committed), "fault {fault}");
        assert_eq!(read_rejected(&dir, None).await, [(1, 0), (1, 1), (2, 0)], "fault {fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_failed_is_made_again() {
    let dir = TempDir::new().unwrap();
    let (mut writer, switch) = faulty(&dir, keyed()).await;
    switch.store(COMMIT_FAILS_ONCE, SeqCst);
    let published = writer.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    assert_eq!((published.version, published.outcome), (1, Outcome::Committed));
    switch.store(COMMIT_FAILS, SeqCst);
    let error = writer.publish(2, None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 3, .. }) && error.is_retryable(), "{error}");
    switch.store(WELL, SeqCst);
    assert_eq!(writer.publish(2, None, None).await.unwrap().version, 2);
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 1, 1)]);
}

/// A commit by someone else that holds transactions alone.
async fn foreign(dir: &TempDir, transactions: &[(&str, i64)]) {
    let table = load(dir, &keyed(), None).await;
    let transactions = transactions.iter().map(|(app, version)| Transaction::new(app, *version)).collect();
    let operation =
        DeltaOperation::StreamingUpdate { output_mode: OutputMode::Update, query_id: "other".to_owned(), epoch_id: 0 };
    CommitBuilder::from(CommitProperties::default().with_application_transactions(transactions))
        .build(Some(table.snapshot().unwrap()), table.log_store(), operation)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_commit_of_another_application_is_passed_by() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    foreign(&dir, &[("somebody", 3)]).await;
    let published = writer.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    assert_eq!((published.version, published.outcome), (2, Outcome::Committed));
}

#[tokio::test]
async fn a_writer_that_lost_its_table_commits_nothing() {
    for (transactions, later) in [
        (vec![("p/fence", 2), ("p/epoch", 1)], true),
        // A twin of our own generation went further.
        (vec![("p/fence", 1), ("p/epoch", 9)], true),
        // Our generation fell back: restored from a copy.
        (vec![("p/fence", 0), ("p/epoch", 1)], false),
    ] {
        let dir = TempDir::new().unwrap();
        let mut writer = open(&dir, 1, keyed()).await;
        writer.publish(1, None, None).await.unwrap();
        foreign(&dir, &transactions).await;
        for _ in 0..2 {
            match writer.publish(2, None, Some(&users(&[("a", 1, 1)]))).await {
                Err(Error::Fenced { .. }) => assert!(later, "{transactions:?}"),
                Err(Error::StateMismatch { .. }) => assert!(!later, "{transactions:?}"),
                other => panic!("{transactions:?}: {other:?}"),
            }
        }
        assert_eq!(load(&dir, &keyed(), None).await.version(), Some(2));
    }
}

#[tokio::test]
async fn a_table_that_was_replaced_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    writer.publish(1, None, None).await.unwrap();
    std::fs::remove_dir_all(path(&dir, &keyed())).unwrap();
    let error = writer.publish(2, None, None).await.unwrap_err();
    assert!(matches!(error, Error::StateMismatch { .. }), "{error}");
    open(&dir, 1, keyed()).await;
    let error = writer.publish(2, None, None).await.unwrap_err();
    assert!(matches!(error, Error::StateMismatch { .. }), "{error}");
}
