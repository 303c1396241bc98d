//! Partitions are kept together by the times at which their events were enqueued, so that what has to be remembered stays
//! bounded while a backlog is caught up with. A partition that is ahead is not taken from: its lane fills, and the service
//! stops sending.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_dataflows::event::Micros;
use tidemark_eventhubs::status::PartitionStatus;

use super::hand::Hand;
use super::lanes::{Lane, Taken};

/// How long a start waits until something is known of each partition.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// A partition whose next event would expire within this waits for no other.
const AT_RISK: Duration = Duration::from_secs(3600);

/// Time between two warnings that a partition does not wait.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(600);

/// The partitions that are read here, each at its place.
pub(super) type Lanes = Vec<Option<Reading>>;

/// A partition that is read.
pub(super) struct Reading {
    lane: Lane,
    /// What has come of it and is not cut.
    pub(super) hand: Arc<Hand>,
    pub(super) status: Arc<PartitionStatus>,
    warned: Option<Instant>,
}

impl Reading {
    pub(super) fn new(lane: Lane, hand: Arc<Hand>, status: Arc<PartitionStatus>) -> Self {
        Reading { lane, hand, status, warned: None }
    }

    /// What there is at or after `from` that was enqueued at `limit` or before; or later, where it would be lost else.
    pub(super) fn take(&mut self, from: u64, max: usize, limit: Option<Micros>) -> Taken {
        let taken = self.lane.take(from, max, limit);
        let now = Instant::now();
        if !matches!(taken, Taken::Paused) || !self.status.expires_within(AT_RISK, now) {
            return taken;
        }
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= BETWEEN_WARNINGS) {
            self.warned = Some(now);
            tracing::warn!(
                partition = self.status.id(),
                "it is ahead of other partitions, and read all the same: as fast as its oldest events expire, the next one \
                 would be gone within an hour"
            );
        }
        self.lane.take(from, max, None)
    }

    /// Whether something has come, or it is known that there is nothing.
    fn is_known(&self, within: Duration, now: Instant) -> bool {
        self.hand.has_received() || self.status.is_caught_up(self.status.next(), within, now)
    }
}

/// Which events may be handed out.
#[derive(Debug)]
pub(super) struct Alignment {
    /// How far apart events may have been enqueued.
    allowed: Option<Duration>,
    /// The least time at which events that other processes hold were enqueued.
    pub(super) others: Option<Micros>,
    /// When the first events are handed out at the latest; none once some may be.
    begins_by: Option<Instant>,
}

impl Alignment {
    /// Keeps partitions `allowed` apart, or does not.
    pub(super) fn new(allowed: Option<Duration>) -> Self {
        Alignment { allowed, others: None, begins_by: None }
    }

    /// Reading begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begins_by = Some(now + BEGINS_WITHIN);
    }

    /// Waits for no partition.
    pub(super) fn begin_at_once(&mut self) {
        self.begins_by = None;
    }

    /// Whether events may be handed out at all: once each partition has brought some or is known to hold none, or they have
    /// been waited for long enough. `within` says for how long an answer of the service holds.
    pub(super) fn may_begin(&mut self, lanes: &[Option<Reading>], within: Duration) -> bool {
        let Some(by) = self.begins_by else { return true };
        let now = Instant::now();
        let begins = now >= by || lanes.iter().flatten().all(|reading| reading.is_known(within, now));
        if begins {
            self.begins_by = None;
        }
        begins
    }

    /// The latest time at which events of this partition may have been enqueued to be handed out; none where no other has
    /// anything in hand.
    pub(super) fn limit(&self, lanes: &[Option<Reading>], partition: usize) -> Option<Micros> {
        let allowed = i64::try_from(self.allowed?.as_micros()).unwrap_or(i64::MAX);
        let least = least(lanes, Some(partition)).into_iter().chain(self.others).min()?;
        Some(Micros(least.0.saturating_add(allowed)))
    }
}

