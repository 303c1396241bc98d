//! Cuts: none missing that a restore needs, and all offsets following on one another, from manifest to manifest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidemark_dataflows::event::Epoch;

use super::partitions::Partitions;
use super::{About, COMPLETE, Look};
use crate::journal::OF_ANOTHER;
use crate::names;
use crate::records::{Adoption, Cut, Manifest, Span};

/// A cut and the object that it stands in.
type Placed<'a> = (&'a str, &'a Cut);

impl<'a> Look<'a> {
    /// Returns the last epoch that was cut.
    pub(super) fn check_cuts(&mut self, adoption: &Adoption) -> Epoch {
        let cuts = self.cuts_that_count(adoption);
        let manifests: Vec<(String, &'a Manifest)> =
            self.chain.iter().filter_map(|entry| Some((entry.name.clone(), entry.manifest?))).collect();
        let checkpointed = manifests.first().map_or(0, |(_, manifest)| manifest.epoch);
        let last = cuts.keys().next_back().copied().unwrap_or(0).max(adoption.last_cut).max(checkpointed);
        // What is before that one may be in the middle of being pruned.
        let needed = manifests.len().min(COMPLETE);
        let after = needed.checked_sub(1).and_then(|at| manifests.get(at)).map_or(0, |(_, manifest)| manifest.epoch);
        let missing: Vec<Epoch> = (after + 1..=last).filter(|epoch| !cuts.contains_key(epoch)).collect();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let span = adoption.cuts.iter().find(|span| names::holds(span, *first));
            let generation = span.map_or(adoption.generation, |span| span.generation);
            let what = format!("cuts of {} epoch(s) are missing, between {first} and {last}", missing.len());
            self.find(About::Cuts, names::cuts_of(generation), what);
        }
        self.figures.cuts = cuts.len();
        self.figures.cut_epochs = cuts.keys().next().copied().zip(cuts.keys().next_back().copied());
        let (reached, partitions) = (HashMap::new(), Partitions::default());
        let mut walk = Walk { look: self, reached, partitions, complete: false, received: None };
        walk.along(&cuts, &manifests);
        last
    }

    /// The cuts of the epochs that the newest generation adopted, and its own.
    fn cuts_that_count(&mut self, adoption: &Adoption) -> BTreeMap<Epoch, Placed<'a>> {
        let own = Span { generation: adoption.generation, first: adoption.last_cut + 1, last: Epoch::MAX };
        let mut cuts: BTreeMap<Epoch, Placed<'a>> = BTreeMap::new();
        let stored = self.stored;
        for span in adoption.cuts.iter().chain([&own]) {
            for object in stored.cuts_of(span.generation) {
                let number = names::number(&object.name).unwrap_or(0);
                match &object.content {
                    Err(error) if number <= span.last => self.damaged(About::Cuts, error),
                    _ => {}
                }
                let Some(record) = object.written() else { continue };
                if record.lineage.is_some_and(|of| of != adoption.identity.lineage) {
                    self.find(About::Cuts, &object.name, OF_ANOTHER.to_owned());
                }
                let mut expected = number;
                for cut in &record.cuts {
                    if cut.epoch != expected || record.generation != span.generation {
                        let what = format!("it holds a cut of epoch {} where {expected} belongs", cut.epoch);
                        self.find(About::Cuts, &object.name, what);
                    }
                    expected = cut.epoch + 1;
                    if names::holds(span, cut.epoch)
                        && let Some((other, _)) = cuts.insert(cut.epoch, (&object.name, cut))
                    {
                        self.find(About::Cuts, &object.name, format!("epoch {} was cut in {other} already", cut.epoch));
                    }
                }
            }
        }
        cuts
    }
}

