//! Commits whose reply is wrong, and commits of others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use serde_json::json;
use tempfile::TempDir;
use tidemark_delta::{Error, Outcome, TableSpec, TableWriter};
use tidemark_store::Cause;

use crate::store::{Judged, Kind, Verdict, injected, is_commit};
use crate::support::*;

/// A writer of generation 1 whose requests are judged, and whose log gets a checkpoint after two commits.
async fn faulty(dir: &TempDir, spec: TableSpec) -> (TableWriter, Judged) {
    let store = Judged::new();
    let lake = judged_lake(dir, 1, &store);
    (TableWriter::open_or_create(&lake, spec).await.unwrap(), store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_commit_is_recognised_whatever_its_reply() {
    let judge_commits = |verdict: Verdict| {
        let once = AtomicBool::new(true);
        move |kind, path: &str| match kind == Kind::Put && is_commit(path) && once.swap(false, SeqCst) {
            true => verdict.clone(),
            false => Verdict::Pass,
        }
    };
    for fault in ["reply lost", "repeated"] {
        let dir = TempDir::new().unwrap();
        let (mut writer, store) = faulty(&dir, appended()).await;
        match fault {
            "reply lost" => store.judge(judge_commits(Verdict::Lose(injected))),
            _ => store.judge(judge_commits(Verdict::Twice)),
        }
        let published = writer.publish(1, None, Some(&rejected([(1, 0), (1, 1)]))).await.unwrap();
        assert_eq!((published.version, published.outcome), (1, Outcome::Recovered), "{fault}");
        store.pass();
        let published = writer.publish(2, None, Some(&rejected([(2, 0)]))).await.unwrap();
        assert_eq!((published.version, published.outcome), (2, Outcome::Committed), "{fault}");
        assert_eq!(read_rejected(&dir, None).await, [(1, 0), (1, 1), (2, 0)], "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_the_log_that_failed_is_made_later() {
    let dir = TempDir::new().unwrap();
    let (mut writer, store) = faulty(&dir, appended()).await;
    store.judge(|kind, path| match kind != Kind::Get && path.contains("checkpoint") {
        true => Verdict::Fail(injected),
        false => Verdict::Pass,
    });
    let hint = path(&dir, &appended()).join("_delta_log/_last_checkpoint");
    let row = |epoch: u64| rejected([(i64::try_from(epoch).unwrap(), 0)]);
    writer.publish(1, None, Some(&row(1))).await.unwrap();
    assert!(!writer.checkpoint_log(true).await.unwrap(), "one commit is too early");
    for epoch in 2..4 {
        assert_eq!(writer.publish(epoch, None, Some(&row(epoch))).await.unwrap().outcome, Outcome::Committed);
        let error = writer.checkpoint_log(true).await.unwrap_err();
        assert!(error.is_retryable() && !hint.exists(), "{error}");
    }
    store.pass();
    assert_eq!(writer.commits_since_checkpoint(), 3);
    assert!(!writer.checkpoint_log(false).await.unwrap(), "it is another table's turn");
    assert!(writer.checkpoint_log(true).await.unwrap() && hint.exists());
    assert!(!writer.checkpoint_log(true).await.unwrap(), "it is there already");
    assert_eq!(read_rejected(&dir, None).await, [(1, 0), (2, 0), (3, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_failed_is_made_again() {
    let dir = TempDir::new().unwrap();
    let (mut writer, store) = faulty(&dir, keyed()).await;
    let failures = AtomicUsize::new(1);
    let fail = move |kind, path: &str| {
        let fails = kind == Kind::Put && is_commit(path);
        match fails && failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            true => Verdict::Fail(injected),
            false => Verdict::Pass,
        }
    };
    store.judge(fail);
    let rows = users(&[("a", 1, 1)]);
    let error = writer.publish(1, None, Some(&rows)).await.unwrap_err();
    assert!(error.is_retryable() && error.cause() == Cause::Passing, "{error}");
    let published = writer.publish(1, None, Some(&rows)).await.unwrap();
    assert_eq!((published.version, published.outcome), (1, Outcome::Committed));
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 1, 1)]);
}

/// A commit by someone else that holds transactions alone.
fn transactions_of_others(dir: &TempDir, transactions: &[(&str, i64)]) {
    let action = |(app, version): &(&str, i64)| json!({ "txn": { "appId": app, "version": version } });
    foreign(dir, &keyed(), "STREAMING UPDATE", &transactions.iter().map(action).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_commit_of_another_application_is_passed_by() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    transactions_of_others(&dir, &[("somebody", 3)]);
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
        transactions_of_others(&dir, &transactions);
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
