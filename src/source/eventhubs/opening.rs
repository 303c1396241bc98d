//! What is asked of an event hub before it is read.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::future::try_join_all;
use tidemark_eventhubs::hub::{HubProperties, PartitionProperties};
use tidemark_eventhubs::receive::first_at;
use tidemark_eventhubs::{Error, ErrorKind};
use tidemark_store::{Cause, Patience, Persistence, Watch};

use super::{EventHubsOptions, StartAt};
use crate::health::Health;
use crate::source::SourceError;

/// What was found.
pub(super) struct Opened {
    /// The event hub.
    pub(super) hub: HubProperties,
    /// What each partition holds, in their order.
    pub(super) found: Vec<PartitionProperties>,
    /// When that was asked.
    pub(super) asked: std::time::Instant,
}

/// Asks until there is an answer, an error that stays, or the time is up. Meanwhile `health` shows what is wrong.
pub(super) async fn open(options: &EventHubsOptions, health: &Arc<Health>) -> Result<Opened, SourceError> {
    let watch = Arc::clone(health) as Arc<dyn Watch>;
    let patience = Patience { give_up_after: options.open_within, watch, ..Patience::default() };
    let cause = |error: &Error| if error.kind() == ErrorKind::Passing { Cause::Passing } else { Cause::Lasting };
    let opening = Persistence::new(options.hub.label(), patience);
    let opened = opening.persist("opening", cause, async || ask(options).await).await;
    opened.map_err(|gave_up| gave_up.error.into())
}

async fn ask(options: &EventHubsOptions) -> Result<Opened, Error> {
    let client = options.hub.consumer(&options.group).await?;
    let at = std::time::Instant::now();
    let asked = async {
        let hub = options.hub.properties(&client).await?;
        let mut found = Vec::with_capacity(hub.partitions.len());
        for partition in &hub.partitions {
            found.push(options.hub.partition(&client, partition).await?);
        }
        Ok(Opened { hub, found, asked: at })
    };
    let opened = asked.await;
    options.hub.close(client).await;
    opened
}

/// Where a new pipeline begins in each partition.
pub(super) async fn beginnings(
    options: &EventHubsOptions,
    partitions: Vec<(&str, &PartitionProperties)>,
) -> Result<Vec<u64>, SourceError> {
    let since = match options.start {
        StartAt::Earliest => return Ok(partitions.iter().map(|(_, found)| found.first).collect()),
        StartAt::Latest => return Ok(partitions.iter().map(|(_, found)| found.end).collect()),
        StartAt::Time(at) => UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0)),
    };
    let client = options.hub.consumer(&options.group).await?;
    let look = |(partition, _): &(&str, _)| {
        let (partition, client, hub) = ((*partition).to_owned(), &client, &options.hub);
        async move { first_at(hub, client, &partition, since).await }
    };
    let found = try_join_all(partitions.iter().map(look)).await;
    options.hub.close(client).await;
    Ok(found?)
}
