//! From a checked configuration to the parts that a run is made of.

use std::sync::Arc;
use std::time::Duration;

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::journal::{self, Past};
use tidemark_checkpoint::records::{Identity, Position};
use tidemark_dataflows::arrangement::{Settings as IndexSettings, SweepRate};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Micros, PartitionId};
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::watermark::Horizon;
use tidemark_delta::{Lake, Policy};
use tidemark_store::{Patience, Store};

use super::backpressure::Limits;
use super::epochs::CutRule;
use super::run_context::RunContext;
use super::{RunError, access, clock};
use crate::config::units::micros;
use crate::config::{Config, SourceKind};
use crate::health::Health;
use crate::sink::breaker::{Advice, Breaker};
use crate::sink::publisher::Options;
use crate::sink::tables::{Keep, ManifestText, specs};
use crate::sink::writer::Pace;
use crate::source::eventhubs::EventHubsOptions;
use crate::source::generator::{EventGenerator, GeneratorOptions, GeneratorSource, Pacing};
use crate::source::{EventHubsSource, FileOptions, FileSource, Share, Source, SourceError, SourceIdentity};
use crate::storage::Storage;

/// Events per second that event times follow where a bounded stream is generated at once.
const CLASSIC_RATE: u64 = 100;

/// The same for a stream without end: faster than any machine generates, so that no event comes from the future.
const UNREACHED_RATE: u64 = 100_000_000;

/// How long what was replaced stays in the memory of a dry run.
const DRY_RETENTION: Duration = Duration::from_secs(5);

/// Admitted ids after which a worker hands them on, checkpoint or not: 12 MiB of them.
const LOGGED_IDS: usize = 1 << 18;

/// Opens the configured source. What fails there and may pass is shown in `health`. A generator without a start instant goes on from the one that an earlier run had.
///
/// # Errors
///
/// When an input is missing, unreadable or not what it should be.
pub fn source(
    config: &Config,
    earlier_start: Option<Micros>,
    health: &Arc<Health>,
) -> Result<Box<dyn Source>, SourceError> {
    source_share(config, earlier_start, health, Share::WHOLE)
}

/// The same where other processes read some of the partitions.
///
/// # Errors
///
/// As for [`source`].
pub fn source_share(
    config: &Config,
    earlier_start: Option<Micros>,
    health: &Arc<Health>,
    share: Share,
) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config.source.kind {
        SourceKind::File => {
            let max_future_skew_us = micros(config.contract.max_future_skew);
            let witnesses = config.watermark.witnesses;
            let options = FileOptions { share, max_future_skew_us, witnesses, ordered: true, ..FileOptions::default() };
            Box::new(FileSource::open(&config.source.inputs, options)?)
        }
        SourceKind::Generate => {
            let (generator, pacing) = generator(config, earlier_start)?;
            Box::new(GeneratorSource::new(generator, pacing).of_share(share))
        }
        SourceKind::EventHubs => {
            let options = EventHubsOptions { share, ..access::eventhubs(config)? };
            Box::new(EventHubsSource::open(options, health)?)
        }
    })
}

/// The same for a dry run, which displaces no reader.
///
/// # Errors
///
/// As for [`source`].
pub fn source_beside(config: &Config, health: &Arc<Health>) -> Result<Box<dyn Source>, SourceError> {
    if config.source.kind != SourceKind::EventHubs {
        return source(config, None, health);
    }
    let options = EventHubsOptions { exclusive: false, ..access::eventhubs(config)? };
    Ok(Box::new(EventHubsSource::open(options, health)?))
}

/// The partitions that this process reads.
pub fn assignment(config: &Config) -> Share {
    Share { process: config.cluster.process, processes: config.cluster.processes }
}

