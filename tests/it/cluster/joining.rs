//! Who comes in at the start, and who does not.

use std::io::Write;
use std::net::TcpStream;

use super::crew::{Places, SECRET, ended_because, finish};
use crate::crash::job::Job;
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::Running;

fn job() -> Job {
    Job::new(&eventful(65, &[70, 50]), Rules::epochs_of(40), "")
}

/// Waits until both have ended well, warnings about connections that were refused aside.
fn well_but_for_refusals(crew: Vec<Running>) -> Vec<String> {
    let log = |process: Running| {
        let ended = process.ended();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let alarming = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let other: Vec<&str> =
            ended.stderr.lines().filter(alarming).filter(|line| !line.contains("refused a connection")).collect();
        assert!(other.is_empty(), "{other:?}");
        ended.stderr
    };
    crew.into_iter().map(log).collect()
}

#[test]
fn strangers_are_refused_and_logged_and_hold_up_nobody() {
    let (job, places) = (job(), Places::of(2));
    let mut zero = places.start(&job, 0, 1, "", "");
    zero.await_line("listening for other processes");
    let silent = TcpStream::connect(&places.addresses[0]).unwrap();
    TcpStream::connect(&places.addresses[0]).unwrap().write_all(&[b'x'; 200]).unwrap();
    zero.await_line("refused a connection");
    // Another secret.
    job.case.file("other", "another secret, as long as that one is");
    let places_of_other = Places { addresses: places.addresses.clone(), secret: "other" };
    let other = places_of_other.start(&job, 1, 1, "", "").ended();
    other.fails_with(2, &["process 1", "was refused by process 0", "secret"]);
    // Other settings: each side names the key and both values.
    let unlike = places.start(&job, 1, 3, "", "").ended();
    unlike.fails_with(2, &["runtime.workers is 3 here and 1 there"]);
    zero.await_line("runtime.workers is 1 here and 3 there");
    let unlike = places.start(&job, 1, 1, "--watermark-delay 5h", "").ended();
    unlike.fails_with(2, &["dedup.watermark_delay is 5h here and 1 day there"]);
    let log = well_but_for_refusals(vec![zero, places.start(&job, 1, 1, "", "")]).remove(0);
    assert!(!log.contains(SECRET) && log.contains("127.0.0.1:"), "{log}");
    drop(silent);
    job.check();
}

#[test]
fn a_process_that_waits_in_vain_ends_with_a_reason() {
    let (job, places) = (job(), Places::of(2));
    let alone =
        |process, more: &str| places.start(&job, process, 1, &format!("--set cluster.join_timeout=1s {more}"), "");
    alone(0, "").ended().fails_with(3, &["process 1", &places.addresses[1], "cluster.join_timeout"]);
    alone(1, "").ended().fails_with(3, &["process 0", &places.addresses[0], "cluster.join_timeout"]);
    assert!(!job.output().exists(), "nothing is made before all are there");
    let elsewhere = alone(0, "--set cluster.listen=192.0.2.1:7400").ended();
    elsewhere.fails_with(2, &["192.0.2.1:7400", "cluster.listen"]);
    // A stop while it waits is no failure.
    let mut waiting = places.start(&job, 1, 1, "", "");
    waiting.await_line("waiting for process 0");
    waiting.signal("TERM");
    let ended = waiting.ended().well();
    assert!(ended.stderr.contains("before all processes had come"), "{}", ended.stderr);
}

#[test]
fn another_checkpoint_is_no_shared_one() {
    let (job, places) = (job(), Places::of(2));
    let zero = places.start(&job, 0, 1, "", "");
    let one = places.start(&job, 1, 1, "--checkpoint elsewhere", "");
    one.ended().fails_with(2, &["elsewhere", "is not the one of process 0"]);
    ended_because(&zero.ended(), 2, &["process 1", "elsewhere", "is not the one of process 0"]);
    // Neither is one that holds the same generation.
    job.case.run("twin", &["--epoch-events", "40"]);
    let places = Places::of(2);
    let zero = places.start(&job, 0, 1, "", "");
    let one = places.start(&job, 1, 1, "--checkpoint twin/_tidemark", "");
    one.ended().fails_with(2, &["twin/_tidemark", "is not the one of process 0"]);
    ended_because(&zero.ended(), 2, &["process 1", "twin/_tidemark"]);
    finish(&job, 2, 1);
    job.check();
}

#[test]
fn another_source_is_refused() {
    let (job, places) = (job(), Places::of(2));
    job.case.file("other/p0.ndjson", "");
    let zero = places.start(&job, 0, 1, "", "");
    let one = places.start(&job, 1, 1, "--input other", "");
    let one = one.ended();
    assert_eq!(one.code(), 2, "{}", one.stderr);
    ended_because(&zero.ended(), 2, &["process 1", "another one than that of process 0"]);
}

#[test]
fn settings_of_the_cluster_are_checked_at_the_start() {
    let job = job();
    job.start(1, "--processes 2", "").ended().fails_with(2, &["cluster.processes = 2", "TIDEMARK__CLUSTER__SECRET"]);
    let flags = "--processes 2 --process 2 --set cluster.secret_file=s";
    job.start(1, flags, "").ended().fails_with(2, &["cluster.process = 2", "0 to 1"]);
    let flags = "--processes 2 --hosts a:1,b --set cluster.secret_file=s";
    job.start(1, flags, "").ended().fails_with(2, &["cluster.hosts", "HOST:PORT"]);
    let flags = "--processes 2 --set cluster.secret=0123456789abcdef";
    job.start(1, flags, "").ended().fails_with(2, &["cluster.secret = ****"]);
    job.case.file("short", "hunter2");
    let flags = "--processes 2 --set cluster.secret_file=short";
    let ended = job.start(1, flags, "").ended().fails_with(2, &["cluster.secret_file", "16 bytes"]);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}
