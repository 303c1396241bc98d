//! Sends events in batches.

use azure_messaging_eventhubs::models::EventData;
use azure_messaging_eventhubs::{EventDataBatchOptions, ProducerClient};
use std::time::Duration;
use tidemark_store::Backoff;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, ErrorKind};
use crate::hub::Hub;

/// The first wait after a fault.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long closing a client may take before it is left behind.
const CLOSING: Duration = Duration::from_secs(3);

/// Sends to one partition. A batch whose fate is unknown is sent again, so an event may arrive twice.
pub struct PartitionSender {
    hub: Hub,
    partition: String,
    give_up_after: Duration,
    client: Option<ProducerClient>,
    backoff: Backoff,
    /// Batches that were sent again.
    pub repeated: u64,
}

impl PartitionSender {
    /// A sender that meets faults with another try for `give_up_after`.
    pub fn new(hub: Hub, partition: impl Into<String>, give_up_after: Duration) -> Self {
        let partition = partition.into();
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        PartitionSender { hub, partition, give_up_after, client: None, backoff, repeated: 0 }
    }

    /// Sends the bodies in order, in as few batches as they fit into. Returns when the event hub has all of them.
    ///
    /// # Errors
    ///
    /// A body is too long for a batch of its own, we may not send, or faults have lasted too long.
    pub async fn send(&mut self, bodies: &[&[u8]]) -> Result<(), Error> {
        let mut sent = 0;
        let mut failing_since: Option<Instant> = None;
        while let Some(rest) = bodies.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.send_some(rest).await {
                Ok(count) => {
                    sent += count;
                    failing_since = None;
                    self.backoff.reset();
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    let fatal = !matches!(error.kind(), ErrorKind::Passing);
                    if fatal || since.elapsed() >= self.give_up_after {
                        return Err(error);
                    }
                    self.close().await;
                    self.repeated += 1;
                    let wait = self.backoff.wait();
                    let retry_in_ms = wait.as_millis();
                    tracing::warn!(partition = self.partition, %error, retry_in_ms, "sending again");
                    sleep(wait).await;
                }
            }
        }
        Ok(())
    }

    /// Closes the connection.
    pub async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            // What cannot be closed is given up.
            let _ = timeout(CLOSING, client.close()).await;
        }
    }

    /// Sends one batch of as many of the bodies as fit. Returns how many.
    async fn send_some(&mut self, bodies: &[&[u8]]) -> Result<usize, Error> {
        if self.client.is_none() {
            self.client = Some(self.hub.producer().await?);
        }
        let what = || format!("sending to partition {} of {}", self.partition, self.hub.label());
        let Some(client) = &self.client else { return Err(Error::new(ErrorKind::Passing, what(), "not connected")) };
        let options = EventDataBatchOptions { partition_id: Some(self.partition.clone()), ..Default::default() };
        let batch = self.hub.within("opening a sender", client.create_batch(Some(options))).await?;
        let mut count = 0;
        for body in bodies {
            let event = EventData::builder().with_body(body.to_vec()).build();
            let added = batch.try_add_event_data(event, None);
            if !added.map_err(|error| Error::of_client(what(), &error))? {
                break;
            }
            count += 1;
        }
        if count == 0 {
            let length = bodies.first().map_or(0, |body| body.len());
            return Err(Error::new(ErrorKind::Usage, what(), format!("an event of {length} bytes fits into no batch")));
        }
        self.hub.within("sending", client.send_batch(batch, None)).await?;
        Ok(count)
    }
}
