//! How failures are met: what fails for a reason that may pass is repeated, for how long, and who is told.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Backoff, Cause, Failing, Outage, Over, Words};

/// Tests wait a hundredth of the time.
const HASTE: u32 = if cfg!(test) { 100 } else { 1 };
const FIRST_WAIT: Duration = Duration::from_micros(100_000 / HASTE as u64);
const LONGEST_WAIT: Duration = Duration::from_micros(10_000_000 / HASTE as u64);
/// A wait ends at most this long after a stop was asked for.
const STOP_LATENCY: Duration = Duration::from_millis(50);

/// Told whenever a store begins to fail and when it is well again.
pub trait Watch: Send + Sync {
    /// A request failed, for the first time or again.
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
/// Those that may [pass](Cause::Passing) are tried again after 100 ms, then twice as long each time up to 10 s, less by
/// chance. A [full](Cause::Full) disk is waited for without end. All others end a call at once.
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

/// A call that was given up.
#[derive(Debug)]
pub struct GaveUp<E> {
    /// How often it was tried.
    pub attempts: u32,
    /// What is behind the last failure.
    pub cause: Cause,
    /// The last failure.
    pub error: E,
}

/// Carries calls to one place through.
#[derive(Debug)]
pub struct Persistence {
    place: String,
    patience: Patience,
    outage: Outage,
}

impl Persistence {
    /// For calls to `place`, as messages name it.
    pub fn new(place: impl Into<String>, patience: Patience) -> Self {
        Persistence { place: place.into(), patience, outage: Outage::default() }
    }

    /// The place.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Makes attempts until one succeeds, or its failure has a cause that no patience helps against, or patience ends.
    ///
    /// # Errors
    ///
    /// The last failure.
    pub async fn persist<T, E: fmt::Display>(
        &self,
        what: &str,
        cause: impl Fn(&E) -> Cause,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, GaveUp<E>> {
        let mut attempts = 0;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        // When the present row of failures began that patience ends for.
        let mut since: Option<Instant> = None;
        let mut failing = None;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    drop(failing);
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            attempts += 1;
            let cause = cause(&error);
            let failing = failing.get_or_insert_with(|| Failing::begin(&self.outage, Instant::now()));
            self.failed(failing, what, &error, cause);
            let left = match cause {
                Cause::Refused | Cause::Lasting => Duration::ZERO,
                Cause::Passing => {
                    let since = *since.get_or_insert_with(Instant::now);
                    self.patience.give_up_after.saturating_sub(since.elapsed())
                }
                Cause::Full => {
                    since = None;
                    Duration::MAX
                }
            };
            let wait = backoff.wait().min(left);
            tracing::debug!(place = self.place, what, attempts, ?wait, %error, "failed");
            if left.is_zero() || !self.wait(wait).await {
                return Err(GaveUp { attempts, cause, error });
            }
        }
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

    /// What no patience helps against is for the caller to tell.
    fn failed(&self, failing: &Failing<'_>, what: &str, error: &impl fmt::Display, cause: Cause) {
        let lasts = matches!(cause, Cause::Refused | Cause::Lasting);
        if let Some(Words { failing_for, .. }) = if lasts { None } else { failing.failed(Instant::now()) } {
            let (place, failing_for) = (&self.place, failing_for.as_secs());
            let advice = if cause == Cause::Full { "no space is left: make room" } else { "failed" };
            tracing::warn!(place, what, %error, failing_for, "{advice}; nothing is lost, it is tried again");
        }
        self.patience.watch.failing(&self.place, &format!("{what}: {error}"));
    }

    fn succeeded(&self) {
        if let Some(Over { failed_for, told }) = self.outage.succeeded(Instant::now()) {
            if told {
                tracing::info!(place = self.place, failed_for = failed_for.as_secs(), "works again");
            }
            self.patience.watch.recovered(&self.place);
        }
    }
}
