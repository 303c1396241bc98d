//! Events that expire while they are waited for, and numbers that no event has.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tidemark_eventhubs::ErrorKind;

use crate::support::{Reading, expected, hub, numbered, soon};

#[tokio::test]
async fn numbers_without_events_are_passed_over_whatever_is_refused() {
    let (broker, hub) = hub().await;
    broker.control().drop_range(0, 5, 14).unwrap();
    broker.control().append(0, numbered(0..20)).unwrap();
    let mut reading = Reading::from(&hub, 0, true);
    assert_eq!(reading.events(10).await, [expected(0..5), expected(15..20)].concat());
    assert_eq!(reading.status.missing.load(Relaxed), 10);
}

#[tokio::test]
async fn events_that_expire_before_they_are_read_end_a_reader_that_refuses() {
    let (broker, hub) = hub().await;
    let control = broker.control();
    control.append(0, numbered(0..5)).unwrap();
    let mut reading = Reading::from(&hub, 0, true);
    assert_eq!(reading.events(5).await, expected(0..5));
    // Nothing is sent, so that what comes next can expire before it is.
    control.silence(Some(0), true).unwrap();
    control.append(0, numbered(5..30)).unwrap();
    control.expire(0, 20).unwrap();
    control.silence(Some(0), false).unwrap();
    let (more, error) = reading.error().await;
    assert_eq!(more, [], "nothing behind the gap is handed on");
    assert_eq!(error.kind(), ErrorKind::Expired);
    assert_eq!(error.why(), "events 5 to 19 (15 of them) are past their retention");
    assert!(error.what().starts_with("partition 0 of event hub transactions"), "{error}");
}

#[tokio::test]
async fn a_gap_is_a_hole_only_while_older_events_are_kept() {
    let (broker, hub) = hub().await;
    let control = broker.control();
    control.append(0, numbered(0..2)).unwrap();
    let mut reading = Reading::from(&hub, 0, true);
    assert_eq!(reading.events(2).await, expected(0..2));
    control.silence(Some(0), true).unwrap();
    control.append(0, numbered(2..20)).unwrap();
    control.drop_range(0, 4, 9).unwrap();
    control.silence(Some(0), false).unwrap();
    let read = reading.events(2 + 10).await;
    assert_eq!(read, [expected(2..4), expected(10..20)].concat());
    control.silence(Some(0), true).unwrap();
    control.append(0, numbered(20..40)).unwrap();
    control.expire(0, 21).unwrap();
    control.silence(Some(0), false).unwrap();
    let (more, error) = reading.error().await;
    assert_eq!((more, error.why()), (vec![], "events 20 to 20 (1 of them) are past their retention"));
}

#[tokio::test]
async fn a_reader_that_goes_on_counts_what_has_expired() {
    let (broker, hub) = hub().await;
    let control = broker.control();
    control.append(0, numbered(0..5)).unwrap();
    let mut reading = Reading::from(&hub, 0, false);
    assert_eq!(reading.events(5).await, expected(0..5));
    control.silence(Some(0), true).unwrap();
    control.append(0, numbered(5..30)).unwrap();
    control.expire(0, 20).unwrap();
    control.silence(Some(0), false).unwrap();
    assert_eq!(reading.events(10).await, expected(20..30));
    assert_eq!(reading.status.missing.load(Relaxed), 15);
}

#[tokio::test]
async fn a_partition_that_becomes_empty_while_it_is_behind_is_a_loss_and_no_dead_link() {
    let (broker, hub) = hub().await;
    let control = broker.control();
    control.append(0, numbered(0..5)).unwrap();
    let mut refuses = Reading::from(&hub, 0, true);
    let mut goes_on = Reading::from(&hub, 0, false);
    assert_eq!((refuses.events(5).await, goes_on.events(5).await), (expected(0..5), expected(0..5)));
    control.silence(Some(0), true).unwrap();
    control.append(0, numbered(5..8)).unwrap();
    control.expire(0, 8).unwrap();
    let (more, error) = refuses.error().await;
    assert_eq!((more, error.kind()), (vec![], ErrorKind::Expired));
    // That one took a question to a quiet link; the other one has asked the same, or will, and stays connected.
    control.silence(Some(0), false).unwrap();
    control.append(0, numbered(8..9)).unwrap();
    assert_eq!(goes_on.events(1).await, expected(8..9));
    assert_eq!((goes_on.status.missing.load(Relaxed), goes_on.status.reconnects.load(Relaxed)), (3, 0));
}

#[tokio::test]
async fn a_start_behind_the_oldest_event_is_judged_as_a_gap_is() {
    let (broker, hub) = hub().await;
    broker.control().append(0, numbered(0..10)).unwrap();
    broker.control().expire(0, 6).unwrap();
    let (more, error) = Reading::from(&hub, 2, true).error().await;
    assert_eq!((more, error.why()), (vec![], "events 2 to 5 (4 of them) are past their retention"));
    let mut reading = Reading::from(&hub, 2, false);
    assert_eq!(reading.events(4).await, expected(6..10));
    assert_eq!(reading.status.missing.load(Relaxed), 4);
}

#[tokio::test]
async fn what_the_service_says_is_kept_with_the_instant_of_the_question() {
    let (broker, hub) = hub().await;
    broker.control().append(0, numbered(0..10)).unwrap();
    let before = Instant::now();
    let mut reading = Reading::from(&hub, 0, true);
    reading.events(10).await;
    let status = &reading.status;
    assert!(status.last_asked().is_some_and(|asked| asked >= before && asked <= Instant::now()));
    let hour = std::time::Duration::from_secs(3600);
    assert!(status.is_caught_up(10, hour, Instant::now()) && !status.is_caught_up(9, hour, Instant::now()));
    // A quiet link is asked about, so the answer becomes younger.
    let first = status.last_asked();
    let younger = async {
        while status.last_asked() == first {
            tokio::task::yield_now().await;
        }
    };
    soon("another question", younger).await;
}
