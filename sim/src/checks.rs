//! What must be true, whatever happens. The stores tell of every change, and what the tables come to hold is compared with
//! the [oracle](tidemark_dataflows::oracle) over the cuts that count: those that have had an effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Adoption, Cut, Cuts, EventTimes, Manifest, Record};
use tidemark_dataflows::block::Block;
use tidemark_dataflows::event::{Epoch, Micros, Position};
use tidemark_dataflows::metrics::{AllTotals, Totals};
use tidemark_dataflows::oracle::Oracle;
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::Tally;
use tidemark_dataflows::watermark::{Behind, Progress};

use crate::durable::{Commit, TABLES};
use crate::port::STRANGE;
use crate::source::Source;
use crate::tables::{Change, Table};

/// What the tables must hold at the end of an epoch.
struct Expected {
    net_flow: Option<Totals>,
    totals: AllTotals,
    accepted: Vec<(Epoch, Position)>,
    rejected: Vec<(Epoch, Position, Reason)>,
    tally: Tally,
    next_watermark: Option<Micros>,
    progress: Progress,
    /// How far each partition has been read, by number.
    next: BTreeMap<u32, u64>,
    /// Number of partitions that cuts know.
    known: usize,
}

/// Watches the stores.
pub(crate) struct Checks {
    source: Arc<Source>,
    oracle: Oracle,
    /// The cuts that have had an effect.
    canon: Vec<Cut>,
    expected: Vec<Expected>,
    /// Every durable cut, by generation and epoch.
    cuts: BTreeMap<(u64, Epoch), Cut>,
    adoptions: BTreeMap<u64, Adoption>,
    /// The partitions that cuts know, in the order of their numbers.
    known: Vec<String>,
    /// The epoch that the tables are being brought to, or were brought to last.
    group: Epoch,
    /// The first thing that is wrong.
    pub(crate) broken: Option<String>,
}

impl Checks {
    /// Nothing has happened yet.
    pub(crate) fn new(source: Arc<Source>, settings: Settings) -> Checks {
        Checks {
            source,
            oracle: Oracle::new(settings),
            canon: Vec::new(),
            expected: Vec::new(),
            cuts: BTreeMap::new(),
            adoptions: BTreeMap::new(),
            known: Vec::new(),
            group: 0,
            broken: None,
        }
    }

    /// Notes what is wrong, if it is the first such thing.
    pub(crate) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// The last epoch that has had an effect.
    pub(crate) fn applied(&self) -> Epoch {
        self.canon.len() as Epoch
    }

    /// Events in the epochs that have had an effect.
    pub(crate) fn received(&self) -> u64 {
        self.canon.iter().map(Cut::events).sum()
    }

    /// How many manifests a generation has adopted.
    pub(crate) fn adopted_manifests(&self, generation: u64) -> usize {
        self.adoptions.get(&generation).map_or(0, |adoption| adoption.manifests.len())
    }

    /// The cut of an epoch that has had an effect.
    pub(crate) fn cut(&self, epoch: Epoch) -> Option<&Cut> {
        self.canon.get(usize::try_from(epoch.checked_sub(1)?).ok()?)
    }

    /// An object was written.
    pub(crate) fn put(&mut self, name: &str, bytes: &Bytes, tables: &[Table]) {
        if name.starts_with(STRANGE) {
            self.must(false, || format!("a start that does not belong here has written {name}"));
        } else if let Ok(Cuts { generation, cuts, .. }) = Cuts::of_object(name, bytes) {
            for cut in cuts {
                self.sound(&cut);
                self.cuts.insert((generation, cut.epoch), cut);
            }
        } else if let Ok(adoption) = Adoption::of_object(name, bytes) {
            self.adopted(adoption);
        } else if let Ok(manifest) = Manifest::of_object(name, bytes) {
            self.manifest(&manifest, tables);
        }
    }

    /// No time stamp of a cut lies before one of the cut before.
    fn sound(&mut self, cut: &Cut) {
        let Cut { epoch, opened_us, closed_us, .. } = *cut;
        self.must(opened_us <= closed_us, || format!("epoch {epoch} was closed before it was opened"));
    }