/// How far the source was read, along the cuts.
struct Walk<'l, 'a> {
    look: &'l mut Look<'a>,
    /// Next offset of each partition, by its number and name.
    reached: HashMap<(u32, &'a str), u64>,
    /// What is known of the partitions.
    partitions: Partitions<'a>,
    /// Whether a partition that is not named above is at 0; otherwise it is not known where it is.
    complete: bool,
    /// Events up to here, where that is known.
    received: Option<u64>,
}

impl<'a> Walk<'_, 'a> {
    fn along(&mut self, cuts: &BTreeMap<Epoch, Placed<'a>>, manifests: &[(String, &'a Manifest)]) {
        let by_epoch: BTreeMap<Epoch, &(String, &'a Manifest)> =
            manifests.iter().map(|entry| (entry.1.epoch, entry)).collect();
        let epochs: BTreeSet<Epoch> = cuts.keys().chain(by_epoch.keys()).copied().collect();
        let mut before = 0;
        (self.complete, self.received) = (true, Some(0));
        for epoch in epochs {
            let cut = cuts.get(&epoch);
            if epoch != before + 1 || cut.is_none() {
                self.reached.clear();
                self.partitions.lose();
                (self.complete, self.received) = (false, None);
            }
            if let Some((object, cut)) = cut {
                self.pass(object, cut);
            }
            if let Some((name, manifest)) = by_epoch.get(&epoch) {
                self.compare(name, manifest);
            }
            before = epoch;
        }
    }

    /// How far a partition has been read, where that is known.
    fn at(&mut self, partition: (u32, &'a str)) -> Option<u64> {
        self.find_moved(partition);
        self.reached.get(&partition).copied().or(self.complete.then_some(0))
    }

    /// Before numbers stayed what they were, a partition that was added moved those behind it: the inbox, and others of which
    /// only one has the name.
    fn find_moved(&mut self, partition: (u32, &'a str)) {
        if self.reached.contains_key(&partition) || self.partitions.knows(partition.0, partition.1) {
            return;
        }
        let mut before = self.reached.keys().copied().filter(|(at, name)| *at < partition.0 && *name == partition.1);
        if let (Some(moved), None) = (before.next(), before.next())
            && let Some(at) = self.reached.remove(&moved)
        {
            self.reached.insert(partition, at);
        }
    }

    fn pass(&mut self, object: &str, cut: &'a Cut) {
        let epoch = cut.epoch;
        if cut.opened_us > cut.closed_us {
            self.look.find(About::Cuts, object, format!("epoch {epoch} was closed before it was opened"));
        }
        for what in self.partitions.cut(cut) {
            self.look.find(About::Cuts, object, what);
        }
        for joined in &cut.joined {
            self.reached.entry((joined.index, joined.partition.as_str())).or_insert(joined.from);
        }
        for range in &cut.ranges {
            let (name, from, to) = (&range.partition, range.from, range.to);
            if to <= from {
                let what = format!("epoch {epoch} takes offsets {from} to {to} of partition {name}");
                self.look.find(About::Positions, object, what);
            }
            let partition = (range.index, name.as_str());
            // Where offsets have holes, a range may begin behind one, and never before what was read.
            let dense = self.look.counts_offsets;
            if let Some(at) = self.at(partition).filter(|at| *at > from || (dense && *at != from)) {
                let what =
                    format!("epoch {epoch} begins at offset {from} of partition {name}, which was read up to {at}");
                self.look.find(About::Positions, object, what);
            }
            self.reached.insert(partition, to);
        }
        self.look.figures.positions += cut.ranges.len();
        self.received = self.received.map(|received| received + cut.events());
    }

    fn compare(&mut self, name: &str, manifest: &'a Manifest) {
        for position in &manifest.positions {
            let partition = (position.index, position.partition.as_str());
            if let Some(at) = self.at(partition).filter(|at| *at != position.next) {
                let (partition, next) = (&position.partition, position.next);
                let what = format!("it is at offset {next} of partition {partition}, but the cuts lead to {at}");
                self.look.find(About::Positions, name, what);
            }
        }
        let listed: HashSet<(u32, &str)> =
            manifest.positions.iter().map(|at| (at.index, at.partition.as_str())).collect();
        let left_out = self.reached.iter().filter(|(partition, at)| **at > 0 && !listed.contains(*partition));
        if let Some(((_, partition), at)) = left_out.min() {
            let what = format!("it does not list partition {partition}, of which the cuts lead to {at}");
            self.look.find(About::Positions, name, what);
        }
        for what in self.partitions.manifest(manifest) {
            self.look.find(About::Positions, name, what);
        }
        let counted = manifest.counters.received;
        if let Some(cut) = self.received.filter(|cut| *cut != counted) {
            let what = format!("it counts {counted} events received, but the cuts lead to {cut}");
            self.look.find(About::Positions, name, what);
        }
        let positions = manifest.positions.iter();
        self.reached = positions.map(|at| ((at.index, at.partition.as_str()), at.next)).collect();
        (self.complete, self.received) = (true, Some(counted));
    }
}
