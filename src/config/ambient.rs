//! The environment variables that other programs of Azure read as well, as a layer of its own: over the defaults, and
//! below everything that was written for Tidemark.

use super::kind::Raw;
use super::layers::Given;
use super::problem::{Origin, Problem};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables and the settings that they give. Of several for one setting, the first that is there counts.
pub const VARIABLES: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ACCOUNT_NAME", "azure.account"),
    ("AZURE_STORAGE_ACCOUNT", "azure.account"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "azure.access_key"),
    ("AZURE_STORAGE_ACCESS_KEY", "azure.access_key"),
    ("AZURE_STORAGE_KEY", "azure.access_key"),
    ("AZURE_STORAGE_SAS_TOKEN", "azure.sas_token"),
    ("AZURE_TENANT_ID", "azure.tenant_id"),
    ("AZURE_CLIENT_ID", "azure.client_id"),
    ("AZURE_CLIENT_SECRET", "azure.client_secret"),
    ("AZURE_FEDERATED_TOKEN_FILE", "azure.federated_token_file"),
    ("AZURE_AUTHORITY_HOST", "azure.authority_host"),
    ("EVENT_HUB_CONNECTION_STRING", "eventhubs.connection_string"),
    ("EVENT_HUB_NAME", "eventhubs.name"),
];

/// The variable that gives several settings at once; what single variables say goes before it.
pub const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";

/// Whether a value came from one of these variables.
pub fn is_ambient(origin: &Origin) -> bool {
    matches!(origin, Origin::Environment(name) if name == CONNECTION_STRING || VARIABLES.iter().any(|(v, _)| v == name))
}

/// Reads the variables. The problem is a connection string that is none, which matters to those alone who need one.
pub fn read(variables: &[(OsString, OsString)]) -> (Vec<Given>, Option<Problem>) {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    };
    let mut found: BTreeMap<&str, Given> = BTreeMap::new();
    let mut give = |key: &'static str, text: String, variable: &str| {
        let origin = Origin::Environment(variable.to_owned());
        found.entry(key).or_insert(Given { key: key.to_owned(), raw: Raw::Word(text), origin });
    };
    for (variable, key) in VARIABLES {
        if let Some(text) = value(variable) {
            give(key, text, variable);
        }
    }
    let mut problem = None;
    match value(CONNECTION_STRING).map(|text| settings_of(&text)) {
        Some(Some(settings)) => settings.into_iter().for_each(|(key, text)| give(key, text, CONNECTION_STRING)),
        Some(None) => {
            problem = Some(Problem {
                subject: CONNECTION_STRING.to_owned(),
                origin: Origin::Environment(CONNECTION_STRING.to_owned()),
                complaint: "not a connection string of a storage account; expected AccountName=…;AccountKey=…"
                    .to_owned(),
            });
        }
        None => {}
    }
    (found.into_values().collect(), problem)
}

/// The settings in a connection string.
fn settings_of(text: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parts = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        // Keys end with equals signs.
        let (name, value) = part.split_once('=')?;
        parts.insert(name.trim().to_ascii_lowercase(), value.trim());
    }
    let part = |name: &str| parts.get(name).copied().filter(|value| !value.is_empty());
    if part("usedevelopmentstorage").is_some_and(|on| on.eq_ignore_ascii_case("true")) {
        return Some(vec![("azure.use_emulator", "true".to_owned())]);
    }
    let account = part("accountname");
    let endpoint = part("blobendpoint").map(str::to_owned).or_else(|| {
        let suffix = part("endpointsuffix").filter(|suffix| *suffix != "core.windows.net")?;
        Some(format!("{}://{}.blob.{suffix}", part("defaultendpointsprotocol").unwrap_or("https"), account?))
    });
    // Its endpoint has the account in the path, as no other service does.
    let emulator = endpoint.as_deref().zip(account).is_some_and(|(url, name)| url.ends_with(&format!("/{name}")));
    let mut settings = Vec::new();
    settings.extend(account.map(|name| ("azure.account", name.to_owned())));
    settings.extend(part("accountkey").map(|key| ("azure.access_key", key.to_owned())));
    settings.extend(part("sharedaccesssignature").map(|token| ("azure.sas_token", token.to_owned())));
    settings.extend(endpoint.map(|url| ("azure.endpoint", url)));
    settings.extend(emulator.then(|| ("azure.use_emulator", "true".to_owned())));
    let whole = part("accountkey").is_some() && account.is_some() || part("sharedaccesssignature").is_some();
    whole.then_some(settings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Vec<(String, String, String)>, Option<String>) {
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (given, problem) = super::read(&variables);
        let shown = |given: Given| {
            let Raw::Word(text) = given.raw else { panic!("{:?}", given.raw) };
            (given.key, text, given.origin.to_string())
        };
        (given.into_iter().map(shown).collect(), problem.map(|problem| problem.to_string()))
    }

    fn given(key: &str, text: &str, variable: &str) -> (String, String, String) {
        (key.to_owned(), text.to_owned(), format!("environment variable {variable}"))
    }

    #[test]
    fn the_first_variable_for_a_setting_counts_and_empty_ones_do_not() {
        let (found, _) = read(&[
            ("AZURE_STORAGE_KEY", "third"),
            ("AZURE_STORAGE_ACCESS_KEY", "second"),
            ("AZURE_STORAGE_ACCOUNT_KEY", ""),
            ("AZURE_UNKNOWN", "x"),
        ]);
        assert_eq!(found, [given("azure.access_key", "second", "AZURE_STORAGE_ACCESS_KEY")]);
    }

    #[test]
    fn a_connection_string_gives_what_no_variable_of_its_own_does() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a+b/c==;EndpointSuffix=core.windows.net";
        let (found, _) = read(&[(CONNECTION_STRING, text), ("AZURE_STORAGE_ACCOUNT_NAME", "other")]);
        assert_eq!(
            found,
            [
                given("azure.access_key", "a+b/c==", CONNECTION_STRING),
                given("azure.account", "other", "AZURE_STORAGE_ACCOUNT_NAME")
            ]
        );
    }

    #[test]
    fn endpoints_of_other_clouds_and_of_the_emulator_are_taken() {
        let settings = |text| settings_of(text).unwrap();
        let china = settings("AccountName=acme;AccountKey=k;EndpointSuffix=core.chinacloudapi.cn");
        assert!(china.contains(&("azure.endpoint", "https://acme.blob.core.chinacloudapi.cn".to_owned())), "{china:?}");
        let local = settings("AccountName=dev1;AccountKey=k;BlobEndpoint=http://127.0.0.1:10000/dev1;");
        assert!(local.contains(&("azure.use_emulator", "true".to_owned())), "{local:?}");
        assert_eq!(settings("UseDevelopmentStorage=true"), [("azure.use_emulator", "true".to_owned())]);
        let sas = settings("BlobEndpoint=https://acme.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x%3D");
        assert!(sas.contains(&("azure.sas_token", "sv=1&sig=x%3D".to_owned())), "{sas:?}");
    }

    #[test]
    fn what_is_no_connection_string_is_a_problem_that_does_not_repeat_it() {
        for text in ["hunter2", "AccountName=acme", "AccountKey=hunter2", "a;b"] {
            let (found, problem) = read(&[(CONNECTION_STRING, text)]);
            let problem = problem.unwrap();
            assert!(found.is_empty() && problem.contains("AccountName=") && !problem.contains("hunter2"), "{problem}");
        }
    }
}
