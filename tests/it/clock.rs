//! Somebody sets the clock of the machine while a pipeline runs: epochs go on closing, and no time stamp goes back.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::program::{Case, Running, finish, skipped, tidemark};
use crate::python::repository;
use crate::tables::{MANIFEST, Mark, NET_FLOW, Tables};

const HOUR_US: i64 = 3_600_000_000;

/// A library that shifts the time of day of whoever loads it; none without a C compiler.
fn shim(case: &Case) -> Option<PathBuf> {
    let library = case.path("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(repository().join("tests/clock/clock.c"));
    match compiler.status() {
        Ok(status) if status.success() => Some(library),
        _ => {
            assert!(std::env::var_os("CI").is_none(), "no C compiler");
            skipped("no C compiler");
            None
        }
    }
}

#[test]
fn a_clock_that_is_set_stops_no_epoch_and_turns_back_no_time_stamp() {
    let case = Case::new();
    let Some(library) = shim(&case) else { return };
    // In place: the program has mapped the file into its memory.
    let offset = || std::fs::File::options().write(true).create(true).truncate(false).open(case.path("offset"));
    let set = |us: i64| offset().unwrap().write_all(&us.to_le_bytes()).unwrap();
    set(0);
    let args = "run --output out --users 50 --seed 5 --set generator.partitions=3 --set generator.duplicates=0 \
                --set generator.invalid=0 --set generator.late=0 --rate 2000 --trigger 50ms --workers 2 --curated \
                --checkpoint-interval 100ms --set log.level=warn,tidemark=debug,deltalake_core=error";
    let mut command = tidemark(case.root(), args.split_whitespace());
    command.env("LD_PRELOAD", library).env("CLOCK_OFFSET", case.path("offset"));
    let mut running = Running::start(command.stdin(Stdio::null()));
    (0..2).for_each(|_| running.await_line("published"));
    for us in [-HOUR_US, HOUR_US, -3 * HOUR_US, 0] {
        set(us);
        let published = running.log().matches("published").count();
        assert!(running.says_times(published + 4, "published"), "nothing is published any more:\n{}", running.log());
    }
    running.signal("TERM");
    running.ended().well();
    let tables = Tables::read(&case.path("out"));
    let marks = tables.marks();
    let in_order = |pair: &[Mark]| pair[0].opened <= pair[0].closed && pair[0].closed <= pair[1].opened;
    assert!(marks.windows(2).all(in_order), "{marks:?}");
    assert!(marks.last().unwrap().closed - marks[0].opened >= HOUR_US, "the clock was never set");
    assert_eq!(tables.wholes(&NET_FLOW, "updated_at"), [i128::from(marks.last().unwrap().closed)]);
    assert_eq!(tables.wholes(&MANIFEST, "total_events_rejected"), [0], "none of them came from the future");
    finish(&mut tidemark(case.root(), ["evidence", "--output", "out"]), b"").well();
}
