//! Where tables and checkpoint lie: a directory of this machine, or a place in Azure Storage.
//!
//! Only what a text means is settled here. Credentials are in the section `[azure]`, and opening is for others.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What is allowed, in words.
pub const ALLOWED: &str = "a path on a local disk, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, \
     az://CONTAINER/PATH or https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH";

/// Ends of the names of hosts, in the public cloud and in the national ones.
const CLOUDS: [&str; 3] = ["core.windows.net", "core.usgovcloudapi.net", "core.chinacloudapi.cn"];

/// A directory or a place in Azure Storage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// A path in a container.
    Azure(AzurePlace),
}

/// A path in a container of a storage account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzurePlace {
    /// As it was given, without a slash at the end.
    text: String,
    /// The account, where the URL names one.
    pub account: Option<String>,
    /// The cloud of that account: the end of its hosts' names.
    pub cloud: &'static str,
    /// The container.
    pub container: String,
    /// The path in it, without slashes around; empty for the container itself.
    pub path: String,
}

impl Place {
    /// Reads a path or URL; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Place> {
        match text.split_once("://") {
            None if is_urn(text) || text.is_empty() || text.contains('\0') => None,
            None => Some(Place::Local(PathBuf::from(text))),
            Some((scheme, rest)) => AzurePlace::parse(text, &scheme.to_ascii_lowercase(), rest).map(Place::Azure),
        }
    }

    /// The place of that name below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Place {
        match self {
            Place::Local(path) => Place::Local(path.join(name)),
            Place::Azure(place) => {
                let path = if place.path.is_empty() { name.to_owned() } else { format!("{}/{name}", place.path) };
                Place::Azure(AzurePlace { text: format!("{}/{name}", place.text), path, ..place.clone() })
            }
        }
    }

    /// The directory, if it is one of this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Place::Local(path) => Some(path),
            Place::Azure(_) => None,
        }
    }

    /// The place in Azure Storage, if it is one.
    pub fn azure(&self) -> Option<&AzurePlace> {
        match self {
            Place::Local(_) => None,
            Place::Azure(place) => Some(place),
        }
    }

    /// For messages.
    pub fn display(&self) -> &Self {
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local(path) => path.display().fmt(f),
            Place::Azure(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for AzurePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Place, String> {
        Place::parse(&text).ok_or_else(|| format!("allowed: {ALLOWED}"))
    }
}

impl AzurePlace {
    fn parse(text: &str, scheme: &str, rest: &str) -> Option<AzurePlace> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (container, account, path) = match scheme {
            "az" | "azure" | "abfs" | "abfss" => match authority.split_once('@') {
                Some((container, host)) if scheme.starts_with("abfs") => (container, Some(host), path),
                Some(_) => return None,
                None => (authority, None, path),
            },
            "https" => {
                let (container, path) = path.split_once('/').unwrap_or((path, ""));
                (container, Some(authority), path)
            }
            _ => return None,
        };
        let (account, cloud) = match account.map(account_of) {
            Some(found) => found.map(|(account, cloud)| (Some(account.to_owned()), cloud))?,
            None => (None, CLOUDS[0]),
        };
        let path = path.trim_end_matches('/');
        let fits = is_container(container) && account.as_deref().is_none_or(is_account) && is_path(path);
        let text = text.trim_end_matches('/').to_owned();
        fits.then(|| AzurePlace { text, account, cloud, container: container.to_owned(), path: path.to_owned() })
    }
}

/// The account that a host belongs to, and its cloud.
fn account_of(host: &str) -> Option<(&str, &'static str)> {
    let (account, rest) = host.split_once('.')?;
    let domain = rest.strip_prefix("dfs.").or_else(|| rest.strip_prefix("blob."))?;
    CLOUDS.into_iter().find(|cloud| *cloud == domain).map(|cloud| (account, cloud))
}

/// Names of containers, as the service allows them.
fn is_container(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
        && !name.contains("--")
}

