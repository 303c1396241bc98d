//! Whether everything that is stored of a pipeline fits together, read without writing anything.
//!
//! A pipeline may be at work meanwhile, and delete what its newer checkpoints no longer need. So what was found wrong is
//! looked at afresh, and only what stays wrong counts. Whether the tables agree with it is not asked here.

mod chain;
mod cuts;
mod generations;
mod partitions;
mod runs;

use std::fmt;

use tidemark_dataflows::event::Epoch;
use tidemark_store::Store;

use self::runs::SoundRuns;
use crate::Error;
use crate::envelope::OLDEST_VERSION;
use crate::inspect::Stored;
use crate::records::{Adoption, Identity, Link, Manifest};

/// How often the store is looked at before a finding counts, where the store changes in between.
const LOOKS: usize = 6;

/// So many of the newest manifests are complete at any instant: pruning keeps at least these.
const COMPLETE: usize = 2;

/// What a finding is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// Claims of generations, and what each adopted of the one before.
    Generations,
    /// The chain of manifests.
    Chain,
    /// The runs that manifests name.
    Runs,
    /// The cuts.
    Cuts,
    /// How far the source was read.
    Positions,
    /// What the manifests count.
    Counts,
    /// The seals where older generations ended.
    Seals,
}

impl About {
    /// All of them, in the order of a report.
    pub const ALL: [About; 7] =
        [About::Generations, About::Seals, About::Chain, About::Runs, About::Cuts, About::Positions, About::Counts];

    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            About::Generations => "generations",
            About::Chain => "chain",
            About::Runs => "runs",
            About::Cuts => "cuts",
            About::Positions => "positions",
            About::Counts => "counts",
            About::Seals => "seals",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Generations that adopted a past.
    pub generations: usize,
    /// Ends of older generations that were looked at.
    pub seals: usize,
    /// Manifests of the chain.
    pub manifests: usize,
    /// Epochs of the oldest and the newest of them.
    pub manifest_epochs: Option<(Epoch, Epoch)>,
    /// Different runs that they name.
    pub runs: usize,
    /// Rows in those.
    pub rows: u64,
    /// Bytes in those.
    pub bytes: u64,
    /// Cuts that count and are there.
    pub cuts: usize,
    /// The first and the last of them.
    pub cut_epochs: Option<(Epoch, Epoch)>,
    /// Comparisons of positions with cuts and counts.
    pub positions: usize,
    /// Events that the newest manifest counts.
    pub received: u64,
    /// Accepted events among them.
    pub accepted: u64,
    /// Duplicates among them.
    pub duplicates: u64,
    /// Rejected events among them.
    pub rejected: u64,
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the pipeline is; unknown when no adoption can be read.
    pub identity: Option<Identity>,
    /// The generation whose past counts.
    pub generation: u64,
    /// The epoch of the newest manifest that can be read; 0 where there is none.
    pub checkpointed: Epoch,
    /// The last epoch that was cut.
    pub last_cut: Epoch,
    /// What was looked at.
    pub figures: Figures,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Checks everything that is stored. `None` where no generation has adopted anything yet. `counts_offsets` tells whether
/// the offsets of a source are counted from 0 without gaps, so that they add up to the events received.
///
/// # Errors
///
/// When the store cannot be read, or changes faster than it can be looked at.
pub fn verify(store: &Store, counts_offsets: impl Fn(&Identity) -> bool) -> Result<Option<Report>, Error> {
    let mut sound = SoundRuns::default();
    let mut lasting: Option<Vec<Finding>> = None;
    let mut last_inventory = None;
    for _ in 0..LOOKS {
        let stored = Stored::read(store)?;
        if stored.adoptions.is_empty() && stored.cuts.is_empty() && stored.manifests.is_empty() {
            return Ok(None);
        }
        let mut report = Look::new(&stored).check(store, &mut sound, &counts_offsets)?;
        if report.findings.is_empty() {
            return Ok(Some(report));
        }
        let inventory: Vec<_> =
            stored.inventory().into_iter().map(|(name, digest)| (name.to_owned(), digest)).collect();
        let before = lasting.take();
        let seen_before = |finding: &Finding| before.as_ref().is_none_or(|before| before.contains(finding));
        let still: Vec<Finding> = report.findings.iter().filter(|finding| seen_before(finding)).cloned().collect();
        if before.is_some() && last_inventory.as_ref() == Some(&inventory) {
            report.findings.retain(|finding| before.as_ref().is_none_or(|before| before.contains(finding)));
            return Ok(Some(report));
        }
        last_inventory = Some(inventory);
        lasting = Some(still);
    }
    settle(store, &counts_offsets, &mut sound, lasting.unwrap_or_default())
}

/// The store changed at every look: what was wrong each time is wrong.
fn settle(
    store: &Store,
    counts_offsets: &impl Fn(&Identity) -> bool,
    sound: &mut SoundRuns,
    lasting: Vec<Finding>,
) -> Result<Option<Report>, Error> {
    let mut report = Look::new(&Stored::read(store)?).check(store, sound, counts_offsets)?;
    if !report.findings.is_empty() && lasting.is_empty() {
        return Err(Error::Store(tidemark_store::Error::Unavailable {
            what: "reading checkpoints".to_owned(),
            attempts: u32::try_from(LOOKS).unwrap_or(u32::MAX),
            permanent: false,
            source: "they are replaced faster than they can be read".into(),
        }));
    }
    report.findings.retain(|finding| lasting.contains(finding));
    Ok(Some(report))
}

/// A place in the chain of manifests, from the newest on.
struct Entry<'a> {
    name: String,
    /// What an adoption says of it; none where the newest generation wrote it.
    link: Option<Link>,
    manifest: Option<&'a Manifest>,
}

