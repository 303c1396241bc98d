//! What a source reads, in a form that is stored, so that a restart that would read something else is refused with
//! words. It leaves out the content: the digests of what was read guard that.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::Micros;

use super::files::STDIN_NAME;
use super::{GeneratorOptions, Pacing, PartitionInfo};
use crate::config::units::format_duration;

/// What a source reads.
///
/// Two of them that stand for the same input need not be equal, since a directory may have moved:
/// [`SourceIdentity::difference`] tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum SourceIdentity {
    /// Generated events.
    Generate {
        /// When the first event is due; microseconds.
        start: Micros,
        /// Whether events wait until they are due.
        pacing: Pacing,
        /// The other options that decide what is made, by the key that configures them. Texts, because a number with
        /// a fraction need not come back from JSON as the one that was stored.
        options: BTreeMap<String, String>,
    },
    /// An event hub.
    EventHub(HubIdentity),
    /// Files and streams, in the order of their partitions.
    Files {
        /// One for each partition.
        partitions: Vec<FileIdentity>,
    },
}

/// An event hub, and where reading it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubIdentity {
    /// The host of the namespace.
    pub namespace: String,
    /// The event hub.
    pub name: String,
    /// When it was created, which tells it from one of the same name that came after it.
    pub created: Option<Micros>,
    /// The partitions, each with the sequence number of the first event that was to be read.
    pub partitions: Vec<(String, u64)>,
}

/// A file or a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// The path of the file below what was named, or the name of the stream.
    pub name: String,
    /// Where it was, for whoever looks for it. It is not compared.
    pub path: Option<String>,
}

const RATE: &str = "generator.rate";
const PARTITIONS: &str = "generator.partitions";

impl SourceIdentity {
    /// The identity of generated events. How many they are is no part of it: that only says where the stream stops.
    pub(super) fn of_generator(options: &GeneratorOptions, pacing: Pacing) -> Self {
        // Named one by one, so that an option that is added cannot be forgotten here.
        let GeneratorOptions {
            seed,
            start,
            partitions,
            users,
            rate,
            duplicates,
            invalid,
            late,
            disordered,
            watermark_delay,
            events: _,
        } = options;
        let delay = Duration::from_micros(u64::try_from(watermark_delay.0).unwrap_or(0));
        let options = [
            ("generator.seed", seed.to_string()),
            (PARTITIONS, partitions.to_string()),
            ("generator.users", users.to_string()),
            (RATE, rate.to_string()),
            ("generator.duplicates", duplicates.to_string()),
            ("generator.invalid", invalid.to_string()),
            ("generator.late", late.to_string()),
            ("generator.disordered", disordered.to_string()),
            ("dedup.watermark_delay", format_duration(delay)),
        ];
        let options = options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self::Generate { start: *start, pacing, options }
    }

    /// The identity of files and streams.
    pub(super) fn of_files(partitions: &[PartitionInfo]) -> Self {
        let file = |info: &PartitionInfo| FileIdentity {
            name: info.name.clone(),
            path: info.path.as_ref().map(|path| path.display().to_string()),
        };
        Self::Files { partitions: partitions.iter().map(file).collect() }
    }

    /// Names of the partitions, in order.
    pub fn partition_names(&self) -> Vec<String> {
        match self {
            Self::Generate { options, .. } => {
                let partitions = options.get(PARTITIONS).and_then(|partitions| partitions.parse().ok()).unwrap_or(0);
                (0..partitions).map(|partition: u32| partition.to_string()).collect()
            }
            Self::EventHub(hub) => hub.partitions.iter().map(|(name, _)| name.clone()).collect(),
            Self::Files { partitions } => partitions.iter().map(|file| file.name.clone()).collect(),
        }
    }

    /// When the first event of a generator is due: what a restart without a configured start has to go on with.
    pub fn generator_start(&self) -> Option<Micros> {
        match self {
            Self::Generate { start, .. } => Some(*start),
            Self::Files { .. } | Self::EventHub(_) => None,
        }
    }

    /// How this source differs from the one that was stored, in words that follow "the source is another one:"; empty
    /// when it reads the same. Files are told apart by name, and may have grown; which of them have to be there is not asked
    /// here.
    pub fn difference(&self, stored: &Self) -> Vec<String> {
        match (self, stored) {
            (Self::Files { partitions: now }, Self::Files { partitions: before }) => files(before, now),
            (
                Self::Generate { start: start_now, pacing: pacing_now, options: now },
                Self::Generate { start, pacing, options: before },
            ) => {
                let mut found = Vec::new();
                if start != start_now {
                    let (start, start_now) = (instant(*start), instant(*start_now));
                    found.push(format!("generator.start was {start}, now {start_now}"));
                }
                found.extend(rates((*pacing, before), (*pacing_now, now)));
                found.extend(options(before, now));
                found
            }
            (Self::EventHub(now), Self::EventHub(before)) => hubs(before, now),
            (now, before) => vec![format!("{}, now {}", before.past(), now.present())],
        }
    }

