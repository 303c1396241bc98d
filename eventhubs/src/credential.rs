//! Who we are to Microsoft Entra ID.

use std::sync::Arc;

use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_identity::{
    ClientSecretCredential, DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// A way to get tokens.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Whoever is signed in to the Azure CLI or the Azure Developer CLI.
    DeveloperTools,
    /// The identity that Azure gives the machine, or the one with this client id.
    Managed {
        /// Client id of a user-assigned identity.
        client_id: Option<String>,
    },
    /// A federated token in a file, as Kubernetes projects it. What is not given is taken from the variables that the
    /// workload identity webhook sets.
    Workload {
        /// Tenant.
        tenant_id: Option<String>,
        /// Application.
        client_id: Option<String>,
        /// The file.
        token_file: Option<String>,
    },
    /// An application with a secret.
    ClientSecret {
        /// Tenant.
        tenant_id: String,
        /// Application.
        client_id: String,
        /// Its secret.
        secret: Secret,
    },
}

impl Identity {
    /// The credential. No token is asked for yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when something is missing or malformed.
    pub fn credential(&self) -> Result<Arc<dyn TokenCredential>, Error> {
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match self.clone() {
            Identity::DeveloperTools => DeveloperToolsCredential::new(None).map(|made| made as _),
            Identity::Managed { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(UserAssignedId::ClientId),
                    ..Default::default()
                };
                ManagedIdentityCredential::new(Some(options)).map(|made| made as _)
            }
            Identity::Workload { tenant_id, client_id, token_file } => {
                let options = WorkloadIdentityCredentialOptions {
                    tenant_id,
                    client_id,
                    token_file_path: token_file.map(Into::into),
                    ..Default::default()
                };
                WorkloadIdentityCredential::new(Some(options)).map(|made| made as _)
            }
            Identity::ClientSecret { tenant_id, client_id, secret } => {
                let secret = AzureSecret::new(secret.expose().to_owned());
                ClientSecretCredential::new(&tenant_id, client_id, secret, None).map(|made| made as _)
            }
        };
        made.map_err(|error| Error::new(ErrorKind::Usage, "the credential", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_missing_is_usage_and_secrets_stay_hidden() {
        let identity = Identity::ClientSecret {
            tenant_id: "not a tenant!".into(),
            client_id: "app".into(),
            secret: Secret::new("hunter2"),
        };
        let error = identity.credential().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(!format!("{identity:?} {error}").contains("hunter2"));
        let good = Identity::ClientSecret {
            tenant_id: "00000000-0000-0000-0000-000000000000".into(),
            client_id: "app".into(),
            secret: Secret::new("hunter2"),
        };
        assert!(good.credential().is_ok());
    }
}