    /// What is adopted holds every epoch that has had an effect, and no other cut of it.
    fn adopted(&mut self, adoption: Adoption) {
        let (generation, last) = (adoption.generation, adoption.last_cut);
        self.adoptions.insert(generation, adoption);
        let newest = self.adoptions.keys().next_back().copied().unwrap_or(0);
        // One that another has overtaken adopts what nobody reads.
        if newest > generation {
            return;
        }
        let applied = self.applied();
        self.must(last >= applied, || format!("g{generation} adopts {last} epochs, and {applied} have had an effect"));
        let differs = (1..=applied)
            .find(|epoch| self.resolved(generation, *epoch).is_some_and(|cut| Some(cut) != self.cut(*epoch)));
        self.must(differs.is_none(), || format!("g{generation} adopts another cut of epoch {differs:?}"));
    }

    /// The cut of an epoch, for an instance of that generation.
    fn resolved(&self, generation: u64, epoch: Epoch) -> Option<&Cut> {
        let adoption = self.adoptions.get(&generation)?;
        if epoch > adoption.last_cut {
            return self.cuts.get(&(generation, epoch));
        }
        let span = adoption.cuts.iter().find(|span| names::holds(span, epoch))?;
        self.cuts.get(&(span.generation, epoch))
    }

    /// A manifest tells of epochs that all tables hold, and tells the truth of them.
    fn manifest(&mut self, manifest: &Manifest, tables: &[Table]) {
        let Manifest { generation, epoch, .. } = *manifest;
        let least = tables.iter().map(|table| table.epoch).min().unwrap_or(0);
        self.must(epoch <= least, || {
            format!("g{generation} writes a manifest of epoch {epoch}, a table is at {least}")
        });
        let Some(at) = usize::try_from(epoch).ok().filter(|at| (1..=self.expected.len()).contains(at)) else { return };
        let sum = |of: fn(&Tally) -> u64| self.expected[..at].iter().map(|expected| of(&expected.tally)).sum::<u64>();
        let expected = (sum(|t| t.received), sum(|t| t.accepted), sum(|t| t.duplicates), sum(Tally::rejected_total));
        let found = &manifest.counters;
        let found = (found.received, found.accepted, found.duplicates, found.rejected_total());
        let times = EventTimes::from(&self.expected[at - 1].progress);
        let (times_fit, next) = (manifest.event_times.as_ref() == Some(&times), self.expected[at - 1].next.clone());
        let positions = manifest.positions.iter().all(|at| at.next == next.get(&at.index).copied().unwrap_or(0));
        self.must(found == expected, || {
            format!("a manifest of epoch {epoch} counts {found:?} instead of {expected:?}")
        });
        self.must(times_fit, || format!("event times of epoch {epoch}: {:?}, not {times:?}", manifest.event_times));
        let (known, named) = (self.expected[at - 1].known, manifest.positions.len());
        self.must(known == named, || format!("{named} partitions as of epoch {epoch}, of which cuts know {known}"));
        // Whoever finds a file gone must know whether it had ended.
        let behind: Vec<u32> = self
            .canon
            .get(at - 1)
            .and_then(|cut| cut.behind.as_ref())
            .into_iter()
            .flatten()
            .map(|behind| behind.index)
            .collect();
        let files = self.source.is_files();
        let wrong = manifest.positions.iter().find(|at| at.ended != (files && !behind.contains(&at.index))).cloned();
        self.must(wrong.is_none(), || format!("as of epoch {epoch} of files {files}: {wrong:?}, behind {behind:?}"));
        self.must(positions, || format!("positions as of epoch {epoch}: {:?}, not {next:?}", manifest.positions));
    }