    fn past(&self) -> &'static str {
        match self {
            Self::Generate { .. } => "events were generated",
            Self::Files { .. } => "files were read",
            Self::EventHub(_) => "an event hub was read",
        }
    }

    fn present(&self) -> &'static str {
        match self {
            Self::Generate { .. } => "events are generated",
            Self::Files { .. } => "files are read",
            Self::EventHub(_) => "an event hub is read",
        }
    }
}

/// Partitions may be added to an event hub; each keeps its name.
fn hubs(before: &HubIdentity, now: &HubIdentity) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, before: &str, now: &str| {
        if !before.eq_ignore_ascii_case(now) {
            found.push(format!("the {what} was {before}, now {now}"));
        }
    };
    compare("namespace", &before.namespace, &now.namespace);
    compare("event hub", &before.name, &now.name);
    if !found.is_empty() {
        return found;
    }
    if let (Some(then), Some(created)) = (before.created, now.created)
        && then != created
    {
        let (then, created) = (instant(then), instant(created));
        found.push(format!(
            "event hub {} was deleted and created again: it was of {then}, now of {created}. Its sequence numbers mean \
             other events; read it as a new pipeline",
            now.name
        ));
        return found;
    }
    let names = |hub: &HubIdentity| hub.partitions.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (before, now) = (names(before), names(now));
    if !now.starts_with(&before) {
        found.push(format!("the partitions were {}, now {}", before.join(", "), now.join(", ")));
    }
    found
}

type Options = BTreeMap<String, String>;

fn options(before: &Options, now: &Options) -> Vec<String> {
    let keys = before.keys().chain(now.keys().filter(|key| !before.contains_key(*key)));
    let differing = keys.filter(|key| *key != RATE && before.get(*key) != now.get(*key));
    let words = |key: &String| {
        let value = |options: &Options| options.get(key).cloned().unwrap_or_else(|| "not an option".to_owned());
        format!("{key} was {}, now {}", value(before), value(now))
    };
    differing.map(words).collect()
}

/// The configured rate is 0 where events are made at once; their times follow a rate all the same.
fn rates(before: (Pacing, &Options), now: (Pacing, &Options)) -> Option<String> {
    if before.0 == now.0 && before.1.get(RATE) == now.1.get(RATE) {
        return None;
    }
    let events_a_second = |options: &Options| options.get(RATE).cloned().unwrap_or_default();
    if before.0 == Pacing::AtOnce && now.0 == Pacing::AtOnce {
        return Some(format!(
            "{RATE} is 0, and event times followed {} events per second, now {}: \
             that depends on whether generator.events is given",
            events_a_second(before.1),
            events_a_second(now.1)
        ));
    }
    let configured = |(pacing, options): (Pacing, &Options)| match pacing {
        Pacing::AtOnce => "0".to_owned(),
        Pacing::Live => events_a_second(options),
    };
    Some(format!("{RATE} was {}, now {}", configured(before), configured(now)))
}

/// Files may come and go; which have to be there says [`Source::order`](super::Source::order). Standard input stands alone.
fn files(before: &[FileIdentity], now: &[FileIdentity]) -> Vec<String> {
    let words = |streams: bool| if streams { "standard input" } else { "files" };
    match (is_standard_input(before), is_standard_input(now)) {
        (before, now) if before == now => Vec::new(),
        (before, now) => vec![format!("the input was {}, now {}", words(before), words(now))],
    }
}

fn is_standard_input(partitions: &[FileIdentity]) -> bool {
    matches!(partitions, [only] if only.path.is_none() && only.name == STDIN_NAME)
}

