//! A lease in an object store: an object that its holder writes anew while it lives.
//!
//! Each write takes the place of a version that was seen, so a holder never writes over one that took the lease from it.
//! Clocks of two machines are never compared. Whether a holder lives is found out by watching for as long as its own
//! time to live; whether our own lease is still good, by our own monotonic clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_store::Store;

use super::{Holder, wall_clock};
use crate::Error;

/// Name of the object.
const OBJECT: &str = "lease";
/// How often the lease of another is looked at during its time to live.
const LOOKS: u32 = 5;

/// A monotonic clock and a way to wait by it.
pub trait Clock: Send + Sync {
    /// Time since some moment in the past.
    fn now(&self) -> Duration;
    /// Waits. It may return early.
    fn sleep(&self, wait: Duration);
}

/// The clock of this machine.
#[derive(Copy, Clone, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) {
        std::thread::sleep(wait);
    }
}

/// The object as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    #[serde(flatten)]
    holder: Holder,
    /// Tells one holder from another, even two of one process.
    nonce: String,
    /// Grows with each renewal.
    counter: u64,
    /// Zero once it is given back.
    ttl_ms: u64,
}

impl Lease {
    fn read(object: &Bytes) -> Option<Lease> {
        serde_json::from_slice(object).ok()
    }
}

/// A lease that we hold, until [`Heartbeat::valid`] says otherwise. Shared between the thread that renews it and those
/// that rely on it.
pub struct Heartbeat {
    store: Store,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    /// Held while renewing.
    lease: Mutex<Lease>,
    /// When the last successful renewal began, in microseconds of the clock.
    renewed_us: AtomicU64,
    lost: AtomicBool,
}

