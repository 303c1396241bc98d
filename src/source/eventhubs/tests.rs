//! The source against the local broker.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tidemark_broker::{Broker, BrokerOptions};
use tidemark_eventhubs::connection::ConnectionString;
use tidemark_eventhubs::hub::{Access, Hub};
use tokio::runtime::Runtime;

use super::*;
use crate::source::{Share, SourceErrorKind};

/// Longer than anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const HOUR: i64 = 3_600_000;

/// 2025-03-01T00:00:00Z, in milliseconds.
const MARCH: i64 = 1_740_787_200_000;

/// How an event hub would be read that is nowhere.
pub(super) fn options() -> EventHubsOptions {
    options_for("Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=hub")
}

fn options_for(connection: &str) -> EventHubsOptions {
    tidemark_eventhubs::choose_cryptography();
    let access = Access::ConnectionString(ConnectionString::parse(connection).unwrap());
    EventHubsOptions {
        hub: Hub::new(access, None, Duration::from_secs(10)).unwrap(),
        group: "$Default".to_owned(),
        start: StartAt::Earliest,
        until_end: false,
        after_loss: AfterLoss::Refuse,
        alignment: Some(Duration::from_secs(3600)),
        prefetch: 10,
        quiet_after: Duration::from_secs(15),
        lag_every: Duration::from_secs(3),
        give_up_after: PATIENCE,
        open_within: PATIENCE,
        exclusive: true,
        threads: 1,
        share: Share::WHOLE,
    }
}

/// A broker, and sources that read from it.
struct Bench {
    broker: Broker,
    _runtime: Runtime,
}

impl Bench {
    fn new(partitions: usize) -> Bench {
        let runtime = Runtime::new().unwrap();
        let options = BrokerOptions { partitions, ..BrokerOptions::default() };
        Bench { broker: runtime.block_on(Broker::start(options)).unwrap(), _runtime: runtime }
    }

    /// Appends so many events an hour apart, from this hour on.
    fn append(&self, partition: usize, hours: std::ops::Range<i64>) {
        for hour in hours {
            self.broker.control().clock(Some(MARCH + hour * HOUR));
            self.broker.control().append(partition, [format!("p{partition} h{hour}")]).unwrap();
        }
        self.broker.control().clock(None);
    }

    /// How it is read, with an answer to each question soon.
    fn options(&self) -> EventHubsOptions {
        let options = options_for(&self.broker.connection_string());
        EventHubsOptions { lag_every: Duration::from_millis(100), ..options }
    }

    fn open(&self, options: EventHubsOptions) -> EventHubsSource {
        let mut source = EventHubsSource::open(options, &Arc::default()).unwrap();
        source.settle(None).unwrap();
        source
    }

    fn started(&self, options: EventHubsOptions) -> EventHubsSource {
        let mut source = self.open(options);
        source.start(1).unwrap();
        source
    }
}

/// What comes in the end.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("waited in vain: {what}");
}

/// The bodies of the next events of a partition, if there are any.
fn pull(source: &mut EventHubsSource, partition: u32, next: &mut u64, now: Micros) -> Option<Vec<String>> {
    match source.pull(PartitionId(partition), Offset(*next), 100, now).unwrap() {
        Pull::Block(block) => {
            *next = end_of(&block);
            Some(block.iter().map(|body| String::from_utf8(body.bytes.to_vec()).unwrap()).collect())
        }
        Pull::Pending | Pull::End => None,
    }
}

/// The next `count` events of a partition, and where it goes on.
fn read(source: &mut EventHubsSource, partition: u32, mut next: u64, count: usize) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(soon("events", || pull(source, partition, &mut next, Micros(0))));
    }
    assert_eq!(found.len(), count, "{found:?}");
    (found, next)
}

fn hours(partition: u32, hours: std::ops::Range<i64>) -> Vec<String> {
    hours.map(|hour| format!("p{partition} h{hour}")).collect()
}

fn stands(source: &mut EventHubsSource, partition: u32, next: u64) -> Standing {
    soon("how it stands", || source.standing(PartitionId(partition), Offset(next), Micros(0)).unwrap())
}

const BEHIND: Standing = Standing::Behind(Head::NONE);

