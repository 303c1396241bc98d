//! The switches of tests, and a way to append without a client.

use crate::error::Error;
use crate::hub::{Cause, Hub, MAX_MESSAGE, Order, Partition};
use crate::switches::Busy;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Events that are appended at once.
const CHUNK: usize = 1024;

/// A handle on a running broker, for tests and benchmarks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    hub: Arc<Hub>,
}

/// What a partition holds and who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatistics {
    /// Sequence number of the oldest event that is kept.
    pub first_sequence: u64,
    /// Sequence number of the newest event, kept or not; none if there never was one.
    pub last_sequence: Option<u64>,
    /// Receiver links.
    pub receivers: usize,
}

/// Counts since the broker started, and what is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Events taken in.
    pub events_in: u64,
    /// Events delivered, those delivered again included.
    pub events_out: u64,
    /// Connections that there are.
    pub connections: usize,
    /// Connections that there were, those that there are included.
    pub connections_ever: u64,
    /// The partitions.
    pub partitions: Vec<PartitionStatistics>,
}

impl Control {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn partition(&self, partition: usize) -> Result<&Partition, Error> {
        let partitions = self.hub.partitions().len();
        self.hub.partitions().get(partition).ok_or(Error::NoPartition { partition, partitions })
    }

    /// Appends events with nothing but a body. Answers the sequence number of the next one.
    ///
    /// # Errors
    ///
    /// If there is no such partition, or a body is larger than a message may be; the bodies before it are kept.
    pub fn append<B: AsRef<[u8]>>(&self, partition: usize, bodies: impl IntoIterator<Item = B>) -> Result<u64, Error> {
        self.partition(partition)?;
        let (mut bodies, mut next) = (bodies.into_iter(), self.hub.bounds(partition).next);
        loop {
            // Bodies are made without holding the log, which receivers need.
            let chunk: Vec<B> = bodies.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Ok(next);
            }
            let too_large = chunk.iter().position(|body| body.as_ref().len() > MAX_MESSAGE);
            let kept = &chunk[..too_large.unwrap_or(chunk.len())];
            self.hub.append(partition, |log, now| {
                kept.iter().for_each(|body| log.append_body(body.as_ref(), now));
                next = log.bounds().next;
            });
            if let Some(large) = too_large {
                return Err(Error::TooLarge { len: chunk[large].as_ref().len(), max: MAX_MESSAGE });
            }
        }
    }

    /// Appends `events` to every partition, whose bodies `body` makes of the partition and the event's place in it.
    ///
    /// # Errors
    ///
    /// As [`Control::append`].
    pub fn seed<B: AsRef<[u8]>>(&self, events: u64, mut body: impl FnMut(usize, u64) -> B) -> Result<(), Error> {
        for partition in 0..self.hub.partitions().len() {
            self.append(partition, (0..events).map(|event| body(partition, event)))?;
        }
        Ok(())
    }

    /// Detaches the receiver links of a partition, or all, with an error condition such as `amqp:internal-error` or
    /// `com.microsoft:server-busy`. Answers how many there were.
    ///
    /// # Errors
    ///
    /// If there is no such partition.
    pub fn detach(&self, partition: Option<usize>, condition: &str) -> Result<usize, Error> {
        let order = Order::Detach(partition, Cause::new(condition, "The link was detached by a switch of the broker."));
        match partition {
            Some(index) => Ok(self.partition(index)?.order(&order)),
            None => Ok(self.hub.partitions().iter().map(|partition| partition.order(&order)).sum()),
        }
    }

    /// Resets all connections, without a word of AMQP. Answers how many there were.
    pub fn cut(&self) -> usize {
        self.hub.order(&Order::Cut)
    }

    /// Is away: resets all connections, and each new one for so long. Events are kept.
    pub fn away(&self, time: Duration) {
        self.hub.switches.set_away(Instant::now() + time);
        self.cut();
    }

    /// Lets each batch of deliveries wait; zero ends it.
    pub fn delay(&self, delay: Duration) {
        self.hub.switches.set_delay(delay);
        self.hub.wake_all();
    }

    /// Delivers so many events in a second, over all links; none ends it.
    pub fn throttle(&self, events_per_second: Option<u32>) {
        self.hub.switches.set_throttle(events_per_second);
        self.hub.wake_all();
    }

    /// Is too busy for so long: messages are rejected, receiver links detached and refused, with
    /// `com.microsoft:server-busy`. Zero ends it.
    pub fn busy(&self, who: Busy, time: Duration) {
        self.hub.switches.set_busy(who, Instant::now() + time);
        if who != Busy::Producers && !time.is_zero() {
            self.hub.order(&Order::Detach(None, Cause::busy()));
        }
    }

    /// Sends the events of a range again, both ends included, on each receiver link that there is, with their old
    /// sequence numbers, once the link is past the range. Answers how many links that concerns.
    ///
    /// # Errors
    ///
    /// If there is no such partition, or the range is empty.
    pub fn redeliver(&self, partition: usize, from: u64, to: u64) -> Result<usize, Error> {
        range(from, to)?;
        Ok(self.partition(partition)?.order(&Order::Redeliver { partition, from, to }))
    }

    /// Never delivers the events of a range, both ends included: a gap.
    ///
    /// # Errors
    ///
    /// If there is no such partition, or the range is empty.
    pub fn drop_range(&self, partition: usize, from: u64, to: u64) -> Result<(), Error> {
        range(from, to)?;
        self.partition(partition)?.dropped.write().push((from, to));
        Ok(())
    }

    /// Forgets the events before a sequence number, as retention does.
    ///
    /// # Errors
    ///
    /// If there is no such partition.
    pub fn expire(&self, partition: usize, before: u64) -> Result<(), Error> {
        self.partition(partition)?.log.write().expire(before);
        Ok(())
    }

    /// Recreates the hub: no events, sequence numbers from 0, another creation time; receiver links are detached.
    pub fn recreate(&self) {
        self.hub.recreate();
    }

    /// Makes it so many partitions in all, as the service can while a hub is used: the new ones are empty, and keys are
    /// dealt to all of them from now on.
    ///
    /// # Errors
    ///
    /// If there are more already, or so many are not possible.
    pub fn set_partitions(&self, count: usize) -> Result<(), Error> {
        let partitions = self.hub.partitions().len();
        self.hub.grow(count).ok_or(Error::Partitions { count, partitions })
    }

    /// Gives the events that come from now on this time as the one at which they came, in milliseconds since 1970: none
    /// ends it. Within a partition no event gets an earlier time than the one before.
    pub fn clock(&self, at: Option<i64>) {
        self.hub.switches.set_clock(at);
    }

    /// Keeps links open and delivers nothing on those of a partition, or of all.
    ///
    /// # Errors
    ///
    /// If there is no such partition.
    pub fn silence(&self, partition: Option<usize>, silent: bool) -> Result<(), Error> {
        match partition {
            Some(index) => self.partition(index)?.silent.store(silent, Ordering::Release),
            None => {
                self.hub.partitions().iter().for_each(|partition| partition.silent.store(silent, Ordering::Release))
            }
        }
        self.hub.wake_all();
        Ok(())
    }

    /// Counts.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let partition = |(index, partition): (usize, &Partition)| {
            let bounds = self.hub.bounds(index);
            PartitionStatistics {
                first_sequence: bounds.begin,
                last_sequence: bounds.next.checked_sub(1),
                receivers: partition.readers(),
            }
        };
        Statistics {
            events_in: self.hub.events_in.load(Ordering::Relaxed),
            events_out: self.hub.events_out.load(Ordering::Relaxed),
            connections: self.hub.open_connections(),
            connections_ever: self.hub.connections.load(Ordering::Relaxed),
            partitions: self.hub.partitions().iter().enumerate().map(partition).collect(),
        }
    }
}

fn range(from: u64, to: u64) -> Result<(), Error> {
    if from > to { Err(Error::EmptyRange { from, to }) } else { Ok(()) }
}
