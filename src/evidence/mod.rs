//! Checks every guarantee on what is stored: tables, their commits, and what is kept for a restart.
//!
//! Nothing is written, and a pipeline may be at work meanwhile. All tables are read as of one epoch, at versions that
//! their commits name; if a file of such a version has gone, a newer epoch is taken. But for the watermark, what is computed
//! from events is not computed again here: whether the figures are the right ones is for an oracle that has the events.

pub mod chain;
mod check;
mod commits;
mod cut;
mod health;
mod metrics;
mod monitoring;
mod read;
mod series;
mod watermark;

use tidemark_checkpoint::journal::{self, Past};
use tidemark_checkpoint::verify::{About, Report};
use tidemark_delta::Error;

pub use self::check::{Check, Outcome};
pub use self::series::{Point, Series};

use self::chain::compared;
use self::cut::{Cut, Log};
use self::health::Counts;
use self::metrics::{Metrics, Totals};
use self::monitoring::{Checkpointed, Monitoring};
use self::read::Tables;
use crate::config::Config;
use crate::exit::{ExitStatus, Failure};
use crate::report::reader::Reader;
use crate::runtime::{self, RunError};

/// How often a newer cut is taken, where files of the one before have gone.
const ATTEMPTS: usize = 5;

/// A table as it was read.
#[derive(Clone, Debug)]
pub struct TableState {
    /// Its path.
    pub name: &'static str,
    /// The version that was read; none where the table has none for the epoch.
    pub version: Option<u64>,
    /// The newest epoch that it holds.
    pub held: Option<i64>,
    /// Commits whose log entries are there.
    pub commits: usize,
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Where the tables are.
    pub output: String,
    /// The epoch as of which tables were read.
    pub epoch: Option<u64>,
    /// The tables.
    pub tables: Vec<TableState>,
    /// The checks, in the order of the specification.
    pub checks: Vec<Check>,
    /// Figures over the epochs.
    pub series: Series,
}

impl Evidence {
    /// Number of checks that failed.
    pub fn failed(&self) -> usize {
        self.count(Outcome::Failed)
    }

    /// Number of checks with some outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    /// Makes every check on the output and checkpoint of a configuration. A `quick` look leaves out whether every file is what was
    /// written.
    ///
    /// # Errors
    ///
    /// When there is nothing to check, or storage does not answer.
    pub fn gather(config: &Config, quick: bool) -> Result<Evidence, Failure> {
        let reader = Reader::new(config)?;
        // Tables hold what a checkpoint says, so it is looked at before; they hold what was cut, so cuts are read after.
        let past = past(config)?;
        let before = checkpointed(past.as_ref());
        let mut attempt = 0;
        let (cut, mut checks, series) = loop {
            attempt += 1;
            let mut cut = Cut::find(&reader);
            if let Some(error) = cut.take_failure() {
                return Err(RunError::from(error).into());
            }
            if cut.is_nothing() {
                let output = config.output.path.display();
                let problem = format!("{output}: there are no tables; give the --output of the run");
                return Err(Failure::new(ExitStatus::Unavailable, problem));
            }
            if cut.is_torn() && attempt < ATTEMPTS {
                continue;
            }
            match tables(&reader, &cut, before, past.as_ref()) {
                Ok((checks, series)) => break (cut, checks, series),
                Err(error) if !error.is_damage() => return Err(RunError::from(error).into()),
                Err(_) if attempt < ATTEMPTS && Cut::find(&reader).versions != cut.versions => {}
                Err(error) => {
                    let mut checks = unmade("not every table can be read");
                    checks[0] = Check::of("tables.readable", READABLE, epoch_in_words(&cut), vec![error.to_string()]);
                    break (cut, checks, Series::default());
                }
            }
        };
        checks.iter_mut().for_each(|check| cut.accept(check));
        checks.insert(0, cut.check());
        checks.insert(1, files(&reader, &cut, quick)?);
        let report = chain::verify(config)?;
        let pipeline = report.as_ref().and_then(|report| report.identity.as_ref()).map(|id| id.pipeline.as_str());
        checks.extend(commits::check(&cut, pipeline));
        match &report {
            Some(report) => {
                checks.extend(checkpoint(report, &cut, before));
                checks.push(lineage(config)?);
            }
            None => checks.push(no_checkpoint(config, &cut)),
        }
        let state = |log: &Log| TableState {
            name: log.name,
            version: cut.versions.get(log.name).copied(),
            held: log.held(),
            commits: log.commits.as_ref().map_or(0, Vec::len),
        };
        let tables = cut.logs.iter().map(state).collect();
        Ok(Evidence { output: config.output.path.to_string(), epoch: cut.epoch, tables, checks, series })
    }
}

