//! The watermark of each epoch: it never falls, and it follows from the cuts and the events' times as far as those are
//! stored.
//!
//! Stored are the event times that a manifest goes on from, the cuts after the manifests, the times of accepted events
//! where these are kept, and those of late and conflicting ones in their payloads. Those of duplicates are not: an epoch
//! with some leaves open where between two bounds the watermark after it lies.

mod bounds;
mod times;

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use tidemark_checkpoint::inbox;
use tidemark_checkpoint::journal::Past;
use tidemark_checkpoint::records::{Cut, Manifest};
use tidemark_dataflows::event::{Epoch, Micros, PartitionId};
use tidemark_dataflows::watermark::{Behind, Horizon, Progress, Settings, Watermarks};
use tidemark_delta::Error;

use self::bounds::Bounds;
use self::times::Times;
use super::check::Check;
use super::cut::CURATED;
use super::health::Health;
use super::read::Tables;
use crate::config::units::{micros, parse_duration};
use crate::report::numbers::{counted, grouped};
use crate::source::SourceIdentity;

/// Findings that are told; those after them follow from the first, most of the time.
const TOLD: usize = 10;

/// Both checks, where they could not be made.
pub(super) fn unmade() -> [Check; 2] {
    [rises(&Health::default()), Check::skipped(NAME, CLAIM, "")]
}

/// Both checks, as of `epoch`.
pub(super) fn checks(
    tables: Tables<'_>,
    health: &Health,
    epoch: Epoch,
    past: Option<&Past>,
) -> Result<[Check; 2], Error> {
    Ok([rises(health), follows(tables, health, epoch, past)?])
}

fn rises(health: &Health) -> Check {
    let with_watermark = health.epochs.values().filter(|row| row.watermark.is_some()).count();
    let falls = health.falls();
    let first = falls.first().map(|first| format!("it falls {} times, first in epoch {first}", falls.epochs));
    Check::of(
        "health.watermark",
        "the watermark of stream_health never falls, and never goes once it is there",
        format!("{with_watermark} of {} epochs have one", health.rows),
        first.into_iter().collect(),
    )
}

const NAME: &str = "watermark.follows";
const CLAIM: &str = "each watermark follows from the cuts and event times before it, as far as these are stored";

fn follows(tables: Tables<'_>, health: &Health, epoch: Epoch, past: Option<&Past>) -> Result<Check, Error> {
    let Some(past) = past else { return Ok(Check::skipped(NAME, CLAIM, "there is no checkpoint that can be read")) };
    let manifests: BTreeMap<Epoch, &Manifest> =
        past.manifests.iter().map(|found| (found.link.epoch, &found.manifest)).filter(|(at, _)| *at <= epoch).collect();
    // From the first epoch on, where all cuts are there, else from the oldest manifest.
    let from_first = past.cuts.contains_key(&1).then_some(0);
    let Some(start) = from_first.or_else(|| manifests.keys().next().copied()) else {
        return Ok(Check::skipped(NAME, CLAIM, "neither a manifest nor the first cut is there"));
    };
    let last = past.cuts.keys().next_back().copied().unwrap_or(start).max(start).min(epoch);
    let curated = tables.versions.contains_key(CURATED) && !names_the_inbox(past);
    let rule = Rule { past };
    let times = curated.then(|| Times::new(tables, rule.most_witnesses(), last));
    let mut walk = Walk { rule, health, times, manifests, found: Found::default() };
    walk.along(start, last)?;
    Ok(walk.found.check(epoch, curated))
}

/// Whether a file has the name of the inbox: tables do not tell one from the other then.
fn names_the_inbox(past: &Past) -> bool {
    let source = serde_json::from_value::<SourceIdentity>(past.identity.source.clone());
    source.is_ok_and(|source| source.partition_names().iter().any(|name| name == inbox::PARTITION))
}

/// The settings that watermarks follow from, in each epoch.
#[derive(Clone, Copy)]
struct Rule<'a> {
    past: &'a Past,
}