/// One look at the store.
struct Look<'a> {
    stored: &'a Stored,
    adoption: Option<&'a Adoption>,
    chain: Vec<Entry<'a>>,
    /// Whether offsets add up to the events received.
    counts_offsets: bool,
    figures: Figures,
    findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn new(stored: &'a Stored) -> Self {
        let adoption = stored.newest_adoption();
        let figures = Figures::default();
        Look { stored, adoption, chain: Vec::new(), counts_offsets: false, figures, findings: Vec::new() }
    }

    fn check(
        mut self,
        store: &Store,
        sound: &mut SoundRuns,
        counts_offsets: &impl Fn(&Identity) -> bool,
    ) -> Result<Report, Error> {
        self.check_generations();
        let Some(adoption) = self.adoption else { return Ok(self.report(0)) };
        self.check_seals();
        self.check_chain(adoption);
        self.counts_offsets = counts_offsets(&adoption.identity);
        self.check_counts();
        let last_cut = self.check_cuts(adoption);
        self.check_runs(store, sound)?;
        Ok(self.report(last_cut))
    }

    fn report(self, last_cut: Epoch) -> Report {
        let checkpointed = self.chain.iter().find_map(|entry| entry.manifest).map_or(0, |manifest| manifest.epoch);
        Report {
            identity: self.adoption.map(|adoption| adoption.identity.clone()),
            generation: self.adoption.map_or(0, |adoption| adoption.generation),
            checkpointed,
            last_cut,
            figures: self.figures,
            findings: self.findings,
        }
    }

    fn find(&mut self, about: About, object: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { about, object: object.into(), what: what.into() });
    }

    /// Notes an object that cannot be read.
    fn damaged(&mut self, about: About, error: &Error) {
        let (object, what) = match error {
            Error::Damaged { name, what } => (name.clone(), format!("damaged: {what}")),
            Error::Version { name, found, known } => {
                let known = format!("this program knows versions {OLDEST_VERSION} to {known} only");
                (name.clone(), format!("format version {found}, and {known}"))
            }
            other => (String::new(), other.to_string()),
        };
        self.find(about, object, what);
    }
}
