//! A connection string that is kept in Azure Key Vault.

use std::time::Duration;

use azure_security_keyvault_secrets::{SecretClient, models::SecretClientGetSecretOptions};
use tokio::time::timeout;
use url::Url;

use crate::credential::Identity;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// A secret of a vault: `https://VAULT.vault.azure.net/secrets/NAME`, or that with `/VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUrl {
    vault: String,
    name: String,
    version: Option<String>,
}

impl SecretUrl {
    /// Reads the URL of a secret.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let form = "expected https://VAULT.vault.azure.net/secrets/NAME, with or without /VERSION";
            Error::new(ErrorKind::Usage, format!("the secret {text}"), form)
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let host = url.host_str().filter(|_| url.scheme() == "https").ok_or_else(wrong)?;
        let parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        let (name, version) = match parts[..] {
            ["secrets", name] => (name, None),
            ["secrets", name, version] => (name, Some(version.to_owned())),
            _ => return Err(wrong()),
        };
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        Ok(SecretUrl { vault: format!("https://{host}{port}"), name: name.to_owned(), version })
    }

    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// When the vault does not answer within `patience`, refuses, or has no such secret.
    pub async fn read(&self, identity: &Identity, patience: Duration) -> Result<Secret, Error> {
        let what = format!("the secret {} of {}", self.name, self.vault);
        let client = SecretClient::new(&self.vault, identity.credential()?, None);
        let client = client.map_err(|error| Error::of_core(what.clone(), &error))?;
        let options = SecretClientGetSecretOptions { secret_version: self.version.clone(), ..Default::default() };
        let read = async { client.get_secret(&self.name, Some(options)).await?.into_model() };
        let secret = timeout(patience, read).await;
        let secret = secret.map_err(|_| Error::timeout(what.clone(), patience.as_secs_f64()))?;
        let secret = secret.map_err(|error| Error::of_core(what.clone(), &error))?;
        let value = secret.value.filter(|value| !value.is_empty());
        value.map(Secret::new).ok_or_else(|| Error::new(ErrorKind::NotFound, what, "it is empty"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_url_of_a_secret_has_a_vault_a_name_and_perhaps_a_version() {
        let plain = SecretUrl::parse("https://v.vault.azure.net/secrets/hub").unwrap();
        assert_eq!((plain.vault.as_str(), plain.name.as_str()), ("https://v.vault.azure.net", "hub"));
        assert_eq!(plain.version, None);
        let version = SecretUrl::parse("https://v.vault.azure.net/secrets/hub/0123").unwrap();
        assert_eq!(version.version.as_deref(), Some("0123"));
        for wrong in ["hub", "http://v/secrets/a", "https://v/keys/a", "https://v/secrets", "https://v/secrets/a/b/c"] {
            assert_eq!(SecretUrl::parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
