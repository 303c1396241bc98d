//! How far each partition has been read, and what the service says of how far it goes.
//!
//! Instants are those of the monotonic clock at which a question was asked: what the service then answers was true at that
//! instant or later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::hub::PartitionProperties;

/// Most answers that are kept. With fewer of them, a partition can only be taken for one that is behind.
const MAX_ANSWERS: usize = 256;

/// Time between two looks at how fast the oldest events expire.
const BETWEEN_PACES: Duration = Duration::from_secs(60);

/// How far back those looks go.
const PACED_OVER: Duration = Duration::from_secs(3600);

/// How a partition is getting on.
#[derive(Debug)]
pub struct PartitionStatus {
    id: String,
    next: AtomicU64,
    end: AtomicU64,
    read_us: AtomicI64,
    newest_us: AtomicI64,
    heard: Mutex<Heard>,
    /// Connections that were opened anew after a fault.
    pub reconnects: AtomicU64,
    /// Events that came again and were dropped.
    pub redelivered: AtomicU64,
    /// Sequence numbers that were passed over, as there was no event for them.
    pub missing: AtomicU64,
}

/// What the service has said of a partition.
#[derive(Copy, Clone, Debug)]
struct Answer {
    asked: Instant,
    /// The oldest number that was kept.
    first: u64,
    /// The number that the next event would get.
    end: u64,
}

/// What the service has said lately.
#[derive(Debug, Default)]
struct Heard {
    /// In the order in which they were asked for.
    answers: VecDeque<Answer>,
    /// When it was last asked, answered or not.
    asked: Option<Instant>,
    /// The oldest number that was kept, from time to time.
    paces: VecDeque<(Instant, u64)>,
}

impl Heard {
    fn note(&mut self, answer: Answer) {
        self.asked = self.asked.max(Some(answer.asked));
        // Two that ask at the same time may be answered in another order.
        let place = self.answers.partition_point(|before| before.asked <= answer.asked);
        self.answers.insert(place, answer);
        if self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
        let since = |at: &Instant| answer.asked.saturating_duration_since(*at);
        if self.paces.back().is_none_or(|(last, _)| since(last) >= BETWEEN_PACES) {
            self.paces.push_back((answer.asked, answer.first));
        }
        while self.paces.get(1).is_some_and(|(second, _)| since(second) >= PACED_OVER) {
            self.paces.pop_front();
        }
    }
}

/// How far reading is behind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events that wait in the partition.
    pub events: u64,
    /// Between the arrivals of the newest event and of the last that was read.
    pub seconds: u64,
}

/// The partitions that are read, in the order in which reading them began. Clones share the list, so whoever holds one sees
/// those that come later.
#[derive(Clone, Debug, Default)]
pub struct PartitionStatuses(Arc<Mutex<Vec<Arc<PartitionStatus>>>>);

impl PartitionStatuses {
    /// Adds one.
    pub fn add(&self, status: Arc<PartitionStatus>) {
        self.list().push(status);
    }

    /// Those that there are now.
    pub fn all(&self) -> Vec<Arc<PartitionStatus>> {
        self.list().clone()
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.list().len()
    }

