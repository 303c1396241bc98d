//! Stores that fail: every request of a run, in every way. In the end the tables are what they would have been.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;

use tidemark::exit::ExitStatus;

use crate::data::Random;
use crate::faulty::{Fault, Faulty, Plan};
use crate::inside::Pipeline;

/// Tables are attacked where they are committed: in their logs.
const LOG: Option<&str> = Some("_delta_log");

#[derive(Clone, Copy, Debug)]
enum Of {
    Checkpoint,
    Tables,
}

impl Of {
    fn store(self, pipeline: &Pipeline, plan: Plan) -> Arc<Faulty> {
        match self {
            Of::Checkpoint => Faulty::new(&pipeline.checkpoint(), None, plan),
            Of::Tables => Faulty::new(Path::new("/"), LOG, plan),
        }
    }

    /// The two arguments of a run.
    fn pair(self, store: &Arc<Faulty>) -> (Option<&Arc<Faulty>>, Option<&Arc<Faulty>>) {
        match self {
            Of::Checkpoint => (Some(store), None),
            Of::Tables => (None, Some(store)),
        }
    }
}

fn pipeline(seed: u64) -> Pipeline {
    Pipeline::new(seed, &[50, 35], 20)
}

/// Number of requests of an undisturbed run.
fn requests(of: Of) -> u64 {
    let pipeline = pipeline(1);
    let store = of.store(&pipeline, Plan::NOTHING);
    let (checkpoint, tables) = of.pair(&store);
    pipeline.run_well(checkpoint, tables);
    pipeline.check();
    assert!(store.requests() > 30, "{}", store.requests());
    store.requests()
}

/// Every case, on as many threads as there are cores.
pub(crate) fn all<T: Send>(cases: Vec<T>, each: impl Fn(T) + Sync) {
    let cases = std::sync::Mutex::new(cases);
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = { cases.lock().unwrap().pop() } {
                    each(case);
                }
            });
        }
    });
}

/// Each of `period` runs meets the fault at other requests, so that every request of a run meets it.
fn passing(of: Of, fault: Fault, row: u64, period: u64) {
    all((0..period).collect(), |from| {
        let pipeline = pipeline(100 + from);
        let store = of.store(&pipeline, Plan { fault, from, row, period });
        let (checkpoint, tables) = of.pair(&store);
        pipeline.run_well(checkpoint, tables);
        assert!(store.struck() > 1, "{store:?}");
        pipeline.check();
    });
}

#[test]
fn a_checkpoint_store_that_loses_requests_changes_nothing() {
    passing(Of::Checkpoint, Fault::Error, 1, 7);
}

#[test]
fn a_checkpoint_store_that_loses_replies_changes_nothing() {
    passing(Of::Checkpoint, Fault::LostReply, 1, 7);
}

#[test]
fn a_checkpoint_store_that_stalls_changes_nothing() {
    passing(Of::Checkpoint, Fault::Stall, 1, 11);
}

#[test]
fn a_checkpoint_store_that_throttles_changes_nothing() {
    passing(Of::Checkpoint, Fault::Throttled, 3, 13);
}

#[test]
fn a_log_that_loses_requests_changes_nothing() {
    passing(Of::Tables, Fault::Error, 1, 17);
}

#[test]
fn a_log_that_loses_replies_changes_nothing() {
    passing(Of::Tables, Fault::LostReply, 1, 17);
}

#[test]
fn a_log_that_stalls_changes_nothing() {
    all((0..43).step_by(6).collect(), |from| {
        let pipeline = pipeline(400 + from);
        let store = Of::Tables.store(&pipeline, Plan { fault: Fault::Stall, from, row: 1, period: 43 });
        pipeline.run_well(None, Some(&store));
        assert!(store.struck() > 1, "{store:?}");
        pipeline.check();
    });
}

#[test]
fn a_log_that_throttles_changes_nothing() {
    passing(Of::Tables, Fault::Throttled, 3, 31);
}

/// Wherever the disk is full, the run waits, says so, and goes on by itself once there is room.
fn full(of: Of) {
    let whole = requests(of);
    let mut random = Random(5);
    let cases = (0..10).map(|_| random.next() % (whole * 3 / 4)).collect();
    all(cases, |from| {
        let pipeline = pipeline(200 + from);
        let store = of.store(&pipeline, Plan::ever_after(Fault::Full, from));
        let (checkpoint, tables) = of.pair(&store);
        pipeline.run_well(checkpoint, tables);
        assert!(store.struck() > 0 && store.was_shown(), "{store:?}");
        pipeline.check();
    });
}

#[test]
fn a_full_disk_under_the_checkpoint_is_shown_and_waited_for() {
    full(Of::Checkpoint);
}

#[test]
fn a_full_disk_under_the_tables_is_shown_and_waited_for() {
    full(Of::Tables);
}

/// Wherever the store begins to refuse, the run ends with the cause; the next one goes on from there.
fn denied(of: Of, stride: usize) {
    let whole = requests(of);
    all((0..whole).step_by(stride).collect(), |from| {
        let pipeline = pipeline(300 + from);
        let store = of.store(&pipeline, Plan::ever_after(Fault::Denied, from));
        let (checkpoint, tables) = of.pair(&store);
        match pipeline.run(checkpoint, tables) {
            // The last requests clean up, or come in another number than in another run.
            Ok(_) => assert!(from + whole / 5 > whole, "{store:?} ended well"),
            Err(error) => {
                assert_eq!(error.status(), ExitStatus::Unavailable, "{store:?}: {error}");
                assert!(error.to_string().contains("403 Forbidden"), "{store:?}: {error}");
            }
        }
        pipeline.run_well(None, None);
        pipeline.check();
    });
}

#[test]
fn a_run_that_its_checkpoint_store_ended_is_continued() {
    denied(Of::Checkpoint, 3);
}

#[test]
fn a_run_that_its_logs_ended_is_continued() {
    denied(Of::Tables, 7);
}

#[test]
fn the_first_signal_ends_a_start_that_waits_for_storage() {
    for of in [Of::Checkpoint, Of::Tables] {
        let (pipeline, stop) = (pipeline(9), Arc::new(AtomicBool::new(false)));
        let store = of.store(&pipeline, Plan::ever_after(Fault::Error, 0));
        let (checkpoint, tables) = of.pair(&store);
        store.stop_at_third(&stop);
        let error = pipeline.run_until(&stop, checkpoint, tables).expect_err("nothing can be done");
        assert_eq!(error.status(), ExitStatus::Done, "{error}");
        assert!(error.to_string().contains("stopped before it had begun"), "{error}");
    }
}