#[test]
fn a_partition_that_is_added_is_offered_once_and_read_from_its_beginning_once_it_joins() {
    let bench = Bench::new(1);
    bench.append(0, 0..1);
    let mut source = bench.started(bench.options());
    let before = source.identity();
    assert_eq!(read(&mut source, 0, 0, 1).0, hours(0, 0..1));
    bench.broker.control().set_partitions(2).unwrap();
    bench.append(1, 0..3);
    let mut found = soon("the partition", || Some(source.discovered()).filter(|found| !found.is_empty()));
    assert_eq!(source.partitions().len(), 1, "it is no part of the source before it joins");
    let found = found.pop().unwrap();
    assert_eq!((found.info.name.as_str(), found.from), ("1", Offset(0)));
    let watched = source.statuses();
    source.join(found.clone());
    source.join(found);
    assert_eq!((source.partitions().len(), watched.count()), (2, 2));
    assert_eq!(source.beginning(PartitionId(1)), Offset(0));
    // They are further apart than they may be, but for what is cut.
    source.align(&[Offset(1)], None);
    assert_eq!(read(&mut source, 1, 0, 3).0, hours(1, 0..3));
    assert_eq!(source.identity(), before);
    let asked = |source: &EventHubsSource| source.statuses().all()[1].last_asked();
    let first = asked(&source);
    soon("another answer", || (asked(&source) != first).then_some(()));
    assert_eq!(source.discovered(), [], "it is offered once");
}

#[test]
fn nothing_is_cut_before_each_partition_is_heard_of() {
    let bench = Bench::new(2);
    bench.append(1, 0..1);
    bench.broker.control().silence(Some(1), true).unwrap();
    let mut source = bench.started(bench.options());
    // One partition is known to be empty, the other one holds an event that does not come.
    let empty = Arc::clone(&source.statuses().all()[0]);
    soon("an answer", || empty.is_caught_up(0, PATIENCE, Instant::now()).then_some(()));
    let mut known = || source.standing(PartitionId(0), Offset(0), Micros(0)).unwrap();
    assert_eq!(known(), None);
    bench.broker.control().silence(Some(1), false).unwrap();
    assert_eq!(soon("the other one", known), Standing::CaughtUp);
}

#[test]
fn only_the_first_process_looks_for_partitions_and_each_reads_its_own() {
    let bench = Bench::new(1);
    let share = Share { process: 1, processes: 2 };
    let mut source = bench.started(EventHubsOptions { share, ..bench.options() });
    bench.broker.control().set_partitions(3).unwrap();
    bench.append(1, 0..2);
    for name in ["1", "2"] {
        let info = PartitionInfo { name: name.to_owned(), path: None, bytes: None };
        source.join(Found { info, from: Offset(0) });
    }
    assert_eq!([0, 1, 2].map(|partition| source.reads(PartitionId(partition))), [false, true, false]);
    assert_eq!(read(&mut source, 1, 0, 2).0, hours(1, 0..2));
    assert_eq!((source.statuses().count(), source.discovered()), (1, vec![]));
}

#[test]
fn partitions_keep_the_numbers_that_earlier_runs_gave_them() {
    let bench = Bench::new(3);
    bench.append(2, 0..2);
    let mut source = EventHubsSource::open(bench.options(), &Arc::default()).unwrap();
    let SourceIdentity::EventHub(mut stored) = source.identity() else { panic!("no event hub") };
    stored.partitions = vec![("0".to_owned(), 0), ("2".to_owned(), 1)];
    let stored = SourceIdentity::EventHub(stored);
    source.settle(Some(&stored)).unwrap();
    assert_eq!(source.identity(), stored, "one that came later is not what it is known by");
    source.order(&[("2".to_owned(), false), ("0".to_owned(), true)]).unwrap();
    let names: Vec<_> = source.partitions().iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["2", "0", "1"]);
    assert_eq!((source.beginning(PartitionId(0)), source.found()[0].end), (Offset(1), 2));
    source.start(1).unwrap();
    assert_eq!(read(&mut source, 0, 1, 1).0, hours(2, 1..2));
    let mut source = bench.open(bench.options());
    let error = source.order(&[("0".to_owned(), true), ("7".to_owned(), false)]).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Changed);
    assert!(error.to_string().contains("partition 7"), "{error}");
}