/// The configured generator. Without a start instant, a paced stream starts now, and one generated at once ends now.
///
/// # Errors
///
/// When an option is out of range.
pub fn generator(config: &Config, earlier_start: Option<Micros>) -> Result<(EventGenerator, Pacing), SourceError> {
    let wanted = &config.generator;
    let events = Some(wanted.events).filter(|events| *events > 0);
    let (rate, pacing) = match (wanted.rate, events) {
        (0, Some(_)) => (CLASSIC_RATE, Pacing::AtOnce),
        (0, None) => (UNREACHED_RATE, Pacing::AtOnce),
        (rate, _) => (rate, Pacing::Live),
    };
    let lasts_us = match pacing {
        Pacing::AtOnce => i64::try_from(u128::from(wanted.events) * 1_000_000 / u128::from(rate)).unwrap_or(i64::MAX),
        Pacing::Live => 0,
    };
    let start = wanted.start.map(Micros).or(earlier_start);
    let options = GeneratorOptions {
        seed: wanted.seed,
        start: start.unwrap_or_else(|| Micros(clock::now().0.saturating_sub(lasts_us).max(0))),
        partitions: u32::try_from(wanted.partitions).unwrap_or(u32::MAX),
        users: u32::try_from(wanted.users).unwrap_or(u32::MAX),
        rate,
        duplicates: wanted.duplicates,
        invalid: wanted.invalid,
        late: wanted.late,
        disordered: wanted.disordered,
        watermark_delay: Micros(micros(config.dedup.watermark_delay)),
        events,
    };
    Ok((EventGenerator::new(options)?, pacing))
}

/// When ids are late and when they are forgotten.
pub fn horizon(config: &Config) -> Horizon {
    Horizon {
        watermark_delay_us: micros(config.dedup.watermark_delay),
        dedup_retention_us: micros(config.dedup.retention),
    }
}

/// The settings of the computation on `workers` workers of all processes, with the keys of the pipeline.
pub fn settings(config: &Config, workers: usize, identity: &Identity, positions: &[Position]) -> Settings {
    let inbox = positions.iter().find(|position| position.partition == inbox::PARTITION);
    let expected_ids = usize::try_from(config.dedup.expected_ids).unwrap_or(usize::MAX) / workers;
    Settings {
        contract: Contract {
            max_future_skew_us: micros(config.contract.max_future_skew),
            id_key: identity.id_key,
            curated: config.output.curated,
        },
        index: IndexSettings {
            horizon: horizon(config),
            key: identity.index_key,
            expected_ids,
            sweep: SweepRate::default(),
        },
        log_admissions: config.checkpoint.enabled.then_some(LOGGED_IDS),
        payload_cap: PayloadCap(config.quarantine.max_bytes_per_epoch),
        witnesses: config.watermark.witnesses,
        uncounted: inbox.map(|inbox| PartitionId(inbox.index)),
    }
}

/// What ends an epoch.
pub fn cut_rule(config: &Config) -> CutRule {
    match config.source.kind {
        SourceKind::File => {
            CutRule::Files { events: config.epochs.events, alignment_us: micros(config.files.alignment) }
        }
        SourceKind::Generate | SourceKind::EventHubs => CutRule::Live { trigger: config.epochs.trigger },
    }
}

/// How much may be on its way from the partitions of this process.
pub fn limits(config: &Config) -> Limits {
    let processes = u64::try_from(config.cluster.processes).unwrap_or(u64::MAX).max(1);
    let live = matches!(cut_rule(config), CutRule::Live { .. });
    Limits {
        epochs: config.epochs.max_in_flight,
        bytes: config.epochs.max_bytes_in_flight / processes,
        live_events: live.then_some((config.epochs.max_events / processes).max(1)),
    }
}

/// How storage that fails is met.
pub fn patience(config: &Config, health: &Arc<Health>) -> Patience {
    Patience {
        give_up_after: config.store.give_up_after,
        request_timeout: config.store.request_timeout,
        watch: Arc::clone(health) as _,
        stop: None,
    }
}

/// The checkpoint's folder and what is stored there, for those who look at it from outside; `None` where no pipeline
/// was ever started. Nothing is created.
///
/// # Errors
///
/// When the folder cannot be read, or something in it without which nothing can be said.
pub fn stored(config: &Config) -> Result<Option<(Store, Past)>, RunError> {
    let (storage, patience) = (Storage::new(config), patience(config, &Arc::default()));
    let store = match config.checkpoint_path().local() {
        Some(folder) if !folder.is_dir() => return Ok(None),
        Some(_) => Some(storage.checkpoint(patience)?),
        None => storage.existing_checkpoint(patience)?,
    };
    let Some(store) = store else { return Ok(None) };
    Ok(journal::look(&store)?.map(|past| (store, past)))
}