impl Heartbeat {
    /// Takes the lease of a store. Is there one, it is watched for its time to live, unless `take_over` says that its
    /// holder is known to be dead. `tell` is given what a person should know before the wait.
    ///
    /// # Errors
    ///
    /// [`Error::Held`] if the holder lives, or another process takes the lease at the same time and lives;
    /// [`Error::Store`] for failures of the store.
    pub fn acquire(
        store: &Store,
        holder: Holder,
        ttl: Duration,
        take_over: bool,
        clock: Arc<dyn Clock>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Heartbeat, Error> {
        let lease = Lease { holder, nonce: nonce(), counter: 0, ttl_ms: millis(ttl) };
        let place = place(store);
        let renewed = loop {
            let found = store.read(OBJECT)?;
            match &found {
                None => {}
                Some(found) if Lease::read(found).is_some_and(|lease| lease.ttl_ms == 0) => {}
                Some(found) if take_over => tell(&format!("taking over {place} from {}", describe(found))),
                Some(found) if has_expired(store, found, ttl, &*clock, tell)? => {}
                Some(_) => continue,
            }
            let began = clock.now();
            let taken = match &found {
                None => store.create(OBJECT, to_json(&lease)?),
                Some(found) => store.exchange(OBJECT, to_json(&lease)?, |now| now == found),
            };
            match taken {
                // Renewed, given back or taken by another meanwhile.
                Err(tidemark_store::Error::Taken { .. }) => {}
                taken => break taken.map(|()| began)?,
            }
        };
        Ok(Heartbeat {
            store: store.clone(),
            ttl,
            clock,
            lease: Mutex::new(lease),
            renewed_us: AtomicU64::new(micros(renewed)),
            lost: AtomicBool::new(false),
        })
    }

    /// Tells the store that we live. To be called every third of the time to live.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], then and ever after, if the lease is not ours any more; [`Error::Store`] for failures of
    /// the store, after which the next call may succeed.
    pub fn renew(&self) -> Result<(), Error> {
        let began = self.clock.now();
        self.write(|lease| lease.holder.heartbeat = wall_clock())?;
        self.renewed_us.fetch_max(micros(began), Ordering::Release);
        Ok(())
    }

    /// Asks the store whether the lease is still ours.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], then and ever after, if it is not; [`Error::Store`] for failures of the store.
    pub fn ask(&self) -> Result<(), Error> {
        let nonce = self.lease.lock().unwrap_or_else(PoisonError::into_inner).nonce.clone();
        let found = self.store.read(OBJECT)?;
        let now = found.as_ref().and_then(Lease::read);
        if now.is_some_and(|now| now.nonce == nonce) {
            return Ok(());
        }
        self.lost.store(true, Ordering::Release);
        let what = found
            .map_or("somebody has removed it".to_owned(), |found| format!("{} has taken it over", describe(&found)));
        Err(Error::Lost { place: place(&self.store), what })
    }

    /// Whether the lease is ours and its time to live has not passed since the last renewal began. Waits for nothing.
    pub fn valid(&self) -> bool {
        let age = micros(self.clock.now()).saturating_sub(self.renewed_us.load(Ordering::Acquire));
        !self.lost.load(Ordering::Acquire) && Duration::from_micros(age) < self.ttl
    }

    /// Whether it is known that the lease is not ours any more. Waits for nothing.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Gives the lease up without a word to the store, which does not answer.
    pub fn forsake(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// That it is lost, as an error.
    pub fn lost(&self) -> Error {
        Error::Lost { place: place(&self.store), what: "its time to live has passed".to_owned() }
    }

    /// How often to renew.
    pub fn interval(&self) -> Duration {
        self.ttl / 3
    }

    /// Writes which generation this process has won, with the next renewal.
    pub fn set_generation(&self, generation: u64) {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).holder.generation = Some(generation);
    }

    /// Gives the lease back, so that the next one need not wait. It is not valid any more.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if it is not ours any more, [`Error::Store`] for failures of the store.
    pub fn release(&self) -> Result<(), Error> {
        let given_back = self.write(|lease| lease.ttl_ms = 0);
        self.lost.store(true, Ordering::Release);
        given_back
    }

    /// Writes the lease in place of our own one.
    fn write(&self, change: impl FnOnce(&mut Lease)) -> Result<(), Error> {
        let lost = |what: String| {
            self.lost.store(true, Ordering::Release);
            Error::Lost { place: place(&self.store), what }
        };
        if self.is_lost() {
            return Err(lost("that was found out before".to_owned()));
        }
        let next = {
            let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            lease.counter += 1;
            change(&mut lease);
            lease.clone()
        };
        // Not a later one of another thread of ours, which may have given it back.
        let ours = |now: &Lease| now.nonce == next.nonce && now.counter < next.counter;
        match self.store.exchange(OBJECT, to_json(&next)?, |now| Lease::read(now).is_some_and(|now| ours(&now))) {
            Err(tidemark_store::Error::Taken { .. }) => Err(lost(match self.store.read(OBJECT)? {
                None => "somebody has removed it".to_owned(),
                Some(found) => format!("{} has taken it over", describe(&found)),
            })),
            written => Ok(written?),
        }
    }
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heartbeat").field("store", &self.store).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Watches a lease for as long as it lives without its holder. False if it was given back meanwhile.
fn has_expired(
    store: &Store,
    found: &Bytes,
    ttl: Duration,
    clock: &dyn Clock,
    tell: &mut dyn FnMut(&str),
) -> Result<bool, Error> {
    let lease = Lease::read(found);
    // Its holder may have been configured with another time to live than we are.
    let patience = lease.as_ref().map_or(ttl, |lease| ttl.max(Duration::from_millis(lease.ttl_ms)));
    let place = place(store);
    tell(&format!("{place} is with {}: waiting {} s for a sign of life", describe(found), patience.as_secs_f64()));
    let until = clock.now().saturating_add(patience);
    loop {
        let left = until.saturating_sub(clock.now());
        let last = left.is_zero();
        if !last && left < patience {
            tell(&format!("no sign of life yet: {:.1} s left", left.as_secs_f64()));
        }
        if !last {
            clock.sleep(left.min(patience / LOOKS));
        }
        match store.read(OBJECT)? {
            None => return Ok(false),
            Some(now) if now != *found => {
                let lease = Lease::read(&now);
                if lease.as_ref().is_some_and(|lease| lease.ttl_ms == 0) {
                    return Ok(false);
                }
                return Err(Error::Held { place, holder: lease.map(|lease| Box::new(lease.holder)) });
            }
            Some(_) if last => return Ok(true),
            Some(_) => {}
        }
    }
}

fn describe(lease: &Bytes) -> String {
    Lease::read(lease).map_or_else(|| "a holder that cannot be read".to_owned(), |lease| lease.holder.to_string())
}

fn place(store: &Store) -> String {
    format!("the lease '{OBJECT}' in {}", store.describe())
}

fn to_json(lease: &Lease) -> Result<Bytes, Error> {
    let text = serde_json::to_vec(lease);
    Ok(text.map_err(|error| tidemark_store::Error::at_once("writing the lease as JSON".to_owned(), error))?.into())
}

fn nonce() -> String {
    // std draws these keys from the operating system.
    let draw = || RandomState::new().build_hasher().finish();
    let now = wall_clock().0;
    format!("{:016x}{:016x}{now:016x}", draw(), draw())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
