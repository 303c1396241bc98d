//! What keeping totals by user costs: the operator in use beside an arrangement and beside a plain loop.
//!
//! `cargo bench -p tidemark-dataflows --bench metrics -- --users 500,100000,1000000 --events 4000000 --rounds 3 [--json FILE]`
//!
//! Any numbers of users go, also `--users 10000000`, for which the arrangement wants some 6 GB.
//!
//! Each contender runs in a process of its own, so that memory is its own, and the contenders take turns. Users are
//! drawn evenly, which is the hardest case. First every user is met once, then `--events` more events come in epochs of
//! `--epoch-events`; the times are of the latter, and are processor time of the one worker. Making the events is not timed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_wrap, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use common::figures::{self, number};
use common::{mix, processor_time, status};
use differential_dataflow::difference::Semigroup;
use hashbrown::HashMap;
use tidemark_dataflows::event::*;
use tidemark_dataflows::metrics::{ByUser, Row, Totals, accumulated_totals, running_totals};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::rc::SharedStream;
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};

const CONTENDERS: [&str; 3] = ["plain loop", "accumulated", "arranged"];

/// Events that a worker is handed at once.
const BATCH: usize = 1000;

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn event(n: u64, user: u64) -> Event {
    let draw = mix(n);
    Event {
        id: EventId(u128::from(n)),
        user: UserId(format!("user-{user:08}").into()),
        time: Micros(1_700_000_000_000_000 + n as i64),
        amount: Pence(100 + (draw % 50_000) as i64),
        at: Position { partition: PartitionId(0), offset: Offset(n) },
        origin: 0,
        event_type: EventType::ALL[(draw >> 20) as usize % 2],
        channel: Channel::ALL[(draw >> 21) as usize % 3],
        curated: None,
    }
}

/// ns per event, bytes per user, slowest epoch in ms.
type Figures = [f64; 3];

fn measure(mut epoch_of: impl FnMut(Epoch, Vec<Vec<Event>>)) -> Figures {
    let (users, events, per_epoch) =
        (number("--users", 500), number("--events", 4_000_000), number("--epoch-events", 100_000));
    let (start, before) = (Instant::now(), status("VmRSS"));
    let (mut spent, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let mut epoch = 0;
    let mut next = 0;
    while next < users + events {
        epoch += 1;
        let last = if next < users { users.min(next + per_epoch) } else { next + per_epoch };
        let of = |n: u64| event(n, if n < users { n } else { mix(n ^ 0x5555) % users });
        let all: Vec<Event> = (next..last).map(of).collect();
        let batches: Vec<Vec<Event>> = all.chunks(BATCH).map(<[Event]>::to_vec).collect();
        drop(all);
        let begun = processor_time(start);
        epoch_of(epoch, batches);
        let took = processor_time(start) - begun;
        if next >= users {
            spent += took;
            slowest = slowest.max(took);
        }
        next = last;
    }
    let held = status("VmRSS") - before;
    [spent.as_secs_f64() * 1e9 / events as f64, held / users as f64, slowest.as_secs_f64() * 1e3]
}

fn measure_dataflow(
    build: impl for<'s> FnOnce(StreamVec<'s, Epoch, Event>) -> StreamVec<'s, Epoch, Row<UserId>> + Send + Sync + 'static,
) -> Figures {
    timely::execute_directly(move |worker| {
        let mut events = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let probe = ProbeHandle::new();
        worker.dataflow(|scope| {
            build(events.to_stream(scope)).probe_with(&probe);
        });
        measure(|epoch, batches| {
            events.advance_to(epoch);
            batches.into_iter().for_each(|mut batch| events.send_batch(&mut batch));
            events.advance_to(epoch + 1);
            while probe.less_than(&(epoch + 1)) {
                worker.step();
            }
        })
    })
}

fn run(contender: &str) -> Figures {
    match contender {
        "plain loop" => {
            let mut totals: HashMap<UserId, Totals> = HashMap::new();
            measure(|_, batches| {
                for event in batches.iter().flatten() {
                    match totals.get_mut(&event.user) {
                        Some(known) => known.plus_equals(&Totals::of(event)),
                        None => drop(totals.insert(event.user.clone(), Totals::of(event))),
                    }
                }
            })
        }
        "accumulated" => measure_dataflow(|events| {
            let no_requests = empty(events.scope());
            accumulated_totals::<ByUser>(events.shared(), vec![], no_requests, [1, 2], false).rows
        }),
        "arranged" => measure_dataflow(|events| running_totals::<ByUser>(events.shared(), vec![])),
        _ => panic!("unknown contender {contender}"),
    }
}

/// Runs one contender in a process of its own.
fn run_apart(users: &str, contender: &str) -> Figures {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["--only", contender, "--users", users]);
    command.args(["--events", &number("--events", 4_000_000).to_string()]);
    command.args(["--epoch-events", &number("--epoch-events", 100_000).to_string()]);
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("to start this program again");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
    figures.try_into().unwrap_or_else(|_| panic!("{contender}: {text}"))
}

fn median(runs: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    figures::median(&runs.iter().map(of).collect::<Vec<f64>>())
}

fn main() {
    if let Some(contender) = argument("--only") {
        let [ns, bytes, slowest] = run(&contender);
        return println!("{ns} {bytes} {slowest}");
    }
    let users = argument("--users").unwrap_or_else(|| "500,100000,1000000".to_owned());
    let mut record = figures::Figures::new("metrics", Some("plain loop"));
    for users in users.split(',') {
        let mut runs: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
        for _ in 0..number("--rounds", 3) {
            CONTENDERS.iter().for_each(|name| runs.entry(name).or_default().push(run_apart(users, name)));
        }
        println!("\n{users} users, epochs of {} events\n", number("--epoch-events", 100_000));
        println!("{:<12}{:>10}{:>10}{:>14}{:>16}", "", "ns", "ratio", "bytes/user", "slowest epoch");
        for name in CONTENDERS {
            let (own, plain) = (&runs[name], &runs["plain loop"]);
            // Within a round: a neighbour that disturbs it disturbs both.
            let ratios: Vec<Figures> = own.iter().zip(plain).map(|(own, plain)| [own[0] / plain[0]; 3]).collect();
            let (ns, ratio, bytes) = (median(own, |f| f[0]), median(&ratios, |f| f[0]), median(own, |f| f[1]));
            println!("{name:<12}{ns:>10.0}{ratio:>10.2}{bytes:>14.0}{:>13.1} ms", median(own, |f| f[2]));
            let at = [("users", users.parse().expect("a number of users"))];
            let mut note = |n: usize, figure| {
                record.note(name, &at, figure, &own.iter().map(|figures| figures[n]).collect::<Vec<f64>>());
            };
            note(0, ("time", "ns/event"));
            note(2, ("slowest epoch", "ms"));
            // With fewer users most of it is what any process takes.
            if at[0].1 >= 100_000.0 {
                note(1, ("memory", "bytes/user"));
            }
        }
    }
}
