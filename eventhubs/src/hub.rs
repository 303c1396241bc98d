//! An event hub: opening clients to it, and asking what it holds.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_core::credentials::TokenCredential;
pub use azure_messaging_eventhubs::ConsumerClient;
use azure_messaging_eventhubs::builders::{ConsumerClientBuilder, ProducerClientBuilder};
use azure_messaging_eventhubs::{EventHubsError, ProducerClient, RetryOptions};
use tidemark_store::Outage;
use tokio::time::timeout;

use crate::connection::ConnectionString;
use crate::credential::Identity;
use crate::error::{Error, ErrorKind};

/// How long closing a client may take before it is left behind.
const CLOSING: Duration = Duration::from_secs(3);

/// How we get in.
#[derive(Clone, Debug)]
pub enum Access {
    /// With the key or signature of a connection string.
    ConnectionString(ConnectionString),
    /// With a token from Microsoft Entra ID.
    Identity {
        /// The namespace: `NAME.servicebus.windows.net`.
        namespace: String,
        /// Who we are.
        identity: Identity,
    },
}

/// An event hub, and how to get in.
#[derive(Clone)]
pub struct Hub {
    access: Access,
    /// Made once, so that its tokens are shared.
    credential: Option<Arc<dyn TokenCredential>>,
    name: String,
    patience: Duration,
    /// Its partitions that cannot be read just now.
    pub(crate) outage: Arc<Outage>,
}

/// What an event hub says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubProperties {
    /// Its name.
    pub name: String,
    /// When it was created, in microseconds since 1970; one that is deleted and made again has another time.
    pub created_us: Option<i64>,
    /// The partitions, in numerical order.
    pub partitions: Vec<String>,
}

/// What a partition says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProperties {
    /// Sequence number of the oldest event that is kept; of an empty partition, of the next one.
    pub first: u64,
    /// Sequence number that the next event will get.
    pub end: u64,
    /// When the newest event came, in microseconds since 1970.
    pub newest_us: Option<i64>,
}

