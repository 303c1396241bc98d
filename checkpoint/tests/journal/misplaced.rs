//! Objects that are sound, and lie where another should.

use std::sync::Arc;

use object_store::memory::InMemory;
use tidemark_checkpoint::Error;
use tidemark_checkpoint::journal::{self, Bid, Past};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Claimant, Cut};
use tidemark_store::{Patience, Store};

fn claimed(store: &Store) -> journal::Claimed {
    let by = Claimant { host: "h".to_owned(), pid: 1, started_us: 0, program: "t".to_owned() };
    journal::claim(store, &Bid::unlocked(&by, 1)).unwrap()
}

fn read(store: &Store) -> Past {
    claimed(store).read().unwrap().unwrap()
}

/// A generation with four cuts, one an object.
fn written() -> Store {
    let store = Store::new(Arc::new(InMemory::new()), "", Patience::default());
    let mut journal = claimed(&store).adopt(crate::model::identity(), None, None).unwrap();
    for epoch in 1..5 {
        let (opened_us, closed_us, ranges) = (0, 0, Vec::new());
        let cut = Cut { epoch, opened_us, closed_us, ranges, behind: Some(Vec::new()), joined: Vec::new() };
        journal.cuts.append(vec![cut]).unwrap();
    }
    store
}

#[test]
fn the_last_cut_under_another_name_is_passed_over_and_told_of() {
    for other in [names::cuts(1, 2), names::claim(1), names::adoption(1)] {
        let store = written();
        let object = store.read(&other).unwrap().unwrap();
        store.replace(&names::cuts(1, 4), object).unwrap();
        let past = read(&store);
        assert_eq!(past.last_cut, 3, "{other}");
        let told = past.warnings.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains(&names::cuts(1, 4)), "{told}");
    }
}

#[test]
fn a_cut_in_the_middle_under_another_name_is_missed() {
    let store = written();
    let object = store.read(&names::cuts(1, 3)).unwrap().unwrap();
    store.replace(&names::cuts(1, 2), object).unwrap();
    assert!(matches!(read(&store).cuts_after(0), Err(Error::Missing { what }) if what.contains('2')));
}
