//! How far each partition has been read, for whoever shows it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// How a partition is getting on.
#[derive(Debug)]
pub struct PartitionStatus {
    id: String,
    next: AtomicU64,
    end: AtomicU64,
    read_us: AtomicI64,
    newest_us: AtomicI64,
    /// Connections that were opened anew after a fault.
    pub reconnects: AtomicU64,
    /// Events that came again and were dropped.
    pub redelivered: AtomicU64,
    /// Sequence numbers that were passed over, as there was no event for them.
    pub missing: AtomicU64,
}

/// How far reading is behind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events that wait in the partition.
    pub events: u64,
    /// Between the arrivals of the newest event and of the last that was read.
    pub seconds: u64,
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

    /// Notes what the partition holds.
    pub fn note_end(&self, end: u64, newest_us: Option<i64>) {
        self.end.fetch_max(end, Relaxed);
        if let Some(newest_us) = newest_us {
            self.newest_us.fetch_max(newest_us, Relaxed);
        }
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

    #[test]
    fn lag_is_what_waits() {
        let status = PartitionStatus::new("0", 5);
        assert_eq!(status.lag(), Lag::default());
        status.note_end(9, Some(60_000_000));
        assert_eq!(status.lag(), Lag { events: 4, seconds: 0 }, "no event was read, so there is no time to compare");
        status.note_read(6, Some(57_500_000));
        assert_eq!(status.lag(), Lag { events: 3, seconds: 2 });
        status.note_end(8, Some(1));
        assert_eq!(status.lag().events, 3, "an older answer changes nothing");
        status.note_read(9, Some(60_000_000));
        assert_eq!(status.lag(), Lag::default());
    }
}