/// Every byte of every live file is what was written.
fn files(reader: &Reader, cut: &Cut, quick: bool) -> Result<Check, Failure> {
    const NAME: &str = "tables.files";
    const CLAIM: &str = "every live file is what was written, byte for byte";
    if quick {
        return Ok(Check::skipped(NAME, CLAIM, "left out by --quick"));
    }
    let (mut findings, mut tables) = (Vec::new(), 0);
    for log in &cut.logs {
        // Where there is no epoch that all tables hold, each is looked at as it is.
        let Some(version) = cut.versions.get(log.name).copied().or_else(|| log.newest()) else { continue };
        tables += 1;
        match reader.damaged_files(log.name, version) {
            Ok(found) => findings.extend(found),
            Err(error) if error.is_damage() => findings.push(error.to_string()),
            Err(error) => return Err(RunError::from(error).into()),
        }
    }
    let figures = format!("{} of {} tables, {}", tables, cut.logs.len(), epoch_in_words(cut));
    Ok(Check::of(NAME, CLAIM, figures, findings))
}

const READABLE: &str = "every table can be read as of the epoch";

fn epoch_in_words(cut: &Cut) -> String {
    cut.epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"))
}

/// The checks on tables at the cut.
fn tables(
    reader: &Reader,
    cut: &Cut,
    checkpoint: Checkpointed,
    past: Option<&Past>,
) -> Result<(Vec<Check>, Series), Error> {
    let Some(epoch) = cut.epoch.filter(|_| cut.versions.len() == cut.logs.len()) else {
        let why = if cut.is_torn() { "the commits of a table cannot be read" } else { "no epoch is in all tables" };
        return Ok((unmade(why), Series::default()));
    };
    let tables = Tables { reader, versions: &cut.versions };
    let metrics = Metrics::read(tables)?;
    let monitoring = Monitoring::read(tables, epoch)?;
    let mut checks = vec![Check::of("tables.readable", READABLE, epoch_in_words(cut), monitoring.nulls())];
    checks.extend(metrics.checks());
    checks.extend(monitoring.checks(metrics.accepted()));
    checks.extend(watermark::checks(tables, &monitoring.health, epoch, past)?);
    checks.push(monitoring.checkpointed(checkpoint));
    Ok((checks, Series::of(&monitoring.health, epoch)))
}

/// The checks on what tables hold, each skipped: so that none is missing where it cannot be made.
fn unmade(why: &str) -> Vec<Check> {
    let monitoring = Monitoring::default();
    let mut checks = vec![Check::skipped("tables.readable", READABLE, "")];
    checks.extend(Metrics::default().checks());
    checks.extend(monitoring.checks(Totals::default()));
    checks.extend(watermark::unmade());
    checks.push(monitoring.checkpointed(Checkpointed::default()));
    checks.into_iter().map(|check| Check::skipped(check.name, check.claim, why)).collect()
}

/// What is stored of the pipeline, where it can be read.
fn past(config: &Config) -> Result<Option<Past>, Failure> {
    let Some(store) = chain::store(config)? else { return Ok(None) };
    match journal::look(&store) {
        Ok(past) => Ok(past),
        // Verification tells.
        Err(tidemark_checkpoint::Error::Damaged { .. } | tidemark_checkpoint::Error::Version { .. }) => Ok(None),
        Err(error) => Err(chain::failure(error)),
    }
}

/// The newest checkpoint, as it counts.
fn checkpointed(past: Option<&Past>) -> Checkpointed {
    let newest = past.and_then(|past| past.manifests.first());
    newest.map_or(Checkpointed::default(), |found| {
        let counters = &found.manifest.counters;
        let counts = Counts {
            received: counters.received.into(),
            accepted: counters.accepted.into(),
            duplicates: counters.duplicates.into(),
            rejected: counters.rejected_total().into(),
        };
        Checkpointed { epoch: found.link.epoch, counts }
    })
}

