//! What a person reads who has given a wrong key, name or setting, and that nothing is written then.

use std::net::TcpListener;

use super::azurite::{ACCOUNT, Container};
use crate::data::eventful;
use crate::program::{Case, Ended, finish, tidemark};

/// A key that is none of anybody.
const WRONG: &str = "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50LCBub3IgYW55IG90aGVy";

/// A run to that output with these variables of the section `azure`.
fn run(case: &Case, output: &str, azure: &[(&str, &str)]) -> Ended {
    let mut command = tidemark(case.root(), ["run", "--input", "in", "--output", output]);
    for (key, value) in azure {
        command.env(format!("TIDEMARK__AZURE__{key}"), value);
    }
    finish(&mut command, b"")
}

#[test]
fn a_wrong_key_and_a_missing_container_are_told_at_once() {
    let Some(container) = Container::new() else { return };
    let case = Case::of(&eventful(61, &[5]));
    let endpoint = container.endpoint();
    let here = [("USE_EMULATOR", "true"), ("ENDPOINT", &endpoint)];
    let with = |key: &'static str, value: &'static str| [&here[..], &[(key, value)]].concat();

    let output = container.az("x");
    let refused = run(&case, &output, &with("ACCESS_KEY", WRONG));
    refused.clone().fails_with(3, &[&output, ACCOUNT, "refuses us", "azure.credential"]);
    assert!(!refused.stderr.contains(WRONG));
    let wrong_sas = run(&case, &output, &with("SAS_TOKEN", "sv=2021-12-02&sig=bm90aGluZw%3D%3D"));
    assert_eq!(wrong_sas.code(), 3, "{}", wrong_sas.stderr);
    assert!(!wrong_sas.stderr.contains("bm90aGluZw"), "{}", wrong_sas.stderr);
    let no_key = run(&case, &output, &with("ACCESS_KEY", "not base64!"));
    no_key.fails_with(2, &["azure"]);

    let missing = run(&case, "az://no-such-container/x", &here);
    missing.fails_with(3, &["there is no container no-such-container", "az storage container create"]);
    container.delete();
    let gone = run(&case, &output, &here);
    assert_eq!(gone.code(), 3, "{}", gone.stderr);
    assert!(!case.path("az:").exists());
}

#[test]
fn a_shared_access_signature_gives_the_rights_that_it_names() {
    let Some(container) = Container::new() else { return };
    let case = Case::of(&eventful(64, &[25]));
    let (endpoint, output) = (container.endpoint(), container.abfss("x"));
    let (all, reading) = (container.shared_access("racwdl"), container.shared_access("rl"));
    let with = |token| [("USE_EMULATOR", "true"), ("ENDPOINT", &endpoint), ("SAS_TOKEN", token)];
    case.file("token", format!("{all}\n"));
    let file = [("USE_EMULATOR", "true"), ("ENDPOINT", &endpoint), ("SAS_TOKEN_FILE", "token")];
    let unwritable = run(&case, &output, &with(&reading));
    let signature = reading.split("sig=").nth(1).unwrap();
    assert!(!unwritable.stderr.contains(signature), "{}", unwritable.stderr);
    assert_eq!(unwritable.code(), 3, "{}", unwritable.stderr);
    assert!(unwritable.stderr.contains("Storage Blob Data Contributor"), "{}", unwritable.stderr);
    run(&case, &output, &file).well();
    let mut evidence = tidemark(case.root(), ["evidence", "--output", &output]);
    let evidence = evidence.envs(with(&reading).map(|(key, value)| (format!("TIDEMARK__AZURE__{key}"), value)));
    finish(evidence, b"").well();
}

#[test]
fn a_service_that_is_not_there_is_told_at_once() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let case = Case::of(&eventful(62, &[5]));
    let endpoint = format!("http://127.0.0.1:{port}");
    let ended = run(&case, "az://lake/x", &[("USE_EMULATOR", "true"), ("ENDPOINT", &endpoint)]);
    ended.fails_with(3, &["az://lake/x", "nobody answers at", &port.to_string(), "azure.endpoint"]);
}

#[test]
fn wrong_settings_are_refused_before_anything_is_asked() {
    let case = Case::of(&eventful(63, &[5]));
    let output = "abfss://lake@acme.dfs.core.windows.net/x";
    run(&case, "s3://bucket/x", &[]).fails_with(2, &["output.path = \"s3://bucket/x\"", "abfss://"]);
    let both = [("ACCESS_KEY", "aGlkZGVu"), ("SAS_TOKEN", "sig=aGlkZGVu")];
    let ended = run(&case, output, &both);
    assert!(!ended.stderr.contains("aGlkZGVu"), "{}", ended.stderr);
    ended.fails_with(2, &["azure.sas_token", "azure.access_key is given as well", "azure.credential"]);
    run(&case, output, &[("ACCESS_KEY_FILE", "no-such-file")])
        .fails_with(2, &["azure.access_key_file", "no-such-file"]);
    run(&case, output, &[("CREDENTIAL", "client_secret")]).fails_with(2, &["azure.tenant_id", "azure.client_id"]);
    let flag =
        tidemark(case.root(), ["run", "--output", output, "--set", "azure.access_key=aGlkZGVu"]).output().unwrap();
    let words = String::from_utf8(flag.stderr).unwrap();
    assert!(flag.status.code() == Some(2) && words.contains("****") && !words.contains("aGlkZGVu"), "{words}");
}
