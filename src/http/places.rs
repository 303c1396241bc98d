//! Who has a place at the server: as many as there are, and where there is none left, whoever has had his longest goes.
//!
//! So nobody can keep others out by holding places: who comes is let in, and a probe is answered long before its turn to go.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Places in all; a listener to the stream has one of them.
const PLACES: usize = 64;

/// Places of one address, so that others have some.
const PLACES_EACH: usize = 48;

/// Somebody who has one.
struct Place {
    from: IpAddr,
    /// Whether he has shown the token.
    known: Arc<AtomicBool>,
    task: AbortHandle,
}

/// The places that are taken, the oldest first.
#[derive(Default)]
pub(super) struct Places(VecDeque<Place>);

impl Places {
    /// Makes room for somebody who comes from there. Tells whether somebody else had to go.
    pub(super) fn make_room(&mut self, from: IpAddr) -> bool {
        self.0.retain(|place| !place.task.is_finished());
        let of_his = self.0.iter().filter(|place| place.from == from).count();
        let goes = if of_his >= PLACES_EACH {
            self.oldest(|place| place.from == from)
        } else if self.0.len() >= PLACES {
            self.oldest(|_| true)
        } else {
            return false;
        };
        goes.and_then(|at| self.0.remove(at)).is_some_and(|place| {
            place.task.abort();
            true
        })
    }

    /// Takes a place.
    pub(super) fn take(&mut self, from: IpAddr, known: Arc<AtomicBool>, task: AbortHandle) {
        self.0.push_back(Place { from, known, task });
    }

    /// The oldest of them; one who has shown the token only if all have.
    fn oldest(&self, of: impl Fn(&Place) -> bool) -> Option<usize> {
        let all = || self.0.iter().enumerate().filter(|(_, place)| of(place));
        let unknown = all().find(|(_, place)| !place.known.load(Ordering::Relaxed));
        unknown.or_else(|| all().next()).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_and_who_is_known_stays() {
        let mut places = Places::default();
        let mut tasks = Vec::new();
        let mut come = |last: u8, known: bool| {
            let from = IpAddr::from([10, 0, 0, last]);
            let somebody_went = places.make_room(from);
            let task = tokio::spawn(pending::<()>());
            places.take(from, Arc::new(AtomicBool::new(known)), task.abort_handle());
            tasks.push(task);
            somebody_went
        };
        assert!((0..PLACES_EACH).all(|at| !come(1, at == 0)));
        // One more of the same address takes the place of its oldest that is not known.
        assert!(come(1, false));
        let others = PLACES - PLACES_EACH;
        assert!((0..others).all(|_| !come(2, false)), "others have places left");
        assert!(come(3, false));
        tokio::task::yield_now().await;
        let gone: Vec<usize> = (0..tasks.len()).filter(|at| tasks[*at].is_finished()).collect();
        assert_eq!(gone, [1, 2], "the first one is known");
    }
}
