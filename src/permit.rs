//! Leave to write: whoever makes something durable asks first, and waits while the lease of this instance is not good.
//!
//! A courtesy on top of the fences, which keep an instance from doing harm whatever it believes of itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidemark_checkpoint::Error;
use tidemark_checkpoint::lease::Heartbeat;

/// Pause between two looks at a lease that is not good.
const LOOK: Duration = Duration::from_millis(50);

/// The lease of this instance, if it needs one.
#[derive(Clone, Debug, Default)]
pub struct Permit {
    lease: Arc<OnceLock<Arc<Heartbeat>>>,
}

impl Permit {
    /// From now on writing depends on this lease.
    pub fn depend_on(&self, lease: Arc<Heartbeat>) {
        let _ = self.lease.set(lease);
    }

    /// Returns once there is leave to write. While the lease is older than its time to live there is none: another
    /// instance may have taken our place.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when it has.
    pub fn wait(&self) -> Result<(), Error> {
        let Some(lease) = self.lease.get() else { return Ok(()) };
        let mut told = false;
        while !lease.valid() {
            if lease.is_lost() {
                return Err(lease.lost());
            }
            if !told {
                tracing::warn!("the lease has run out; nothing is written until it is renewed, or known to be lost");
                told = true;
            }
            std::thread::sleep(LOOK);
        }
        if told {
            tracing::info!("the lease is renewed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use object_store::memory::InMemory;
    use tidemark_checkpoint::lease::{Clock, Holder};
    use tidemark_store::{Patience, Store};

    use super::*;

    /// A clock that moves when it is told to.
    #[derive(Default)]
    struct ByHand(Mutex<Duration>);

    impl Clock for ByHand {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, wait: Duration) {
            *self.0.lock().unwrap() += wait;
        }
    }

    #[test]
    fn an_old_lease_gives_no_leave_until_it_is_renewed_and_a_lost_one_never() {
        let store = Store::new(Arc::new(InMemory::new()), "p", Patience::default());
        let clock = Arc::new(ByHand::default());
        let ttl = Duration::from_secs(15);
        let acquire = |take_over| {
            let (holder, clock) = (Holder::this_process("here", None), Arc::clone(&clock) as _);
            Arc::new(Heartbeat::acquire(&store, holder, ttl, take_over, clock, &mut |_| {}).unwrap())
        };
        let permit = Permit::default();
        permit.wait().unwrap();
        let lease = acquire(false);
        permit.depend_on(Arc::clone(&lease));
        permit.wait().unwrap();
        clock.sleep(ttl);
        let waiting = std::thread::spawn({
            let permit = permit.clone();
            move || permit.wait()
        });
        std::thread::sleep(2 * LOOK);
        assert!(!waiting.is_finished(), "there is no leave");
        lease.renew().unwrap();
        waiting.join().unwrap().unwrap();
        let _taker = acquire(true);
        clock.sleep(ttl);
        assert!(lease.renew().is_err());
        assert!(matches!(permit.wait(), Err(Error::Lost { .. })));
    }
}
