//! The Debian package and the units in it.

use std::collections::BTreeSet;

use clap::Parser;
use tidemark::cli::Cli;
use tidemark::exit::ExitStatus;
use toml::Table;

use super::files::{configured, path, text};

const SETTINGS: &str = "packaging/debian/tidemark.toml";
const UNIT: &str = "packaging/systemd/tidemark.service";
const BUILD: &str = "packaging/debian/build";

/// Every value that a unit gives to a key.
fn given(unit: &str, key: &str) -> Vec<String> {
    let unit = text(unit);
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

fn one(unit: &str, key: &str) -> String {
    let [value] = given(unit, key).try_into().unwrap_or_else(|found| panic!("{unit}: {key} = {found:?}"));
    value
}

/// Program and arguments of the unit.
fn started() -> (String, Vec<String>) {
    let line = one(UNIT, "ExecStart");
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.collect())
}

fn package() -> Table {
    let manifest: Table = text("Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// Source and destination of what is packed.
fn assets() -> Vec<(String, String)> {
    let package = package();
    let words = |asset: &toml::Value, at: usize| asset[at].as_str().unwrap().to_owned();
    package["assets"].as_array().unwrap().iter().map(|asset| (words(asset, 0), words(asset, 1))).collect()
}

/// Where the file is installed.
fn installed(source: &str) -> String {
    let assets = assets();
    let (_, folder) =
        assets.iter().find(|(from, _)| from == source).unwrap_or_else(|| panic!("{source} is not packed"));
    format!("/{folder}{}", source.rsplit('/').next().unwrap())
}

#[test]
fn the_unit_starts_what_is_installed_with_settings_that_are_taken() {
    let (program, args) = started();
    assert_eq!(program, installed("target/release/tidemark"));
    let config = configured(&args, &[], Some(&path(SETTINGS))).unwrap();
    assert_eq!(args.last(), Some(&installed(SETTINGS)));
    assert_eq!(package()["conf-files"].as_array().unwrap()[0].as_str(), args.last().map(String::as_str));
    // It can write nowhere else.
    let state = format!("/var/lib/{}", one(UNIT, "StateDirectory"));
    assert!(config.output.path.display().to_string().starts_with(&format!("{state}/")));
    assert_eq!(one(UNIT, "ProtectSystem"), "strict");
    let user = one(UNIT, "User");
    assert!(text("packaging/systemd/tidemark.sysusers").starts_with(&format!("u {user} - \"Tidemark\" {state}")));
}

#[test]
fn what_is_commented_out_is_taken_as_well() {
    let all = text(SETTINGS);
    let example = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemark.toml");
    std::fs::write(&file, all.lines().map(example).collect::<String>()).unwrap();
    let config = configured(&started().1, &[], Some(&file)).unwrap();
    assert_eq!(config.source.kind, tidemark::config::SourceKind::EventHubs);
    assert_eq!(config.dedup.expected_ids, 20_000_000);
}

#[test]
fn the_drop_in_for_several_hosts_is_taken() {
    let cluster = "packaging/systemd/cluster.conf";
    let credential = one(cluster, "LoadCredential");
    let (id, _) = credential.split_once(':').unwrap();
    let variable = one(cluster, "Environment").replace("%d", "/run/credentials/tidemark.service");
    let (name, file) = variable.split_once('=').unwrap();
    assert!(file.ends_with(&format!("/{id}")), "{file}");
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = [
        set(name, file),
        set("TIDEMARK__CLUSTER__PROCESS", "1"),
        set("TIDEMARK__CLUSTER__PROCESSES", "2"),
        set("TIDEMARK__CLUSTER__HOSTS", "a.internal:7400,b.internal:7400"),
    ];
    let config = configured(&started().1, &environment, Some(&path(SETTINGS))).unwrap();
    assert_eq!(config.cluster.secret_file.unwrap().to_str(), Some(file));
    assert_eq!(one(cluster, "Restart"), "always", "others end with status 0 when one drains");
}

#[test]
fn a_start_is_repeated_for_those_statuses_that_it_may_mend() {
    assert_eq!(one(UNIT, "Restart"), "on-failure");
    let statuses = [ExitStatus::CheckFailed, ExitStatus::Usage, ExitStatus::Refused, ExitStatus::Corrupt];
    let statuses = statuses.map(|status| (status as u8).to_string());
    assert_eq!(one(UNIT, "RestartPreventExitStatus").split(' ').collect::<Vec<_>>(), statuses);
    assert_eq!(one(UNIT, "StartLimitIntervalSec"), "0");
    assert!(one(UNIT, "TimeoutStopSec").parse::<u32>().unwrap() >= 60, "draining takes its time");
}

#[test]
fn everything_that_is_packed_is_there_or_made_before() {
    let build = text(BUILD);
    for (source, _) in assets() {
        if let Some(made) = source.strip_prefix("target/packaging/") {
            let folder = made.rsplit_once('/').map_or(made, |(folder, _)| folder);
            let target = if made.contains('*') { format!("$made\"/{folder}/") } else { format!("$made/{made}\"") };
            assert!(build.contains(&target), "{source} is not made: {target}");
        } else if source != "target/release/tidemark" {
            let found = glob::glob(path(&source).to_str().unwrap()).unwrap().count();
            assert!(found > 0, "no {source}");
        }
    }
    let scripts = package()["maintainer-scripts"].as_str().unwrap().to_owned();
    assert!(UNIT.starts_with(&scripts) && path(&scripts).is_dir());
    // What makes them are command lines of this program.
    let lines: Vec<&str> = build.lines().filter_map(|line| line.strip_prefix("\"$tidemark\" ")).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        let words = line.split(" >").next().unwrap().split_whitespace();
        Cli::try_parse_from(std::iter::once("tidemark").chain(words)).unwrap();
    }
}

#[test]
fn the_image_is_built_with_a_compiler_that_is_new_enough() {
    let manifest: Table = text("Cargo.toml").parse().unwrap();
    let least = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(text("Dockerfile").contains(&format!("FROM rust:{least}-")), "{least}");
}

/// Words of the documents that begin like a path of `packaging/`.
#[test]
fn documents_name_files_that_are_there() {
    let mut named = BTreeSet::new();
    for document in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/install.md", "docs/cluster.md", "docs/console.md"]
    {
        let text = text(document);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c));
        named.extend(
            words.filter(|word| word.starts_with("packaging/")).map(|word| word.trim_end_matches('.').to_owned()),
        );
    }
    assert!(named.len() > 5, "{named:?}");
    for file in &named {
        assert!(path(file).exists(), "no {file}");
    }
}
