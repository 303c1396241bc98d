//! `[eventhubs]`: the event hub, how it is read, and the rules by which several settings make one way in.

use super::draft::Draft;
use super::kind::Value;
use super::problem::{Origin, Problem};
use super::secret::Secret;
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

/// Who we are where no connection string says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubCredential {
    /// By what is given in `[azure]`: a client secret, a federated token, else a managed identity.
    Auto,
    /// An application with its secret.
    ClientSecret,
    /// An application, or a managed identity, by a token of the cluster.
    WorkloadIdentity,
    /// The identity of the machine.
    ManagedIdentity,
    /// The user who has logged in with the Azure CLI or the Azure Developer CLI.
    DeveloperTools,
}

/// Where a new pipeline begins, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeginWord {
    /// With the oldest event that is kept.
    Earliest,
    /// With the first event after the start.
    Latest,
}

/// Where a new pipeline begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Begin {
    /// In words.
    Word(BeginWord),
    /// At an instant, in microseconds since 1970.
    Time(i64),
}

/// When reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Never.
    Forever,
    /// Once everything has been read that was there at the start.
    End,
}

/// What happens when events that should have been read are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The start is refused.
    Refuse,
    /// They are counted as missing.
    Continue,
}

/// `[eventhubs]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventHubs {
    /// Connection string.
    pub connection_string: Option<Secret>,
    /// The same in a file.
    pub connection_string_file: Option<PathBuf>,
    /// The same in Azure Key Vault.
    pub connection_string_vault: Option<String>,
    /// Host of the namespace, where there is no connection string.
    pub namespace: Option<String>,
    /// Name of the event hub, where the connection string does not have it.
    pub name: Option<String>,
    /// Who we are where there is no connection string, and to Key Vault.
    pub credential: HubCredential,
    /// Consumer group; none is `$Default`.
    pub consumer_group: Option<String>,
    /// Where a new pipeline begins.
    pub start: Begin,
    /// When reading ends.
    pub until: Until,
    /// What happens when events that should have been read are gone.
    pub after_loss: Loss,
    /// How much later than events that others hold the events of a partition may have been enqueued.
    pub alignment: Duration,
    /// Events that the broker may send ahead, for each partition.
    pub prefetch: u32,
    /// After so long without an event a partition is asked whether it has any.
    pub quiet_after: Duration,
    /// How often all partitions are asked how far they go.
    pub lag_interval: Duration,
    /// Longest time that a single call may take.
    pub request_timeout: Duration,
    /// How long faults in a row are met with another try.
    pub give_up_after: Duration,
    /// Threads that receive.
    pub threads: usize,
}

/// The ways to give a connection string.
const STRINGS: [&str; 3] =
    ["eventhubs.connection_string", "eventhubs.connection_string_file", "eventhubs.connection_string_vault"];

impl Draft {
    /// Judges the section as a whole, where an event hub is the source.
    pub(super) fn check_eventhubs(&mut self) {
        let kind = self.sound("source.kind").cloned();
        let Some(kind) = kind.filter(|kind| kind.value == Value::Text("eventhubs".to_owned())) else { return };
        self.leave_one(&STRINGS);
        let given = |draft: &Draft, key: &str| draft.given(key).is_some();
        let string = STRINGS.iter().any(|key| given(self, key));
        if !string && !given(self, "eventhubs.namespace") {
            let complaint = "it needs eventhubs.connection_string, by environment (EVENT_HUB_CONNECTION_STRING), file \
                             (eventhubs.connection_string_file) or Key Vault (eventhubs.connection_string_vault); or \
                             eventhubs.namespace and eventhubs.name, with a credential of Microsoft Entra ID";
            self.oppose("source.kind = \"eventhubs\"", kind.origin.clone(), complaint);
        }
        if !string && given(self, "eventhubs.namespace") && !given(self, "eventhubs.name") {
            let origin = self.given("eventhubs.namespace").cloned().unwrap_or(Origin::Default);
            self.oppose("eventhubs.namespace", origin, "it needs the name of an event hub: set eventhubs.name");
        }
        if string && given(self, "eventhubs.namespace") {
            let origin = self.given("eventhubs.namespace").cloned().unwrap_or(Origin::Default);
            self.oppose(
                "eventhubs.namespace",
                origin,
                "a connection string names it already; leave out one of the two",
            );
        }
    }

    fn oppose(&mut self, subject: &str, origin: Origin, complaint: &str) {
        self.problems.push(Problem { subject: subject.to_owned(), origin, complaint: complaint.to_owned() });
    }
}
