//! The layers of a configuration, each read into a list of keys with raw values and where they stand.
//!
//! Nothing is judged here beyond the syntax of a file: whether a key exists and a value is allowed is for
//! [`super::draft`] to say.

use super::kind::Raw;
use super::problem::{Origin, Problem};
use super::table::ENVIRONMENT_PREFIX;
use serde::Deserialize;
use std::{ffi::OsString, path::Path, sync::Arc};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A value that a layer gives to a key. The key may be unknown and the value wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Section and name.
    pub key: String,
    /// The value as it was written.
    pub raw: Raw,
    /// Where it was written.
    pub origin: Origin,
}

/// Reads the file at `path`. The problem is that it cannot be read, or where its syntax is wrong.
pub fn read_file(path: &Path) -> Result<Vec<Given>, Problem> {
    let name: Arc<str> = path.to_string_lossy().into();
    match std::fs::read_to_string(path) {
        Ok(text) => read_toml(&name, &text),
        Err(error) => Err(Problem {
            subject: name.to_string(),
            origin: Origin::Flag("--config".to_owned()),
            complaint: format!("cannot be read: {error}"),
        }),
    }
}

/// Reads the text of a configuration file; `name` stands for it in origins. Keys come in the order of the file.
pub fn read_toml(name: &Arc<str>, text: &str) -> Result<Vec<Given>, Problem> {
    let document = DeTable::parse(text).map_err(|error| Problem {
        subject: String::new(),
        origin: position(name, text, error.span().map_or(0, |span| span.start)),
        complaint: format!("not valid TOML: {}", error.message()),
    })?;
    let mut found = Vec::new();
    for (section, value) in document.into_inner() {
        match value.into_inner() {
            DeValue::Table(keys) if !keys.is_empty() => {
                for (key, value) in keys {
                    found.push((format!("{}.{}", section.get_ref(), key.get_ref()), key.span().start, value));
                }
            }
            other => found.push((section.get_ref().to_string(), section.span().start, Spanned::new(0..0, other))),
        }
    }
    found.sort_by_key(|(_, start, _)| *start);
    let given = |(key, start, value)| Given { key, raw: raw(text, value), origin: position(name, text, start) };
    Ok(found.into_iter().map(given).collect())
}

fn raw(text: &str, value: Spanned<DeValue<'_>>) -> Raw {
    let written = text.get(value.span()).unwrap_or_default().to_owned();
    toml::Value::deserialize(ValueDeserializer::from(value)).map_or(Raw::Unreadable(written), Raw::Toml)
}

/// The place of the byte `at` of `text`.
fn position(name: &Arc<str>, text: &str, at: usize) -> Origin {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Origin::File {
        path: name.clone(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}

/// Takes the settings from environment variables, sorted by name; all variables without our prefix are passed over.
pub fn read_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Given> {
    let mut found: Vec<Given> = variables
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let key = name.strip_prefix(ENVIRONMENT_PREFIX)?.replace("__", ".");
            // A name in lower case must stay an unknown key, else two variables could give one key.
            let key = if key.chars().any(char::is_lowercase) { name.clone() } else { key.to_lowercase() };
            let raw = match value.into_string() {
                Ok(value) => Raw::Word(value),
                Err(value) => Raw::Unreadable(value.to_string_lossy().into_owned()),
            };
            Some(Given { key, raw, origin: Origin::Environment(name) })
        })
        .collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<Given>, String> {
        read_toml(&"x.toml".into(), text).map_err(|problem| problem.to_string())
    }

    #[test]
    fn keys_of_a_file_come_with_line_and_column() {
        let given = read("[log]\nlevel = \"info\"\n[a]\n  b.c = 1\n[e]\n").unwrap();
        let places: Vec<String> = given.iter().map(|g| format!("{} {}", g.key, g.origin)).collect();
        assert_eq!(places, ["log.level x.toml:2:1", "a.b x.toml:4:3", "e x.toml:5:2"]);
    }

    #[test]
    fn dotted_and_inline_sections_are_sections() {
        for text in ["log.level = \"warn\"", "log = { level = \"warn\" }"] {
            let given = read(text).unwrap();
            assert_eq!((given[0].key.as_str(), &given[0].raw), ("log.level", &Raw::Toml("warn".into())), "{text}");
        }
    }

    #[test]
    fn wrong_syntax_is_located() {
        let problem = read("[log]\nlevel = \"é\" x\n").unwrap_err();
        assert!(problem.starts_with("x.toml:2:13: not valid TOML: "), "{problem}");
        assert!(read("[a]\nb = 1\nb = 2\n").unwrap_err().starts_with("x.toml:3:1: "));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let problem = read_file(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(problem.starts_with("no/such.toml (flag --config): cannot be read: "), "{problem}");
    }

    #[test]
    fn only_prefixed_variables_are_settings() {
        let variables =
            [("TIDEMARK__LOG__LEVEL", "warn"), ("TIDEMARK_X", "1"), ("PATH", "/"), ("TIDEMARK__log__x", "")];
        let given = read_environment(variables.map(|(name, value)| (name.into(), value.into())));
        let keys: Vec<&str> = given.iter().map(|g| g.key.as_str()).collect();
        assert_eq!(keys, ["TIDEMARK__log__x", "log.level"]);
    }
}
