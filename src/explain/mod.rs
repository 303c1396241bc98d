//! What became of an event: every arrival of an id that can still be found, and the verdict on each.
//!
//! Tables tell of what was rejected and, if curated events are kept, of what was accepted. The source, read again, tells
//! of every arrival; which epoch took it says the stored cut, and then the rules of the stream give the verdict as they
//! did then. What cannot be searched is said.

mod epochs;
mod print;
mod source;
mod tables;
mod verdict;

use std::collections::BTreeMap;

use serde::Serialize;
use tidemark_checkpoint::journal::Past;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::EventId;
use tidemark_dataflows::watermark::Horizon;
use tidemark_store::Store;

use crate::checkpoint::remembered;
use crate::config::Config;
use crate::config::units::{micros, parse_duration};
use crate::report::reader::Reader;
use crate::runtime::{RunError, build};

use self::epochs::Epochs;
pub use self::verdict::{Place, Verdict};

/// What became of an event.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The id.
    pub event_id: String,
    /// The answer in sentences.
    pub conclusion: Vec<String>,
    /// Its arrivals, in order as far as their epochs are known.
    pub arrivals: Vec<Arrival>,
    /// What the newest checkpoint says of the id.
    pub memory: Option<Memory>,
    /// What could not be searched, and why.
    pub not_searched: Vec<String>,
}

/// One arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// The epoch that took it; null where that cannot be found out.
    pub epoch: Option<u64>,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What became of it.
    pub verdict: Verdict,
    /// Where it was found: `quarantine`, `curated`, `source`.
    pub found_in: Vec<&'static str>,
}

/// What a checkpoint says of an id. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The epoch as of whose end the checkpoint is.
    pub as_of_epoch: u64,
    /// The watermark after it.
    pub watermark_us: Option<i64>,
    /// What is stored of the id, if anything.
    pub entry: Option<Entry>,
}

/// An id that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The accepted event's time is this or later.
    pub event_time_from_us: i64,
    /// And before this.
    pub event_time_before_us: i64,
    /// The watermark from which on the id is forgotten.
    pub forgotten_at_us: i64,
    /// Whether it is remembered under the present watermark.
    pub remembered: bool,
}

impl Explanation {
    /// Whether anything was found anywhere.
    pub fn found(&self) -> bool {
        !self.arrivals.is_empty() || self.memory.as_ref().is_some_and(|memory| memory.entry.is_some())
    }
}

/// What does not change from step to step of a search.
struct Search<'a> {
    config: &'a Config,
    reader: Reader,
    event_id: &'a str,
    id: EventId,
    contract: Contract,
    horizon: Horizon,
    epochs: Epochs,
    stored: Option<(Store, Past)>,
    not_searched: Vec<String>,
    /// Whether all of the source was searched, so that no arrival can be missing.
    whole: bool,
}

/// Searches for an event.
///
/// # Errors
///
/// When neither tables nor a checkpoint can be opened. What can be done without is only told of.
pub fn explain(config: &Config, event_id: &str) -> Result<Explanation, RunError> {
    let mut search = Search::new(config, event_id)?;
    let mut found = BTreeMap::new();
    search.tables(&mut found)?;
    let memory = search.memory()?;
    search.sources(&mut found)?;
    search.health(&mut found)?;
    let arrivals = verdict::decide(&search, found);
    let mut explanation = Explanation {
        event_id: event_id.to_owned(),
        conclusion: Vec::new(),
        arrivals,
        memory,
        not_searched: search.not_searched,
    };
    explanation.not_searched.push("events of R000 and R010: they have no id to find them by".to_owned());
    explanation.conclusion = explanation.conclude();
    Ok(explanation)
}

impl<'a> Search<'a> {
    fn new(config: &'a Config, event_id: &'a str) -> Result<Self, RunError> {
        let stored = build::stored(config)?;
        let past = stored.as_ref().map(|(_, past)| past);
        // The settings that the pipeline was started with, whatever was given to this verb.
        let setting = |key: &str| past.and_then(|past| past.identity.settings.get(key));
        let span = |key, configured| setting(key).and_then(|text| parse_duration(text)).unwrap_or(configured);
        let horizon = Horizon {
            watermark_delay_us: micros(span("dedup.watermark_delay", config.dedup.watermark_delay)),
            dedup_retention_us: micros(span("dedup.retention", config.dedup.retention)),
        };
        let contract = Contract {
            max_future_skew_us: micros(span("contract.max_future_skew", config.contract.max_future_skew)),
            // Without a checkpoint any key will do: ids are compared within this search alone.
            id_key: past.map_or([0, 0], |past| past.identity.id_key),
            curated: false,
        };
        let mut not_searched = Vec::new();
        if past.is_none() {
            let folder = config.checkpoint_path();
            not_searched.push(format!("remembered ids and cuts: there is no checkpoint in {}", folder.display()));
        }
        Ok(Search {
            config,
            reader: Reader::new(config)?,
            event_id,
            id: contract.event_id(event_id),
            contract,
            horizon,
            epochs: Epochs::new(past),
            stored,
            not_searched,
            whole: false,
        })
    }

    /// What the newest sound checkpoint says of the id.
    fn memory(&mut self) -> Result<Option<Memory>, RunError> {
        let Some((store, past)) = &self.stored else { return Ok(None) };
        let Some((manifest, known)) = remembered::find(store, past, self.id)? else {
            self.not_searched.push("remembered ids: there is no checkpoint yet".to_owned());
            return Ok(None);
        };
        let watermark = manifest.next_watermark(self.horizon);
        let oldest = self.horizon.oldest_remembered(watermark);
        let entry = known.map(|known| {
            let bucket = i64::try_from(known.bucket.0).unwrap_or(i64::MAX);
            let from = bucket.saturating_mul(self.horizon.bucket_us());
            Entry {
                event_time_from_us: from,
                event_time_before_us: from.saturating_add(self.horizon.bucket_us()),
                forgotten_at_us: self.horizon.bucket_forgotten_at(known.bucket).0,
                remembered: known.bucket >= oldest,
            }
        });
        Ok(Some(Memory { as_of_epoch: manifest.epoch, watermark_us: watermark.map(|at| at.0), entry }))
    }
}