impl Rule<'_> {
    /// A setting as it was in an epoch: what the first change after it says that it was before.
    fn setting(&self, key: &str, epoch: Epoch) -> Option<&str> {
        let later = self.past.changes.iter().filter(|change| change.setting == key && change.epoch > epoch);
        match later.min_by_key(|change| change.epoch) {
            Some(change) => change.before.as_deref(),
            None => self.past.identity.settings.get(key).map(String::as_str),
        }
    }

    /// None where it was not set yet: no epoch waits for a partition then.
    fn witnesses(&self, epoch: Epoch) -> Option<usize> {
        self.setting("watermark.witnesses", epoch)?.parse().ok()
    }

    fn most_witnesses(&self) -> usize {
        let before = self.past.changes.iter().filter_map(|change| self.witnesses(change.epoch.saturating_sub(1)));
        before.chain(self.witnesses(Epoch::MAX)).max().unwrap_or(1)
    }

    /// The settings in an epoch; none where they cannot be read.
    fn settings(&self, epoch: Epoch, uncounted: Option<PartitionId>) -> Option<Settings> {
        let delay = parse_duration(self.setting("dedup.watermark_delay", epoch)?)?;
        // Nothing here asks how long ids are remembered.
        let horizon = Horizon { watermark_delay_us: micros(delay), dedup_retention_us: 0 };
        Some(Settings { horizon, witnesses: self.witnesses(epoch).unwrap_or(1), uncounted })
    }
}

/// The partitions that a cut says are behind; none where it does not say so.
fn behind_of(cut: &Cut) -> Option<Vec<Behind>> {
    cut.behind.as_ref().map(|behind| behind.iter().map(Behind::from).collect())
}

/// What was compared, and what is wrong.
#[derive(Default)]
struct Found {
    exactly: u64,
    within: u64,
    /// First and last epoch whose watermark was computed again.
    epochs: Option<(Epoch, Epoch)>,
    manifests: u64,
    findings: Vec<String>,
}

impl Found {
    fn recomputed(&mut self, epoch: Epoch, exactly: bool) {
        *(if exactly { &mut self.exactly } else { &mut self.within }) += 1;
        self.epochs = Some((self.epochs.map_or(epoch, |(first, _)| first), epoch));
    }

    fn check(mut self, epochs: Epoch, curated: bool) -> Check {
        let checkpoints = counted(self.manifests, "checkpoint");
        let Some((first, last)) = self.epochs else {
            let why = if curated { "no epoch's times are stored" } else { "accepted events are not kept" };
            let figures = format!("recomputed for none of {}: {why}; {checkpoints} compared", counted(epochs, "epoch"));
            return match self.manifests {
                0 => Check::skipped(NAME, CLAIM, figures),
                _ => Check::of(NAME, CLAIM, figures, self.findings),
            };
        };
        let mut figures =
            format!("recomputed for epochs {} to {} of {}", grouped(first), grouped(last), grouped(epochs));
        if self.exactly + self.within <= last - first {
            figures += &format!(", {} of them", grouped(self.exactly + self.within));
        }
        figures += &format!(": {} exactly", grouped(self.exactly));
        if self.within > 0 {
            figures += &format!(", {} within what times of duplicates leave open", grouped(self.within));
        }
        figures += &format!("; {checkpoints} compared");
        let more = self.findings.len().saturating_sub(TOLD);
        self.findings.truncate(TOLD);
        self.findings.extend((more > 0).then(|| format!("and {} more", grouped(more as u64))));
        Check::of(NAME, CLAIM, figures, self.findings)
    }
}

/// One walk over the epochs.
struct Walk<'a> {
    rule: Rule<'a>,
    health: &'a Health,
    /// Event times of epochs; none where accepted events are not kept.
    times: Option<Times<'a>>,
    manifests: BTreeMap<Epoch, &'a Manifest>,
    found: Found,
}

