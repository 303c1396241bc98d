//! What a pipeline is: the settings and the source that its results depend on. A restart with others is refused.

use std::collections::BTreeMap;

use tidemark_checkpoint::records::Identity;
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::metrics;

use super::{RunError, clock};
use crate::config::units::{format_duration, format_size};
use crate::config::{Config, SourceKind};
use crate::source::SourceIdentity;

/// The identity of a pipeline: that of its first start, if it fits this configuration and source, or a new one.
///
/// # Errors
///
/// [`RunError::Changed`] when it does not fit, or no key can be drawn.
pub(super) fn settle(
    config: &Config,
    source: &SourceIdentity,
    stored: Option<&Identity>,
) -> Result<Identity, RunError> {
    match stored {
        Some(stored) => {
            let differences = differences(config, source, stored);
            if !differences.is_empty() {
                return Err(RunError::Changed { differences });
            }
            // What the version that started it did not know is from now on as it is now.
            let mut identity = stored.clone();
            identity.settings.extend(unknown_to(config, stored));
            Ok(identity)
        }
        None => first(config, source),
    }
}

/// The settings that the version which started the pipeline did not know, as they are now.
pub(super) fn unknown_to(config: &Config, stored: &Identity) -> BTreeMap<String, String> {
    let mut settings = settings(config);
    settings.retain(|key, _| !stored.settings.contains_key(key) && !BEFORE.iter().any(|(before, _)| before == key));
    settings
}

/// What an earlier run read, where this version knows that kind of source.
pub(super) fn source(stored: &Identity) -> Option<SourceIdentity> {
    serde_json::from_value(stored.source.clone()).ok()
}

/// When the first event of an earlier run's generator was due.
pub(super) fn generator_start(stored: &Identity) -> Option<Micros> {
    source(stored)?.generator_start()
}

fn first(config: &Config, source: &SourceIdentity) -> Result<Identity, RunError> {
    let draw = || getrandom::u64().map_err(|error| RunError::Randomness(error.to_string()));
    let source = serde_json::to_value(source).map_err(|error| RunError::Worker(error.to_string()))?;
    Ok(Identity {
        pipeline: config.pipeline.name.clone(),
        lineage: draw()?,
        created_us: clock::now().0,
        id_key: [draw()?, draw()?],
        index_key: [draw()?, draw()?],
        settings: settings(config),
        source,
    })
}

/// What a pipeline was started with whose version did not know the setting yet.
const BEFORE: [(&str, &str); 2] = [("quarantine.max_bytes_per_epoch", NO_CAP), ("metrics", "channels, users")];

const NO_CAP: &str = "not set";

/// The settings that results depend on, by key. What belongs to the source is in its own identity.
fn settings(config: &Config) -> BTreeMap<String, String> {
    let mut settings = vec![
        ("dedup.watermark_delay", format_duration(config.dedup.watermark_delay)),
        ("dedup.retention", format_duration(config.dedup.retention)),
        ("contract.max_future_skew", format_duration(config.contract.max_future_skew)),
        (
            "quarantine.max_bytes_per_epoch",
            config.quarantine.max_bytes_per_epoch.map_or(NO_CAP.to_owned(), format_size),
        ),
        ("output.curated", config.output.curated.to_string()),
        ("watermark.witnesses", config.watermark.witnesses.to_string()),
        ("metrics", metrics()),
    ];
    if config.source.kind == SourceKind::File {
        settings.push(("epochs.events", config.epochs.events.to_string()));
        settings.push(("files.alignment", format_duration(config.files.alignment)));
    }
    settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The metrics of this program, in order of name: one that joins later would lack what was counted before.
fn metrics() -> String {
    let mut names = metrics::names();
    names.sort_unstable();
    names.join(", ")
}

fn differences(config: &Config, source: &SourceIdentity, stored: &Identity) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |key: &str, stored: &str, now: &str| {
        if stored != now {
            found.push(format!("{key} was {stored}, now {now}"));
        }
    };
    compare("pipeline.name", &stored.pipeline, &config.pipeline.name);
    let now = settings(config);
    let unknown = BEFORE.into_iter().filter(|(key, _)| !stored.settings.contains_key(*key));
    let known = stored.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in known.chain(unknown) {
        // A setting that only the other kind of source has is told of as another source.
        if let Some(now) = now.get(key) {
            compare(key, value, now);
        }
    }
    match serde_json::from_value::<SourceIdentity>(stored.source.clone()) {
        Ok(stored) => found.extend(source.difference(&stored)),
        Err(_) => found.push("the source was one that this version of the program does not know".to_owned()),
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Effective, Layers};
    use crate::runtime::build;
    use crate::source::Source;
    use crate::source::generator::GeneratorSource;

    #[test]
    fn a_pipeline_that_was_begun_with_other_metrics_is_refused() {
        let config = Effective::load(Layers::default()).unwrap().config;
        let (generator, pacing) = build::generator(&config, None).unwrap();
        let source = GeneratorSource::new(generator, pacing).identity();
        let mut stored = first(&config, &source).unwrap();
        assert!(settle(&config, &source, Some(&stored)).is_ok());
        stored.settings.insert("metrics".to_owned(), "channels, days, users".to_owned());
        let refused = settle(&config, &source, Some(&stored)).unwrap_err();
        assert!(refused.to_string().contains("metrics was channels, days, users, now channels, users"), "{refused}");
        // Older versions had these, and did not say so.
        stored.settings.remove("metrics");
        assert!(settle(&config, &source, Some(&stored)).is_ok());
    }
}
