//! From a checked configuration to an event hub: who we are, and how to get in.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tidemark_dataflows::event::Micros;
use tidemark_eventhubs::connection::ConnectionString;
use tidemark_eventhubs::credential::Identity;
use tidemark_eventhubs::hub::{Access, Hub};
use tidemark_eventhubs::secret::Secret;
use tidemark_eventhubs::vault::SecretUrl;

use crate::config::Config;
use crate::config::eventhubs::{Begin, BeginWord, HubCredential, Loss, Until};
use crate::source::eventhubs::{AfterLoss, EventHubsOptions, StartAt};
use crate::source::{Share, SourceError};

/// How long a start waits for an event hub that does not answer.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// How the configured event hub is read. Asks Key Vault, if the connection string is there.
///
/// # Errors
///
/// When something is missing or cannot be read.
pub fn eventhubs(config: &Config) -> Result<EventHubsOptions, SourceError> {
    let wanted = &config.eventhubs;
    Ok(EventHubsOptions {
        hub: hub(config)?,
        group: wanted.consumer_group.clone().unwrap_or_else(|| "$Default".to_owned()),
        start: match wanted.start {
            Begin::Word(BeginWord::Earliest) => StartAt::Earliest,
            Begin::Word(BeginWord::Latest) => StartAt::Latest,
            Begin::Time(at) => StartAt::Time(Micros(at)),
        },
        until_end: wanted.until == Until::End,
        after_loss: match wanted.after_loss {
            Loss::Refuse => AfterLoss::Refuse,
            Loss::Continue => AfterLoss::Continue,
        },
        alignment: Some(wanted.alignment),
        prefetch: wanted.prefetch,
        quiet_after: wanted.quiet_after,
        lag_every: wanted.lag_interval,
        give_up_after: wanted.give_up_after,
        open_within: OPEN_WITHIN.min(wanted.give_up_after),
        exclusive: true,
        threads: wanted.threads,
        share: Share::WHOLE,
    })
}

/// The configured event hub. Asks Key Vault, if the connection string is there.
///
/// # Errors
///
/// When something is missing or cannot be read.
pub fn hub(config: &Config) -> Result<Hub, SourceError> {
    let wanted = &config.eventhubs;
    let access = match (connection_string(config)?, &wanted.namespace) {
        (Some(text), _) => Access::ConnectionString(ConnectionString::parse(text.expose())?),
        (None, Some(namespace)) => Access::Identity { namespace: namespace.clone(), identity: identity(config)? },
        (None, None) => {
            let problem = "there is no connection string, and no namespace";
            let remedy = "set EVENT_HUB_CONNECTION_STRING, eventhubs.connection_string_file, \
                          eventhubs.connection_string_vault, or eventhubs.namespace and eventhubs.name";
            return Err(SourceError::usage("the event hub", problem, remedy));
        }
    };
    Ok(Hub::new(access, wanted.name.as_deref(), wanted.request_timeout)?)
}

fn connection_string(config: &Config) -> Result<Option<Secret>, SourceError> {
    let wanted = &config.eventhubs;
    if let Some(text) = &wanted.connection_string {
        return Ok(Some(Secret::new(text.expose())));
    }
    if let Some(path) = &wanted.connection_string_file {
        return read(path).map(Some);
    }
    let Some(url) = &wanted.connection_string_vault else { return Ok(None) };
    let (url, identity) = (SecretUrl::parse(url)?, identity(config)?);
    let runtime = tidemark_store::io().map_err(|error| SourceError::unavailable("Key Vault", "asked", error))?;
    Ok(Some(runtime.block_on(url.read(&identity, wanted.request_timeout))?))
}

/// A secret in a file.
fn read(path: &Path) -> Result<Secret, SourceError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| SourceError::unavailable(path.display().to_string(), "read", error))?;
    Ok(Secret::new(text.trim()))
}

fn identity(config: &Config) -> Result<Identity, SourceError> {
    let azure = &config.azure;
    let secret = match (&azure.client_secret, &azure.client_secret_file) {
        (Some(secret), _) => Some(Secret::new(secret.expose())),
        (None, Some(path)) => Some(read(path)?),
        (None, None) => None,
    };
    let (tenant_id, client_id) = (azure.tenant_id.clone(), azure.client_id.clone());
    let token_file = azure.federated_token_file.as_ref().map(|path| path.display().to_string());
    let settled = match config.eventhubs.credential {
        HubCredential::Auto if secret.is_some() => HubCredential::ClientSecret,
        HubCredential::Auto if token_file.is_some() => HubCredential::WorkloadIdentity,
        HubCredential::Auto => HubCredential::ManagedIdentity,
        chosen => chosen,
    };
    Ok(match settled {
        HubCredential::ClientSecret => match (tenant_id, client_id, secret) {
            (Some(tenant_id), Some(client_id), Some(secret)) => Identity::ClientSecret { tenant_id, client_id, secret },
            _ => {
                let problem = "a client secret needs a tenant, an application and its secret";
                let remedy = "set azure.tenant_id, azure.client_id and azure.client_secret or azure.client_secret_file";
                return Err(SourceError::usage("the credential for the event hub", problem, remedy));
            }
        },
        HubCredential::WorkloadIdentity => Identity::Workload { tenant_id, client_id, token_file },
        HubCredential::DeveloperTools => Identity::DeveloperTools,
        HubCredential::Auto | HubCredential::ManagedIdentity => Identity::Managed { client_id },
    })
}
