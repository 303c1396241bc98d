//! Payloads and rows that are not kept for ever: they go while the pipeline runs, is killed, and stands still.

use std::process::Stdio;

use crate::data::Random;
use crate::program::{Case, Running, tidemark};
use crate::tables::{HEALTH, MANIFEST, REJECTED, Tables};

const GONE: &str = "let go what was kept long enough";

const CHATTY: &str = "--set log.level=warn,tidemark=debug,deltalake_core=error";

const KEPT: &str = "--set quarantine.keep_payloads=1s --set sink.keep_health=1s --set sink.maintain_every=1s";

fn start(case: &Case, args: &str) -> Running {
    let args = format!("run --output out {args} {KEPT} {CHATTY}");
    Running::start(tidemark(case.root(), args.split_whitespace()).stdin(Stdio::piped()))
}

/// As a job does that is started once a day, and finds nothing new.
#[test]
fn what_is_kept_long_enough_goes_in_a_run_that_finds_nothing_new() {
    let case = Case::new();
    case.file("in.ndjson", b"no event at all\n");
    let run = || {
        Running::start(
            tidemark(case.root(), format!("run --output out --input in.ndjson {KEPT}").split_whitespace())
                .stdin(Stdio::null()),
        )
    };
    run().ended().well();
    let payloads = || Tables::read(&case.path("out")).texts(&REJECTED, "raw_payload");
    // It is there for a second, and there is nothing to wait for but that.
    while payloads() != [""] {
        assert!(run().ended().well().stderr.contains("nothing to do"));
    }
}

/// What is there at the end adds up with what went, whenever it was killed.
#[test]
fn what_is_kept_long_enough_goes_across_kills_and_evidence_knows() {
    let (case, mut random) = (Case::new(), Random(0x5eed));
    let stream = "--rate 2000 --trigger 100ms --users 50 --set generator.invalid=0.2 --workers 2";
    let pace = "--checkpoint-interval 200ms --set sink.publish_interval=0ms";
    for round in 0..6 {
        let mut running = start(&case, &format!("{stream} {pace}"));
        running.await_line(GONE);
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(random.below(400) as u64);
        assert!(running.runs_until(soon), "round {round}: {}", running.log());
        running.kill().unwrap();
    }
    let mut running = start(&case, &format!("{stream} {pace}"));
    running.await_line(GONE);
    running.signal("TERM");
    running.ended().well();

    let found = case.tidemark(&["evidence", "--output", "out"]).well();
    assert!(found.stdout.contains("were kept long enough"), "{}", found.stdout);
    let tables = Tables::read(&case.path("out"));
    let closed = *tables.wholes(&MANIFEST, "last_updated").first().unwrap();
    let times = tables.wholes(&REJECTED, "rejected_at");
    let payloads = tables.texts(&REJECTED, "raw_payload").into_iter().zip(tables.texts(&REJECTED, "payload_encoding"));
    let old: Vec<_> = times.iter().zip(payloads).filter(|(at, _)| **at < closed - 1_100_000).collect();
    assert!(old.iter().all(|(_, (payload, encoding))| payload.is_empty() && encoding == "omitted"), "{old:?}");
    assert_eq!(times.len() as i128, tables.wholes(&MANIFEST, "total_events_rejected")[0], "rows stay");
    assert!(old.len() > 100, "{} of {}", old.len(), times.len());
    let left = tables.wholes(&HEALTH, "batch_end");
    assert!(left.iter().all(|at| *at >= closed - 1_100_000), "{left:?}");
    assert!((left.len() as i128) < tables.wholes(&MANIFEST, "batches_processed")[0]);
    // What is gone cannot be replayed, and is said to be gone.
    let listed = case.tidemark(&["quarantine", "list", "--output", "out", "--limit", "1"]).well();
    assert!(listed.stdout.contains("(omitted)"), "{}", listed.stdout);
}

#[test]
fn what_is_kept_long_enough_goes_while_nothing_comes() {
    let case = Case::new();
    let mut running = start(&case, "--input - --epoch-events 1");
    let mut input = running.take_stdin();
    std::io::Write::write_all(&mut input, b"no event at all\n").unwrap();
    running.await_line("published");
    running.await_line(GONE);
    let payloads = Tables::read(&case.path("out")).texts(&REJECTED, "raw_payload");
    drop(input);
    running.ended().well();
    assert_eq!(payloads, [""]);
}
