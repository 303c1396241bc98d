//! The files of the repository, and what the program makes of the command lines and variables in them.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;
use tidemark::cli::Cli;
#[cfg(feature = "broker")]
use tidemark::cli::flags::OfBroker;
use tidemark::cli::flags::{OfGenerate, OfRun, SettingFlags, Takes};
use tidemark::cli::verbs::Verb;
use tidemark::config::{Config, Effective, Layers};

/// Variables, as whoever starts a program sets them.
pub(super) type Variables = Vec<(String, String)>;

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub(super) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One document, with its anchors and merges carried out.
pub(super) fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands there in a document; nothing is forgiven.
pub(super) fn at<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {document:#}"))
}

pub(super) fn word<'a>(document: &'a Value, pointer: &str) -> &'a str {
    at(document, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text in {document:#}"))
}

pub(super) fn number(document: &Value, pointer: &str) -> u64 {
    at(document, pointer).as_u64().unwrap_or_else(|| panic!("{pointer} is no number in {document:#}"))
}

/// The members of a list; none where there is none.
pub(super) fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The member with that name.
pub(super) fn named<'a>(members: &'a [Value], name: &str) -> &'a Value {
    let found = members.iter().find(|member| member["name"] == name);
    found.unwrap_or_else(|| panic!("nothing is called {name} in {members:#?}"))
}

/// Words of a list; each must be text, as a number or a switch would be one for some readers and none for others.
pub(super) fn words(members: &[Value]) -> Vec<String> {
    members.iter().map(|member| member.as_str().unwrap_or_else(|| panic!("{member} is no text")).to_owned()).collect()
}

/// What the program makes of a command line: its configuration, or what is wrong with it. `file` stands for the file that
/// `--config` names where it is installed.
pub(super) fn configured(
    args: &[impl AsRef<str>],
    environment: &[(String, String)],
    file: Option<&Path>,
) -> Result<Config, String> {
    let args = args.iter().map(AsRef::as_ref);
    let cli = Cli::try_parse_from(std::iter::once("tidemark").chain(args)).map_err(|error| error.to_string())?;
    let file = cli.global.config.as_ref().map(|_| file.expect("a file is named").to_owned());
    let around = Layers {
        file,
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..Layers::default()
    };
    match &cli.verb {
        Verb::Run(run) => load(&run.settings, around),
        Verb::Generate(generate) => load::<OfGenerate>(&generate.settings, around),
        Verb::Validate(validate) => load::<OfRun>(&validate.settings, around),
        Verb::Status(status) => load(&status.settings, around),
        #[cfg(feature = "broker")]
        Verb::Broker(broker) => load::<OfBroker>(&broker.settings, around),
        other => panic!("nothing here should run {other:?}"),
    }
}

fn load<V: Takes>(settings: &SettingFlags<V>, around: Layers) -> Result<Config, String> {
    let loaded = Effective::load(Layers { verb: V::DEFAULTS, flags: settings.given(), ..around });
    loaded.map(|effective| effective.config).map_err(|problems| problems.to_string())
}

/// `HOST:PORT`.
pub(super) fn port(address: &str) -> u64 {
    let (_, port) = address.rsplit_once(':').unwrap_or_else(|| panic!("no port in {address}"));
    port.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}
