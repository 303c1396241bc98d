//! Properties of locks and leases. Leases are held in memory, by a clock that moves only when told.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use tidemark_store::{Patience, Store};

use super::{Clock, Heartbeat, Holder, LocalLock};
use crate::Error;

const TTL: Duration = Duration::from_secs(15);

fn holder(host: &str) -> Holder {
    Holder::this_process(host, None)
}

#[test]
fn a_second_holder_of_a_directory_is_refused_and_told_who_the_first_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = LocalLock::take(directory.path(), holder("alpha")).unwrap();
    first.set_generation(7).unwrap();
    match LocalLock::take(directory.path(), holder("beta")) {
        Err(Error::Held { holder: Some(held), .. }) => {
            assert_eq!((held.host.as_str(), held.pid, held.generation), ("alpha", std::process::id(), Some(7)));
        }
        other => panic!("{other:?}"),
    }
    assert!(first.still_ours());
    drop(first);
    LocalLock::take(directory.path(), holder("beta")).unwrap();
}

#[test]
fn who_takes_a_directory_over_has_it_and_the_one_before_finds_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut stopped = LocalLock::take(directory.path(), holder("alpha")).unwrap();
    let taker = LocalLock::take_over(directory.path(), holder("beta")).unwrap();
    assert!(!stopped.still_ours() && taker.still_ours());
    // Woken up, it writes to its own file only.
    stopped.refresh().unwrap();
    match LocalLock::take(directory.path(), holder("gamma")) {
        Err(Error::Held { holder: Some(held), .. }) => assert_eq!(held.host, "beta"),
        other => panic!("{other:?}"),
    }
    drop(stopped);
    assert!(matches!(LocalLock::take(directory.path(), holder("gamma")), Err(Error::Held { .. })));
    drop(taker);
    let last = LocalLock::take(directory.path(), holder("gamma")).unwrap();
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    assert!(!last.still_ours());
}

#[test]
fn a_lock_that_says_nothing_readable_still_locks() {
    let directory = tempfile::tempdir().unwrap();
    let first = LocalLock::take(directory.path(), holder("alpha")).unwrap();
    std::fs::write(directory.path().join("lock"), "{").unwrap();
    assert!(first.still_ours());
    assert!(matches!(LocalLock::take(directory.path(), holder("b")), Err(Error::Held { holder: None, .. })));
}

/// What happens while a clock is slept by, and how late it is then.
type Meanwhile = Box<dyn FnMut(Duration) + Send>;

/// A clock that moves when it is slept by.
struct ByHand {
    now: Mutex<Duration>,
    meanwhile: Mutex<Meanwhile>,
}

impl ByHand {
    fn new() -> Arc<ByHand> {
        Arc::new(ByHand { now: Mutex::default(), meanwhile: Mutex::new(Box::new(|_| {})) })
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    fn meanwhile(&self, act: impl FnMut(Duration) + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Box::new(act);
    }
}

impl Clock for ByHand {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, wait: Duration) {
        self.pass(wait);
        let now = self.now();
        (self.meanwhile.lock().unwrap())(now);
    }
}

fn memory() -> Store {
    Store::new(Arc::new(InMemory::new()), "pipeline", Patience::default())
}

fn acquire(store: &Store, host: &str, take_over: bool, clock: &Arc<ByHand>) -> (Result<Heartbeat, Error>, Vec<String>) {
    let mut told = Vec::new();
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let lease = Heartbeat::acquire(store, holder(host), TTL, take_over, clock, &mut |text| told.push(text.to_owned()));
    (lease, told)
}

#[test]
fn a_free_lease_is_taken_at_once_and_valid_for_its_time_to_live_after_each_renewal() {
    let (store, clock) = (memory(), ByHand::new());
    let (lease, told) = acquire(&store, "alpha", false, &clock);
    let lease = lease.unwrap();
    assert!(told.is_empty() && clock.now().is_zero());
    for _ in 0..5 {
        clock.pass(lease.interval());
        assert!(lease.valid());
        lease.renew().unwrap();
    }
    clock.pass(TTL - Duration::from_micros(1));
    assert!(lease.valid());
    clock.pass(Duration::from_micros(1));
    assert!(!lease.valid());
    // Nobody else came: it may go on.
    lease.renew().unwrap();
    assert!(lease.valid());
    lease.release().unwrap();
    let (next, told) = acquire(&store, "beta", false, &clock);
    assert!(next.unwrap().valid() && told.is_empty());
}

