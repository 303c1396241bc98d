//! Links, connections and the broker fail while events stream: nothing is lost, nothing counted twice, every hole told.

use std::time::Duration;

use super::stream::{Hub, Stream};
use crate::crash::job::Stop;
use crate::data::{Event, Random, eventful};
use crate::tables::{HEALTH, NET_FLOW};

#[test]
fn detaches_cuts_absence_throttling_and_redelivery_change_nothing() {
    let mut stream = Stream::begun(Hub::of(3));
    let control = stream.hub.control();
    let mut random = Random(5);
    let mut running = stream.start("", "");
    running.await_line(" running");
    for round in 0..24u64 {
        stream.send(&eventful(500 + round, &[40, 30, 20]));
        match round % 6 {
            0 => drop(control.detach(None, "amqp:internal-error").unwrap()),
            1 => drop(control.cut()),
            2 => drop(control.detach(Some(random.below(3)), "com.microsoft:server-busy").unwrap()),
            3 => {
                let end = stream.sent[0].len() as u64;
                control.redeliver(0, end.saturating_sub(50), end).unwrap();
            }
            4 if round == 16 => control.away(Duration::from_millis(1_500)),
            5 if round == 11 => control.throttle(Some(2_000)),
            _ => control.throttle(None),
        }
        if round == 13 {
            // In the middle of it all, the process goes as well.
            running.kill().unwrap();
            running = stream.start("", "");
            running.await_line(" running");
        }
        // Half of the faults hit what was just sent, the others what is read already.
        if round % 2 == 0 {
            stream.await_received(&mut running, stream.total());
        }
    }
    control.throttle(None);
    stream.await_received(&mut running, stream.total());
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be read") && ended.stderr.contains("events come again"));
    assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("missing=1"), "{}", ended.stderr);
    stream.check();
    stream.evidence();
}

#[test]
fn a_link_that_brings_nothing_is_given_up() {
    let mut stream = Stream::begun(Hub::of(2));
    stream.send(&eventful(31, &[20, 20]));
    let mut running = stream.start("", "");
    stream.await_received(&mut running, stream.total());
    stream.hub.control().silence(Some(1), true).unwrap();
    stream.send(&eventful(32, &[20, 20]));
    running.await_line("the link brings no events, and the partition has some");
    stream.hub.control().silence(Some(1), false).unwrap();
    stream.await_received(&mut running, stream.total());
    running.signal("TERM");
    assert_eq!(running.ended().code(), 0);
    stream.check();
}

#[test]
fn missing_events_are_counted_and_told_and_a_replay_tells_the_same() {
    let mut stream = Stream::new(Hub::of(2));
    let line = |index: usize| Event::new(&format!("e{index}"), 0).line();
    let control = stream.hub.control();
    control.drop_range(0, 10, 14).unwrap();
    control.drop_range(1, 0, 2).unwrap();
    stream.send(&[(0..30).map(line).collect(), (100..110).map(line).collect()]);
    // The epoch with the holes is cut, and has no effect before it is replayed.
    stream.kill_at("", &Stop::first("before-table"));
    let mut running = stream.start("", "");
    stream.await_received(&mut running, 32);
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let tables = crate::tables::Tables::read(&stream.case.path("out"));
    assert_eq!(tables.wholes(&NET_FLOW, "deposit_count"), [32]);
    let told: Vec<String> = tables.texts(&HEALTH, "status").into_iter().filter(|status| status != "ok").collect();
    let missing = |status: &String| status.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert_eq!(told.iter().map(missing).sum::<u64>(), 8, "{told:?}");
    let offsets: Vec<(usize, u64, u64)> = stream.cuts().into_iter().flat_map(|cut| cut.ranges).collect();
    assert!(offsets.iter().all(|(index, from, to)| *index == 1 || *to <= 10 || *from >= 15), "{offsets:?}");
    stream.evidence();
}
