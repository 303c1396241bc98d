//! `[azure]`: the storage account, who we are there, and the rules by which several settings make one credential.

use super::ambient::is_ambient;
use super::draft::{Assigned, Draft};
use super::kind::Value;
use super::place::{AzurePlace, Place, is_account};
use super::problem::{Origin, Problem};
use super::secret::Secret;
use super::table::find;
use serde::Deserialize;
use std::path::PathBuf;

/// How a request to Azure says who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// Not settled, since nothing lies in Azure Storage.
    Auto,
    /// The key of the storage account.
    AccessKey,
    /// A shared access signature.
    SasToken,
    /// A token of Microsoft Entra ID that somebody else has got.
    BearerToken,
    /// A service principal with its secret.
    ClientSecret,
    /// A service principal, or a managed identity, by a token of the cluster.
    WorkloadIdentity,
    /// The identity of the machine.
    ManagedIdentity,
    /// The user who has logged in with the Azure CLI.
    AzureCli,
    /// None: for containers that anybody may read.
    Anonymous,
}

/// `[azure]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Azure {
    /// Name of the storage account, for URLs that name none.
    pub account: Option<String>,
    /// URL of the blob service, where it does not follow from the account.
    pub endpoint: Option<String>,
    /// Whether the service is Azurite.
    pub use_emulator: bool,
    /// Which of the following is used; settled if anything lies in Azure Storage.
    pub credential: Credential,
    /// Key of the account.
    pub access_key: Option<Secret>,
    /// The same in a file.
    pub access_key_file: Option<PathBuf>,
    /// Shared access signature.
    pub sas_token: Option<Secret>,
    /// The same in a file.
    pub sas_token_file: Option<PathBuf>,
    /// Token of Microsoft Entra ID.
    pub bearer_token: Option<Secret>,
    /// The same in a file.
    pub bearer_token_file: Option<PathBuf>,
    /// Tenant of Microsoft Entra ID. Not for storage alone.
    pub tenant_id: Option<String>,
    /// Application or managed identity. Not for storage alone.
    pub client_id: Option<String>,
    /// Secret of the application. Not for storage alone.
    pub client_secret: Option<Secret>,
    /// The same in a file.
    pub client_secret_file: Option<PathBuf>,
    /// Where the cluster puts its token. Not for storage alone.
    pub federated_token_file: Option<PathBuf>,
    /// Where tokens are asked for. Not for storage alone.
    pub authority_host: Option<String>,
    /// A managed identity by its object id.
    pub managed_identity_object_id: Option<String>,
    /// A managed identity by its resource id.
    pub managed_identity_resource_id: Option<String>,
    /// Where a managed identity asks for tokens.
    pub managed_identity_endpoint: Option<String>,
}

/// Ways to be known, the keys of which one is given, and the keys that all are needed besides.
const WAYS: [(&str, &[&str], &[&str]); 5] = [
    ("access_key", &["azure.access_key", "azure.access_key_file"], &[]),
    ("sas_token", &["azure.sas_token", "azure.sas_token_file"], &[]),
    ("bearer_token", &["azure.bearer_token", "azure.bearer_token_file"], &[]),
    ("client_secret", &["azure.client_secret", "azure.client_secret_file"], &["azure.tenant_id", "azure.client_id"]),
    ("workload_identity", &["azure.federated_token_file"], &["azure.tenant_id", "azure.client_id"]),
];

/// The first of them are of storage; the others are of Microsoft Entra ID, and may be given for another service.
const OF_STORAGE: usize = 3;

impl Draft {
    /// The places in Azure Storage that are configured, by key.
    pub(super) fn azure_places(&self) -> Vec<(&'static str, AzurePlace)> {
        let place = |key| match &self.sound(key)?.value {
            Value::Text(text) => Place::parse(text)?.azure().cloned().map(|place| (key, place)),
            _ => None,
        };
        ["output.path", "checkpoint.path"].into_iter().filter_map(place).collect()
    }

    /// Judges the section as a whole, if it is needed, and settles which credential is meant.
    pub(super) fn check_azure(&mut self) {
        let places = self.azure_places();
        let faulty = |key: &&str| self.values.contains_key(*key) && self.sound(key).is_none();
        let keys = super::SETTINGS.iter().map(|setting| setting.key).filter(|key| key.starts_with("azure."));
        if places.is_empty() || keys.clone().any(|key| faulty(&key)) {
            return;
        }
        self.check_account(&places);
        self.check_endpoint();
        for (_, keys, _) in WAYS {
            self.leave_one(keys);
        }
        self.settle_credential();
    }

