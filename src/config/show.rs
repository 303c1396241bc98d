//! Prints the configuration in effect: each value, and where it came from. Secrets are masked in every format.

use super::kind::Value;
use super::secret::MASK;
use super::{Assigned, Effective, Setting};
use comfy_table::{ContentArrangement, Table, TableStyle};
use std::fmt::Write as _;

/// The value as it is written in a file, or the mask.
fn shown(setting: &Setting, value: &Value) -> toml::Value {
    let secret = setting.secret && *value != Value::Empty;
    if secret { MASK.into() } else { value.to_toml() }
}

/// A table for people.
pub fn human(effective: &Effective) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["KEY", "VALUE", "FROM"]);
    for (setting, Assigned { value, origin }) in effective.iter() {
        table.add_row([setting.key.to_owned(), shown(setting, value).to_string(), origin.to_string()]);
    }
    let trimmed: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    trimmed.join("\n") + "\n"
}

/// One JSON object: key to `value` (as in a configuration file) and `origin`.
pub fn json(effective: &Effective) -> String {
    let entry = |(setting, Assigned { value, origin }): (&Setting, &Assigned)| {
        let value = serde_json::json!({ "value": shown(setting, value), "origin": origin.to_string() });
        (setting.key.to_owned(), value)
    };
    let object: serde_json::Map<_, _> = effective.iter().map(entry).collect();
    format!("{:#}\n", serde_json::Value::Object(object))
}

/// A configuration file that gives the same values again, origins as comments; secrets are left out as comments.
pub fn toml(effective: &Effective) -> String {
    let (mut text, mut last) = (String::new(), "");
    for (setting, Assigned { value, origin }) in effective.iter() {
        let (section, name) = setting.path();
        if section != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            last = section;
        }
        let hidden = if setting.secret { "# " } else { "" };
        let _ = writeln!(text, "{hidden}{name} = {} # {origin}", shown(setting, value));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::table::find;
    use super::super::{Given, Layers, Origin, kind::Raw};
    use super::*;

    fn effective() -> Effective {
        let flag = |key: &str, value: &str| Given {
            key: key.to_owned(),
            raw: Raw::Word(value.to_owned()),
            origin: Origin::Flag(format!("--{key}")),
        };
        let flags = vec![
            flag("epochs.trigger", "90s"),
            flag("source.inputs", "a \"b\",c"),
            flag("generator.start", "2026-01-01T00:00:00Z"),
        ];
        Effective::load(Layers { flags, ..Layers::default() }).unwrap()
    }

    #[test]
    fn people_see_value_and_origin() {
        let text = human(&effective());
        let line = text.lines().find(|line| line.starts_with("epochs.trigger")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["epochs.trigger", "\"1m", "30s\"", "flag", "--epochs.trigger"]);
        assert_eq!(text.lines().count(), super::super::SETTINGS.len() + 1);
    }

    #[test]
    fn programs_see_value_and_origin() {
        let shown: serde_json::Value = serde_json::from_str(&json(&effective())).unwrap();
        assert_eq!(shown["epochs.trigger"]["value"], "1m 30s");
        assert_eq!(shown["epochs.trigger"]["origin"], "flag --epochs.trigger");
        assert_eq!(shown["generator.rate"]["value"], 100);
        assert_eq!(shown["source.kind"]["origin"], "implied by source.inputs from flag --source.inputs");
    }

    #[test]
    fn the_toml_form_is_a_configuration_file_with_the_same_values() {
        let before = effective();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shown.toml");
        std::fs::write(&path, toml(&before)).unwrap();
        let after = Effective::load(Layers { file: Some(path), ..Layers::default() }).unwrap();
        assert_eq!(before.config, after.config);
    }

    #[test]
    fn secrets_are_masked_and_empty_ones_are_seen_to_be_empty() {
        let secret = find("log.level").unwrap().secret();
        assert_eq!(shown(&secret, &Value::Text("hunter2".to_owned())).as_str(), Some("****"));
        assert_eq!(shown(&secret, &Value::Empty).as_str(), Some(""));
    }
}
