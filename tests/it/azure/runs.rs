//! Whole runs: every form of URL, every verb that reads, and readers of other makers.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tidemark::sink::tables::{StreamHealth, Table as _, UserMetrics};
use tidemark::storage::Storage;
use tidemark_delta::{Identity, Lake, Policy, TableWriter};

use super::azurite::{ACCOUNT, Container, KEY};
use super::remote::Remote;
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Case, finish, tidemark};
use crate::python::{python, repository};
use crate::tables::MANIFEST;

fn small(seed: u64) -> Option<Remote> {
    Remote::new(&eventful(seed, &[60, 45]), Rules::epochs_of(40))
}

#[test]
fn every_form_of_url_gives_the_tables_of_the_oracle() {
    let Some(mut remote) = small(51) else { return };
    let name = remote.container.name.clone();
    let forms = [
        remote.container.az("one"),
        remote.container.abfss("two/deep/"),
        format!("https://{ACCOUNT}.blob.core.windows.net/{name}/three"),
        format!("az://{name}"),
    ];
    for form in forms {
        remote.output = form;
        let ended = remote.finish("--curated");
        let shown = remote.output.trim_end_matches('/');
        assert!(ended.stdout.contains(&format!("tables below {shown}\n")), "{}", ended.stdout);
        let tables = remote.check();
        assert_eq!(tables.texts(&MANIFEST, "output_path"), [shown]);
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(KEY), "{}", ended.stderr);
    }
    assert!(remote.case.root().read_dir().unwrap().all(|entry| entry.unwrap().file_name() == "in"), "all is remote");
}

#[test]
fn tables_and_checkpoint_may_lie_apart() {
    let Some(remote) = small(52) else { return };
    let Some(other) = Container::new() else { return };
    remote.finish(&format!("--checkpoint {}", other.az("state")));
    remote.check();
    let listed = remote.verb(&["checkpoint", "list", "--checkpoint", &other.az("state")]).well();
    assert!(listed.stdout.contains("generation"), "{}", listed.stdout);
    // And either of them on the local disk.
    let Some(mixed) = small(53) else { return };
    mixed.finish("--checkpoint state");
    assert!(mixed.case.path("state/manifests").is_dir());
    mixed.check();
}

#[test]
fn every_verb_that_reads_finds_what_a_run_has_written() {
    let Some(remote) = small(54) else { return };
    let missing = remote.verb(&["evidence"]);
    missing.fails_with(3, &[&remote.output, "there are no tables"]);
    let valid = remote.verb(&["validate", "--online"]).well();
    assert!(valid.stdout.contains(&format!("{} is free", remote.output)), "{}", valid.stdout);
    remote.finish("--curated");

    let evidence = remote.verb(&["evidence", "--json"]).well();
    let found: Value = serde_json::from_str(&evidence.stdout).unwrap();
    let checks = found["checks"].as_array().unwrap();
    assert!(checks.len() > 15 && checks.iter().all(|check| check["outcome"] == "passed"), "{}", evidence.stdout);
    assert_eq!(found["tables"].as_array().unwrap().len(), 7, "the curated table as well");

    let verified = remote.verb(&["checkpoint", "verify"]).well();
    assert!(verified.stdout.contains("chain") || verified.stdout.contains("sound"), "{}", verified.stdout);
    remote.verb(&["checkpoint", "show"]).well();
    let quarantine = remote.verb(&["quarantine", "list"]).well();
    assert!(quarantine.stdout.contains("R210") || quarantine.stdout.contains("R200"), "{}", quarantine.stdout);

    let line = std::fs::read_to_string(remote.case.path("in/p0.ndjson")).unwrap();
    let valid_line = line.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap();
    let id = valid_line["event_id"].as_str().unwrap();
    let explained = remote.verb(&["explain", id, "--input", "in"]).well();
    assert!(explained.stdout.contains("p0.ndjson"), "{}", explained.stdout);
    let valid = remote.verb(&["validate", "--online"]).well();
    assert!(valid.stdout.contains("holds tables of an earlier run"), "{}", valid.stdout);

    // What is put into the inbox there is taken by the next run.
    let put = remote.verb(&["quarantine", "replay", "--all", "--id", "again"]).well();
    assert!(put.stdout.contains("again"), "{}", put.stdout);
    let again = remote.finish("--curated");
    assert!(again.stderr.contains("going on where an earlier run stopped"), "{}", again.stderr);
    remote.verb(&["evidence"]).well();
}

