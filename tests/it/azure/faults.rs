//! A service that fails: on the way to it requests are throttled, refused, left without a reply, or never answered.

use super::azurite::{Container, Failing};
use super::remote::Remote;
use crate::crash::job::side_by_side;
use crate::data::eventful;
use crate::oracle::Rules;
use bytes::Bytes;
use tidemark::storage::Storage;
use tidemark_store::Error;
use tidemark_store::Patience;

#[test]
fn a_service_that_fails_changes_nothing() {
    if Container::new().is_none() {
        return;
    }
    let cases =
        [(Failing::Throttled, 5), (Failing::Failed, 7), (Failing::Lost, 6), (Failing::Lost, 11), (Failing::Silent, 61)];
    side_by_side(&cases, |(how, every)| {
        let mut remote = Remote::new(&eventful(71, &[50, 30]), Rules::epochs_of(40)).unwrap();
        remote.container.fails(*how, *every);
        let ended = remote.start("--set store.request_timeout=1s --set checkpoint.lease_ttl=10s", "").ended();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        remote.check();
        let evidence = remote.verb(&["evidence", "--set", "store.request_timeout=1s"]);
        assert_eq!(evidence.code(), 0, "{}{}", evidence.stdout, evidence.stderr);
    });
}

#[test]
fn of_two_that_create_one_name_one_wins_also_without_its_reply() {
    let Some(mut remote) = Remote::new(&[], Rules::default()) else { return };
    let config = remote.config();
    let open = |config| Storage::new(config).checkpoint(Patience::default()).unwrap();
    let (one, other) = (open(&config), open(&config));
    for round in 0..20 {
        let name = format!("race/{round}");
        let results = std::thread::scope(|scope| {
            let race = [&one, &other].map(|store| (store, &name));
            let racers = race.map(|(store, name)| {
                let bytes = Bytes::from(format!("{:p} {name}", std::ptr::from_ref(store)));
                scope.spawn(move || store.create(name, bytes))
            });
            racers.map(|racer| racer.join().unwrap())
        });
        let winners = results.iter().filter(|result| result.is_ok()).count();
        let losers = results.iter().filter(|result| matches!(result, Err(Error::Taken { .. }))).count();
        assert_eq!((winners, losers), (1, 1), "{results:?}");
    }
    // The reply to every second request is lost: what was written is found to be ours, what is there to be not.
    remote.container.fails(Failing::Lost, 2);
    let config = remote.config();
    let unlucky = open(&config);
    for round in 0..6 {
        let name = format!("lost/{round}");
        unlucky.create(&name, Bytes::from_static(b"ours")).unwrap();
        assert!(matches!(one.create(&name, Bytes::from_static(b"theirs")), Err(Error::Taken { .. })));
        assert_eq!(unlucky.read(&name).unwrap().unwrap(), "ours");
        let name = format!("taken/{round}");
        one.create(&name, Bytes::from_static(b"theirs")).unwrap();
        assert!(matches!(unlucky.create(&name, Bytes::from_static(b"ours")), Err(Error::Taken { .. })));
    }
    let names: Vec<String> = one.list("lost").unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names.len(), 6);
    one.delete(&names).unwrap();
    one.delete(&names).unwrap();
    assert!(one.list("lost").unwrap().is_empty());
}
