//! How failures of a store are met: which of them may pass, how long they are waited for, and who is told.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::Error;

/// Tests wait a hundredth of the time.
const HASTE: u32 = if cfg!(test) { 100 } else { 1 };
const FIRST_WAIT: Duration = Duration::from_micros(100_000 / HASTE as u64);
const LONGEST_WAIT: Duration = Duration::from_micros(10_000_000 / HASTE as u64);
/// A wait ends at most this long after a stop was asked for.
const STOP_LATENCY: Duration = Duration::from_millis(50);

/// Told whenever a store begins to fail and when it is well again.
pub trait Watch: Send + Sync {
    /// A request failed, and the one before had not.
    fn failing(&self, place: &str, why: &str);
    /// Requests succeed again.
    fn recovered(&self, place: &str);
}

/// A [`Watch`] that does nothing: what happens is in the log all the same.
#[derive(Copy, Clone, Debug, Default)]
pub struct Silent;

impl Watch for Silent {
    fn failing(&self, _: &str, _: &str) {}
    fn recovered(&self, _: &str) {}
}

/// How failures are met.
///
/// Those that may pass (timeouts, throttling, errors of the server or of the connection, other I/O) are tried again
/// after 100 ms, then twice as long each time up to 10 s, give or take a quarter. A full disk is waited for without
/// end. Missing permissions and credentials end a call at once.
#[derive(Clone)]
pub struct Patience {
    /// How long a call may fail before it is given up.
    pub give_up_after: Duration,
    /// How long a single request may take; a second more for each MiB that it carries.
    pub request_timeout: Duration,
    /// Told of every change.
    pub watch: Arc<dyn Watch>,
    /// When set, no call waits for better times any more.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for Patience {
    /// Five minutes, 30 seconds a request, nobody told, no stop.
    fn default() -> Self {
        Patience {
            give_up_after: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            watch: Arc::new(Silent),
            stop: None,
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("give_up_after", &self.give_up_after)
            .field("request_timeout", &self.request_timeout)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// A request that was not answered in time.
#[derive(Debug)]
pub(super) struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer in time")
    }
}

impl StdError for TimedOut {}

/// Who keeps an attempt from lasting for ever.
#[derive(Copy, Clone)]
pub(super) enum Deadline {
    /// The request timeout, and so much more.
    Extra(Duration),
    /// The attempt itself, which consists of many requests.
    OfItsOwn,
}

/// What to expect of another attempt.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Outlook {
    /// It may succeed.
    Transient,
    /// It will succeed once there is room.
    Full,
    /// It cannot succeed.
    Permanent,
}

fn outlook(error: &object_store::Error) -> Outlook {
    use object_store::Error as E;
    match error {
        E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => return Outlook::Permanent,
        _ => {}
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => return Outlook::Full,
            Some(
                ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::InvalidFilename
                | ErrorKind::Unsupported,
            ) => return Outlook::Permanent,
            _ => cause = error.source(),
        }
    }
    Outlook::Transient
}

/// The wait after a failed attempt, counted from 1, with jitter.
fn wait_after(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    // Writers that failed together should not come back together.
    let random = RandomState::new().build_hasher().finish() % 512;
    wait.mul_f64(0.75 + random as f64 / 1024.0)
}

#[derive(Debug, Default)]
struct Health {
    /// Calls that have failed and are still trying.
    failing_calls: usize,
    /// Whether the last that was told is that it fails.
    told: bool,
}

/// Carries requests through.
pub(super) struct Persistence {
    place: String,
    patience: Patience,
    health: Mutex<Health>,
}

impl Persistence {
    pub(super) fn new(place: String, patience: Patience) -> Self {
        Persistence { place, patience, health: Mutex::default() }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.patience.request_timeout
    }

    /// Makes attempts until one succeeds or patience ends.
    pub(super) async fn persist<T>(
        &self,
        what: &str,
        deadline: Deadline,
        attempt: impl AsyncFn() -> object_store::Result<T>,
    ) -> Result<T, Error> {
        let mut attempts = 0;
        // When the present row of failures began that patience ends for.
        let mut since: Option<Instant> = None;
        loop {
            let error = match self.attempt(deadline, &attempt).await {
                Ok(value) => {
                    self.succeeded(attempts > 0);
                    return Ok(value);
                }
                Err(error) => error,
            };
            attempts += 1;
            if attempts == 1 {
                self.failed(what, &error);
            }
            let outlook = outlook(&error);
            let left = match outlook {
                Outlook::Permanent => Duration::ZERO,
                Outlook::Transient => {
                    let since = *since.get_or_insert_with(Instant::now);
                    self.patience.give_up_after.saturating_sub(since.elapsed())
                }
                Outlook::Full => {
                    since = None;
                    Duration::MAX
                }
            };
            let wait = wait_after(attempts).min(left);
            tracing::debug!(place = self.place, what, attempts, ?wait, %error, "request failed");
            if left.is_zero() || !self.wait(wait).await {
                self.gave_up();
                return Err(Error::Unavailable {
                    what: format!("{what} in {}", self.place),
                    attempts,
                    permanent: outlook == Outlook::Permanent,
                    source: Box::new(error),
                });
            }
        }
    }

    async fn attempt<T>(
        &self,
        deadline: Deadline,
        attempt: &impl AsyncFn() -> object_store::Result<T>,
    ) -> object_store::Result<T> {
        let Deadline::Extra(extra) = deadline else { return attempt().await };
        let limit = self.patience.request_timeout.saturating_add(extra);
        timeout(limit, attempt()).await.unwrap_or_else(|elapsed| Err(super::stalled(elapsed)))
    }

    /// Waits; false if a stop is asked for.
    async fn wait(&self, mut left: Duration) -> bool {
        let stopped = || self.patience.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        while !stopped() {
            if left.is_zero() {
                return true;
            }
            let step = left.min(STOP_LATENCY);
            sleep(step).await;
            left -= step;
        }
        false
    }

    fn failed(&self, what: &str, error: &object_store::Error) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failing_calls += 1;
        if !health.told {
            health.told = true;
            tracing::warn!(place = self.place, what, %error, "the checkpoint store fails; trying again");
            self.patience.watch.failing(&self.place, &format!("{what}: {error}"));
        }
    }

    fn gave_up(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failing_calls -= 1;
    }

    /// While some call still fails, the success of another is no recovery: a full disk can be read.
    fn succeeded(&self, had_failed: bool) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failing_calls -= usize::from(had_failed);
        if health.told && health.failing_calls == 0 {
            health.told = false;
            tracing::info!(place = self.place, "the checkpoint store works again");
            self.patience.watch.recovered(&self.place);
        }
    }
}
