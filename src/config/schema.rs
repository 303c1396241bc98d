//! The settings described: as JSON Schema for editors and checkers, and as a page of documentation.

use super::kind::Kind;
use super::table::{FlagOf, SETTINGS, Setting};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What a value of this kind looks like in a configuration file. Ranges of durations and sizes cannot be said here.
fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" }),
        Kind::Path { empty } | Kind::Place { empty } => {
            json!({ "type": "string", "minLength": u8::from(empty.is_none()) })
        }
        Kind::Beginning => json!({ "type": "string" }),
        Kind::Inputs => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Kind::Hosts => json!({ "type": "array", "items": { "type": "string", "pattern": "^.+:[0-9]+$" } }),
        Kind::Host { .. } => json!({ "type": "string", "pattern": "^(.+:[0-9]+)?$" }),
        Kind::Listen => json!({ "type": "string", "pattern": "^(off|.+:[0-9]+)?$" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Text { .. } => json!({ "type": "string", "pattern": "^\\S*$" }),
        Kind::Endpoint { .. } => json!({ "type": "string", "pattern": "^(https?://[^/?#@ ]+[^?#@ ]*)?$" }),
        Kind::Duration { .. } | Kind::Size { .. } | Kind::Instant { .. } | Kind::LogFilter | Kind::Secret => {
            json!({ "type": "string" })
        }
    }
}

/// The default as it stands in the embedded file.
fn default_of(setting: &Setting) -> Option<toml::Value> {
    setting.doc()?.default.parse().ok()
}

/// A JSON Schema (2020-12) of a configuration file.
pub fn json_schema() -> String {
    let mut sections = Map::new();
    for setting in SETTINGS {
        let (section, name) = setting.path();
        let mut schema = kind_schema(&setting.kind);
        if let (Some(doc), Some(default)) = (setting.doc(), default_of(setting)) {
            schema["description"] = format!("{} {}.", doc.meaning, doc.allowed).into();
            schema["default"] = json!(default);
        }
        let empty = || json!({ "type": "object", "additionalProperties": false, "properties": {} });
        let entry = sections.entry(section).or_insert_with(empty);
        entry["properties"][name] = schema;
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of Tidemark",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    });
    format!("{schema:#}\n")
}

const INTRODUCTION: &str = "# Configuration

<!-- Written by `tidemark schema config --format markdown`. Change src/config/default.toml and src/config/table.rs. -->

Every setting has a default. A TOML file named with `--config FILE` goes over the defaults, environment variables go
over the file, and flags over everything: those below, or `--set section.key=value` for any key. The variable of
`epochs.trigger` is `TIDEMARK__EPOCHS__TRIGGER`, and the other names follow the same rule.

Variables that other programs of Azure know, such as `AZURE_CLIENT_ID`, stand for settings of the section `azure`. They go
over the defaults and below the file: [azure-storage.md](azure-storage.md) lists them. Secrets are taken from the
environment or a file, never from the command line, and never printed.

Unknown keys and values that are not allowed are refused, all at once, each with the place it came from.
`tidemark config show` prints the value in effect of each key and where it came from; `tidemark validate` only checks.
Durations are whole numbers with units, longest first: `500ms`, `30s`, `15m`, `2 hours`, `1 day`, `1h 30m`. Sizes have
one unit: `64 MiB`.
";

/// The settings as a page of documentation.
pub fn markdown() -> String {
    let (mut text, mut last) = (INTRODUCTION.to_owned(), "");
    for setting in SETTINGS {
        let (section, name) = setting.path();
        if section != last {
            let _ = write!(
                text,
                "\n## [{section}]\n\n| key | default | allowed | flag | meaning |\n|---|---|---|---|---|\n"
            );
            last = section;
        }
        let Some(doc) = setting.doc() else { continue };
        let flag = match setting.flag {
            Some((flag, FlagOf::Generate)) => format!("`--{flag}` of `generate`"),
            Some((flag, _)) => format!("`--{flag}`"),
            None => String::new(),
        };
        let allowed = setting.kind.allowed();
        let _ = writeln!(text, "| `{name}` | `{}` | {allowed} | {flag} | {} |", doc.default, doc.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_schema_describes_every_key_and_forbids_others() {
        let schema: Value = serde_json::from_str(&json_schema()).unwrap();
        for setting in SETTINGS {
            let (section, name) = setting.path();
            let section = &schema["properties"][section];
            assert_eq!(section["additionalProperties"], false);
            let described = &section["properties"][name];
            assert!(described["description"].as_str().unwrap().contains("Allowed: "), "{}", setting.key);
            assert!(described.get("default").is_some(), "{}", setting.key);
        }
        assert_eq!(schema["properties"]["generator"]["properties"]["rate"]["maximum"], 100_000_000);
    }

    /// Run with `TIDEMARK_BLESS=1` to write the page anew.
    #[test]
    fn the_page_in_docs_is_the_one_made_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("TIDEMARK_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, markdown(), "run the test again with TIDEMARK_BLESS=1");
    }
}