    /// A commit is about to be made.
    pub(crate) fn before(&mut self, commit: &Commit, tables: &[Table]) {
        let Commit { generation, table, epoch, fence, .. } = *commit;
        let (name, held) = (TABLES[table], &tables[table]);
        self.must(!commit.stranger, || format!("{name} was written by a start that does not belong here"));
        let newest = self.adoptions.keys().next_back().copied().unwrap_or(0);
        self.must(generation >= newest, || format!("g{generation} writes {name}, and g{newest} has adopted the past"));
        self.must(epoch >= held.epoch, || format!("{name} goes back from epoch {} to {epoch}", held.epoch));
        self.must(fence >= held.fence, || format!("{name} goes back from fence {} to {fence}", held.fence));
        if epoch == held.epoch {
            return;
        }
        // Tables are brought to one epoch before the next group begins.
        if epoch != self.group {
            let apart = tables.iter().position(|table| table.epoch != self.group);
            let group = self.group;
            self.must(apart.is_none(), || {
                format!("{name} comes to epoch {epoch}, and {} is not at {group} yet", TABLES[apart.unwrap_or(0)])
            });
            self.group = epoch;
        }
        self.extend(generation, held.epoch + 1, epoch);
    }

    /// Has these epochs take effect by an instance of that generation.
    fn extend(&mut self, generation: u64, first: Epoch, last: Epoch) {
        for epoch in first..=last {
            let Some(cut) = self.resolved(generation, epoch).cloned() else {
                // What a restored manifest covers may have been pruned.
                let known = epoch <= self.applied();
                self.must(known, || format!("epoch {epoch} has an effect by g{generation}, and is not cut"));
                continue;
            };
            match self.cut(epoch) {
                Some(known) => {
                    let same = *known == cut;
                    self.must(same, || format!("epoch {epoch} has an effect by g{generation} that is cut otherwise"));
                }
                None if self.applied() + 1 == epoch => {
                    self.name(generation, &cut);
                    self.take(cut);
                }
                None => {}
            }
        }
    }

    /// Partitions keep their numbers: each is one of the first, or was joined by a cut.
    fn name(&mut self, generation: u64, cut: &Cut) {
        if self.canon.is_empty() {
            let identity = self.adoptions.get(&generation).map(|adoption| adoption.identity.source.clone());
            self.known = serde_json::from_value(identity.unwrap_or_default()).unwrap_or_default();
        }
        for joined in &cut.joined {
            let next = joined.index as usize == self.known.len() && !self.known.contains(&joined.partition);
            let Cut { epoch, .. } = *cut;
            self.must(next, || {
                format!("{} joins in epoch {epoch} as #{} a second time", joined.partition, joined.index)
            });
            self.known.push(joined.partition.clone());
        }
        let unknown = cut.ranges.iter().find(|range| self.known.get(range.index as usize) != Some(&range.partition));
        self.must(unknown.is_none(), || format!("epoch {} holds {unknown:?}, which no cut has joined", cut.epoch));
    }

    /// Takes the next epoch: what must follow from it is computed in the plainest way.
    fn take(&mut self, cut: Cut) {
        let epoch = cut.epoch;
        let after = self.canon.last().map_or(0, |before| before.closed_us);
        self.must(after <= cut.opened_us, || format!("epoch {epoch} is opened before the one before was closed"));
        let mut ranges: Vec<_> = cut.ranges.iter().collect();
        ranges.sort_by_key(|range| (range.index, range.from));
        let mut next = self.expected.last().map(|expected| expected.next.clone()).unwrap_or_default();
        for range in &ranges {
            let at = next.insert(range.index, range.to).unwrap_or(0);
            self.must(at == range.from, || {
                format!("epoch {epoch} goes on at {} of p{}, not {at}", range.from, range.index)
            });
        }
        let block = |range: &&tidemark_checkpoint::records::Range| {
            let place = Source::place(&range.partition);
            self.source.block(place, range.index, range.from, range.to, Micros(cut.opened_us))
        };
        let blocks: Vec<Block> = ranges.iter().map(block).collect();
        let behind: Vec<Behind> = cut.behind.iter().flatten().map(Behind::from).collect();
        self.oracle.epoch(blocks.iter().flat_map(Block::iter), cut.behind.as_ref().map(|_| &behind[..]));
        self.expect(next);
        self.canon.push(cut);
    }

