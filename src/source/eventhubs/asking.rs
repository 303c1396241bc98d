//! One task asks the service, over a connection of its own, how far the partitions go and which there are: while nothing is
//! read as well, be it that the pipeline is slow or a link is down.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemark_dataflows::event::Offset;
use tidemark_eventhubs::Error;
use tidemark_eventhubs::hub::ConsumerClient;
use tidemark_eventhubs::status::{PartitionStatus, PartitionStatuses};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::EventHubsOptions;
use super::hand::Waker;
use super::options::APART;
use crate::source::{Found, PartitionInfo};

/// Longest time between two looks for partitions that were added.
const BETWEEN_LOOKS: Duration = Duration::from_secs(20);

/// Shortest time that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the asking task and the source share.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// The partitions that are read, and asked about.
    pub(super) statuses: PartitionStatuses,
    /// Names of all partitions that the source knows, whoever reads them.
    known: Mutex<BTreeSet<String>>,
    found: Mutex<Vec<Found>>,
}

/// A question.
enum Question {
    /// How far a partition goes.
    Partition(Arc<PartitionStatus>),
    /// Which partitions there are.
    Hub,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done by whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asking {
    /// These are no news.
    pub(super) fn know<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        lock(&self.known).extend(names.into_iter().map(str::to_owned));
    }

    /// What was found since this was asked before.
    pub(super) fn take_found(&self) -> Vec<Found> {
        std::mem::take(&mut *lock(&self.found))
    }

    /// The question that is due first, and when. `looked` is when partitions were looked for, if that is done here.
    fn next(&self, options: &EventHubsOptions, looked: Option<Instant>, now: Instant) -> (Instant, Option<Question>) {
        let statuses = self.statuses.all();
        let every = options.asks_every(statuses.len());
        let due = |status: &Arc<PartitionStatus>| status.last_asked().map_or(now, |asked| asked + every);
        let partition = statuses.iter().map(|status| (due(status), status)).min_by_key(|(due, _)| *due);
        let look = looked.map(|looked| looked + BETWEEN_LOOKS.min(options.lag_every * 3));
        match (partition, look) {
            (Some((due, _)), Some(look)) if look <= due => (look, Some(Question::Hub)),
            (Some((due, status)), _) => (due, Some(Question::Partition(Arc::clone(status)))),
            (None, Some(look)) => (look, Some(Question::Hub)),
            (None, None) => (now + every, None),
        }
    }

    /// Takes up partitions that were not known.
    async fn look(&self, options: &EventHubsOptions, client: &ConsumerClient, waker: &Waker) -> Result<(), Error> {
        for name in options.hub.properties(client).await?.partitions {
            if lock(&self.known).contains(&name) {
                continue;
            }
            let first = options.hub.partition(client, &name).await?.first;
            tracing::info!(partition = name, first, "a partition was added to the event hub");
            let info = PartitionInfo { name: name.clone(), path: None, bytes: None };
            lock(&self.found).push(Found { info, from: Offset(first) });
            lock(&self.known).insert(name);
            waker.wake();
        }
        Ok(())
    }
}

/// Begins to ask.
pub(super) fn spawn(handle: &Handle, options: &EventHubsOptions, asking: &Arc<Asking>, waker: &Arc<Waker>) {
    let (options, asking, waker) = (options.clone(), Arc::clone(asking), Arc::clone(waker));
    handle.spawn(async move {
        // Which partitions there are is one process's business, and what is read to its end gets no more of them.
        let looks = options.share.process == 0 && !options.until_end && options.exclusive;
        let mut looked = looks.then(Instant::now);
        let (mut client, mut last) = (None, Instant::now());
        loop {
            let (due, question) = asking.next(&options, looked, Instant::now());
            sleep(due.max(last + APART).saturating_duration_since(Instant::now())).await;
            last = Instant::now();
            let Some(question) = question else { continue };
            if client.is_none() {
                client = options.hub.consumer(&options.group).await.ok();
            }
            let answered = match &client {
                Some(client) => ask(&options, &asking, client, &question, &waker).await,
                None => false,
            };
            if matches!(question, Question::Hub) {
                looked = Some(last);
            }
            if !answered {
                if let Some(broken) = client.take() {
                    options.hub.close(broken).await;
                }
                sleep(options.lag_every.min(PATIENCE)).await;
            }
        }
    });
}

/// Asks, and notes the answer. Returns whether there was one: a connection that gives none is given up soon, so that it does
/// not keep others waiting.
async fn ask(
    options: &EventHubsOptions,
    asking: &Asking,
    client: &ConsumerClient,
    question: &Question,
    waker: &Waker,
) -> bool {
    let asked = Instant::now();
    let answer = async {
        match question {
            Question::Hub => asking.look(options, client, waker).await,
            Question::Partition(status) => {
                // Who is not told anything waits for the next turn: it keeps nobody else from being asked about.
                status.note_question(asked);
                let found = options.hub.partition(client, status.id()).await?;
                status.note_answer(asked, &found);
                Ok(())
            }
        }
    };
    match timeout(options.lag_every.max(PATIENCE), answer).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the service does not say how far partitions go");
            false
        }
        Err(_) => {
            tracing::debug!("the service does not say in time how far partitions go");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::eventhubs::tests::options;
    use tidemark_eventhubs::hub::PartitionProperties;

    #[test]
    fn who_was_asked_about_longest_ago_comes_first_and_nobody_too_often() {
        let (asking, options) = (Asking::default(), options());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(matches!(asking.next(&options, None, start), (_, None)), "nobody is there to be asked");
        let statuses: Vec<_> = ["0", "1"].map(|name| Arc::new(PartitionStatus::new(name, 0))).into();
        statuses.iter().for_each(|status| asking.statuses.add(Arc::clone(status)));
        let answer = PartitionProperties { first: 0, end: 0, newest_us: None };
        let mut asked = Vec::new();
        let mut looked = start;
        statuses[0].note_answer(at(1), &answer);
        for _ in 0..6 {
            let (due, question) = asking.next(&options, Some(looked), at(2));
            match question {
                Some(Question::Partition(status)) => {
                    asked.push((status.id().to_owned(), due.max(at(2)).duration_since(start).as_secs()));
                    // The service never says how far the second one goes.
                    status.note_question(due.max(at(2)));
                    if status.id() == "0" {
                        status.note_answer(due, &answer);
                    }
                }
                Some(Question::Hub) => {
                    asked.push(("hub".to_owned(), due.duration_since(start).as_secs()));
                    looked = due;
                }
                None => panic!("there is something to ask"),
            }
        }
        let expected = [("1", 2), ("0", 4), ("1", 5), ("0", 7), ("1", 8), ("hub", 9)];
        assert_eq!(asked, expected.map(|(name, at)| (name.to_owned(), at)));
    }

    #[test]
    fn with_many_partitions_each_is_asked_less_often_and_may_be_silent_for_longer() {
        let options = options();
        let second = Duration::from_secs(1);
        assert_eq!((options.asks_every(1), options.heard_within(1)), (3 * second, 10 * second));
        assert_eq!((options.asks_every(30), options.heard_within(30)), (3 * second, 10 * second));
        assert_eq!((options.asks_every(200), options.heard_within(200)), (20 * second, 41 * second));
    }
}