fn instant(at: Micros) -> String {
    let time = DateTime::from_timestamp_micros(at.0);
    time.map_or_else(|| format!("{} us", at.0), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn generated(options: &GeneratorOptions, pacing: Pacing) -> SourceIdentity {
        SourceIdentity::of_generator(options, pacing)
    }

    fn read(paths: &[&str]) -> SourceIdentity {
        let info = |path: &&str| PartitionInfo {
            name: path.rsplit('/').next().unwrap().to_owned(),
            path: Some(path.into()),
            bytes: Some(1),
        };
        SourceIdentity::of_files(&paths.iter().map(info).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_but_the_number_of_events_is_compared() {
        let base = GeneratorOptions::default();
        let stored = generated(&base, Pacing::Live);
        let of = |change: &dyn Fn(&mut GeneratorOptions)| {
            let mut options = base.clone();
            change(&mut options);
            generated(&options, Pacing::Live).difference(&stored).join("; ")
        };
        assert_eq!(of(&|options| options.events = Some(5)), "");
        assert_eq!(of(&|options| options.seed = 43), "generator.seed was 42, now 43");
        assert_eq!(of(&|options| options.partitions = 5), "generator.partitions was 4, now 5");
        assert_eq!(of(&|options| options.users = 501), "generator.users was 500, now 501");
        assert_eq!(of(&|options| options.rate = 200), "generator.rate was 100, now 200");
        assert_eq!(of(&|options| options.duplicates = 0.5), "generator.duplicates was 0.01, now 0.5");
        assert_eq!(of(&|options| options.invalid = 0.5), "generator.invalid was 0.01, now 0.5");
        assert_eq!(of(&|options| options.late = 0.5), "generator.late was 0.001, now 0.5");
        assert_eq!(of(&|options| options.disordered = 0.5), "generator.disordered was 0.05, now 0.5");
        let delay = of(&|options| options.watermark_delay = Micros(7_200_000_000));
        assert_eq!(delay, "dedup.watermark_delay was 1 day, now 2h");
        let start = of(&|options| options.start.0 += 1_500_000);
        assert_eq!(start, "generator.start was 2026-01-01T10:00:00Z, now 2026-01-01T10:00:01.500Z");
        assert_eq!(of(&|options| (options.seed, options.users) = (1, 2)).matches("; ").count(), 1);
        assert_eq!(stored.generator_start(), Some(base.start));
    }

    #[test]
    fn rates_are_given_as_they_are_configured() {
        let base = GeneratorOptions::default();
        let fast = GeneratorOptions { rate: 100_000_000, ..base.clone() };
        let stored = generated(&base, Pacing::AtOnce);
        assert_eq!(generated(&base, Pacing::Live).difference(&stored), ["generator.rate was 0, now 100"]);
        let unbounded = generated(&fast, Pacing::AtOnce).difference(&stored);
        assert!(unbounded[0].contains("100 events per second, now 100000000"), "{unbounded:?}");
    }

    #[test]
    fn an_event_hub_is_known_by_place_and_birth_and_may_grow() {
        let hub = |namespace: &str, name: &str, created: i64, partitions: &[&str]| {
            let partitions = partitions.iter().map(|id| ((*id).to_owned(), 7)).collect();
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            SourceIdentity::EventHub(HubIdentity { namespace, name, created: Some(Micros(created)), partitions })
        };
        let stored = hub("ns", "pay", 5, &["0", "1"]);
        let of = |now: SourceIdentity| now.difference(&stored).join("; ");
        assert_eq!(of(hub("NS", "Pay", 5, &["0", "1"])), "");
        assert_eq!(of(hub("ns", "pay", 5, &["0", "1", "2"])), "", "partitions may be added");
        assert_eq!(of(hub("ns", "pay", 5, &["0"])), "the partitions were 0, 1, now 0");
        assert_eq!(of(hub("other", "pay", 6, &["0"])), "the namespace was ns, now other");
        assert_eq!(of(hub("ns", "other", 6, &["0"])), "the event hub was pay, now other");
        assert!(of(hub("ns", "pay", 6, &["0", "1"])).contains("deleted and created again"));
        let unborn = SourceIdentity::EventHub(HubIdentity {
            namespace: "ns".into(),
            name: "pay".into(),
            created: None,
            partitions: vec![("0".into(), 0), ("1".into(), 0)],
        });
        assert_eq!(of(unborn), "", "a broker that does not tell is believed");
        assert_eq!(read(&["a"]).difference(&stored), ["an event hub was read, now files are read"]);
        assert_eq!(stored.difference(&read(&["a"])), ["files were read, now an event hub is read"]);
    }

    #[test]
    fn files_may_come_and_go_and_standard_input_stands_alone() {
        let stored = read(&["in/a", "in/b"]);
        let none: [&str; 0] = [];
        for now in [&["moved/a", "in/b"][..], &["in/b", "in/c"], &["x/c"], &[]] {
            assert_eq!(read(now).difference(&stored), none);
        }
        let stdin = || SourceIdentity::of_files(&[PartitionInfo { name: "stdin".into(), path: None, bytes: None }]);
        assert_eq!(stdin().difference(&stdin()), none);
        assert_eq!(stdin().difference(&stored), ["the input was files, now standard input"]);
        assert_eq!(stored.difference(&stdin()), ["the input was standard input, now files"]);
        let generated = generated(&GeneratorOptions::default(), Pacing::Live);
        assert_eq!(generated.difference(&stored), ["files were read, now events are generated"]);
        assert_eq!(stored.difference(&generated), ["events were generated, now files are read"]);
        assert_eq!(stored.generator_start(), None);
    }

    proptest! {
        #[test]
        fn json_gives_back_what_was_stored(
            (seed, start) in (any::<u64>(), 0..i64::MAX),
            (duplicates, late) in (0.0..0.9_f64, 0.0..0.5_f64),
        ) {
            let options = GeneratorOptions { seed, start: Micros(start), duplicates, late, ..GeneratorOptions::default() };
            for identity in [generated(&options, Pacing::AtOnce), read(&["a", "b/c"])] {
                let stored: SourceIdentity = serde_json::from_str(&serde_json::to_string(&identity).unwrap()).unwrap();
                prop_assert_eq!(identity.difference(&stored), Vec::<String>::new());
                prop_assert_eq!(stored, identity);
            }
        }
    }
}
