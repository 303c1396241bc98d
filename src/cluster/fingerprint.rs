//! What must be the same in all processes, told at the start: each would compute something else otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::units::{format_duration, format_size};
use crate::config::{Config, SourceKind};

/// Settings, and the version of the program, by the names that people know them by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// What this process goes by. Where tables and checkpoint lie may look different from each machine: whether it is
    /// the same place shows later. What the source is shows later as well.
    pub fn of(config: &Config) -> Fingerprint {
        let mut found = vec![
            ("the version of the program", env!("CARGO_PKG_VERSION").to_owned()),
            ("cluster.processes", config.cluster.processes.to_string()),
            ("cluster.lost_after", format_duration(config.cluster.lost_after)),
            ("runtime.workers", config.runtime.worker_count().to_string()),
            ("pipeline.name", config.pipeline.name.clone()),
            ("source.kind", format!("{:?}", config.source.kind).to_lowercase()),
            ("contract.max_future_skew", format_duration(config.contract.max_future_skew)),
            (
                "quarantine.max_bytes_per_epoch",
                config.quarantine.max_bytes_per_epoch.map_or_else(|| "not set".to_owned(), format_size),
            ),
            ("dedup.watermark_delay", format_duration(config.dedup.watermark_delay)),
            ("dedup.retention", format_duration(config.dedup.retention)),
            ("output.curated", config.output.curated.to_string()),
            ("checkpoint.enabled", config.checkpoint.enabled.to_string()),
            ("epochs.max_in_flight", config.epochs.max_in_flight.to_string()),
        ];
        match config.source.kind {
            SourceKind::File => found.push(("epochs.events", config.epochs.events.to_string())),
            SourceKind::Generate => {
                found.push(("epochs.trigger", format_duration(config.epochs.trigger)));
                found.push(("generator.events", config.generator.events.to_string()));
            }
            SourceKind::EventHubs => {
                let group = config.eventhubs.consumer_group.as_deref().unwrap_or("$Default");
                found.push(("epochs.trigger", format_duration(config.epochs.trigger)));
                found.push(("eventhubs.consumer_group", group.to_owned()));
                found.push(("eventhubs.until", format!("{:?}", config.eventhubs.until).to_lowercase()));
            }
        }
        Fingerprint(found.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// What differs in `there`, in words: `runtime.workers is 2 here and 4 there`.
    pub fn differences(&self, there: &Fingerprint) -> Vec<String> {
        let none = "not set".to_owned();
        let keys = self.0.keys().chain(there.0.keys().filter(|key| !self.0.contains_key(*key)));
        let value = |of: &Fingerprint, key: &String| of.0.get(key).unwrap_or(&none).clone();
        let differs = keys.filter(|key| value(self, key) != value(there, key));
        differs.map(|key| format!("{key} is {} here and {} there", value(self, key), value(there, key))).collect()
    }

    /// A fingerprint of one setting, for tests.
    #[cfg(test)]
    pub(super) fn single(key: &str, value: &str) -> Fingerprint {
        Fingerprint(BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_key_and_both_values() {
        let (here, there) = (Fingerprint::single("a", "1"), Fingerprint::single("a", "2"));
        assert_eq!(here.differences(&there), ["a is 1 here and 2 there"]);
        assert_eq!(here.differences(&here), Vec::<String>::new());
        let other = Fingerprint::single("b", "3");
        assert_eq!(here.differences(&other), ["a is 1 here and not set there", "b is not set here and 3 there"]);
    }
}
