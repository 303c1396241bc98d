//! A client for one container of Azure Storage, from the configuration.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind, SpawnedReqwestConnector};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use tidemark_store::explained::{self, Account, Explained};
use tokio::runtime::Runtime;

use super::StorageError;
use crate::config::Config;
use crate::config::azure::{Azure, Credential};
use crate::config::place::AzurePlace;
use crate::config::secret::Secret;

/// The account that every emulator has, and its key. Both are published by Microsoft.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000";

/// How often a single request is repeated before it counts as failed, and the pauses in between.
const REPETITIONS: usize = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Longest time for a connection to come about.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// A client that has been answered once.
pub(super) fn open(config: &Config, place: &AzurePlace) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let azure = &config.azure;
    let account = account(azure, place)?;
    let address = endpoint(azure, place, &account);
    let client = builder(config, place, &account, &address)?.build().map_err(|error| {
        StorageError::Setting(format!("section azure: {}", explained::without_signature(&error.to_string())))
    })?;
    let about = Account { account, container: place.container.clone() };
    let store: Arc<dyn ObjectStore> = Arc::new(Explained::new(client, about, azure.use_emulator));
    knock(&store, place, &address, config.store.request_timeout)?;
    Ok(store)
}

/// The runtime of all requests.
fn requests() -> Result<&'static Runtime, StorageError> {
    // Two ways of cryptography are linked in, and the client takes none by itself then. A second call changes nothing.
    tidemark_eventhubs::choose_cryptography();
    tidemark_store::io()
        .map_err(|error| StorageError::Refused { place: "requests to Azure".to_owned(), problem: error.to_string() })
}

fn account(azure: &Azure, place: &AzurePlace) -> Result<String, StorageError> {
    let emulator = azure.use_emulator.then(|| EMULATOR_ACCOUNT.to_owned());
    let known = place.account.clone().or_else(|| azure.account.clone()).or(emulator);
    known.ok_or_else(|| StorageError::Setting("azure.account: no storage account is named".to_owned()))
}

/// URL of the blob service of an account.
fn endpoint(azure: &Azure, place: &AzurePlace, account: &str) -> String {
    let given = azure.endpoint.as_deref().map(|url| url.trim_end_matches('/'));
    if !azure.use_emulator {
        return given.map_or_else(|| format!("https://{account}.blob.{}", place.cloud), str::to_owned);
    }
    // An emulator has the account in the path.
    let url = given.unwrap_or(EMULATOR_ENDPOINT);
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { url.to_owned() } else { format!("{url}/{account}") }
}

