//! Configuration: defaults, file, environment and flags laid over each other, checked as a whole, and typed.
//!
//! [`table`] is the one list of settings and `default.toml` says what they mean; [`layers`] reads each layer, [`draft`]
//! lays them over each other and collects every problem, [`typed`] is what the runtime gets. [`show`] and [`schema`]
//! print. Nothing here reads the process's environment or arguments itself: they are handed in.

pub mod ambient;
pub mod azure;
pub mod cluster;
pub mod draft;
pub mod eventhubs;
pub mod http;
pub mod kind;
pub mod layers;
pub mod memory;
pub mod place;
pub mod problem;
pub mod schema;
pub mod secret;
pub mod show;
pub mod table;
pub mod typed;
pub mod units;

pub use draft::Assigned;
pub use layers::Given;
pub use place::Place;
pub use problem::{Origin, Problem, Problems};
pub use typed::{Config, LogFormat, SourceKind};

use draft::Draft;
use kind::{Raw, Value};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};
use table::{DEFAULT_TOML, SETTINGS, Setting};

/// What a verb changes in the defaults: its name, and keys with values.
pub type VerbDefaults = (&'static str, &'static [(&'static str, &'static str)]);

/// The layers to load, from the lowest to the highest.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// What the verb changes in the embedded defaults.
    pub verb: Option<VerbDefaults>,
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Environment variables, also those that are not ours.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags.
    pub flags: Vec<Given>,
}

/// The configuration in effect.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The typed values.
    pub config: Config,
    values: BTreeMap<&'static str, Assigned>,
}

impl Effective {
    /// Lays the layers over each other.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any layer, also in values that a higher layer replaces.
    pub fn load(layers: Layers) -> Result<Effective, Problems> {
        let mut draft = Draft::default();
        // The place in the embedded file is of no use to anybody: the layer is.
        match layers::read_toml(&"default.toml".into(), DEFAULT_TOML) {
            Ok(given) => draft.lay(given.into_iter().map(|given| Given { origin: Origin::Default, ..given }).collect()),
            Err(problem) => draft.problems.push(problem),
        }
        if let Some((verb, defaults)) = layers.verb {
            let given = |(key, value): &(&str, &str)| Given {
                key: (*key).to_owned(),
                raw: Raw::Word((*value).to_owned()),
                origin: Origin::Verb(verb),
            };
            draft.lay(defaults.iter().map(given).collect());
        }
        let (around, unreadable) = ambient::read(&layers.environment);
        draft.lay(around);
        match layers.file.as_deref().map(layers::read_file).transpose() {
            Ok(given) => draft.lay(given.unwrap_or_default()),
            Err(problem) => draft.problems.push(problem),
        }
        draft.lay(layers::read_environment(layers.environment));
        draft.lay(layers.flags);
        draft.problems.extend(unreadable.filter(|_| !draft.azure_places().is_empty()));
        draft.check_together();
        if !draft.problems.is_empty() {
            return Err(Problems(draft.problems));
        }
        let config = typed(&draft.values)?;
        Ok(Effective { config, values: draft.values })
    }

    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|assigned| &assigned.origin)
    }

    /// Every setting with its value and where that came from, in the order of `default.toml`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Assigned)> {
        SETTINGS.iter().filter_map(|setting| Some((setting, self.values.get(setting.key)?)))
    }
}

/// Builds the typed configuration. An error means that the table of settings and the types do not agree.
fn typed(values: &BTreeMap<&'static str, Assigned>) -> Result<Config, Problems> {
    let mut sections = BTreeMap::<&str, BTreeMap<&str, serde_json::Value>>::new();
    for setting in SETTINGS {
        let (section, name) = setting.path();
        let mut assigned = values.get(setting.key);
        if setting.key == "dedup.retention" && assigned.is_some_and(|retention| retention.value == Value::Empty) {
            assigned = values.get("dedup.watermark_delay");
        }
        let value = assigned.map_or(serde_json::Value::Null, |assigned| assigned.value.to_json());
        sections.entry(section).or_default().insert(name, value);
    }
    serde_json::to_value(sections).and_then(serde_json::from_value).map_err(|error| {
        let complaint = format!("the table of settings does not fit its types: {error}");
        Problems(vec![Problem { subject: String::new(), origin: Origin::Default, complaint }])
    })
}

#[cfg(test)]
mod tests;