#[test]
fn the_lease_of_a_dead_holder_is_taken_after_its_time_to_live_and_the_wait_is_announced() {
    let (store, clock) = (memory(), ByHand::new());
    let dead = acquire(&store, "alpha", false, &clock).0.unwrap();
    let (lease, told) = acquire(&store, "beta", false, &clock);
    let lease = lease.unwrap();
    assert_eq!(clock.now(), TTL);
    assert!(told[0].contains("on alpha") && told[0].contains("15 s"), "{told:?}");
    let left: Vec<&str> = told[1..].iter().filter_map(|text| text.split(": ").nth(1)).collect();
    assert_eq!(left, ["12.0 s left", "9.0 s left", "6.0 s left", "3.0 s left"]);
    // The dead one wakes up: it has lost for good, and spoils nothing.
    assert!(!dead.valid());
    assert!(matches!(dead.renew(), Err(Error::Lost { .. })));
    lease.renew().unwrap();
    lease.release().unwrap();
    assert!(matches!(dead.renew(), Err(Error::Lost { .. })));
    assert!(!dead.valid());
}

#[test]
fn the_lease_of_a_living_holder_is_refused_even_if_it_renews_late() {
    let (store, clock) = (memory(), ByHand::new());
    let living = acquire(&store, "alpha", false, &clock).0.unwrap();
    let mut renewed = false;
    clock.meanwhile(move |now| {
        if now >= TTL && !renewed {
            renewed = true;
            living.renew().unwrap();
        }
    });
    match acquire(&store, "beta", false, &clock).0 {
        Err(Error::Held { holder: Some(held), .. }) => assert_eq!(held.host, "alpha"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_that_is_given_back_during_the_wait_is_taken_at_once() {
    let (store, clock) = (memory(), ByHand::new());
    let mut leaving = acquire(&store, "alpha", false, &clock).0.ok();
    clock.meanwhile(move |_| leaving.take().into_iter().for_each(|lease| lease.release().unwrap()));
    assert!(acquire(&store, "beta", false, &clock).0.unwrap().valid());
    assert!(clock.now() < TTL);
}

#[test]
fn an_explicit_take_over_does_not_wait_and_the_one_before_stops_at_its_next_renewal() {
    let (store, clock) = (memory(), ByHand::new());
    let before = acquire(&store, "alpha", false, &clock).0.unwrap();
    let (taker, told) = acquire(&store, "beta", true, &clock);
    assert!(taker.unwrap().valid() && clock.now().is_zero() && told.len() == 1);
    assert!(matches!(before.renew(), Err(Error::Lost { what, .. }) if what.contains("on beta")));
    assert!(!before.valid());
}

#[test]
fn whoever_takes_over_while_others_renew_and_take_over_exactly_one_is_left() {
    for round in 0..500 {
        let (store, clock) = (memory(), ByHand::new());
        let first = acquire(&store, "first", false, &clock).0.unwrap();
        let start = Barrier::new(4);
        let held: Vec<Heartbeat> = std::thread::scope(|scope| {
            let take_over = |host| {
                start.wait();
                acquire(&store, host, true, &clock).0.unwrap()
            };
            let takers = ["beta", "gamma"].map(|host| scope.spawn(move || take_over(host)));
            let leaving = scope.spawn(|| {
                start.wait();
                (0..3).for_each(|_| drop(first.renew()));
                // Every other one ends as well as it can.
                (round % 2 == 0).then(|| first.release())
            });
            start.wait();
            leaving.join().unwrap();
            takers.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        let left = held.iter().filter(|lease| lease.renew().is_ok()).count();
        assert_eq!((left, first.renew().is_ok()), (1, false), "round {round}");
    }
}

#[test]
fn a_lease_that_cannot_be_read_is_waited_out_and_one_that_is_removed_is_lost() {
    let (store, clock) = (memory(), ByHand::new());
    store.replace("lease", Bytes::from_static(b"?")).unwrap();
    let lease = acquire(&store, "alpha", false, &clock).0.unwrap();
    assert_eq!(clock.now(), TTL);
    store.delete(&["lease".to_owned()]).unwrap();
    assert!(matches!(lease.renew(), Err(Error::Lost { .. })));
}
