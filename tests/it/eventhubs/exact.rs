//! Every event once, in its place, across restarts, kills and numbers of partitions.

use tidemark_broker::BrokerOptions;

use super::stream::{Hub, Stream};
use crate::crash::job::Stop;
use crate::data::{Event, eventful};
use crate::tables::{HEALTH, NET_FLOW, REJECTED, Tables};

#[test]
fn every_event_of_an_event_hub_is_counted_once_across_restarts() {
    let mut stream = Stream::begun(Hub::of(3));
    stream.send(&eventful(11, &[400, 300, 0]));
    let first = stream.drain("").well();
    assert!(first.stderr.contains("stopped as asked"), "{}", first.stderr);
    stream.check();
    // While it is away, more comes in; and while it runs.
    stream.send(&eventful(12, &[0, 150, 90]));
    let mut running = stream.start("--workers 1", "");
    stream.await_received(&mut running, stream.total());
    stream.send(&eventful(13, &[100, 100, 100]));
    stream.await_received(&mut running, stream.total());
    running.signal("INT");
    let second = running.ended().well();
    assert!(second.stderr.contains("going on where an earlier run stopped"), "{}", second.stderr);
    stream.check();
    stream.evidence();
    let statistics = stream.hub.control().statistics();
    assert_eq!(statistics.events_out, stream.total() as u64, "nothing is asked for twice without a fault");
}

#[test]
fn a_kill_at_each_place_changes_nothing() {
    let places =
        [("before-cut", 1), ("cut-written", 2), ("table-committed", 4), ("before-manifest", 1), ("adopted", 0)];
    let mut stream = Stream::begun(Hub::of(2));
    for (round, (place, passed)) in (21..).zip(places) {
        stream.send(&eventful(round, &[60, 80]));
        // A later epoch has events of its own, so that there is one to be replayed.
        let mut running = stream.start("", &Stop { place, passed }.fail_points());
        let word = format!("stopped at {place}");
        let mut more = 1_000 * round;
        while !running.log().contains(&word) {
            more += 1;
            stream.send(&eventful(more, &[5, 5]));
            let soon = std::time::Instant::now() + std::time::Duration::from_millis(100);
            assert!(
                running.runs_until(soon) && more < 1_000 * round + 300,
                "never came to {place}:\n{}",
                running.log()
            );
        }
        running.kill().unwrap();
    }
    let ended = stream.drain("");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    stream.check();
    stream.evidence();
}

#[test]
fn a_pipeline_may_begin_at_the_end_or_at_a_time() {
    let groups = vec!["second".to_owned()];
    let options = BrokerOptions { partitions: 2, consumer_groups: groups, ..BrokerOptions::default() };
    let mut stream = Stream::new(Hub::new(options));
    let event = |id: &str| Event::new(id, 0).line();
    stream.send(&[vec![event("old-0"), event("old-1")], vec![event("old-2")]]);
    let between = chrono::Utc::now() + chrono::TimeDelta::milliseconds(20);
    while chrono::Utc::now() <= between + chrono::TimeDelta::milliseconds(1) {
        std::thread::yield_now();
    }
    stream.send(&[vec![event("mid-0")], vec![]]);

    let mut latest = stream.start("--start-at latest --output latest", "");
    let since = between.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let mut timed = stream.start(&format!("--start-at {since} --output timed --consumer-group second"), "");
    latest.await_line(" running");
    timed.await_line(" running");
    stream.send(&[vec![event("new-0")], vec![event("new-1"), event("new-2")]]);
    for (mut running, output, expected) in [(latest, "latest", 3), (timed, "timed", 4)] {
        let count = |output: &str| {
            let path = stream.case.path(output);
            if !path.join("metrics/net_flow/_delta_log").is_dir() {
                return 0;
            }
            Tables::read(&path).wholes(&NET_FLOW, "deposit_count").first().copied().unwrap_or(0)
        };
        let mut published = 0;
        while count(output) < expected {
            published += 1;
            assert!(running.says_times(published, "published"), "{}", running.log());
        }
        running.signal("TERM");
        running.ended().well();
        assert_eq!(count(output), expected, "{output}");
        let health = Tables::read(&stream.case.path(output)).texts(&HEALTH, "status");
        assert!(health.iter().all(|status| status == "ok"), "{health:?}");
        stream.verb(&["evidence", "--output", output]).well();
    }
}

#[test]
fn an_event_time_is_compared_with_the_arrival_at_the_event_hub() {
    let mut stream = Stream::new(Hub::of(1));
    let in_hours = |id: &str, hours: f64| {
        let at = chrono::Utc::now() + chrono::TimeDelta::milliseconds((hours * 3_600_000.0) as i64);
        Event::new(id, 0).at(&at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)).line()
    };
    stream.send(&[vec![in_hours("soon", 0.9), in_hours("too-soon", 1.1), in_hours("past", -1.0)]]);
    // It is decided again by the same arrival times.
    stream.kill_at("", &Stop::first("before-table"));
    stream.drain("").well();
    let tables = Tables::read(&stream.case.path("out"));
    assert_eq!(tables.wholes(&NET_FLOW, "deposit_count"), [2]);
    assert_eq!(tables.texts(&REJECTED, "rejection_reason"), ["R140_event_time_in_future"]);
    assert_eq!(tables.texts(&REJECTED, "event_id"), ["too-soon"]);
    stream.evidence();
}

#[test]
fn an_event_is_explained_from_the_event_hub() {
    let mut stream = Stream::new(Hub::of(2));
    let twice = Event::new("twice", 5).line();
    stream.send(&[vec![Event::new("once", 0).line(), twice.clone()], vec![twice]]);
    stream.drain("").well();
    let explained = stream.verb(&["explain", "twice", "--output", "out", "--source", "eventhubs"]);
    assert_eq!(explained.code(), 0, "{}{}", explained.stdout, explained.stderr);
    assert!(explained.stdout.contains("duplicate"), "{}", explained.stdout);
    let beside = stream.verb(&["explain", "twice", "--output", "out"]);
    assert!(beside.stdout.contains("--source eventhubs"), "{}{}", beside.stdout, beside.stderr);
}
