//! The failure of the job that this program replaces: a crash between the commits of two tables, after which its MERGE
//! adds a replayed batch once more to what is already there.

use crate::crash::job::{Job, Stop};
use crate::crash::watch::Reader;
use crate::data::Event;
use crate::oracle::Rules;
use crate::tables::{ALWAYS, CHANNELS, NET_FLOW, Shape, Tables, USER_METRICS};

/// Pence of each event, events of an epoch, and epochs.
const PENCE: i128 = 1_000;
const EVENTS: i64 = 600;
const EPOCHS: i64 = 4;

const METRICS: [&Shape; 3] = [&NET_FLOW, &USER_METRICS, &CHANNELS];

/// The sum that a metric table gives, in pence.
fn deposits(tables: &Tables, shape: &Shape) -> i128 {
    let column = if shape.name == CHANNELS.name { "total_amount" } else { "total_deposits" };
    tables.wholes(shape, column).iter().sum()
}

/// A run that was killed when one table held its second publication and no other did: its name, and the two epochs.
///
/// It is killed with the last commit of that publication, before anything else follows from it. Then the commits of all
/// other tables are taken back, as if they had not been made: the tables are committed side by side, and which of them
/// are done when a process dies is chance.
fn torn(ahead: &Shape) -> (Job, i64, i64) {
    let event = |i: i64| Event::new(&format!("e{i}"), 0).user(&format!("user-{}", i % (EVENTS - 7)));
    let lines = (0..EVENTS * EPOCHS).map(|i| event(i).line()).collect();
    let job = Job::new(&[lines], Rules::epochs_of(usize::try_from(EVENTS).unwrap()), "");
    job.kill_at(1, &Stop { place: "table-committed", passed: 2 * ALWAYS.len() - 1 });
    for other in ALWAYS.iter().filter(|shape| shape.name != ahead.name) {
        let log = std::fs::read_dir(job.output().join(other.name).join("_delta_log")).unwrap();
        let commits = log.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("json".as_ref()));
        std::fs::remove_file(commits.max().unwrap()).unwrap();
    }
    let mut reader = Reader::new(&job.output());
    reader.read_logs();
    let (held, behind) = (reader.seen(ahead).epoch, reader.epoch());
    assert!(behind >= 1 && behind < held, "{behind} and {held}");
    (job, held, behind)
}

#[test]
fn a_crash_between_two_tables_counts_nothing_twice() {
    let ahead = &NET_FLOW;
    let (job, held, behind) = torn(ahead);
    assert_eq!(deposits(&Tables::read(&job.output()), ahead), PENCE * i128::from(EVENTS * held), "{}", ahead.name);
    job.finish(2);
    let tables = job.check();
    // The epochs that not every table holds are read again. A MERGE that adds would count them twice in the table that
    // was ahead; one that sets counts each event once.
    let replayed = EVENTS * (held - behind);
    let additive = PENCE * i128::from(EVENTS * held + replayed + EVENTS * (EPOCHS - held));
    let ours = deposits(&tables, ahead);
    assert_eq!(ours, PENCE * i128::from(EVENTS * EPOCHS));
    assert_eq!(additive - ours, PENCE * i128::from(EVENTS * (held - behind)));
    METRICS.into_iter().for_each(|shape| assert_eq!(deposits(&tables, shape), ours, "{}", shape.name));
}