    /// Where a value that is not empty came from.
    pub(super) fn given(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).filter(|assigned| assigned.value != Value::Empty).map(|assigned| &assigned.origin)
    }

    fn is_own(&self, key: &str) -> bool {
        self.given(key).is_some_and(|origin| !is_ambient(origin))
    }

    fn is_on(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|assigned| assigned.value == Value::Switch(true))
    }

    fn complain(&mut self, subject: impl Into<String>, origin: Origin, complaint: impl Into<String>) {
        self.problems.push(Problem { subject: subject.into(), origin, complaint: complaint.into() });
    }

    fn check_account(&mut self, places: &[(&'static str, AzurePlace)]) {
        let assigned = self.values.get("azure.account").cloned();
        let known = assigned.as_ref().and_then(|Assigned { value, origin }| match value {
            Value::Text(account) => Some((account.clone(), origin.clone())),
            _ => None,
        });
        let emulator = self.is_on("azure.use_emulator");
        for (key, place) in places {
            let origin = self.given(key).cloned().unwrap_or(Origin::Default);
            match (&place.account, &known) {
                (Some(account), Some((known, of))) if account != known && !is_ambient(of) => {
                    let complaint = format!("{key} names the account {account}; leave out one of the two");
                    self.complain(format!("azure.account = {known:?}"), of.clone(), complaint);
                }
                (None, None) if !emulator => {
                    let complaint = "it names no storage account; set azure.account, or write \
                                     abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH";
                    self.complain(format!("{key} = \"{}\"", Place::Azure(place.clone())), origin, complaint);
                }
                (None, Some((known, of))) if !emulator && !is_account(known) => {
                    let complaint = "no name of a storage account; allowed: 3 to 24 lower-case letters and digits";
                    self.complain(format!("azure.account = {known:?}"), of.clone(), complaint);
                }
                _ => {}
            }
        }
        let mut accounts: Vec<&str> = places.iter().filter_map(|(_, place)| place.account.as_deref()).collect();
        accounts.dedup();
        let of_one = ["azure.access_key", "azure.access_key_file", "azure.sas_token", "azure.endpoint"];
        if let ([_, _], Some(key)) = (&accounts[..], of_one.into_iter().find(|key| self.is_own(key))) {
            let origin = self.given(key).cloned().unwrap_or(Origin::Default);
            let complaint =
                format!("it is of one account, but output and checkpoint lie in {}", accounts.join(" and "));
            self.complain(key, origin, complaint);
        }
    }

    fn check_endpoint(&mut self) {
        let emulator = self.is_on("azure.use_emulator");
        let Some(Assigned { value: Value::Text(url), origin }) = self.values.get("azure.endpoint") else { return };
        if url.starts_with("http://") && !emulator {
            let complaint = "it would be spoken to in clear text; allowed: https://, or azure.use_emulator as well";
            self.complain(format!("azure.endpoint = {url:?}"), origin.clone(), complaint);
        }
    }

    /// Of a secret and its file one is given; what was written for Tidemark goes before what is around anyway.
    pub(super) fn leave_one(&mut self, keys: &[&'static str]) {
        let given: Vec<&str> = keys.iter().copied().filter(|key| self.given(key).is_some()).collect();
        let own: Vec<&str> = given.iter().copied().filter(|key| self.is_own(key)).collect();
        if let [first, second] = own[..] {
            let origin = self.given(second).cloned().unwrap_or(Origin::Default);
            self.complain(second, origin, format!("{first} is given as well; leave out one of the two"));
        } else if let [own] = own[..] {
            for key in keys.iter().filter(|key| **key != own) {
                self.values.insert(key, Assigned { value: Value::Empty, origin: Origin::Default });
            }
        }
    }

    fn settle_credential(&mut self) {
        let Some(Assigned { value: Value::Text(wanted), origin }) = self.values.get("azure.credential").cloned() else {
            return;
        };
        let chosen = if wanted == "auto" {
            match self.choose() {
                Ok(chosen) => chosen,
                Err(problem) => return self.problems.push(problem),
            }
        } else {
            None
        };
        let way = chosen.map_or(wanted.as_str(), |(way, _)| way);
        let origin = chosen.map_or(origin, |(_, key)| {
            Origin::Implied(key, Box::new(self.given(key).cloned().unwrap_or(Origin::Default)))
        });
        if let Some((_, any, all)) = WAYS.into_iter().find(|(known, ..)| *known == way) {
            let emulator = self.is_on("azure.use_emulator") && way == "access_key";
            let any_missing = !emulator && !any.iter().any(|key| self.given(key).is_some());
            let mut missing: Vec<String> = any_missing.then(|| any.join(" or ")).into_iter().collect();
            missing.extend(all.iter().filter(|key| self.given(key).is_none()).map(|key| (*key).to_owned()));
            if !missing.is_empty() {
                let subject = format!("azure.credential = {way:?}");
                return self.complain(subject, origin, format!("it also needs {}", missing.join(", ")));
            }
        }
        let way = if way == "auto" { "managed_identity" } else { way };
        if let Some(setting) = find("azure.credential") {
            self.values.insert(setting.key, Assigned { value: Value::Text(way.to_owned()), origin });
        }
    }

    /// The way that follows from what is given, with the key that says so: what was written for Tidemark goes before
    /// what is around anyway, and credentials of storage before those of Microsoft Entra ID.
    fn choose(&self) -> Result<Option<(&'static str, &'static str)>, Problem> {
        for own in [true, false] {
            for ways in [&WAYS[..OF_STORAGE], &WAYS[OF_STORAGE..]] {
                let marker = |keys: &[&'static str]| keys.iter().copied().find(|key| self.given(key).is_some());
                let found = ways.iter().filter_map(|(way, keys, _)| Some((*way, marker(keys)?)));
                let found: Vec<_> = found.filter(|(_, key)| self.is_own(key) == own).collect();
                match found[..] {
                    [] => {}
                    [one] => return Ok(Some(one)),
                    [(_, first), (_, second), ..] => {
                        let complaint = format!("{first} is given as well; say which is meant with azure.credential");
                        let origin = self.given(second).cloned().unwrap_or(Origin::Default);
                        return Err(Problem { subject: second.to_owned(), origin, complaint });
                    }
                }
            }
        }
        Ok(self.is_on("azure.use_emulator").then_some(("access_key", "azure.use_emulator")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::kind::Raw;
    use super::super::{Effective, Given, Layers};
    use super::*;

    const OUTPUT: (&str, &str) = ("output.path", "abfss://lake@acme.dfs.core.windows.net/pay");

    fn load(own: &[(&str, &str)], around: &[(&str, &str)]) -> Result<Effective, String> {
        let named = |key: &str| format!("TIDEMARK__{}", key.to_uppercase().replace('.', "__"));
        let own = own.iter().map(|(key, value)| (named(key).into(), (*value).into()));
        let around = around.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let environment = own.chain(around).collect();
        Effective::load(Layers { environment, ..Layers::default() }).map_err(|problems| problems.to_string())
    }

    fn chosen(own: &[(&str, &str)], around: &[(&str, &str)]) -> (Credential, String) {
        let effective = load(own, around).unwrap();
        let (_, assigned) = effective.iter().find(|(setting, _)| setting.key == "azure.credential").unwrap();
        (effective.config.azure.credential, assigned.origin.to_string())
    }

    #[test]
    fn the_credential_follows_from_what_is_given() {
        let entra = [("azure.tenant_id", "t"), ("azure.client_id", "c"), ("azure.client_secret", "s")];
        let with = |more: &[(&'static str, &'static str)]| [&[OUTPUT][..], more].concat();
        assert_eq!(chosen(&[OUTPUT], &[]), (Credential::ManagedIdentity, "default".to_owned()));
        let implied = |key: &str| {
            format!("implied by {key} from environment variable TIDEMARK__{}", key.to_uppercase().replace('.', "__"))
        };
        let key = ("azure.access_key", "k");
        assert_eq!(chosen(&with(&[key]), &[]), (Credential::AccessKey, implied("azure.access_key")));
        assert_eq!(chosen(&with(&entra), &[]).0, Credential::ClientSecret);
        // Event Hubs may need the principal, storage has its key.
        assert_eq!(chosen(&with(&[&entra[..], &[key]].concat()), &[]).0, Credential::AccessKey);
        let explicit = [&entra[..], &[key, ("azure.credential", "client_secret")]].concat();
        assert_eq!(chosen(&with(&explicit), &[]).0, Credential::ClientSecret);
        assert_eq!(chosen(&with(&[("azure.use_emulator", "true")]), &[]).0, Credential::AccessKey);
        assert_eq!(chosen(&with(&[("azure.credential", "azure_cli")]), &[]).0, Credential::AzureCli);
    }

    #[test]
    fn what_was_written_for_tidemark_goes_before_what_is_around() {
        let around = [("AZURE_STORAGE_ACCOUNT_KEY", "k"), ("AZURE_STORAGE_ACCOUNT_NAME", "other")];
        let found = chosen(&[OUTPUT], &around);
        let origin = "implied by azure.access_key from environment variable AZURE_STORAGE_ACCOUNT_KEY";
        assert_eq!(found, (Credential::AccessKey, origin.to_owned()));
        let own = [OUTPUT, ("azure.sas_token", "sv=1&sig=x")];
        assert_eq!(chosen(&own, &around).0, Credential::SasToken);
        let entra = [OUTPUT, ("azure.tenant_id", "t"), ("azure.client_id", "c"), ("azure.client_secret", "s")];
        assert_eq!(chosen(&entra, &around).0, Credential::ClientSecret);
        let cluster = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
        ];
        assert_eq!(chosen(&[OUTPUT], &cluster).0, Credential::WorkloadIdentity);
        let effective = load(&[OUTPUT, ("azure.access_key_file", "f")], &around).unwrap();
        assert_eq!(effective.config.azure.access_key, None, "the key around is not of that file");
    }

    #[test]
    fn what_contradicts_itself_or_is_not_whole_is_refused() {
        let az = ("output.path", "az://lake/pay");
        for (own, words) in [
            (
                &[OUTPUT, ("azure.access_key", "hunter2"), ("azure.sas_token", "hunter2")][..],
                "azure.access_key is given",
            ),
            (&[OUTPUT, ("azure.access_key", "hunter2"), ("azure.access_key_file", "f")], "leave out one"),
            (&[OUTPUT, ("azure.client_secret", "hunter2")], "also needs azure.tenant_id, azure.client_id"),
            (&[OUTPUT, ("azure.credential", "sas_token")], "also needs azure.sas_token or azure.sas_token_file"),
            (&[OUTPUT, ("azure.account", "other")], "names the account acme"),
            (&[OUTPUT, ("azure.endpoint", "http://acme.example.com")], "clear text"),
            (&[az], "set azure.account"),
            (&[az, ("azure.account", "Not_An_Account")], "3 to 24"),
            (
                &[
                    OUTPUT,
                    ("checkpoint.path", "abfss://c01@zeta.dfs.core.windows.net"),
                    ("azure.access_key", "hunter2"),
                ],
                "lie in acme and zeta",
            ),
            (&[("output.path", "s3://bucket/x")], "allowed: a path on a local disk, abfss://"),
            (&[("output.path", "https://acme.blob.core.windows.net/lake?sig=hunter2")], "lake?****"),
        ] {
            let problem = load(own, &[]).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{own:?}: {problem}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn what_is_around_matters_only_to_those_who_need_it() {
        let around = [("AZURE_STORAGE_CONNECTION_STRING", "hunter2"), ("AZURE_CLIENT_SECRET", "s")];
        assert_eq!(chosen(&[], &around).0, Credential::Auto);
        let problem = load(&[OUTPUT], &around).unwrap_err();
        assert!(problem.contains("not a connection string") && !problem.contains("hunter2"), "{problem}");
    }

    #[test]
    fn secrets_are_taken_neither_from_flags_nor_shown() {
        let flag = |key: &str| Given {
            key: key.to_owned(),
            raw: Raw::Word("hunter2".to_owned()),
            origin: Origin::Flag("--set".to_owned()),
        };
        let layers = Layers { flags: vec![flag("azure.access_key")], ..Layers::default() };
        let problem = Effective::load(layers).unwrap_err().to_string();
        assert!(problem.contains("****") && !problem.contains("hunter2"), "{problem}");
        let effective = load(&[OUTPUT, ("azure.access_key", "hunter2")], &[]).unwrap();
        let shown = format!(
            "{effective:?}{}{}{}",
            super::super::show::human(&effective),
            super::super::show::json(&effective),
            super::super::show::toml(&effective)
        );
        assert!(shown.contains("****") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(effective.config.azure.access_key.unwrap().expose(), "hunter2");
    }
}
