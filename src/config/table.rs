//! The table of settings: the one list from which reading, checking, flags, `config show` and the schema are made.
//!
//! What a key means stands in `default.toml`, next to its default; [`Setting::doc`] takes it from there.

use super::kind::Kind;
use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

/// The embedded defaults: every key, with its comment.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Start of the names of environment variables that are settings.
pub const ENVIRONMENT_PREFIX: &str = "TIDEMARK__";

/// The verbs that take a setting as a flag of its own. Every setting can be given with `--set` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagOf {
    /// Every verb.
    Every,
    /// `run` and the verbs that look at what it would do.
    Run,
    /// `generate` alone.
    Generate,
    /// `run` and `generate`.
    RunAndGenerate,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Section and name: `epochs.trigger`.
    pub key: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// The name of its flag without dashes, and who takes it.
    pub flag: Option<(&'static str, FlagOf)>,
    /// Whether its value is never printed. The field of the typed configuration must hide it from `Debug` as well.
    pub secret: bool,
}

/// What `default.toml` says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doc {
    /// The comment without its last line, which says what is allowed.
    pub meaning: String,
    /// That last line, from `Allowed:` on; equal to [`Kind::allowed`], which a test makes sure of.
    pub allowed: String,
    /// The default as it is written there.
    pub default: String,
}

const fn setting(key: &'static str, kind: Kind) -> Setting {
    Setting { key, kind, flag: None, secret: false }
}

impl Setting {
    const fn flag(mut self, name: &'static str, verbs: FlagOf) -> Setting {
        self.flag = Some((name, verbs));
        self
    }

    /// Marks a setting whose value is masked wherever it would be printed.
    #[must_use]
    pub const fn secret(mut self) -> Setting {
        self.secret = true;
        self
    }

    /// Section and name apart.
    pub fn path(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }

    /// The environment variable that sets it: `TIDEMARK__EPOCHS__TRIGGER`.
    pub fn environment(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.key.to_uppercase().replace('.', "__"))
    }

    /// What `default.toml` says about it.
    pub fn doc(&self) -> Option<&'static Doc> {
        DOCS.get(self.key)
    }
}

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

static DOCS: LazyLock<BTreeMap<String, Doc>> = LazyLock::new(|| read_docs(DEFAULT_TOML));

/// Reads the comment block above each key. Only the plain form of `default.toml` is understood: one line for each key.
fn read_docs(text: &str) -> BTreeMap<String, Doc> {
    let (mut docs, mut section, mut comment) = (BTreeMap::new(), "", Vec::new());
    for line in text.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, default)) = line.split_once('=') {
            let allowed = comment.pop().unwrap_or_default().to_owned();
            let doc = Doc { meaning: comment.join(" "), allowed, default: default.trim().to_owned() };
            docs.insert(format!("{section}.{}", name.trim()), doc);
        }
        comment.clear();
    }
    docs
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn millis(min: u64, max: Duration) -> Kind {
    Kind::Duration { min: Duration::from_millis(min), max, empty: None }
}

const fn kept_for() -> Kind {
    Kind::Duration { min: Duration::from_secs(1), max: DECADE, empty: Some("no end") }
}

const HOUR: u64 = 3_600_000;
const DAY: Duration = Duration::from_secs(86_400);
const DECADE: Duration = Duration::from_secs(3_650 * 86_400);
const MIB: u64 = 1 << 20;
const NO_FILE: Kind = Kind::Path { empty: Some("none") };

/// The words of `config::azure::Credential`.
const CREDENTIALS: &[&str] = &[
    "auto",
    "access_key",
    "sas_token",
    "bearer_token",
    "client_secret",
    "workload_identity",
    "managed_identity",
    "azure_cli",
    "anonymous",
];

/// The words of `config::eventhubs::HubCredential`.
const HUB_CREDENTIALS: &[&str] = &["auto", "client_secret", "workload_identity", "managed_identity", "developer_tools"];