/// The least time at which an event in hand was enqueued, of all partitions but one.
pub(super) fn least(lanes: &[Option<Reading>], but: Option<usize>) -> Option<Micros> {
    let others = lanes.iter().enumerate().filter(|(index, _)| Some(*index) != but);
    others.filter_map(|(_, reading)| reading.as_ref()?.hand.least()).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::lanes::block_of;
    use super::*;
    use crate::source::ContentDigest;
    use bytes::Bytes;
    use tidemark_dataflows::event::PartitionId;
    use tidemark_eventhubs::batch::Batch;
    use tidemark_eventhubs::hub::PartitionProperties;
    use tokio::sync::mpsc::channel;

    /// A partition with one event, enqueued at that time, and what is known of it.
    fn reading(first: u64, enqueued: i64) -> Reading {
        let (sender, receiver) = channel(1);
        let batch = Batch {
            first,
            bytes: Bytes::from_static(b"x"),
            bodies: std::iter::once(0..1).collect(),
            enqueued_us: vec![enqueued],
            cut: Vec::new(),
            sections: Vec::new(),
        };
        let block = block_of(PartitionId(0), batch);
        let hand = Arc::new(Hand::new(first));
        hand.receive(&block);
        let digest = ContentDigest::of(&block);
        sender.try_send(Ok((block, digest))).unwrap();
        let status = Arc::new(PartitionStatus::new("0", first + 1));
        Reading::new(Lane::new(receiver), hand, status)
    }

    #[test]
    fn the_limit_lies_behind_the_oldest_event_that_any_other_holds() {
        let lanes: Lanes = vec![Some(reading(0, 30)), None, Some(reading(0, 50))];
        let mut alignment = Alignment::new(Some(Duration::from_micros(7)));
        assert_eq!(alignment.limit(&lanes, 0), Some(Micros(57)));
        assert_eq!(alignment.limit(&lanes, 2), Some(Micros(37)));
        alignment.others = Some(Micros(40));
        assert_eq!(alignment.limit(&lanes, 0), Some(Micros(47)));
        assert_eq!(alignment.limit(&lanes, 2), Some(Micros(37)));
        assert_eq!(least(&lanes, None), Some(Micros(30)), "what other processes hold is theirs to say");
        lanes.iter().flatten().for_each(|reading| reading.hand.cut(1));
        assert_eq!(alignment.limit(&lanes, 0), Some(Micros(47)));
        alignment.others = None;
        assert_eq!(alignment.limit(&lanes, 0), None, "nothing is in hand of any other");
        assert_eq!(Alignment::new(None).limit(&[Some(reading(0, 0)), None], 1), None);
    }

    #[test]
    fn what_would_expire_soon_waits_for_nobody() {
        let mut reading = reading(1_000, 30);
        let limit = Some(Micros(29));
        assert!(matches!(reading.take(1_000, 9, limit), Taken::Paused));
        let now = Instant::now();
        let holds = |first| PartitionProperties { first, end: 2_000, newest_us: None };
        reading.status.note_answer(now, &holds(0));
        assert!(matches!(reading.take(1_000, 9, limit), Taken::Paused), "nothing expires");
        reading.status.note_answer(now, &holds(900));
        assert!(matches!(reading.take(1_000, 9, limit), Taken::Block(..)), "900 have expired, and 101 are left");
        assert!(reading.warned.is_some());
    }

    #[test]
    fn a_start_waits_for_each_partition_but_not_for_long() {
        let known: Lanes = vec![Some(reading(0, 0)), None];
        let (_sender, receiver) = channel(1);
        let silent = Reading::new(Lane::new(receiver), Arc::new(Hand::new(5)), Arc::new(PartitionStatus::new("1", 5)));
        let (within, now) = (Duration::from_secs(10), Instant::now());
        let mut alignment = Alignment::new(None);
        assert!(alignment.may_begin(&known, within), "it was not begun");
        alignment.begin(now);
        assert!(alignment.may_begin(&known, within));
        let lanes: Lanes = vec![Some(silent)];
        alignment.begin(now);
        assert!(!alignment.may_begin(&lanes, within));
        let holds = |end| PartitionProperties { first: 0, end, newest_us: None };
        let status = &lanes[0].as_ref().unwrap().status;
        status.note_answer(now, &holds(6));
        assert!(!alignment.may_begin(&lanes, within), "it holds one that has not come");
        alignment.begin(now.checked_sub(BEGINS_WITHIN).unwrap());
        assert!(alignment.may_begin(&lanes, within), "it was waited for");
        alignment.begin(now);
        lanes[0].as_ref().unwrap().status.note_read(6, None);
        assert!(alignment.may_begin(&lanes, within));
    }
}