impl Hub {
    /// The event hub `name`. Nothing is connected yet. No call takes longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when no event hub is named, two different ones are, or the credential is incomplete.
    pub fn new(access: Access, name: Option<&str>, patience: Duration) -> Result<Self, Error> {
        let usage = |why: String| Error::new(ErrorKind::Usage, "the event hub", why);
        let (name, credential) = match &access {
            Access::ConnectionString(string) => {
                if let (Some(beside), Some(inside)) = (name, string.entity())
                    && beside != inside
                {
                    let why = format!("it is called {beside}, and {inside} in the connection string; give one of them");
                    return Err(usage(why));
                }
                (string.hub(name), None)
            }
            Access::Identity { identity, .. } => (name.map(str::to_owned), Some(identity.credential()?)),
        };
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| usage("it has no name: give it, or an EntityPath".to_owned()))?;
        Ok(Hub { access, credential, name, patience, outage: Arc::default() })
    }

    /// The event hub's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace: the host that is connected to.
    pub fn namespace(&self) -> &str {
        match &self.access {
            Access::ConnectionString(string) => string.host(),
            Access::Identity { namespace, .. } => namespace,
        }
    }

    /// The longest that a single call may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What messages call it.
    pub fn label(&self) -> String {
        format!("event hub {} of {}", self.name, self.namespace())
    }

    /// Opens a client for receiving and for questions.
    ///
    /// # Errors
    ///
    /// When there is no way in.
    pub async fn consumer(&self, group: &str) -> Result<ConsumerClient, Error> {
        let mut builder = ConsumerClientBuilder::default()
            .with_application_id("tidemark".to_owned())
            .with_consumer_group(group.to_owned())
            .with_retry_options(once());
        if let Some(endpoint) = self.custom_endpoint() {
            builder = builder.with_custom_endpoint(endpoint);
        }
        let open = async {
            match (&self.access, &self.credential) {
                (Access::Identity { namespace, .. }, Some(credential)) => {
                    builder.open(namespace, self.name.clone(), Arc::clone(credential)).await
                }
                (access, _) => builder.open_with_connection_string(text(access), Some(&self.name)).await,
            }
        };
        self.within("connecting", open).await
    }

    /// Opens a client for sending.
    ///
    /// # Errors
    ///
    /// When there is no way in.
    pub async fn producer(&self) -> Result<ProducerClient, Error> {
        let mut builder =
            ProducerClientBuilder::default().with_application_id("tidemark".to_owned()).with_retry_options(once());
        if let Some(endpoint) = self.custom_endpoint() {
            builder = builder.with_custom_endpoint(endpoint);
        }
        let open = async {
            match (&self.access, &self.credential) {
                (Access::Identity { namespace, .. }, Some(credential)) => {
                    builder.open(namespace, &self.name, Arc::clone(credential)).await
                }
                (access, _) => builder.open_with_connection_string(text(access), Some(&self.name)).await,
            }
        };
        self.within("connecting", open).await
    }

    /// Asks what the event hub is.
    ///
    /// # Errors
    ///
    /// When there is no answer, or an unusable one.
    pub async fn properties(&self, client: &ConsumerClient) -> Result<HubProperties, Error> {
        let found = self.within("asking for its properties", client.get_eventhub_properties()).await?;
        let mut partitions = found.partition_ids;
        // Numbers by their value; whatever else there may be behind them.
        partitions.sort_by_key(|id| (id.parse::<u64>().unwrap_or(u64::MAX), id.clone()));
        if partitions.is_empty() {
            return Err(Error::new(ErrorKind::Passing, self.label(), "it says that it has no partitions"));
        }
        Ok(HubProperties { name: found.name, created_us: found.created_on.and_then(micros), partitions })
    }

    /// Asks what a partition holds.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn partition(&self, client: &ConsumerClient, id: &str) -> Result<PartitionProperties, Error> {
        let asking = format!("asking for the properties of partition {id}");
        let found = self.within(&asking, client.get_partition_properties(id)).await?;
        // An empty partition that never had an event answers -1 for its last one.
        let end = u64::try_from(found.last_enqueued_sequence_number.saturating_add(1)).unwrap_or(0);
        let first = u64::try_from(found.beginning_sequence_number).unwrap_or(0);
        let first = if found.is_empty { end } else { first.min(end) };
        Ok(PartitionProperties { first, end, newest_us: found.last_enqueued_time_utc.and_then(micros) })
    }

    /// Closes a client: one that is merely dropped leaves its connection open.
    pub async fn close(&self, client: ConsumerClient) {
        // What cannot be closed is given up, and ends with its connection.
        let _ = timeout(CLOSING, client.close()).await;
    }

    /// `doing`, but not for longer than patience lasts.
    pub(crate) async fn within<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, EventHubsError>>,
    ) -> Result<T, Error> {
        let what = || format!("{}: {doing}", self.label());
        match timeout(self.patience, call).await {
            Ok(done) => done.map_err(|error| Error::of_client(what(), &error)),
            Err(_) => Err(Error::timeout(what(), self.patience.as_secs_f64())),
        }
    }

    fn custom_endpoint(&self) -> Option<String> {
        match &self.access {
            Access::ConnectionString(string) => string.custom_endpoint(),
            Access::Identity { .. } => None,
        }
    }
}

fn text(access: &Access) -> &str {
    match access {
        Access::ConnectionString(string) => string.expose(),
        Access::Identity { .. } => "",
    }
}

/// No tries of the client's own: after a fault it would go on from where the receiver was opened.
fn once() -> RetryOptions {
    RetryOptions { max_retries: 0, ..RetryOptions::default() }
}

/// An instant in microseconds since 1970.
pub(crate) fn micros(time: SystemTime) -> Option<i64> {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hub(text: &str, name: Option<&str>) -> Result<Hub, Error> {
        let key = "SharedAccessKeyName=a;SharedAccessKey=b";
        let string = ConnectionString::parse(&format!("Endpoint=sb://ns;{key};{text}"))?;
        Hub::new(Access::ConnectionString(string), name, Duration::from_secs(1))
    }

    #[test]
    fn the_name_comes_from_one_place() {
        assert_eq!(hub("EntityPath=a", None).unwrap().label(), "event hub a of ns");
        assert_eq!(hub("EntityPath=a", Some("a")).unwrap().name(), "a");
        assert_eq!(hub("", Some("b")).unwrap().name(), "b");
        let both = hub("EntityPath=a", Some("b")).err().unwrap();
        assert!(both.to_string().contains("called b, and a in the connection string"), "{both}");
        let none = hub("", None).err().unwrap();
        assert_eq!(none.kind(), ErrorKind::Usage);
    }
}
