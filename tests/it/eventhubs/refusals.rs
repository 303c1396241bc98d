//! What a person reads when the event hub is not what it was, or not theirs to read.

use tidemark_broker::BrokerOptions;

use super::stream::{Hub, Stream};
use crate::data::eventful;
use crate::program::{Case, finish, tidemark};
use crate::tables::{HEALTH, MANIFEST, Tables};

fn stream() -> Stream {
    let mut stream = Stream::new(Hub::of(2));
    stream.send(&eventful(41, &[50, 40]));
    stream.drain("--checkpoint-interval 1h").well();
    stream
}

#[test]
fn events_past_their_retention_are_refused_or_counted_as_missing() {
    let mut stream = stream();
    stream.send(&eventful(42, &[30, 0]));
    stream.hub.control().expire(0, 60).unwrap();
    let refused = stream.start("", "").ended();
    refused.fails_with(5, &["partition 0", "events 50 to 59 (10 of them)", "retention", "--output", "after_loss"]);
    let mut running = stream.start("--set eventhubs.after_loss=continue", "");
    stream.await_received(&mut running, 110);
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("going on without them"), "{}", ended.stderr);
    let tables = Tables::read(&stream.case.path("out"));
    assert_eq!(tables.wholes(&MANIFEST, "total_events_received"), [110]);
    let told = tables.texts(&HEALTH, "status").into_iter().filter(|status| status.contains("10 events are missing"));
    assert_eq!(told.count(), 1);
    stream.evidence();
}

#[test]
fn a_recreated_event_hub_is_refused_at_start_and_while_it_is_read() {
    let mut stream = stream();
    let mut running = stream.start("", "");
    running.await_line(" running");
    stream.hub.control().recreate();
    let ended = running.ended();
    assert_eq!(ended.code(), 5, "{}", ended.stderr);
    assert!(ended.stderr.contains("created again"), "{}", ended.stderr);
    stream.send(&eventful(43, &[200, 200]));
    let refused = stream.start("", "").ended();
    refused.fails_with(5, &["deleted and created again", "--output"]);
}

#[test]
fn an_event_hub_that_ends_before_what_was_read_is_refused() {
    let stream = stream();
    // Another one under the same name, without a word of when it was made: only its end tells.
    let other = Hub::of(2);
    let mut command = tidemark(stream.case.root(), ["run", "--source", "eventhubs", "--output", "out"]);
    let refused = finish(command.env("EVENT_HUB_CONNECTION_STRING", other.connection_string()), b"");
    assert_eq!(refused.code(), 5, "{}", refused.stderr);
}

#[test]
fn a_partition_that_another_reader_takes_over_ends_the_run() {
    let stream = stream();
    let mut first = stream.start("", "");
    first.await_line(" running");
    // Another pipeline in the same consumer group: its first start has the lower level, and is refused.
    let refused = stream.start("--output other", "").ended();
    assert_eq!(refused.code(), 4, "{}", refused.stderr);
    let words = ["taken it over", "consumer group"];
    assert!(words.iter().all(|word| refused.stderr.contains(word)), "{}", refused.stderr);
    // Each start has a higher one: it comes to that of the first, and the later of two equal ones wins.
    let mut second = stream.start("--output other", "");
    let displaced = first.ended();
    assert_eq!(displaced.code(), 4, "{}", displaced.stderr);
    assert!(displaced.stderr.contains("taken it over"), "{}", displaced.stderr);
    second.await_line("published");
    second.signal("TERM");
    assert_eq!(second.ended().code(), 0);
}

#[test]
fn a_take_over_displaces_the_reader_as_well() {
    let mut stream = stream();
    let mut first = stream.start("", "");
    first.await_line(" running");
    let mut second = stream.start("--take-over", "");
    second.await_line(" running");
    assert_eq!(first.ended().code(), 4);
    stream.send(&eventful(44, &[10, 10]));
    stream.await_received(&mut second, stream.total());
    second.signal("TERM");
    assert_eq!(second.ended().code(), 0);
    stream.check();
}

