//! Any number of files: what is open and what is kept does not grow with it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use super::heads_tests::{Kind, payment};
use super::{FileOptions, FileSource};
use crate::source::{Pull, Source, Standing};

/// Where the child finds its input.
const INPUT: &str = "TIDEMARK_TEST_FILES";

/// Events of all files together, about 200 bytes each.
const EVENTS: i64 = 100_000;

const HOUR: i64 = 3_600_000_000;

/// Microseconds between two events.
const STEP: i64 = 864_000;

/// The same events in this many files: one after the other in time, or all at the same time.
fn files(directory: &Path, count: i64, parallel: bool, kind: Kind) {
    let each = EVENTS / count;
    for file in 0..count {
        let events = (0..each).map(|index| if parallel { index * count + file } else { file * each + index });
        let content: Vec<u8> = events.flat_map(|event| [payment(event * STEP), b"\n".to_vec()].concat()).collect();
        // Names in an order that is not that of time.
        let name = format!("{:05}-{file}.ndjson{}", file * 7919 % count, kind.ending());
        fs::write(directory.join(name), kind.pack(&content)).unwrap();
    }
}

/// What was read, and what it took.
#[derive(Debug, PartialEq)]
struct Taken {
    events: u64,
    /// Greatest memory of the process, in KiB, and that before anything was read.
    peak: u64,
    before: u64,
    open: usize,
}

/// Reads the input in another process, which may have 256 files open.
fn read_apart(directory: &Path) -> Taken {
    let program = std::env::current_exe().unwrap();
    let test = "source::files::scale_tests::reads_apart";
    let script = format!("ulimit -n 256; exec \"$0\" {test} --exact --nocapture");
    let output = Command::new("sh").args(["-c", &script]).arg(program).env(INPUT, directory).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("taken "));
    let figures: Vec<u64> =
        line.unwrap_or_else(|| unreadable(&text)).1.split(' ').map(|word| word.parse().unwrap()).collect();
    Taken { events: figures[0], before: figures[1], peak: figures[2], open: figures[3] as usize }
}

#[allow(clippy::panic)]
fn unreadable(text: &str) -> ! {
    panic!("the child says: {text}")
}

fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_below(directory: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    open.filter(|path| path.starts_with(directory)).count()
}

#[test]
fn reads_apart() {
    // The other test starts it in a process of its own, and says where the files are.
    let Some(directory) = std::env::var_os(INPUT) else { return };
    let before = memory("VmRSS");
    let mut source = FileSource::open(&[directory.to_str().unwrap().to_owned()], FileOptions::default()).unwrap();
    source.wakes(std::thread::current());
    let mut most_open = 0;
    let count = source.partitions().len();
    let mut next = vec![0_u64; count];
    loop {
        let open_now = (0..count).map(|partition| ask(&mut source, partition, next[partition]));
        let heads: Vec<Standing> = open_now.collect();
        most_open = most_open.max(open_below(Path::new(&directory)));
        let time = |standing: &Standing| match standing {
            Standing::CaughtUp => None,
            Standing::Behind(head) => head.time.map(|time| time.0),
        };
        let Some(least) = heads.iter().filter_map(time).min() else { break };
        let is_active = |partition: &usize| time(&heads[*partition]).is_some_and(|time| time <= least + HOUR);
        let active: Vec<usize> = (0..count).filter(is_active).collect();
        let each = (20_000 / active.len()).max(1);
        for partition in active {
            next[partition] += take(&mut source, partition, next[partition], each);
        }
        most_open = most_open.max(open_below(Path::new(&directory)));
    }
    println!("\ntaken {} {before} {} {most_open}", next.iter().sum::<u64>(), memory("VmHWM"));
}

fn ask(source: &mut FileSource, partition: usize, next: u64) -> Standing {
    loop {
        match source.standing(PartitionId(partition as u32), Offset(next), Micros(i64::MAX / 2)).unwrap() {
            Some(standing) => return standing,
            None => std::thread::park_timeout(Duration::from_secs(5)),
        }
    }
}

fn take(source: &mut FileSource, partition: usize, from: u64, wanted: usize) -> u64 {
    let mut taken = 0;
    while taken < wanted {
        match source
            .pull(PartitionId(partition as u32), Offset(from + taken as u64), wanted - taken, Micros(0))
            .unwrap()
        {
            Pull::Pending => std::thread::park_timeout(Duration::from_secs(5)),
            Pull::End => break,
            Pull::Block(block) => taken += block.len(),
        }
    }
    taken as u64
}

#[test]
fn thousands_of_files_take_no_more_memory_than_a_few() {
    for (count, parallel, kind) in [
        (4, true, Kind::Plain),
        (5000, false, Kind::Plain),
        (5000, true, Kind::Plain),
        (30, false, Kind::Gzip),
        (300, false, Kind::Zstd),
    ] {
        let directory = TempDir::new().unwrap();
        files(directory.path(), count, parallel, kind);
        let started = std::time::Instant::now();
        let taken = read_apart(directory.path());
        let grown = taken.peak - taken.before;
        println!("{count} files, parallel {parallel}, {kind:?}: {taken:?}, {grown} KiB more, {:?}", started.elapsed());
        assert_eq!(taken.events, (EVENTS / count * count).unsigned_abs());
        assert!(taken.open <= 130, "{taken:?}");
        assert!(grown < 150 << 10, "{taken:?}");
    }
}