    /// How far reading is behind over all of them: the sum of the events, the longest of the times. None where none is read.
    pub fn lag(&self) -> Option<Lag> {
        let lags = self.all().into_iter().map(|status| status.lag());
        lags.reduce(|a, b| Lag { events: a.events + b.events, seconds: a.seconds.max(b.seconds) })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<PartitionStatus>>> {
        // Nothing is left half done by whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartitionStatus {
    /// The status of a partition that is read from `next` on.
    pub fn new(id: impl Into<String>, next: u64) -> Self {
        PartitionStatus {
            id: id.into(),
            next: AtomicU64::new(next),
            end: AtomicU64::new(next),
            read_us: AtomicI64::new(i64::MIN),
            newest_us: AtomicI64::new(i64::MIN),
            heard: Mutex::default(),
            reconnects: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            missing: AtomicU64::new(0),
        }
    }

    /// The partition.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sequence number of the next event.
    pub fn next(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Notes that everything before `next` has been read; the last of it came at `read_us`.
    pub fn note_read(&self, next: u64, read_us: Option<i64>) {
        self.next.store(next, Relaxed);
        self.end.fetch_max(next, Relaxed);
        if let Some(read_us) = read_us {
            self.read_us.store(read_us, Relaxed);
            self.newest_us.fetch_max(read_us, Relaxed);
        }
    }

    /// Notes what the partition holds, as it was told when asked at `asked`.
    pub fn note_answer(&self, asked: Instant, found: &PartitionProperties) {
        self.end.fetch_max(found.end, Relaxed);
        if let Some(newest_us) = found.newest_us {
            self.newest_us.fetch_max(newest_us, Relaxed);
        }
        self.heard().note(Answer { asked, first: found.first, end: found.end });
    }

    /// Notes that the service is asked what the partition holds. Whether an answer comes is another matter.
    pub fn note_question(&self, asked: Instant) {
        let mut heard = self.heard();
        heard.asked = heard.asked.max(Some(asked));
    }

    /// When the service was last asked.
    pub fn last_asked(&self) -> Option<Instant> {
        self.heard().asked
    }

    /// Whether a reader that has everything before `next` is caught up at `now`: it has what was the newest event at some
    /// time within `within` before, or the partition is empty and nothing of it is on its way.
    pub fn is_caught_up(&self, next: u64, within: Duration, now: Instant) -> bool {
        let heard = self.heard();
        let mut lately = heard.answers.iter().filter(|answer| now.saturating_duration_since(answer.asked) <= within);
        let empty = |answer: &Answer| answer.first == answer.end && next >= self.next();
        lately.clone().next_back().is_some_and(empty) || lately.any(|answer| next >= answer.end)
    }

    /// Whether the next event that the service would send is likely to expire within `time` from `now`, as fast as the
    /// oldest events have expired lately. The service does not name its retention.
    pub fn expires_within(&self, time: Duration, now: Instant) -> bool {
        let next = self.next();
        let heard = self.heard();
        let Some(answer) = heard.answers.back().filter(|answer| answer.end > next) else { return false };
        let Some(&(then, first)) = heard.paces.front() else { return false };
        // What expires in steps has not expired in a moment.
        let elapsed = now.saturating_duration_since(then).max(BETWEEN_PACES).as_secs_f64();
        let expired = answer.first.saturating_sub(first);
        expired > 0 && next.saturating_sub(answer.first) as f64 <= expired as f64 / elapsed * time.as_secs_f64()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Nothing is left half done by whoever panicked.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far reading is behind what is known of the partition.
    pub fn lag(&self) -> Lag {
        let events = self.end.load(Relaxed).saturating_sub(self.next());
        if events == 0 {
            return Lag::default();
        }
        let (read, newest) = (self.read_us.load(Relaxed), self.newest_us.load(Relaxed));
        // Before the first event, nothing is known of times.
        let behind_us = if read == i64::MIN { 0 } else { newest.saturating_sub(read).max(0) };
        Lag { events, seconds: behind_us.unsigned_abs() / 1_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn holds(first: u64, end: u64) -> PartitionProperties {
        PartitionProperties { first, end, newest_us: None }
    }

    #[test]
    fn who_has_what_was_the_newest_event_lately_is_caught_up() {
        let status = PartitionStatus::new("0", 0);
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let caught_up = |next, seconds| status.is_caught_up(next, 10 * SECOND, at(seconds));
        assert!(!caught_up(100, 0), "nothing was heard");
        status.note_answer(at(0), &holds(0, 50));
        status.note_answer(at(3), &holds(0, 80));
        status.note_answer(at(6), &holds(0, 90));
        assert!(caught_up(50, 6) && !caught_up(49, 6), "the oldest answer counts");
        assert!(caught_up(50, 10) && !caught_up(50, 11), "for as long as it is young enough");
        assert!(caught_up(80, 13) && !caught_up(89, 14) && caught_up(90, 16));
        assert!(!caught_up(1000, 17), "one of which nothing was heard is behind");
    }

    #[test]
    fn an_empty_partition_is_caught_up_unless_something_of_it_is_on_its_way() {
        let status = PartitionStatus::new("0", 7);
        let now = Instant::now();
        status.note_answer(now, &holds(0, 9));
        assert!(!status.is_caught_up(7, SECOND, now));
        status.note_answer(now, &holds(9, 9));
        assert!(status.is_caught_up(7, SECOND, now), "what was there has expired");
        status.note_read(8, None);
        assert!(!status.is_caught_up(7, SECOND, now) && status.is_caught_up(8, SECOND, now));
        assert!(!status.is_caught_up(8, SECOND, now + 2 * SECOND));
    }

    #[test]
    fn what_expires_soon_is_told_from_the_pace_of_what_has_expired() {
        let status = PartitionStatus::new("0", 5_000);
        let start = Instant::now();
        let hour = Duration::from_secs(3600);
        status.note_answer(start, &holds(0, 9_000));
        assert!(!status.expires_within(hour, start), "nothing has expired yet");
        let later = start + hour / 2;
        status.note_answer(later, &holds(2_000, 9_000));
        assert!(status.expires_within(hour, later), "2,000 in half an hour: the next 3,000 are gone in 45 minutes");
        assert!(!status.expires_within(hour / 2, later));
        status.note_read(7_000, None);
        assert!(!status.expires_within(hour, later), "the next 5,000 take 75 minutes");
        status.note_read(9_000, None);
        status.note_answer(later, &holds(8_999, 9_000));
        assert!(!status.expires_within(hour, later), "there is nothing left that could");
    }

    #[test]
    fn lag_is_what_waits() {
        let status = PartitionStatus::new("0", 5);
        assert_eq!(status.lag(), Lag::default());
        let now = Instant::now();
        let held = |end, newest_us| PartitionProperties { first: 0, end, newest_us: Some(newest_us) };
        status.note_answer(now, &held(9, 60_000_000));
        assert_eq!(status.lag(), Lag { events: 4, seconds: 0 }, "no event was read, so there is no time to compare");
        status.note_read(6, Some(57_500_000));
        assert_eq!(status.lag(), Lag { events: 3, seconds: 2 });
        status.note_answer(now, &held(8, 1));
        assert_eq!(status.lag().events, 3, "an older answer changes nothing");
        status.note_read(9, Some(60_000_000));
        assert_eq!(status.lag(), Lag::default());
    }
}
