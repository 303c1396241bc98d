//! Receives a partition from a position on, whatever happens to the connection.
//!
//! A reader hands on events in the order of their sequence numbers, each once. When anything goes wrong, it drops its
//! client, waits, and opens a new one behind the last event that it handed on. What comes again is dropped, what is
//! missing is passed over, counted and logged.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use azure_messaging_eventhubs::models::ReceivedEventData;
use azure_messaging_eventhubs::{ConsumerClient, EventHubsError, OpenReceiverOptions, StartLocation, StartPosition};
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemark_store::{Backoff, Failing, Outage, Over, Words};
use tokio::time::{Instant, sleep, timeout};

use crate::batch::{Batch, Builder, Limits};
use crate::error::{Error, ErrorKind};
use crate::hub::{Hub, PartitionProperties, micros};
use crate::status::PartitionStatus;

/// Most events that are taken from the client at once.
const CHUNK: usize = 512;

/// How long an event waits for others to be handed on with: some of the work behind is done once for each batch. An
/// epoch is far longer.
const LINGER: Duration = Duration::from_millis(5);

/// The first wait after a fault.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A partition, and how to read it.
#[derive(Clone)]
pub struct PartitionReader {
    /// The event hub.
    pub hub: Hub,
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: String,
    /// A receiver with a higher level displaces those with lower ones; one without a level displaces nobody.
    pub owner_level: Option<i64>,
    /// How many events the broker may send ahead.
    pub prefetch: u32,
    /// After so long without an event the partition is asked whether it has any.
    pub quiet_after: Duration,
    /// How long faults in a row are met with another try.
    pub give_up_after: Duration,
    /// Whether reading ends where events are gone that should have been read. Else they are counted as missing.
    pub refuses_loss: bool,
    /// When the event hub was created, as it was when reading began.
    pub created_us: Option<i64>,
    /// How large batches are.
    pub limits: Limits,
    /// Where progress is noted.
    pub status: Arc<PartitionStatus>,
}

/// Who gets what a reader reads.
pub trait Receive: Send {
    /// Takes a batch; resolves to false when nobody wants any more. As long as it waits, nothing more is read.
    fn take(&mut self, batch: Batch) -> BoxFuture<'_, bool>;

    /// A fault that is met with another try.
    fn failing(&mut self, error: &Error);

    /// Events come again.
    fn recovered(&mut self);
}

/// How far reading has come.
struct Progress<'a> {
    /// That of all partitions.
    outage: &'a Outage,
    /// Sequence number of the next event.
    next: u64,
    /// Everything before this that is past its retention has been told of.
    told: u64,
    /// Since when nothing but faults came; none while all is well.
    failing: Option<(Instant, Failing<'a>)>,
    /// Whether the partition has been read at all: before, what is refused or not there is not met with another try.
    proven: bool,
}

impl Progress<'_> {
    fn well(&mut self, to: &mut dyn Receive) {
        self.proven = true;
        if self.failing.take().is_some() {
            if let Some(Over { failed_for, told: true }) = self.outage.succeeded(Instant::now()) {
                tracing::info!(failed_for = failed_for.as_secs(), "events come again");
            }
            to.recovered();
        }
    }
}

/// Why a connection came to an end.
enum End {
    /// Nobody wants any more.
    Unwanted,
    /// Something went wrong.
    Failed(Error),
}

