//! Live runs: signals, pipes between two programs, and a reader that goes away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::crash::job::Stop;
use crate::oracle::{Partition, Rules, Taken, check, check_cuts};
use crate::program::{Case, Ended, Running, tidemark};
use crate::tables::{CURATED, HEALTH, MANIFEST, NET_FLOW, USER_METRICS};

/// Shows each publication in the log.
const CHATTY: &str = "--set log.level=warn,tidemark=debug,deltalake_core=error";

/// Every event is accepted.
const NO_FAULTS: &str = "--set generator.duplicates=0 --set generator.invalid=0 --set generator.late=0";

fn start(case: &Case, args: &str) -> Running {
    let args = args.split_whitespace().chain(CHATTY.split_whitespace());
    Running::start(tidemark(case.root(), args).stdin(Stdio::null()))
}

#[test]
fn the_first_signal_drains_a_live_run() {
    for signal in ["INT", "TERM"] {
        let case = Case::new();
        // Without duplicates and rejected events, the curated table tells where each epoch was cut.
        let stream = "--users 50 --seed 5 --set generator.partitions=3 --set generator.disordered=0.3";
        let rate = "--rate 2000 --trigger 50ms --workers 2 --curated";
        let mut running = start(&case, &format!("run --output out {stream} {NO_FAULTS} {rate}"));
        (0..2).for_each(|_| running.await_line("published"));
        // As `timeout` does: to its child, and to the process group.
        (0..2).for_each(|_| running.signal(signal));
        let ended = running.ended().well();
        assert!(ended.stderr.contains("stopped as asked"), "{}", ended.stderr);
        consistent(&case, &ended);
    }
}

#[test]
fn partitions_that_never_run_dry_take_turns() {
    let case = Case::new();
    // Each epoch is full after a block or two.
    let stream = "--rate 0 --users 50 --set generator.partitions=3 --set epochs.max_events=2000 --trigger 1m --curated";
    let mut running = start(&case, &format!("run --output out {stream} {NO_FAULTS}"));
    (0..4).for_each(|_| running.await_line("published"));
    running.signal("TERM");
    running.ended().well();
    let mut read = BTreeMap::new();
    for name in crate::tables::Tables::read(&case.path("out")).texts(&CURATED, "source_partition") {
        *read.entry(name).or_insert(0_u64) += 1;
    }
    let (least, most) = (read.values().min().unwrap(), read.values().max().unwrap());
    assert!(read.len() == 3 && most <= &(3 * least), "{read:?}");
}

/// Rebuilds the input of a run from its curated events, and its cuts from their offsets; everything must agree.
pub(crate) fn consistent(case: &Case, ended: &Ended) {
    let tables = crate::tables::Tables::read(&case.path("out"));
    let epochs = tables.wholes(&CURATED, "epoch").into_iter().map(|epoch| usize::try_from(epoch).unwrap() - 1);
    let offsets = tables.wholes(&CURATED, "source_offset").into_iter().map(|o| usize::try_from(o).unwrap());
    let names = tables.texts(&CURATED, "source_partition");
    let mut partitions: Vec<Partition> =
        ["0", "1", "2"].map(|name| Partition { name: name.to_owned(), bodies: Vec::new() }).to_vec();
    // A generator at a rate is never behind.
    let mut cuts = vec![Taken::of([0; 3]); tables.marks().len()];
    for (index, ((epoch, offset), name)) in epochs.zip(offsets).zip(&names).enumerate() {
        let partition = partitions.iter().position(|partition| partition.name == *name).unwrap();
        assert_eq!(offset, partitions[partition].bodies.len(), "a gap in partition {name}");
        cuts[epoch].counts[partition] += 1;
        partitions[partition].bodies.push(body(&tables.rows(&CURATED)[index]).into_bytes());
    }
    check_cuts(&case.path("out"), &partitions, &cuts, Rules::default());
    assert!(cuts.len() >= 2, "{cuts:?}");
    let count = tables.wholes(&MANIFEST, "total_events_received")[0];
    assert_eq!(count, i128::try_from(names.len()).unwrap());
    // What was read and what was recorded is the same.
    let read = ended.stderr.split(" events=").nth(1).and_then(|rest| rest.split_whitespace().next());
    assert_eq!(read, Some(count.to_string().as_str()), "{}", ended.stderr);
}

/// The event of a row of the curated table.
fn body(row: &[crate::cells::Cell]) -> String {
    use crate::cells::Cell;
    let values: Vec<String> = CURATED
        .columns
        .iter()
        .zip(row)
        .take(8)
        .map(|((name, kind), cell)| {
            let value = match (cell, *kind) {
                (Cell::Text(text), _) => crate::data::quoted(text),
                (Cell::Whole(us), "time") => crate::data::quoted(&crate::data::instant(i64::try_from(*us).unwrap())),
                (Cell::Whole(pence), _) => format!("{}.{:02}", pence / 100, pence % 100),
                other => panic!("{name} is {other:?}"),
            };
            format!("\"{name}\":{value}")
        })
        .collect();
    format!("{{{}}}", values.join(","))
}

