//! The failure of the job that this program replaces: a crash between the commits of two tables, after which its MERGE
//! adds a replayed batch once more to what is already there.

use crate::crash::job::{EAGER, Job, Stop};
use crate::crash::watch::Reader;
use crate::data::Event;
use crate::oracle::Rules;
use crate::tables::{ALWAYS, CHANNELS, NET_FLOW, Shape, Tables, USER_METRICS};

/// Pence of each event, events of an epoch, and epochs.
const PENCE: i128 = 1_000;
const EVENTS: usize = 30;
const EPOCHS: usize = 4;

/// The sum that a metric table gives.
fn deposits(tables: &Tables, shape: &Shape) -> i128 {
    let column = if shape.name == CHANNELS.name { "total_amount" } else { "total_deposits" };
    tables.wholes(shape, column).iter().sum()
}

/// Kills a run after `commits` commits of its third publication; which metrics then hold that epoch, and which do not.
fn torn(commits: usize) -> Option<(Job, &'static Shape)> {
    let line = |i: usize| Event::new(&format!("e{i}"), 0).user(&format!("user-{}", i % 7)).line();
    let job = Job::new(&[(0..EVENTS * EPOCHS).map(line).collect()], Rules::epochs_of(EVENTS), EAGER);
    job.kill_at(1, &Stop { place: "table-committed", passed: 2 * ALWAYS.len() + commits });
    let mut reader = Reader::new(&job.output());
    reader.read_logs();
    assert!(ALWAYS.iter().all(|shape| (2..=3).contains(&reader.seen(shape).epoch)));
    let ahead = [&NET_FLOW, &USER_METRICS, &CHANNELS].into_iter().find(|shape| reader.seen(shape).epoch == 3)?;
    (reader.epoch() == 2).then_some((job, ahead))
}

#[test]
fn a_crash_between_two_tables_counts_nothing_twice() {
    let (job, ahead) =
        (0..ALWAYS.len() - 1).find_map(torn).expect("a metric is one of the first tables to be committed");
    let batch = PENCE * EVENTS as i128;
    // What the table holds, and what a MERGE that adds would have made of it: the third batch is not yet in every
    // table, so it is read again.
    let at_crash = deposits(&Tables::read(&job.output()), ahead);
    assert_eq!(at_crash, 90_000);
    let additive = at_crash + batch + batch;
    job.finish(2);
    let tables = job.check();
    let ours = deposits(&tables, ahead);
    assert_eq!((ours, additive), (120_000, 150_000), "{}", ahead.name);
    for shape in [&NET_FLOW, &USER_METRICS, &CHANNELS] {
        assert_eq!(deposits(&tables, shape), ours, "{}", shape.name);
    }
}