#[test]
fn a_wrong_key_name_or_group_is_told_at_once_and_leaves_no_trace() {
    let hub = Hub::new(BrokerOptions { partitions: 1, ..BrokerOptions::default() });
    let string = hub.connection_string();
    let run = |string: &str, more: &[&str]| {
        let case = Case::new();
        let args = [&["run", "--source", "eventhubs", "--output", "out"], more].concat();
        let ended = finish(tidemark(case.root(), args).env("EVENT_HUB_CONNECTION_STRING", string), b"");
        assert!(!case.path("out").exists() || ended.code() == 4 || more.contains(&"--consumer-group"));
        assert!(!ended.stderr.contains("SAS_KEY_VALUE") && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
        ended
    };
    run(&string.replace("SAS_KEY_VALUE", "hunter2"), &[]).fails_with(3, &["event hub transactions", "Data Receiver"]);
    let nameless = string.replace("EntityPath=transactions;", "");
    run(&nameless, &[]).fails_with(2, &["event hub", "name"]);
    run(&nameless, &["--event-hub", "nothing"]).fails_with(3, &["event hub nothing"]);
    run(&string, &["--event-hub", "other"]).fails_with(2, &["called other, and transactions"]);
    let group = run(&string, &["--consumer-group", "nobody"]);
    assert_eq!(group.code(), 3, "{}", group.stderr);
    assert!(group.stderr.contains("consumer group"), "{}", group.stderr);
}

#[test]
fn what_is_missing_or_contradicts_itself_is_told_before_anything_is_connected() {
    let case = Case::new();
    let run = |more: &[&str], variables: &[(&str, &str)]| {
        let args = [&["run", "--source", "eventhubs", "--output", "out"], more].concat();
        finish(tidemark(case.root(), args).envs(variables.iter().copied()), b"")
    };
    run(&[], &[]).fails_with(2, &["source.kind", "EVENT_HUB_CONNECTION_STRING", "eventhubs.namespace"]);
    let flag = run(&["--set", "eventhubs.connection_string=Endpoint=sb://h;hunter2"], &[]);
    assert!(flag.code() == 2 && flag.stderr.contains("every user of this machine") && !flag.stderr.contains("hunter2"));
    let both = [("TIDEMARK__EVENTHUBS__CONNECTION_STRING", "x"), ("TIDEMARK__EVENTHUBS__CONNECTION_STRING_FILE", "y")];
    run(&[], &both).fails_with(2, &["leave out one of the two"]);
    run(&[], &[("TIDEMARK__EVENTHUBS__NAMESPACE", "ns.servicebus.windows.net")]).fails_with(2, &["eventhubs.name"]);
    run(&[], &[("EVENT_HUB_CONNECTION_STRING", "hunter2")]).fails_with(2, &["connection string", "Endpoint="]);
    run(&["--start-at", "yesterday"], &[]).fails_with(2, &["earliest, latest"]);
    assert!(!case.path("out").exists());

    let shown = finish(
        tidemark(case.root(), ["config", "show"]).env("EVENT_HUB_CONNECTION_STRING", "Endpoint=sb://h;hunter2"),
        b"",
    );
    assert!(shown.stdout.contains("EVENT_HUB_CONNECTION_STRING") && !shown.stdout.contains("hunter2"));
}

#[test]
fn a_broker_that_is_not_there_is_waited_for_and_then_told() {
    let case = Case::new();
    let string = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=c;\
                  UseDevelopmentEmulator=true";
    let args = ["run", "--source", "eventhubs", "--output", "out", "--set", "eventhubs.give_up_after=1s"];
    let ended = finish(tidemark(case.root(), args).env("EVENT_HUB_CONNECTION_STRING", string), b"");
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("it is tried again") && ended.stderr.contains("event hub c of 127.0.0.1"));
}
