//! All of Azure at once, as far as it is on this machine: generate, broker, run, tables in Azurite, evidence.

use std::process::Stdio;

use serde_json::Value;

use crate::azure::azurite::Container;
use crate::program::{Case, Ended, Running, finish, tidemark};

/// The broker as a program of its own, as a newcomer starts it.
fn broker(case: &Case) -> (Running, String) {
    let path = case.path("broker.txt");
    let out = std::fs::File::create(&path).unwrap();
    let mut command = tidemark(case.root(), ["broker", "--listen", "127.0.0.1:0", "--partitions", "3"]);
    let running = Running::start_into(command.stdin(Stdio::null()), out);
    let mut running = running;
    running.await_line("the broker is listening");
    loop {
        let said = std::fs::read_to_string(&path).unwrap();
        if let Some(string) = said.lines().find_map(|line| line.strip_prefix("EVENT_HUB_CONNECTION_STRING=")) {
            return (running, string.to_owned());
        }
        std::thread::yield_now();
    }
}

#[test]
fn generated_events_go_through_a_broker_into_azurite_and_pass_every_check() {
    let Some(container) = Container::new() else { return };
    let case = Case::new();
    let (broker, string) = broker(&case);
    let output = container.abfss("together");
    let command = |args: &[&str]| {
        let mut command = tidemark(case.root(), args);
        command.envs(container.environment()).env("EVENT_HUB_CONNECTION_STRING", &string);
        command
    };
    let verb = |args: &[&str]| -> Ended { finish(&mut command(args), b"") };

    let generated = verb(&["generate", "--to", "eventhubs", "--events", "5000", "--set", "generator.partitions=3"]);
    generated.well();
    let eager = ["--trigger", "200ms", "--checkpoint-interval", "200ms", "--set", "checkpoint.keep=1000"];
    let chatty = [
        "--set",
        "log.level=warn,tidemark=debug,deltalake_core=error,buoyant_kernel=off,azure_messaging_eventhubs=off,azure_core_amqp=off,fe2o3_amqp=off",
    ];
    let run = [&["run", "--source", "eventhubs", "--output", output.as_str()], &eager[..], &chatty[..]].concat();
    let received = || {
        let shown = verb(&["checkpoint", "show", "--json", "--output", output.as_str()]);
        let shown: Option<Value> = serde_json::from_str(&shown.stdout).ok();
        shown.and_then(|shown| shown["manifest"]["counters"]["received"].as_u64()).unwrap_or(0)
    };
    let mut events = 5_000;
    for more in [0, 2_000] {
        let mut running = Running::start(command(&run).stdin(Stdio::null()));
        running.await_line(" running");
        if more > 0 {
            let (count, seed) = (more.to_string(), "77");
            verb(&["generate", "--to", "eventhubs", "--events", &count, "--seed", seed]).well();
            events += more;
        }
        let mut published = 0;
        while received() < events {
            published += 1;
            assert!(running.says_times(published, "checkpoint"), "{}", running.log());
        }
        running.signal("TERM");
        running.ended().well();
    }
    assert_eq!(received(), 7_000);
    verb(&["evidence", "--output", output.as_str()]).well();
    verb(&["checkpoint", "verify", "--output", output.as_str()]).well();
    let valid = verb(&["validate", "--online", "--source", "eventhubs", "--output", output.as_str()]).well();
    assert!(valid.stdout.contains("3 partitions"), "{}", valid.stdout);
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), 0);
}