fn builder(
    config: &Config,
    place: &AzurePlace,
    account: &str,
    address: &str,
) -> Result<MicrosoftAzureBuilder, StorageError> {
    let azure = &config.azure;
    let timeout = config.store.request_timeout.min(CONNECT_TIMEOUT_MAX);
    // Whoever asks has a deadline for each request, and for each piece of a long answer. What fails at once is repeated
    // within it: a table is opened by dozens of requests, and if one in ten is throttled they never all succeed at once.
    let options =
        ClientOptions::new().with_timeout_disabled().with_connect_timeout(timeout).with_allow_http(azure.use_emulator);
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, ..BackoffConfig::default() },
        max_retries: REPETITIONS,
        retry_timeout: config.store.request_timeout,
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_http_connector(SpawnedReqwestConnector::new(requests()?.handle().clone()))
        .with_client_options(options)
        .with_retry(retry)
        .with_account(account)
        .with_container_name(&place.container)
        .with_endpoint(address.to_owned());
    if let Some(host) = &azure.authority_host {
        builder = builder.with_authority_host(host.trim_end_matches('/'));
    }
    let set = |builder: MicrosoftAzureBuilder, key, value: &Option<String>| match value {
        Some(value) => builder.with_config(key, value),
        None => builder,
    };
    Ok(match azure.credential {
        Credential::AccessKey => {
            let given = secret("access_key", azure.access_key.as_ref(), azure.access_key_file.as_deref())?;
            let emulator = || azure.use_emulator.then(|| Secret::from(EMULATOR_KEY.to_owned()));
            builder.with_access_key(needed("access_key", given.or_else(emulator))?.expose())
        }
        Credential::SasToken => {
            let given = secret("sas_token", azure.sas_token.as_ref(), azure.sas_token_file.as_deref())?;
            builder.with_config(AzureConfigKey::SasKey, needed("sas_token", given)?.expose())
        }
        Credential::BearerToken => {
            let given = secret("bearer_token", azure.bearer_token.as_ref(), azure.bearer_token_file.as_deref())?;
            builder.with_bearer_token_authorization(needed("bearer_token", given)?.expose())
        }
        Credential::ClientSecret => {
            let given = secret("client_secret", azure.client_secret.as_ref(), azure.client_secret_file.as_deref())?;
            let builder = set(builder, AzureConfigKey::ClientId, &azure.client_id);
            let builder = set(builder, AzureConfigKey::AuthorityId, &azure.tenant_id);
            builder.with_client_secret(needed("client_secret", given)?.expose())
        }
        Credential::WorkloadIdentity => {
            let file = azure.federated_token_file.as_ref().map(|file| file.to_string_lossy().into_owned());
            let builder = set(builder, AzureConfigKey::ClientId, &azure.client_id);
            let builder = set(builder, AzureConfigKey::AuthorityId, &azure.tenant_id);
            set(builder, AzureConfigKey::FederatedTokenFile, &file)
        }
        Credential::ManagedIdentity | Credential::Auto => {
            let builder = set(builder, AzureConfigKey::ClientId, &azure.client_id);
            let builder = set(builder, AzureConfigKey::ObjectId, &azure.managed_identity_object_id);
            let builder = set(builder, AzureConfigKey::MsiResourceId, &azure.managed_identity_resource_id);
            set(builder, AzureConfigKey::MsiEndpoint, &azure.managed_identity_endpoint)
        }
        Credential::AzureCli => builder.with_use_azure_cli(true),
        Credential::Anonymous => builder.with_skip_signature(true),
    })
}

fn needed(name: &str, secret: Option<Secret>) -> Result<Secret, StorageError> {
    secret.ok_or_else(|| StorageError::Setting(format!("azure.{name}: there is none")))
}

/// A secret, or what stands in its file.
fn secret(name: &str, given: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, StorageError> {
    let Some(file) = file.filter(|_| given.is_none()) else { return Ok(given.cloned()) };
    let refuse = |why: String| StorageError::Setting(format!("azure.{name}_file = {:?}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    // Wiped when it goes.
    let whole = Secret::from(text);
    let text = whole.expose().trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(refuse("it must hold the secret and nothing else".to_owned()));
    }
    Ok(Some(Secret::from(text.to_owned())))
}

/// Asks once for anything: whoever is refused, or has misspelt a name, should learn that before all else. A service that
/// answers but is busy is left to those who need it.
fn knock(
    store: &Arc<dyn ObjectStore>,
    place: &AzurePlace,
    address: &str,
    patience: Duration,
) -> Result<(), StorageError> {
    let below = Key::from(place.path.as_str());
    let ask = async || {
        let first = async { store.list(Some(&below)).next().await.transpose().map(drop) };
        tokio::time::timeout(patience, first).await.unwrap_or(Ok(()))
    };
    let Err(error) = requests()?.block_on(ask()) else { return Ok(()) };
    let words = explained::words(&error);
    let problem = if is_unreached(&error) {
        format!("nobody answers at {address}; check the name of the account, and azure.endpoint: {words}")
    } else if explained::is_final(&error) {
        words
    } else {
        return Ok(());
    };
    Err(StorageError::Refused { place: place.to_string(), problem })
}

/// Whether no connection came about.
fn is_unreached(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return http.kind() == HttpErrorKind::Connect;
        }
        cause = error.source();
    }
    false
}