/// Where and how tables are written.
///
/// # Errors
///
/// When the output is no place for tables, or refuses us.
pub(super) fn publishing(
    config: &Config,
    workers: usize,
    (generation, lineage): (u64, u64),
    context: &RunContext,
    storage: &Storage<'_>,
) -> Result<Options, RunError> {
    let sink = &config.sink;
    let policy = Policy {
        checkpoint_interval_commits: sink.log_checkpoint_every,
        retention: sink.file_retention,
        log_retention: sink.log_retention,
        clean_every: sink.maintain_every,
        compact_after_files: sink.compact_after_files,
        target_file_bytes: sink.compact_target,
        sync: sink.sync,
        foreign_changes: sink.foreign_changes,
        accept_changes: config.accept_changes,
        ..Policy::default()
    };
    let policy = if storage.is_dry() { in_memory(policy) } else { policy };
    let keep = Keep { payloads: config.quarantine.keep_payloads, health: sink.keep_health };
    let pace = pace(config);
    tracing::info!(interval_ms = pace.least.as_millis(), "shortest time between two publications");
    let generation = i64::try_from(generation).unwrap_or(i64::MAX);
    let identity = tidemark_delta::Identity { pipeline: config.pipeline.name.clone(), generation, lineage };
    Ok(Options {
        lake: Lake::new(storage.tables(context.patience(config))?, identity, policy)?,
        specs: keep.of(specs(config.output.curated)),
        pace,
        workers,
        patience: context.patience(config),
        permit: context.permit.clone(),
        breaker: breaker(config, storage.is_dry()),
        telemetry: Arc::clone(&context.telemetry),
        now: clock::now,
        on_foreign_changes: sink.foreign_changes,
        maintain_every: sink.maintain_every,
    })
}

/// Nobody reads older versions of tables in memory, and all of them would stay there.
fn in_memory(policy: Policy) -> Policy {
    Policy {
        retention: DRY_RETENTION,
        log_retention: DRY_RETENTION,
        clean_every: DRY_RETENTION,
        allow_short_retention: true,
        sync: false,
        ..policy
    }
}

/// What ends the run when too much is rejected; no share exceeds 1.
fn breaker(config: &Config, dry: bool) -> Option<Breaker> {
    let wanted = &config.breaker;
    let advice = if dry { Advice::Nothing } else { Advice::Look(config.output.path.to_string()) };
    let breaker = Breaker { max_rejected_share: wanted.max_rejected_share, min_events: wanted.min_events, advice };
    (breaker.max_rejected_share < 1.0).then_some(breaker)
}

/// A live source whose trigger is the longer time sets the pace. Epochs do not close on the dot, so only half of it is waited
/// for: else an epoch that closed late would make the one after it late as well.
///
/// Publishing takes half of the time at most where somebody waits for what has just happened, and a quarter where what is read
/// has long been there: then it is the end that is waited for.
fn pace(config: &Config) -> Pace {
    let least = config.publish_interval();
    match cut_rule(config) {
        CutRule::Live { trigger } if least <= trigger || !config.publishes_past_the_trigger() => {
            Pace { least: least.min(trigger / 2), rest: 1 }
        }
        CutRule::Live { .. } => Pace { least, rest: 1 },
        CutRule::Files { .. } => Pace { least, rest: 3 },
    }
}

/// What the run manifest says in words.
pub fn manifest_text(config: &Config, output: &str, source: &SourceIdentity) -> ManifestText {
    let dedup = &config.dedup;
    ManifestText {
        output_path: output.to_owned(),
        source: match source {
            SourceIdentity::Files { .. } => format!("file: {}", config.source.inputs.join(", ")),
            SourceIdentity::Generate { .. } => format!("generate: seed {}", config.generator.seed),
            SourceIdentity::EventHub(hub) => format!("eventhubs: {}/{}", hub.namespace, hub.name),
        },
        dedup_scope: format!(
            "event_id, watermark delay {} s, retention {} s of event time",
            dedup.watermark_delay.as_secs_f64(),
            dedup.retention.as_secs_f64()
        ),
    }
}