    fn expect(&mut self, next: BTreeMap<u32, u64>) {
        let epoch = self.oracle.epochs.len() as Epoch;
        let oracle = &self.oracle;
        let accepted = oracle.accepted.iter().filter(|(of, _)| *of == epoch).copied();
        let rejected = oracle.rejected.iter().filter(|(of, ..)| *of == epoch).copied();
        let totals = oracle
            .totals
            .iter()
            .flat_map(|(metric, rows)| rows.iter().map(|(key, (totals, _))| ((*metric, key.clone()), *totals)));
        self.expected.push(Expected {
            net_flow: (!oracle.accepted.is_empty()).then(|| oracle.net_flow()),
            totals: totals.collect(),
            accepted: accepted.collect(),
            rejected: rejected.collect(),
            tally: oracle.epochs.last().cloned().unwrap_or_default(),
            next_watermark: oracle.times.last().and_then(|times| times.next_watermark),
            progress: oracle.progress.last().cloned().unwrap_or_default(),
            next,
            known: self.known.len(),
        });
    }

    /// A commit was made: the table holds what follows from the cuts, each event once.
    pub(crate) fn after(&mut self, commit: &Commit, tables: &[Table]) {
        let (name, table) = (TABLES[commit.table], &tables[commit.table]);
        let Some(at) = usize::try_from(table.epoch).ok().filter(|at| *at <= self.expected.len()) else { return };
        let epochs = &self.expected[..at];
        let Some(last) = epochs.last() else { return };
        let rows = &table.rows;
        let difference = match commit.table {
            0 => differs(&rows.net_flow, &last.net_flow),
            1 | 2 => {
                let of_metric = last.totals.iter().filter(|((metric, _), _)| *metric == name);
                differs(&rows.totals, &of_metric.map(|(row, totals)| (row.clone(), *totals)).collect())
            }
            3 => {
                let mut found: Vec<_> = rows.accepted.iter().map(|(epoch, at, _)| (*epoch, *at)).collect();
                found.sort_unstable();
                differs(&found, &epochs.iter().flat_map(|e| e.accepted.iter().copied()).collect())
            }
            4 => {
                let (mut found, mut expected) = (rows.rejected.clone(), Vec::new());
                expected.extend(epochs.iter().flat_map(|e| e.rejected.iter().copied()));
                found.sort_unstable();
                expected.sort_unstable();
                differs(&found, &expected)
            }
            5 => unhealthy(rows, epochs),
            _ => None,
        };
        self.must(difference.is_none(), || {
            format!("{name} is wrong at epoch {}: {}", table.epoch, difference.unwrap_or_default())
        });
    }

    /// At the end: what came was cut, and all tables hold it.
    pub(crate) fn end(&mut self, tables: &[Table]) {
        let (received, events) = (self.received(), self.source.events());
        self.must(received == events, || format!("{events} events came, and {received} were cut"));
        let (applied, apart) = (self.applied(), tables.iter().position(|table| table.epoch != self.applied()));
        self.must(apart.is_none(), || format!("{} is not at epoch {applied}", TABLES[apart.unwrap_or(0)]));
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Option<String> {
    (found != expected).then(|| format!("{found:?} instead of {expected:?}"))
}

/// The rows of epochs: one each, with the tally and the watermark of the oracle, and every event accounted for.
fn unhealthy(rows: &Change, epochs: &[Expected]) -> Option<String> {
    if rows.health.len() != epochs.len() {
        return Some(format!("{} rows for {} epochs", rows.health.len(), epochs.len()));
    }
    (1..).zip(rows.health.iter().zip(epochs)).find_map(|(epoch, (row, expected))| {
        let Tally { received, accepted, duplicates, .. } = row.tally;
        if received != accepted + duplicates + row.tally.rejected_total() {
            return Some(format!("epoch {epoch} received {:?}", row.tally));
        }
        let found = (row.mark.epoch, row.tally.clone(), row.next_watermark);
        differs(&found, &(epoch, expected.tally.clone(), expected.next_watermark))
    })
}