#[test]
fn the_second_signal_ends_at_once() {
    let case = Case::new();
    let args = "run --output out --rate 40000 --trigger 100ms --workers 1";
    let args = args.split_whitespace().chain(CHATTY.split_whitespace());
    let mut command = tidemark(case.root(), args);
    // It never comes to the end of its draining.
    command.env("FAILPOINTS", Stop { place: "source-ended", passed: 0 }.fail_points());
    let mut running = Running::start(command.stdin(Stdio::null()));
    running.await_line("published");
    running.signal("INT");
    running.await_line("stopped at source-ended");
    while running.is_running() {
        running.signal("INT");
    }
    assert_eq!(running.ended().code(), 130);
    // What was published before is whole.
    let tables = crate::tables::Tables::read(&case.path("out"));
    let accepted: i128 = tables.wholes(&HEALTH, "events_valid").iter().sum();
    assert!(accepted >= tables.wholes(&NET_FLOW, "deposit_count")[0]);
}

#[test]
fn a_generator_feeds_a_run_through_a_pipe() {
    let case = Case::new();
    let stream = "--events 3000 --users 40 --seed 8 --start 2025-01-01T00:00:00Z";
    let generate = format!("generate --stdout {stream}");
    let whole = case.tidemark(&generate.split_whitespace().collect::<Vec<_>>()).well().stdout;
    let mut generator = tidemark(case.root(), generate.split_whitespace());
    let mut generator = generator.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let events = generator.stdout.take().unwrap();
    let args = "run --input - --output out --epoch-events 800";
    let run = Running::start(tidemark(case.root(), args.split_whitespace()).stdin(events)).ended().well();
    assert!(generator.wait().unwrap().success());
    let tables = check(&case.path("out"), &[Partition::new("stdin", whole.as_bytes())], Rules::epochs_of(800));
    assert_eq!(tables.wholes(&HEALTH, "events_received"), [800, 800, 800, 600]);
    assert!(tables.rows(&USER_METRICS).len() <= 40 && run.stdout.contains("4 epochs"), "{}", run.stdout);
}

#[test]
fn generate_ends_quietly_when_its_reader_goes_away() {
    let case = Case::new();
    let mut command = tidemark(case.root(), ["generate", "--stdout", "--events", "0", "--rate", "0"]);
    let mut generator = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let head: Vec<String> =
        BufReader::new(generator.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    let ended = generator.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{stderr}");
    assert!(head.len() == 3 && head.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{head:?}");
}

#[test]
fn a_bounded_generator_ends_by_itself() {
    let case = Case::new();
    let stream = "--events 2500 --users 30 --seed 3 --rate 5000 --trigger 100ms";
    let args = format!("run --output out {stream} --curated {NO_FAULTS}");
    let ended = case.tidemark(&args.split_whitespace().collect::<Vec<_>>()).well();
    let tables = crate::tables::Tables::read(&case.path("out"));
    assert_eq!(tables.wholes(&MANIFEST, "total_events_valid"), [2500]);
    assert!(ended.stderr.contains("the input has ended"), "{}", ended.stderr);
    assert_eq!(tables.rows(&CURATED).len(), 2500);
}

#[test]
fn a_second_instance_on_one_output_is_refused() {
    let case = Case::new();
    let args = "run --output out --rate 500 --users 20 --trigger 50ms";
    let mut first = start(&case, args);
    first.await_line("published");
    case.tidemark(&args.split_whitespace().collect::<Vec<_>>()).fails_with(4, &["out"]);
    first.signal("INT");
    first.ended().well();
}

#[test]
fn a_stop_does_not_wait_for_an_idle_pipe() {
    let case = Case::new();
    let three = case.tidemark(&["generate", "--stdout", "--events", "3", "--seed", "4"]).well().stdout;
    let args = "run --input - --output out --epoch-events 2";
    let args = args.split_whitespace().chain(CHATTY.split_whitespace());
    let mut run = Running::start(tidemark(case.root(), args).stdin(Stdio::piped()));
    let mut pipe = run.take_stdin();
    pipe.write_all(three.as_bytes()).unwrap();
    run.await_line("published");
    run.signal("INT");
    run.ended().well();
    // The pipe was open to the end; the third event belongs to an epoch that was never cut.
    drop(pipe);
    let tables = crate::tables::Tables::read(&case.path("out"));
    assert_eq!(tables.wholes(&HEALTH, "events_received"), [2]);
}
