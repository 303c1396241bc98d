//! What a test has switched on: waiting, throttling, being busy, being away, another clock.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How often a throttled link gets its share.
const SHARE: Duration = Duration::from_millis(10);

/// Whom the broker tells that it is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Those who send.
    Producers,
    /// Those who receive.
    Receivers,
    /// Both.
    All,
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, wanted: u32, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        let most = (self.per_second * SHARE.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + since * self.per_second).min(most);
        self.filled = now;
        let mut granted = 0;
        while granted < wanted && self.tokens >= 1.0 {
            self.tokens -= 1.0;
            granted += 1;
        }
        granted
    }
}

#[derive(Debug, Default)]
struct State {
    delay: Option<Duration>,
    bucket: Option<Bucket>,
    producers_busy: Option<Instant>,
    receivers_busy: Option<Instant>,
    away: Option<Instant>,
    clock: Option<i64>,
}

/// What is switched on.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    state: Mutex<State>,
}

fn lasts(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}

impl Switches {
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.lock().delay = Some(delay).filter(|delay| !delay.is_zero());
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        self.state.lock().delay
    }

    pub(crate) fn set_throttle(&self, per_second: Option<u32>) {
        let bucket = |per_second| Bucket { per_second: f64::from(per_second), tokens: 0.0, filled: Instant::now() };
        self.state.lock().bucket = per_second.map(bucket);
    }

    /// How many of `wanted` deliveries are granted now, and when to ask again for the others.
    pub(crate) fn grant(&self, wanted: u32, now: Instant) -> (u32, Option<Instant>) {
        match &mut self.state.lock().bucket {
            None => (wanted, None),
            Some(bucket) => {
                let granted = bucket.take(wanted, now);
                (granted, (granted < wanted).then(|| now + SHARE))
            }
        }
    }

    /// Gives back what was granted and not used.
    pub(crate) fn give_back(&self, unused: u32) {
        if let Some(bucket) = &mut self.state.lock().bucket {
            bucket.tokens += f64::from(unused);
        }
    }

    pub(crate) fn set_busy(&self, who: Busy, until: Instant) {
        let mut state = self.state.lock();
        if who != Busy::Receivers {
            state.producers_busy = Some(until);
        }
        if who != Busy::Producers {
            state.receivers_busy = Some(until);
        }
    }

    pub(crate) fn producers_busy(&self) -> bool {
        lasts(self.state.lock().producers_busy, Instant::now())
    }

    pub(crate) fn receivers_busy(&self) -> bool {
        lasts(self.state.lock().receivers_busy, Instant::now())
    }

    pub(crate) fn set_away(&self, until: Instant) {
        self.state.lock().away = Some(until);
    }

    pub(crate) fn away(&self) -> bool {
        lasts(self.state.lock().away, Instant::now())
    }

    /// Milliseconds since 1970 that events get as the time at which they came; none for the real time.
    pub(crate) fn set_clock(&self, at: Option<i64>) {
        self.state.lock().clock = at;
    }

    pub(crate) fn clock(&self) -> Option<i64> {
        self.state.lock().clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_grants_its_rate_and_no_burst() {
        let switches = Switches::default();
        let start = Instant::now();
        assert_eq!(switches.grant(7, start), (7, None));
        switches.set_throttle(Some(1000));
        let start = Instant::now();
        let granted: u32 = (1..=300u64).map(|i| switches.grant(100, start + Duration::from_millis(10 * i)).0).sum();
        assert!((2990..=3000).contains(&granted), "{granted}");
        assert!(switches.grant(100, start + Duration::from_secs(3600)).0 <= 10);
    }
}
