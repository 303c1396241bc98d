//! What happens to an event hub while a pipeline reads it: partitions are added, events expire, a backlog is caught up with.

use super::stream::{Hub, Stream};
use crate::data::{Event, START_US, eventful};
use crate::tables::{HEALTH, MANIFEST, REJECTED, Tables};

/// Counts what expires.
const CONTINUE: &str = "--set eventhubs.after_loss=continue";

#[test]
fn a_partition_that_is_added_while_it_runs_is_read_from_its_beginning_and_kept() {
    let mut stream = Stream::begun(Hub::of(2));
    let mut running = stream.start("", "");
    running.await_line(" running");
    stream.grow(4);
    stream.send(&eventful(51, &[20, 0, 30, 0]));
    stream.await_received(&mut running, stream.total());
    assert!(running.log().contains("was added to the event hub"), "{}", running.log());
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.contains("partition=\"2\" next=30"), "{}", ended.stderr);
    stream.check();
    // One that had no event yet, and one that comes while nothing runs.
    stream.grow(5);
    stream.send(&eventful(52, &[5, 5, 5, 40, 40]));
    assert_eq!(stream.drain("").code(), 0);
    stream.check();
    stream.evidence();
}

#[test]
fn a_partition_that_has_joined_is_replayed_after_a_kill() {
    let mut stream = Stream::begun(Hub::of(1));
    let mut running = stream.start("--checkpoint-interval 1h", "");
    running.await_line(" running");
    stream.grow(2);
    stream.send(&eventful(53, &[20, 30]));
    stream.await_received(&mut running, stream.total());
    running.kill().unwrap();
    stream.send(&eventful(54, &[10, 10]));
    assert_eq!(stream.drain("").code(), 0);
    stream.check();
    stream.evidence();
}

#[test]
fn events_that_expire_while_it_is_behind_end_it_before_anything_behind_them_counts() {
    let mut stream = Stream::begun(Hub::of(2));
    let before = stream.total();
    let mut running = stream.start("", "");
    running.await_line(" running");
    let control = stream.hub.control();
    control.silence(Some(0), true).unwrap();
    stream.send(&eventful(55, &[50, 0]));
    control.expire(0, 40).unwrap();
    control.silence(Some(0), false).unwrap();
    let ended = running.ended();
    assert_eq!(ended.code(), 5, "{}", ended.stderr);
    for word in ["partition 0", "events 3 to 39 (37 of them) are past their retention", "after_loss"] {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
    let received = || Tables::read(&stream.case.path("out")).wholes(&MANIFEST, "total_events_received");
    assert_eq!(received(), [before as i128], "nothing behind the gap has an effect");
    // The next start says the same, and one that is told to goes on.
    let again = stream.start("", "").ended();
    again.fails_with(5, &["events 3 to 39 (37 of them) are past their retention", "after_loss"]);
    let mut running = stream.start(CONTINUE, "");
    stream.await_received(&mut running, before + 13);
    running.signal("TERM");
    assert_eq!(running.ended().code(), 0);
}

#[test]
fn events_that_expire_while_it_is_behind_are_counted_as_missing_where_that_is_wanted() {
    let mut stream = Stream::begun(Hub::of(1));
    let before = stream.total();
    let mut running = stream.start(CONTINUE, "");
    running.await_line(" running");
    let control = stream.hub.control();
    control.silence(Some(0), true).unwrap();
    stream.send(&eventful(56, &[50]));
    control.expire(0, 40).unwrap();
    control.silence(Some(0), false).unwrap();
    stream.await_received(&mut running, before + 13);
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("going on without them"), "{}", ended.stderr);
    let statuses = Tables::read(&stream.case.path("out")).texts(&HEALTH, "status");
    assert_eq!(statuses.iter().filter(|status| status.contains("37 events are missing")).count(), 1, "{statuses:?}");
    stream.evidence();
}

/// Two partitions with seven days of events in perfect order, one of them thirty times as busy, enqueued at their times.
fn uneven(stream: &mut Stream) {
    let (day, control) = (86_400, stream.hub.control());
    for second in (0..7 * day).step_by(480) {
        for partition in [0, 1] {
            if partition == 0 && second % (30 * 480) != 0 {
                continue;
            }
            control.clock(Some((START_US + second * 1_000_000) / 1_000));
            let mut events = vec![Vec::new(), Vec::new()];
            events[partition].push(Event::new(&format!("p{partition} {second}"), second).line());
            stream.send(&events);
        }
    }
    control.clock(None);
}

#[test]
fn no_payment_of_an_uneven_backlog_is_late_however_it_is_read() {
    for more in [
        "",
        "--workers 1 --set eventhubs.prefetch=7 --set eventhubs.alignment=0s",
        "--workers 3 --set eventhubs.threads=1",
    ] {
        let mut stream = Stream::new(Hub::of(2));
        uneven(&mut stream);
        let ended = stream.drain(more);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let tables = Tables::read(&stream.case.path("out"));
        assert_eq!(tables.texts(&REJECTED, "rejection_reason"), Vec::<String>::new(), "{more}");
        assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [stream.total() as i128], "{more}");
    }
}