impl PartitionReader {
    /// Reads from sequence number `next` on, until nobody wants any more (`Ok`).
    ///
    /// # Errors
    ///
    /// What no retry helps against: another receiver has taken over ([`ErrorKind::Stolen`]), the event hub is another
    /// one ([`ErrorKind::Changed`]), what comes next is past its retention and that is refused ([`ErrorKind::Expired`]).
    /// And anything else, once it has lasted too long.
    pub async fn read(&self, next: u64, to: &mut dyn Receive) -> Result<(), Error> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut progress = Progress { outage: &self.hub.outage, next, told: 0, failing: None, proven: false };
        loop {
            let before = progress.next;
            let error = match self.connected(&mut progress, to).await {
                End::Unwanted => return Ok(()),
                End::Failed(error) => error,
            };
            if progress.next > before {
                backoff.reset();
            }
            let now = Instant::now();
            let begin = || (now, Failing::begin(&self.hub.outage, now));
            let (since, failing) = progress.failing.get_or_insert_with(begin);
            let fatal = match error.kind() {
                ErrorKind::Stolen | ErrorKind::Changed | ErrorKind::Expired | ErrorKind::Usage => true,
                ErrorKind::Unauthorized | ErrorKind::NotFound => !progress.proven,
                ErrorKind::Passing => false,
            };
            if fatal || since.elapsed() >= self.give_up_after {
                return Err(error);
            }
            let (wait, next, partition) = (backoff.wait(), progress.next, &self.partition);
            if let Some(Words { failing: partitions, failing_for }) = failing.failed(now) {
                let failing_for = failing_for.as_secs();
                tracing::warn!(partition, partitions, failing_for, next, %error, "cannot be read; nothing is lost, it is tried again");
            }
            tracing::debug!(partition, next, %error, retry_in_ms = wait.as_millis(), "receiving again");
            to.failing(&error);
            self.status.reconnects.fetch_add(1, Relaxed);
            sleep(wait).await;
        }
    }

    /// Reads over one connection.
    async fn connected(&self, progress: &mut Progress<'_>, to: &mut dyn Receive) -> End {
        let client = match self.hub.consumer(&self.group).await {
            Ok(client) => client,
            Err(error) => return End::Failed(error),
        };
        let end = match self.check(&client, progress).await {
            Ok(()) => self.stream(&client, progress, to).await,
            Err(error) => End::Failed(error),
        };
        self.hub.close(client).await;
        end
    }

    /// Whether the event hub still is the one that was read so far, and holds what comes next.
    async fn check(&self, client: &ConsumerClient, progress: &mut Progress<'_>) -> Result<(), Error> {
        let next = progress.next;
        let changed = |why: String| Err(Error::new(ErrorKind::Changed, self.place(), why));
        let hub = self.hub.properties(client).await?;
        if self.created_us.is_some() && hub.created_us.is_some() && hub.created_us != self.created_us {
            return changed("the event hub was deleted and created again while it was read".to_owned());
        }
        let found = self.ask(client).await?;
        if found.end < next {
            return changed(format!("it ends before event {}, and was read up to event {next}", found.end));
        }
        self.note_loss(progress, found.first)
    }

    async fn ask(&self, client: &ConsumerClient) -> Result<PartitionProperties, Error> {
        let asked = std::time::Instant::now();
        let found = self.hub.partition(client, &self.partition).await?;
        self.status.note_answer(asked, &found);
        Ok(found)
    }

    /// Takes up that nothing before `first` is kept any more.
    fn note_loss(&self, progress: &mut Progress<'_>, first: u64) -> Result<(), Error> {
        let Some(lost) = first.checked_sub(progress.next).filter(|lost| *lost > 0) else { return Ok(()) };
        let error = expired(self.place(), progress.next, first);
        if self.refuses_loss {
            return Err(error);
        }
        if progress.told < first {
            progress.told = first;
            tracing::error!(partition = self.partition, lost, "{}; going on without them", error.why());
        }
        Ok(())
    }

    async fn stream(&self, client: &ConsumerClient, progress: &mut Progress<'_>, to: &mut dyn Receive) -> End {
        let options = OpenReceiverOptions {
            owner_level: self.owner_level,
            prefetch: Some(self.prefetch),
            start_position: Some(behind(progress.next)),
            receive_timeout: None,
        };
        let opening = client.open_receiver_on_partition(self.partition.clone(), Some(options));
        let receiver = match self.hub.within("opening a receiver", opening).await {
            Ok(receiver) => receiver,
            Err(error) => return End::Failed(error),
        };
        let mut events = pin!(receiver.stream_events().ready_chunks(CHUNK));
        let mut builder = Builder::new(self.limits);
        let mut suspect = None;
        let mut linger_until = Instant::now();
        loop {
            let wait = if builder.is_empty() {
                self.quiet_after
            } else {
                linger_until.saturating_duration_since(Instant::now())
            };
            let (chunk, mut fault) = match timeout(wait, events.next()).await {
                Ok(Some(chunk)) => (chunk, None),
                Ok(None) => (Vec::new(), Some(self.fault("the stream ended"))),
                Err(_) if !builder.is_empty() => (Vec::new(), None),
                Err(_) => match self.is_quiet(client, progress, &mut suspect).await {
                    Ok(()) => {
                        progress.well(to);
                        continue;
                    }
                    Err(error) => return End::Failed(error),
                },
            };
            if builder.is_empty() {
                linger_until = Instant::now() + LINGER;
            }
            match self.take(client, chunk, progress, &mut builder, to).await {
                Ok(found) => fault = fault.or(found),
                Err(Unwanted) => return End::Unwanted,
            }
            if !builder.is_empty() {
                progress.well(to);
                let due = fault.is_some() || linger_until <= Instant::now();
                if due && !self.hand_on(&mut builder, to).await {
                    return End::Unwanted;
                }
            }
            if let Some(error) = fault {
                return End::Failed(error);
            }
        }
    }

    /// Adds events to what will be handed on, up to the first fault, which is the answer. Where numbers are missing, the
    /// partition is asked what it still holds: numbers that no event has are passed over, but events may have expired.
    /// Whatever has come had not, so one question is enough for all of them.
    async fn take(
        &self,
        client: &ConsumerClient,
        chunk: Vec<Result<ReceivedEventData, EventHubsError>>,
        progress: &mut Progress<'_>,
        builder: &mut Builder,
        to: &mut dyn Receive,
    ) -> Result<Option<Error>, Unwanted> {
        let mut kept_from = 0;
        if has_hole(&chunk, progress.next) {
            match self.ask(client).await {
                Ok(found) => kept_from = found.first,
                Err(error) => return Ok(Some(error)),
            }
        }
        for event in chunk {
            let event = match event {
                Ok(event) => event,
                Err(error) => return Ok(Some(Error::of_client(self.what(), &error))),
            };
            let Some(sequence) = number_of(&event) else {
                // Every event of an event hub has a number; without one it has no place in the stream.
                tracing::error!(partition = self.partition, "an event without a sequence number was dropped");
                continue;
            };
            if sequence < progress.next {
                self.status.redelivered.fetch_add(1, Relaxed);
                continue;
            }
            if let Err(error) = self.pass_over(progress, sequence, kept_from) {
                return Ok(Some(error));
            }
            if !builder.takes(sequence) && !self.hand_on(builder, to).await {
                return Err(Unwanted);
            }
            builder.push(sequence, &event, micros(SystemTime::now()).unwrap_or(0));
            progress.next = sequence + 1;
        }
        Ok(None)
    }

    /// Counts the numbers before `sequence` that have not come, of a partition that keeps nothing before `kept_from`.
    fn pass_over(&self, progress: &mut Progress<'_>, sequence: u64, kept_from: u64) -> Result<(), Error> {
        let missing = sequence - progress.next;
        if missing == 0 {
            return Ok(());
        }
        let kept_from = kept_from.min(sequence);
        self.note_loss(progress, kept_from)?;
        self.status.missing.fetch_add(missing, Relaxed);
        let from = progress.next.max(kept_from);
        if from < sequence {
            tracing::warn!(
                partition = self.partition,
                from,
                to = sequence,
                missing = sequence - from,
                "there are no events for these sequence numbers; they are counted as missing"
            );
        }
        Ok(())
    }

    async fn hand_on(&self, builder: &mut Builder, to: &mut dyn Receive) -> bool {
        let batch = builder.take();
        self.status.note_read(batch.end(), batch.enqueued_us.last().copied());
        to.take(batch).await
    }

    /// Tells a partition without events from a link that brings none: one that holds an event which has not come
    /// between two looks is given up.
    async fn is_quiet(
        &self,
        client: &ConsumerClient,
        progress: &mut Progress<'_>,
        suspect: &mut Option<u64>,
    ) -> Result<(), Error> {
        let found = self.ask(client).await?;
        let next = progress.next;
        self.note_loss(progress, found.first)?;
        if found.end <= next.max(found.first) {
            *suspect = None;
            return Ok(());
        }
        if suspect.replace(next) == Some(next) {
            return Err(self.fault("the link brings no events, and the partition has some"));
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("partition {} of {}", self.partition, self.hub.label())
    }

    fn what(&self) -> String {
        format!("receiving {}", self.place())
    }

    fn fault(&self, why: &str) -> Error {
        Error::new(ErrorKind::Passing, self.what(), why)
    }
}