#[test]
fn maintenance_deletes_what_is_dead_and_nothing_else() {
    let Some(remote) = Remote::new(&eventful(56, &[120, 90]), Rules::epochs_of(30)) else { return };
    remote.finish("--set sink.compact_after_files=3 --set sink.log_checkpoint_every=2 --set sink.maintain_every=1s");
    let before = remote.check();
    let config = remote.config();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let location = Storage::new(&config).tables(tidemark_store::Patience::default()).unwrap();
    let standing = runtime.block_on(tidemark_delta::standing(&location, &config.pipeline.name, "metrics/net_flow"));
    let lineage = standing.unwrap().unwrap().lineage.unwrap();
    let identity = Identity { pipeline: config.pipeline.name.clone(), generation: 1_000, lineage };
    let policy = Policy { checkpoint_interval_commits: 1, ..Policy::default() };
    let lake = Lake::new(location, identity, policy).unwrap();
    for spec in [UserMetrics::spec(), StreamHealth::spec()] {
        let done = runtime.block_on(async {
            let mut writer = TableWriter::open_or_create(&lake, spec).await.unwrap();
            // Taking over was a commit; the opening itself has written one where nothing vouched for the last.
            writer.checkpoint_log(true).await.unwrap();
            // All that is dead by now has been so for longer than any retention then.
            writer.maintain(SystemTime::now() + Duration::from_secs(7 * 86_400)).await.unwrap()
        });
        assert!(done.data_files_deleted > 2 && done.log_files_deleted > 2, "{done:?}");
    }
    remote.check().assert_equals(&before);
}

#[test]
fn python_reads_the_same_tables() {
    let Some(python) = python("import deltalake, pyarrow") else { return };
    let Some(remote) = Remote::new(&[], Rules::epochs_of(400)) else { return };
    let script = |name: &str, args: &[&str]| {
        let mut command = Command::new(&python);
        command.current_dir(remote.case.root()).arg(repository().join("tests/workload").join(name)).args(args);
        command.env("AZURITE_BLOB_STORAGE_URL", remote.container.endpoint());
        command.env("STORAGE_OPTIONS", r#"{"use_emulator": "true"}"#);
        let ended = finish(&mut command, b"");
        assert_eq!(ended.code(), 0, "{name}:\n{}{}", ended.stdout, ended.stderr);
        ended.stdout
    };
    let generator = "--events 5000 --users 60 --partitions 2 --late 0.02 --invalid 0.05 --out in --segments 1";
    script("gen.py", &generator.split_whitespace().collect::<Vec<_>>());
    let names = remote.case.path("in").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| format!("in/{}", name.to_str().unwrap()));
    let files: Vec<String> = names.filter(|name| name.ends_with(".ndjson")).collect();
    let args = ["--out", "expected.json", "--epoch-events", "400"].into_iter().chain(files.iter().map(String::as_str));
    script("oracle.py", &args.collect::<Vec<_>>());
    remote.finish("");
    let said = script("check.py", &["expected.json", &remote.output]);
    assert!(said.starts_with("equal: "), "{said}");
}

#[test]
fn the_usual_variables_of_azure_are_understood() {
    let Some(container) = Container::new() else { return };
    let case = Case::of(&eventful(55, &[20]));
    let connection = format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={}/{ACCOUNT};",
        container.endpoint()
    );
    let output = container.az("x");
    let args = ["run", "--input", "in", "--output", &output];
    let mut command = tidemark(case.root(), args);
    finish(command.env("AZURE_STORAGE_CONNECTION_STRING", &connection), b"").well();
    let mut shown = tidemark(case.root(), ["config", "show", "--output", &output]);
    let shown = finish(shown.env("AZURE_STORAGE_CONNECTION_STRING", &connection), b"").well().stdout;
    let line = shown.lines().find(|line| line.starts_with("azure.access_key ")).unwrap();
    assert!(line.contains("****") && line.contains("AZURE_STORAGE_CONNECTION_STRING"), "{line}");
    assert!(!shown.contains(KEY));
}