impl Walk<'_> {
    /// From the end of epoch `start` to the end of epoch `last`. Each manifest restarts it.
    fn along(&mut self, start: Epoch, last: Epoch) -> Result<(), Error> {
        let first = self.rule.settings(1, None).filter(|_| start == 0);
        let mut bounds = first.map(|settings| Bounds::new(settings, Progress::default()));
        for epoch in start..=last {
            let cut = self.rule.past.cuts.get(&epoch);
            if epoch > start {
                bounds = match (bounds, cut) {
                    (Some(bounds), Some(cut)) => self.pass(bounds, cut)?,
                    _ => None,
                };
            }
            if let Some(manifest) = self.manifests.get(&epoch).copied() {
                bounds = self.restart(bounds.as_ref(), manifest, cut);
            }
        }
        Ok(())
    }

    /// Takes an epoch; none where its times are not known.
    fn pass(&mut self, mut bounds: Bounds, cut: &Cut) -> Result<Option<Bounds>, Error> {
        let epoch = cut.epoch;
        let Some(times) = &mut self.times else { return Ok(None) };
        let Some(known) = times.of(epoch, cut, self.health)? else { return Ok(None) };
        let Some(settings) = self.rule.settings(epoch, known.inbox) else { return Ok(None) };
        let behind = behind_of(cut);
        if behind.is_some() && self.rule.witnesses(epoch).is_none() || !bounds.pass(settings, &known, behind.as_deref())
        {
            return Ok(None);
        }
        if let Some(said) = self.health.watermark(epoch + 1) {
            let (least, most) = bounds.watermark();
            self.found.recomputed(epoch + 1, least == most);
            if said < least || said > most {
                let said = in_words(said);
                let follows = if least == most {
                    in_words(least)
                } else {
                    format!("one between {} and {}", in_words(least), in_words(most))
                };
                let what = format!("epoch {}: its watermark is {said}, and {follows} follows", epoch + 1);
                self.found.findings.push(what);
            }
        }
        Ok(Some(bounds))
    }

    /// Compares a manifest with what was computed up to it, with the tables and with the cut of its epoch, and goes on from
    /// it.
    fn restart(&mut self, bounds: Option<&Bounds>, manifest: &Manifest, cut: Option<&Cut>) -> Option<Bounds> {
        let epoch = manifest.epoch;
        let inbox = manifest.inbox().map(|inbox| PartitionId(inbox.index));
        let (settings, next) = (self.rule.settings(epoch, inbox)?, self.rule.settings(epoch + 1, inbox)?);
        let progress = manifest.progress(settings.horizon);
        self.found.manifests += 1;
        let mut wrong = Vec::new();
        if let Some(said) = self.health.watermark(epoch + 1).filter(|said| *said != progress.watermark) {
            let (said, here) = (in_words(said), in_words(progress.watermark));
            wrong.push(format!("it goes on with watermark {here}, and epoch {} has {said}", epoch + 1));
        }
        if let Some(before) = self.health.watermark(epoch) {
            wrong.extend(against_its_own_times(settings, &progress, before, cut));
        }
        if let Some(bounds) = bounds.filter(|_| manifest.event_times.is_some()) {
            wrong.extend(bounds.differences(&progress));
        }
        self.found.findings.extend(wrong.into_iter().map(|what| format!("the checkpoint of epoch {epoch}: {what}")));
        let same = (settings.witnesses, self.rule.witnesses(epoch).is_some())
            == (next.witnesses, self.rule.witnesses(epoch + 1).is_some());
        Some(Bounds::new(next, if same { progress } else { progress.counted_anew() }))
    }
}

/// The watermark of a manifest follows from that of its epoch, its own event times and the cut of its epoch; without the cut
/// it is known how far it can have come.
fn against_its_own_times(
    settings: Settings,
    progress: &Progress,
    before: Option<Micros>,
    cut: Option<&Cut>,
) -> Option<String> {
    let said = progress.watermark;
    let most = before.max(settings.horizon.watermark(progress.newest));
    let (least, most) = match cut {
        Some(cut) => {
            let as_before = Progress { watermark: before, ..progress.clone() };
            let behind = behind_of(cut);
            let waits = behind.is_some();
            let closed = Watermarks::new(settings, as_before).close(cut.epoch, waits, &behind.unwrap_or_default());
            (closed.next_watermark, closed.next_watermark)
        }
        None => (before, most),
    };
    let holds = least <= said && said <= most;
    (!holds).then(|| {
        let [said, least] = [said, least].map(in_words);
        format!("its watermark is {said}, and {least} follows from its own event times and cut")
    })
}

fn in_words(at: Option<Micros>) -> String {
    let text =
        |at: Micros| DateTime::from_timestamp_micros(at.0).map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    at.map_or("none".to_owned(), |at| text(at).unwrap_or_else(|| at.0.to_string()))
}