#[test]
fn who_has_read_what_was_there_lately_is_caught_up() {
    let bench = Bench::new(2);
    bench.append(0, 0..1);
    let mut source = bench.started(EventHubsOptions { lag_every: Duration::from_secs(60), ..bench.options() });
    assert_eq!([stands(&mut source, 0, 0), stands(&mut source, 0, 1)], [BEHIND, Standing::CaughtUp]);
    assert_eq!(stands(&mut source, 1, 0), Standing::CaughtUp, "it is empty");
    bench.append(0, 1..3);
    assert_eq!(read(&mut source, 0, 0, 3).0, hours(0, 0..3));
    assert_eq!(stands(&mut source, 0, 1), Standing::CaughtUp, "what was there a moment ago is enough");
    assert_eq!(stands(&mut source, 7, 1), BEHIND, "nobody knows of it");
}

#[test]
fn a_partition_of_which_nothing_is_heard_is_behind_until_it_is_asked_again() {
    let bench = Bench::new(1);
    bench.append(0, 0..1);
    let mut source = bench.started(bench.options());
    assert_eq!(read(&mut source, 0, 0, 1).0, hours(0, 0..1));
    // What is said holds for three tenths of a second and one; nobody answers for longer.
    bench.broker.control().away(Duration::from_secs(2));
    soon("silence", || (stands(&mut source, 0, 1) == BEHIND).then_some(()));
    soon("an answer", || (stands(&mut source, 0, 1) == Standing::CaughtUp).then_some(()));
    bench.append(0, 1..2);
    soon("the next event to be known of", || (stands(&mut source, 0, 1) == BEHIND).then_some(()));
    assert_eq!(stands(&mut source, 0, 2), Standing::CaughtUp);
}

#[test]
fn what_is_read_to_its_end_is_caught_up_there_and_gets_no_partitions() {
    let bench = Bench::new(2);
    bench.append(0, 0..2);
    let mut source = bench.started(EventHubsOptions { until_end: true, ..bench.options() });
    bench.broker.control().set_partitions(3).unwrap();
    let (events, next) = read(&mut source, 0, 0, 2);
    assert_eq!(
        (events, stands(&mut source, 0, 1), stands(&mut source, 0, next)),
        (hours(0, 0..2), BEHIND, Standing::CaughtUp)
    );
    bench.append(0, 2..3);
    let status = Arc::clone(&source.statuses().all()[0]);
    soon("an event behind the end", || (status.next() == 3).then_some(()));
    assert!(matches!(source.pull(PartitionId(0), Offset(next), 1, Micros(0)), Ok(Pull::End)));
    assert!(matches!(source.pull(PartitionId(1), Offset(0), 1, Micros(0)), Ok(Pull::End)));
    assert_eq!(source.discovered(), []);
}

#[test]
fn no_partition_is_read_further_than_an_hour_ahead_of_what_others_hold() {
    let bench = Bench::new(2);
    bench.append(0, 0..5);
    bench.append(1, 0..5);
    let mut source = bench.started(bench.options());
    let (first, zero) = read(&mut source, 0, 0, 2);
    let (second, mut one) = read(&mut source, 1, 0, 2);
    assert_eq!((first, second), (hours(0, 0..2), hours(1, 0..2)));
    assert_eq!(source.oldest_in_hand(), Some(Micros(MARCH * 1000)));
    assert_eq!(pull(&mut source, 1, &mut one, Micros(0)), None, "the first one's first event is not cut");
    // A cut of one alone moves the other on.
    source.align(&[Offset(zero), Offset(0)], None);
    assert_eq!(read(&mut source, 1, one, 2).0, hours(1, 2..4));
    // Another process holds something older than all that.
    source.align(&[Offset(zero), Offset(4)], Some(Micros((MARCH + HOUR / 2) * 1000)));
    let (mut zero, mut one) = (zero, 4);
    assert_eq!(pull(&mut source, 0, &mut zero, Micros(0)), None);
    assert_eq!(pull(&mut source, 1, &mut one, Micros(0)), None);
    assert_eq!(pull(&mut source, 0, &mut zero, Micros(i64::MAX)), Some(hours(0, 2..5)), "a replay waits for nobody");
    source.align(&[Offset(0), Offset(4)], None);
    assert_eq!(read(&mut source, 1, one, 1).0, hours(1, 4..5), "and nobody for what is read again: it is cut");
    source.align(&[Offset(5), Offset(5)], None);
    assert_eq!(source.oldest_in_hand(), None);
}