/// Every setting, in the order of `default.toml`.
pub const SETTINGS: &[Setting] = &[
    setting("pipeline.name", Kind::Name),
    setting("source.kind", Kind::Choice(&["generate", "file", "eventhubs"])).flag("source", FlagOf::Run),
    setting("source.inputs", Kind::Inputs).flag("input", FlagOf::Run),
    setting("eventhubs.connection_string", Kind::Secret).secret(),
    setting("eventhubs.connection_string_file", NO_FILE),
    setting("eventhubs.connection_string_vault", Kind::Text { empty: "none" }),
    setting("eventhubs.namespace", Kind::Text { empty: "the one of the connection string" }),
    setting("eventhubs.name", Kind::Text { empty: "the one of the connection string" })
        .flag("event-hub", FlagOf::RunAndGenerate),
    setting("eventhubs.credential", Kind::Choice(HUB_CREDENTIALS)),
    setting("eventhubs.consumer_group", Kind::Text { empty: "$Default" }).flag("consumer-group", FlagOf::Run),
    setting("eventhubs.start", Kind::Beginning).flag("start-at", FlagOf::Run),
    setting("eventhubs.until", Kind::Choice(&["forever", "end"])).flag("until", FlagOf::Run),
    setting("eventhubs.after_loss", Kind::Choice(&["refuse", "continue"])),
    setting("eventhubs.alignment", millis(0, DECADE)),
    setting("eventhubs.prefetch", integer(1, 100_000)),
    setting("eventhubs.quiet_after", millis(100, DAY)),
    setting("eventhubs.lag_interval", millis(100, DAY)),
    setting("eventhubs.request_timeout", millis(100, Duration::from_secs(3_600))),
    setting("eventhubs.give_up_after", millis(0, DAY)),
    setting("eventhubs.threads", integer(1, 64)),
    setting("generator.seed", integer(0, i64::MAX.unsigned_abs())).flag("seed", FlagOf::RunAndGenerate),
    setting("generator.start", Kind::Instant { empty: "now" }).flag("start", FlagOf::Generate),
    setting("generator.rate", integer(0, 100_000_000)).flag("rate", FlagOf::RunAndGenerate),
    setting("generator.events", integer(0, 1_000_000_000_000)).flag("events", FlagOf::RunAndGenerate),
    setting("generator.users", integer(1, 100_000_000)).flag("users", FlagOf::RunAndGenerate),
    setting("generator.partitions", integer(1, 1_024)).flag("partitions", FlagOf::Generate),
    setting("generator.duplicates", Kind::Share).flag("duplicates", FlagOf::Generate),
    setting("generator.invalid", Kind::Share).flag("invalid", FlagOf::Generate),
    setting("generator.late", Kind::Share).flag("late", FlagOf::Generate),
    setting("generator.disordered", Kind::Share).flag("disordered", FlagOf::Generate),
    setting("epochs.trigger", millis(10, DAY)).flag("trigger", FlagOf::Run),
    setting("epochs.events", integer(1, 100_000_000)).flag("epoch-events", FlagOf::Run),
    setting("epochs.max_events", integer(1, 100_000_000)),
    setting("epochs.max_in_flight", integer(1, 100_000)),
    setting("epochs.max_bytes_in_flight", Kind::Size { min: MIB, max: MIB << 20, empty: None }),
    setting("contract.max_future_skew", millis(0, Duration::from_secs(365 * 86_400)))
        .flag("max-future-skew", FlagOf::Run),
    setting("breaker.max_rejected_share", Kind::Share).flag("max-rejected-share", FlagOf::Run),
    setting("breaker.min_events", integer(1, 1_000_000_000)),
    setting("quarantine.max_bytes_per_epoch", Kind::Size { min: 0, max: MIB << 20, empty: Some("no bound") })
        .flag("max-quarantine-bytes", FlagOf::Run),
    setting("quarantine.keep_payloads", kept_for()),
    setting("files.alignment", millis(0, DECADE)).flag("alignment", FlagOf::Run),
    setting("watermark.witnesses", integer(1, 1_000)).flag("witnesses", FlagOf::Run),
    setting("watermark.warn_late_share", Kind::Share),
    setting("dedup.watermark_delay", millis(0, DECADE)).flag("watermark-delay", FlagOf::Run),
    setting(
        "dedup.retention",
        Kind::Duration { min: Duration::from_secs(1), max: DECADE, empty: Some("the watermark delay") },
    )
    .flag("dedup-retention", FlagOf::Run),
    setting("dedup.expected_ids", integer(0, 10_000_000_000)).flag("expected-ids", FlagOf::Run),
    setting("output.path", Kind::Place { empty: None }).flag("output", FlagOf::Run),
    setting("output.curated", Kind::Switch).flag("curated", FlagOf::Run),
    setting("output.readable_by", Kind::Choice(&["owner", "group", "umask"])),
    setting(
        "sink.publish_interval",
        Kind::Duration { min: Duration::ZERO, max: DAY, empty: Some("1s on a local disk, 10s in an object store") },
    ),
    setting("sink.sync", Kind::Switch),
    setting("sink.foreign_changes", Kind::Choice(&["report", "refuse", "repair"])),
    setting("sink.log_checkpoint_every", integer(1, 10_000)),
    setting("sink.log_retention", millis(HOUR, DECADE)),
    setting("sink.file_retention", millis(HOUR, DECADE)),
    setting("sink.keep_health", kept_for()),
    setting("sink.compact_after_files", integer(2, 100_000)),
    setting("sink.compact_target", Kind::Size { min: MIB, max: MIB << 14, empty: None }),
    setting("sink.maintain_every", millis(1_000, DAY)),
    setting("checkpoint.path", Kind::Place { empty: Some("OUTPUT/_tidemark") }).flag("checkpoint", FlagOf::Run),
    setting("checkpoint.enabled", Kind::Switch),
    setting("checkpoint.interval", millis(0, DAY)).flag("checkpoint-interval", FlagOf::Run),
    setting("checkpoint.keep", integer(2, 1_000)),
    setting("checkpoint.lease_ttl", millis(1_000, Duration::from_secs(3_600))),
    setting("store.give_up_after", millis(0, DAY)),
    setting("store.request_timeout", millis(100, Duration::from_secs(3_600))),
    setting("azure.account", Kind::Text { empty: "the one that the URL names" }),
    setting("azure.endpoint", Kind::Endpoint { empty: "the one of the account" }),
    setting("azure.use_emulator", Kind::Switch),
    setting("azure.credential", Kind::Choice(CREDENTIALS)),
    setting("azure.access_key", Kind::Secret).secret(),
    setting("azure.access_key_file", NO_FILE),
    setting("azure.sas_token", Kind::Secret).secret(),
    setting("azure.sas_token_file", NO_FILE),
    setting("azure.bearer_token", Kind::Secret).secret(),
    setting("azure.bearer_token_file", NO_FILE),
    setting("azure.tenant_id", Kind::Text { empty: "none" }),
    setting("azure.client_id", Kind::Text { empty: "none" }),
    setting("azure.client_secret", Kind::Secret).secret(),
    setting("azure.client_secret_file", NO_FILE),
    setting("azure.federated_token_file", NO_FILE),
    setting("azure.authority_host", Kind::Endpoint { empty: "that of the public cloud" }),
    setting("azure.managed_identity_object_id", Kind::Text { empty: "none" }),
    setting("azure.managed_identity_resource_id", Kind::Text { empty: "none" }),
    setting("azure.managed_identity_endpoint", Kind::Endpoint { empty: "that of the machine" }),
    setting("runtime.workers", integer(0, 1_024)).flag("workers", FlagOf::Run),
    setting("cluster.processes", integer(1, 64)).flag("processes", FlagOf::Run),
    setting("cluster.process", integer(0, 63)).flag("process", FlagOf::Run),
    setting("cluster.hosts", Kind::Hosts).flag("hosts", FlagOf::Run),
    setting("cluster.listen", Kind::Host { empty: "the own entry of cluster.hosts" }),
    setting("cluster.secret", Kind::Secret).secret(),
    setting("cluster.secret_file", NO_FILE),
    setting("cluster.join_timeout", millis(1_000, DAY)),
    setting("cluster.lost_after", millis(500, Duration::from_secs(3_600))),
    setting("http.listen", Kind::Listen).flag("console", FlagOf::Run),
    setting("http.token", Kind::Secret).secret(),
    setting("http.token_file", NO_FILE),
    setting("http.allow_unauthenticated", Kind::Switch),
    setting("traces.endpoint", Kind::Endpoint { empty: "none" }),
    setting("log.level", Kind::LogFilter).flag("log-level", FlagOf::Every),
    setting("log.format", Kind::Choice(&["human", "json"])).flag("log-format", FlagOf::Every),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_and_the_defaults_hold_the_same_keys_in_the_same_order() {
        let file: toml::Table = DEFAULT_TOML.parse().unwrap();
        let in_file: BTreeSet<String> = file
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        let in_table: BTreeSet<String> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(in_file, in_table);
        assert_eq!(in_table.len(), SETTINGS.len(), "a key stands twice in the table");
        let position = |s: &Setting| {
            let (section, name) = s.path();
            let start = DEFAULT_TOML.find(&format!("[{section}]\n")).unwrap();
            start + DEFAULT_TOML[start..].find(&format!("\n{name} = ")).unwrap()
        };
        assert!(SETTINGS.is_sorted_by_key(position));
    }

    #[test]
    fn each_default_stands_below_its_meaning_and_what_is_allowed() {
        for setting in SETTINGS {
            let doc = setting.doc().unwrap();
            assert!(doc.meaning.len() > 10 && doc.meaning.ends_with('.'), "{}: {:?}", setting.key, doc.meaning);
            assert_eq!(doc.allowed, format!("Allowed: {}", setting.kind.allowed()), "{}", setting.key);
        }
    }

    #[test]
    fn a_flag_belongs_to_one_setting() {
        let flags: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.flag).map(|(name, _)| name).collect();
        assert_eq!(flags.iter().collect::<BTreeSet<_>>().len(), flags.len());
    }

    #[test]
    fn the_environment_variable_follows_from_the_key() {
        assert_eq!(find("dedup.watermark_delay").unwrap().environment(), "TIDEMARK__DEDUP__WATERMARK_DELAY");
    }
}