/// Nobody wants any more.
struct Unwanted;

/// The error of a `place` of which nothing before `first` is kept any more, and everything from `next` on should be read.
pub fn expired(place: impl Into<String>, next: u64, first: u64) -> Error {
    let (last, lost) = (first.saturating_sub(1), first.saturating_sub(next));
    let why = format!("events {next} to {last} ({lost} of them) are past their retention");
    Error::new(ErrorKind::Expired, place, why)
}

fn number_of(event: &ReceivedEventData) -> Option<u64> {
    event.sequence_number().and_then(|number| u64::try_from(number).ok())
}

/// Whether numbers are missing among the events that come after everything before `next`.
fn has_hole(chunk: &[Result<ReceivedEventData, EventHubsError>], mut next: u64) -> bool {
    let numbers = chunk.iter().map_while(|event| event.as_ref().ok()).filter_map(number_of);
    numbers.into_iter().any(|number| {
        let hole = number > next;
        next = next.max(number.saturating_add(1));
        hole
    })
}

/// The place behind everything before `next`. A number that no event has yet is refused, so the one before it is named.
fn behind(next: u64) -> StartPosition {
    match next.checked_sub(1).and_then(|last| i64::try_from(last).ok()) {
        Some(last) => StartPosition { location: StartLocation::SequenceNumber(last), inclusive: false },
        None => StartPosition { location: StartLocation::Earliest, inclusive: true },
    }
}