#[test]
fn a_partition_of_which_nothing_is_in_hand_pauses_no_other() {
    let bench = Bench::new(3);
    bench.append(0, 0..9);
    bench.append(1, 0..1);
    let mut source = bench.started(bench.options());
    assert_eq!(read(&mut source, 1, 0, 1).0, hours(1, 0..1));
    source.align(&[Offset(0), Offset(1), Offset(0)], None);
    assert_eq!(read(&mut source, 0, 0, 9).0, hours(0, 0..9));
}

#[test]
fn without_an_alignment_everything_is_read() {
    let bench = Bench::new(2);
    bench.append(0, 0..5);
    bench.append(1, 100..105);
    let mut source = bench.started(EventHubsOptions { alignment: None, ..bench.options() });
    assert_eq!(read(&mut source, 1, 0, 5).0, hours(1, 100..105));
    assert_eq!(read(&mut source, 0, 0, 5).0, hours(0, 0..5));
}

#[test]
fn at_a_start_nothing_is_handed_out_before_something_is_known_of_each_partition() {
    let bench = Bench::new(3);
    bench.append(0, 0..1);
    bench.append(1, 0..1);
    bench.broker.control().silence(Some(1), true).unwrap();
    let mut source = bench.started(bench.options());
    let status = Arc::clone(&source.statuses().all()[0]);
    soon("the first event", || (status.next() == 1).then_some(()));
    assert_eq!(pull(&mut source, 0, &mut 0, Micros(0)), None, "another one holds events that have not come");
    assert_eq!(pull(&mut source, 0, &mut 0, Micros(i64::MAX)), Some(hours(0, 0..1)), "but a replay goes on");
    bench.broker.control().silence(Some(1), false).unwrap();
    assert_eq!(read(&mut source, 1, 0, 1).0, hours(1, 0..1));
}

#[test]
fn what_expires_while_it_is_behind_ends_it_as_at_a_start() {
    let bench = Bench::new(1);
    let control = bench.broker.control();
    bench.append(0, 0..2);
    let mut source = bench.started(bench.options());
    let (events, next) = read(&mut source, 0, 0, 2);
    assert_eq!(events, hours(0, 0..2));
    control.silence(Some(0), true).unwrap();
    bench.append(0, 2..9);
    control.expire(0, 5).unwrap();
    control.silence(Some(0), false).unwrap();
    let error = soon("the loss", || source.pull(PartitionId(0), Offset(next), 9, Micros(0)).err());
    assert_eq!(error.kind(), SourceErrorKind::Changed);
    let mut other = EventHubsSource::open(bench.options(), &Arc::default()).unwrap();
    let SourceIdentity::EventHub(mut stored) = other.identity() else { panic!("no event hub") };
    stored.partitions = vec![("0".to_owned(), 2)];
    other.settle(Some(&SourceIdentity::EventHub(stored))).unwrap();
    let at_a_start = other.start(2).unwrap_err();
    assert_eq!(error.to_string(), at_a_start.to_string());
    assert!(error.to_string().contains("events 2 to 4 (3 of them) are past their retention"), "{error}");
}

#[test]
fn the_thread_that_pulls_is_woken_when_something_comes() {
    let bench = Bench::new(1);
    let mut source = bench.started(bench.options());
    source.wakes(std::thread::current());
    let begun = Instant::now();
    bench.append(0, 0..1);
    let mut found = None;
    while found.is_none() && begun.elapsed() < PATIENCE {
        std::thread::park_timeout(PATIENCE);
        found = pull(&mut source, 0, &mut 0, Micros(0));
    }
    assert_eq!(found, Some(hours(0, 0..1)));
    assert!(begun.elapsed() < PATIENCE, "it slept until its time was up");
}