/// Names of storage accounts, as the service allows them.
pub(super) fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Paths that mean the same in a URL, in a blob's name and to every reader of the tables: no escapes, no empty steps.
fn is_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=+,@~()".contains(c);
    let step = |step: &str| !step.is_empty() && step != "." && step != ".." && step.chars().all(plain);
    path.is_empty() || path.split('/').all(step)
}

/// `file:/x` and the like: a scheme without slashes. One letter is a drive, and a colon may stand in a file's name.
fn is_urn(text: &str) -> bool {
    text.split_once(":/").is_some_and(|(scheme, _)| scheme.len() > 1 && scheme.chars().all(char::is_alphanumeric))
}

/// A text as it may be printed: whatever a URL can carry besides a place may be a secret.
pub(super) fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => format!("{user}:****@{host}"),
        _ => authority.to_owned(),
    };
    let query = if query.is_empty() { "" } else { "?****" };
    format!("{scheme}://{authority}{path}{query}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn azure(text: &str) -> (Option<String>, String, String, String) {
        let place = Place::parse(text).unwrap();
        let Place::Azure(AzurePlace { account, container, path, .. }) = place.clone() else { panic!("{text}") };
        (account, container, path, place.to_string())
    }

    #[test]
    fn every_form_of_url_names_account_container_and_path() {
        for (text, account, container, path) in [
            ("abfss://lake@acme.dfs.core.windows.net/pay/v1", Some("acme"), "lake", "pay/v1"),
            ("abfs://lake@acme.blob.core.windows.net", Some("acme"), "lake", ""),
            ("abfss://lake@acme.dfs.core.chinacloudapi.cn/x", Some("acme"), "lake", "x"),
            ("https://acme.blob.core.windows.net/lake/pay", Some("acme"), "lake", "pay"),
            ("https://acme.dfs.core.windows.net/lake", Some("acme"), "lake", ""),
            ("az://lake/pay/v1", None, "lake", "pay/v1"),
            ("azure://lake", None, "lake", ""),
            ("abfss://lake/x", None, "lake", "x"),
        ] {
            let shown = (account.map(str::to_owned), container.to_owned(), path.to_owned(), text.to_owned());
            assert_eq!(azure(text), shown);
            let with_slash = azure(&format!("{text}/"));
            assert_eq!(with_slash, shown, "a slash at the end says nothing");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "s3://bucket/x",
            "gs://bucket/x",
            "file:///data",
            "file:/data",
            "http://acme.blob.core.windows.net/lake",
            "https://example.com/lake/x",
            "https://acme.blob.core.windows.net",
            "https://acme.blob.core.windows.net/lake/x?sv=1&sig=abc",
            "abfss://lake@acme.dfs.example.com/x",
            "abfss://lake:key@acme.dfs.core.windows.net/x",
            "az://lake@acme.dfs.core.windows.net/x",
            "az://la/x",
            "az://Lake/x",
            "az:///x",
            "az://lake//x",
            "az://lake/a/../b",
            "az://lake/a%20b",
            "az://lake/x#y",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        for text in ["data", "./data", "/data", "a:b", "c:/data", "x y/é"] {
            assert_eq!(Place::parse(text), Some(Place::Local(text.into())), "{text}");
        }
    }

    #[test]
    fn a_place_below_another_is_of_the_same_container() {
        let below = |text: &str| azure(&Place::parse(text).unwrap().join("_tidemark").to_string());
        assert_eq!(below("az://lake/pay/").2, "pay/_tidemark");
        assert_eq!(below("abfss://lake@acme.dfs.core.windows.net").2, "_tidemark");
        assert_eq!(Place::parse("data").unwrap().join("_tidemark").to_string(), "data/_tidemark");
    }

    #[test]
    fn secrets_in_a_url_are_not_repeated() {
        for (text, shown) in [
            ("https://a.blob.core.windows.net/c/x?sv=1&sig=abc", "https://a.blob.core.windows.net/c/x?****"),
            ("abfss://c:secret@a.dfs.core.windows.net/x", "abfss://c:****@a.dfs.core.windows.net/x"),
            ("az://lake/x", "az://lake/x"),
            ("a?b", "a?b"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
