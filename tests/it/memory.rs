//! What a pipeline takes of memory is what docs/operations.md says, after a day of event time.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::crash::job::side_by_side;
use crate::program::{Case, Running, tidemark};

/// The line of the docs, in bytes.
const FORMULA: &str = "38 MB + 28 bytes × ids + 400 bytes × users";
const BASE: u64 = 38_000_000;
const AN_ID: u64 = 28;
const A_USER: u64 = 400;

/// Six events a second.
const EVENTS: u64 = 6 * 86_400;

/// How far the formula may be off, in percent.
const OFF: u64 = 20;

/// Memory is given back some time after it was used.
const PATIENCE: Duration = Duration::from_secs(120);

/// Shows each publication in the log.
const CHATTY: &str = "--set log.level=warn,tidemark::sink=debug,deltalake_core=error";

const EPOCH: usize = 2_000;

fn generate(case: &Case, users: u64) -> Vec<u8> {
    let args = format!("generate --stdout --events {EVENTS} --users {users} --rate 6 --start 2025-01-01T00:00:00Z");
    tidemark(case.root(), args.split_whitespace()).output().unwrap().stdout
}

/// Bytes of a process that are no file's.
fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    1_024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[test]
fn memory_after_a_day_of_event_time_is_what_the_docs_say() {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    assert!(docs.contains(FORMULA), "the formula is another one");
    side_by_side(&[500, 100_000], |users| {
        let case = Case::new();
        let events = generate(&case, *users);
        let epochs = events.iter().filter(|byte| **byte == b'\n').count() / EPOCH;
        let ids = EVENTS * 11 / 10;
        let bounds = format!("--epoch-events {EPOCH} --set epochs.max_bytes_in_flight=1MiB --set sink.sync=false");
        let args = format!("run --input - --output out --workers 2 --expected-ids {ids} {bounds} {CHATTY}");
        let mut command = tidemark(case.root(), args.split_whitespace());
        // What is free and kept depends on the weather of the machine.
        command.env("MIMALLOC_PURGE_DELAY", "0");
        let mut running = Running::start(command.stdin(Stdio::piped()));
        // It waits for more once everything has been read.
        let mut input = running.take_stdin();
        input.write_all(&events).unwrap();
        running.await_line(&format!("published epoch={epochs} "));

        let expected = BASE + AN_ID * ids + A_USER * users;
        let most = expected * (100 + OFF) / 100;
        let deadline = Instant::now() + PATIENCE;
        while anonymous(running.pid()) > most && Instant::now() < deadline {
            assert!(running.runs_until(Instant::now() + Duration::from_millis(200)), "{}", running.log());
        }
        let found = anonymous(running.pid());
        drop(input);
        println!("{users} users: {} kB, by the formula {} kB", found / 1_000, expected / 1_000);
        assert!(
            found.abs_diff(expected) * 100 <= expected * OFF,
            "{users} users: {found} bytes, by the formula {expected}"
        );
    });
}
