//! The tables of several processes, over each kind of source, against the oracle.

use std::process::Stdio;

use super::crew::{Places, SECRET, all_well, finish, start_all};
use crate::crash::job::Job;
use crate::data::eventful;
use crate::eventhubs::stream::{Hub, Stream};
use crate::live::consistent;
use crate::oracle::{Rules, check};
use crate::program::{Case, Ended, Running, tidemark};

fn evidence(case: &Case) {
    case.tidemark(&["evidence", "--output", "out"]).well();
    case.tidemark(&["checkpoint", "verify", "--output", "out"]).well();
}

/// Files of different lengths, so that one process has read its share while others go on; one of them empty.
fn uneven(seed: u64) -> Job {
    Job::new(&eventful(seed, &[130, 45, 0, 200, 85]), Rules::epochs_of(20), "--curated")
}

#[test]
fn files_give_the_same_tables_in_any_number_of_processes() {
    let job = uneven(61);
    let ended = finish(&job, 3, 2);
    assert!(ended[0].stdout.contains("460 events"), "{}", ended[0].stdout);
    assert!(ended[1..].iter().all(|ended| ended.stdout.is_empty()), "only process 0 has a summary: {ended:?}");
    let tables = job.check();
    // Started again in another number of processes it does nothing.
    assert!(finish(&job, 2, 1)[0].stderr.contains("nothing to do"));
    let again = job.start(2, "", "").ended().well();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    job.check().assert_equals(&tables);
    evidence(&job.case);
}

#[test]
fn what_several_processes_write_equals_what_one_writes() {
    let job = uneven(66);
    finish(&job, 2, 1);
    job.check();
    let alone = job.case.run("alone", &["--curated", "--epoch-events", "20"]);
    assert!(alone.stdout.contains("460 events"), "{}", alone.stdout);
    check(&job.case.path("alone"), &job.partitions(), job.rules);
}

#[test]
fn more_processes_than_partitions_and_no_events_at_all() {
    let job = Job::new(&eventful(62, &[70]), Rules::epochs_of(20), "");
    finish(&job, 3, 1);
    job.check();
    let empty = Job::new(&[Vec::new()], Rules::epochs_of(20), "");
    finish(&empty, 2, 1);
}

#[test]
fn standard_input_is_read_by_process_0() {
    let mut job = Job::on_stdin(Rules::epochs_of(20), "");
    job.feed((eventful(63, &[130]).remove(0).join("\n") + "\n").into_bytes());
    finish(&job, 2, 1);
    job.check();
}

#[test]
fn without_checkpoints_as_well() {
    let job = Job::new(&eventful(64, &[70, 90]), Rules::epochs_of(20), "--set checkpoint.enabled=false");
    all_well(start_all(&job, 2, 1, ""));
    job.check();
}

fn live(case: &Case, places: &Places, process: usize, more: &str) -> Running {
    case.file("secret", SECRET);
    let stream = "run --output out --users 50 --seed 5 --set generator.partitions=3 --set generator.disordered=0.3 \
                  --set generator.duplicates=0 --set generator.invalid=0 --set generator.late=0 --trigger 50ms \
                  --workers 1 --curated --set log.level=warn,tidemark=debug,deltalake_core=error";
    let flags = places.flags(process);
    let args = stream.split_whitespace().chain(flags.split_whitespace()).chain(more.split_whitespace());
    Running::start(tidemark(case.root(), args).stdin(Stdio::null()))
}

fn all_live(case: &Case, processes: usize, more: &str) -> Vec<Running> {
    let places = Places::of(processes);
    (0..processes).map(|process| live(case, &places, process, more)).collect()
}

#[test]
fn a_signal_to_any_process_drains_all() {
    for (processes, signalled, signal) in [(2, 0, "TERM"), (3, 2, "INT")] {
        let case = Case::new();
        let mut crew = all_live(&case, processes, "--rate 2000");
        (0..2).for_each(|_| crew[0].await_line("published"));
        crew[signalled].signal(signal);
        let ended: Vec<Ended> = all_well(crew);
        assert!(ended[0].stderr.contains("stopped as asked"), "{}", ended[0].stderr);
        consistent(&case, &ended[0]);
        evidence(&case);
    }
}

#[test]
fn a_bounded_stream_ends_by_itself() {
    let case = Case::new();
    let ended = all_well(all_live(&case, 2, "--rate 20000 --events 9000 --set epochs.max_events=4000"));
    assert!(ended[0].stderr.contains("the input has ended"), "{}", ended[0].stderr);
    assert!(ended[0].stdout.contains("9,000 events"), "{}", ended[0].stdout);
    consistent(&case, &ended[0]);
}

#[test]
fn an_event_hub_is_read_by_several_processes_and_then_by_others() {
    let mut stream = Stream::begun(Hub::of(3));
    for (round, processes) in (70..).zip([2, 3]) {
        stream.send(&eventful(round, &[200, 150, 40]));
        stream.case.file("secret", SECRET);
        let places = Places::of(processes);
        let start = |process| stream.start(&format!("{} --workers 1", places.flags(process)), "");
        let mut crew: Vec<Running> = (0..processes).map(start).collect();
        stream.await_received(&mut crew[0], stream.total());
        stream.send(&eventful(round + 10, &[30, 0, 50]));
        stream.await_received(&mut crew[0], stream.total());
        crew[processes - 1].signal("TERM");
        all_well(crew);
        stream.check();
    }
    stream.evidence();
}