fn no_checkpoint(config: &Config, cut: &Cut) -> Check {
    const NAME: &str = "checkpoint.chain";
    const CLAIM: &str = "the chain of checkpoint manifests is unbroken";
    let folder = config.checkpoint_path();
    if !config.checkpoint.enabled {
        return Check::skipped(NAME, CLAIM, "nothing is kept for a restart, by checkpoint.enabled");
    }
    // It is begun after the tables are taken over, and before anything is published.
    if cut.is_unpublished() {
        return Check::skipped(NAME, CLAIM, "nothing is published yet");
    }
    let missing = format!(
        "{}: there is no checkpoint; give the --checkpoint of the run, or checkpoint.enabled=false if it kept none",
        folder.display()
    );
    Check::of(NAME, CLAIM, "no checkpoint", vec![missing])
}

/// What is kept for a restart is sound, and fits the tables.
fn checkpoint(report: &Report, cut: &Cut, before: Checkpointed) -> Vec<Check> {
    let of = |about: About| {
        let findings = report.findings.iter().filter(|finding| finding.about == about);
        let (name, claim) = words(about);
        Check::of(name, claim, compared(about, report), findings.map(ToString::to_string).collect())
    };
    let mut checks: Vec<Check> = About::ALL.into_iter().map(of).collect();
    let held = || cut.logs.iter().filter_map(|log| Some((log.name, u64::try_from(log.held()?).ok()?)));
    let (cut_up_to, from) = (report.last_cut, before.epoch);
    let ahead = held().filter(|(_, held)| *held > cut_up_to);
    let ahead = ahead.map(|(name, held)| format!("{name} holds epoch {held}, which was never cut"));
    let lags = |log: &&Log| log.held().unwrap_or(0) < i64::try_from(from).unwrap_or(i64::MAX);
    let behind = cut.logs.iter().filter(|log| log.commits.is_ok()).filter(lags);
    let behind = behind.map(|log| format!("{} does not hold epoch {from}, of which there is a checkpoint", log.name));
    let (least, most) = (held().map(|(_, held)| held).min(), held().map(|(_, held)| held).max());
    let figures = format!(
        "checkpoint of epoch {from}, tables at {} to {}, cuts up to {cut_up_to}",
        least.unwrap_or(0),
        most.unwrap_or(0)
    );
    let claim = "tables hold every epoch that a checkpoint covers, and none that was not cut";
    checks.push(Check::of("checkpoint.tables", claim, figures, ahead.chain(behind).collect()));
    checks
}

/// Whose all of it is.
fn lineage(config: &Config) -> Result<Check, Failure> {
    const NAME: &str = "checkpoint.lineage";
    const CLAIM: &str = "output, tables and checkpoint are of one pipeline";
    match runtime::probe::lineage(config) {
        Ok(lineage) => {
            Ok(Check::of(NAME, CLAIM, lineage.unwrap_or("from before there were lineages".to_owned()), vec![]))
        }
        Err(
            error @ (RunError::Strange { .. }
            | RunError::LockDamaged { .. }
            | RunError::Checkpoint(tidemark_checkpoint::Error::Version { .. })),
        ) => Ok(Check::of(NAME, CLAIM, "not one lineage", vec![error.to_string()])),
        Err(error) if error.status() == ExitStatus::Corrupt => {
            Ok(Check::skipped(NAME, CLAIM, "they cannot be compared while something of them is lost or damaged"))
        }
        Err(error) => Err(error.into()),
    }
}

fn words(about: About) -> (&'static str, &'static str) {
    match about {
        About::Generations => ("checkpoint.generations", "each generation goes on from the one before it"),
        About::Seals => ("checkpoint.seals", "older generations can write nothing more"),
        About::Chain => ("checkpoint.chain", "the chain of checkpoint manifests is unbroken"),
        About::Runs => ("checkpoint.runs", "every run of a checkpoint matches its checksum, and can be read"),
        About::Cuts => ("checkpoint.cuts", "no cut is missing after the oldest checkpoint that is kept"),
        About::Positions => ("checkpoint.positions", "offsets follow on one another, and match the counts"),
        About::Counts => ("checkpoint.counts", "received = accepted + duplicates + rejected, and the totals add up"),
    }
}
