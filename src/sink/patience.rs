//! How long a table that cannot be written is tried again, and who is told in the meantime.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tidemark_checkpoint::store::Watch;
use tidemark_delta::Cause;

use super::publisher::{Options, SinkError};

/// Pause before a table that could not be written is tried again; the table's writer has tried a few times by then.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// How long to go on with a table that cannot be written.
pub(super) struct Patience<'a> {
    options: &'a Options,
    failing_since: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Patience { options, failing_since: None }
    }

    /// Whether it went well; an error where trying again is of no use, or has been for too long.
    pub(super) fn settle(&mut self, place: &str, result: Result<(), tidemark_delta::Error>) -> Result<bool, SinkError> {
        let health = &self.options.health;
        let Err(error) = result else {
            if health.failing().contains_key(place) {
                tracing::info!(place, "can be written again");
            }
            health.recovered(place);
            return Ok(true);
        };
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let wait = match error.cause() {
            _ if self.options.stopped_early.load(Relaxed) => false,
            Cause::Full => true,
            Cause::Passing => since.elapsed() < self.options.give_up_after,
            Cause::Refused | Cause::Lasting => false,
        };
        if !wait {
            return Err(error.into());
        }
        if !health.failing().contains_key(place) {
            tracing::warn!(place, %error, "cannot be written; nothing is lost, it is tried again");
        }
        Watch::failing(health.as_ref(), place, &error.to_string());
        Ok(false)
    }
}