/// The sequence number of the first event of a partition that came at or after an instant: the end of the partition
/// where there is none. Takes a receiver without an owner level.
///
/// # Errors
///
/// When the event hub does not answer.
pub async fn first_at(hub: &Hub, client: &ConsumerClient, partition: &str, since: SystemTime) -> Result<u64, Error> {
    let found = hub.partition(client, partition).await?;
    let wanted = micros(since).unwrap_or(0);
    if found.first == found.end || found.newest_us.is_some_and(|newest| newest < wanted) {
        return Ok(found.end);
    }
    let options = OpenReceiverOptions {
        prefetch: Some(1),
        start_position: Some(StartPosition { location: StartLocation::EnqueuedTime(since), inclusive: true }),
        ..OpenReceiverOptions::default()
    };
    let opening = client.open_receiver_on_partition(partition.to_owned(), Some(options));
    let receiver = hub.within("opening a receiver", opening).await?;
    let mut events = pin!(receiver.stream_events());
    let what = || format!("{}: looking for the first event of partition {partition} since {wanted} us", hub.label());
    match timeout(hub.patience(), events.next()).await {
        Ok(Some(Ok(event))) => Ok(number_of(&event).unwrap_or(found.end)),
        Ok(Some(Err(error))) => Err(Error::of_client(what(), &error)),
        Ok(None) => Err(Error::new(ErrorKind::Passing, what(), "the stream ended")),
        Err(_) => Err(Error::timeout(what(), hub.patience().as_secs_f64())),
    }
}
