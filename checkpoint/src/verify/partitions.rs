//! Partitions along the cuts: each keeps its number, new ones come behind all others, only what is there is behind, and
//! the event times that manifests keep are those of partitions.

use std::collections::HashSet;

use crate::inbox;
use crate::records::{Behind, Cut, EventTimes, Manifest, Position, Range};

/// What is known of the partitions.
#[derive(Default)]
pub(super) struct Partitions<'a> {
    /// Their names, in the order of their numbers; none where that is not known.
    names: Option<Vec<&'a str>>,
    /// Whether a cut has said which partitions were behind. From then on every one does, and every manifest has event times;
    /// one may have them before, as of an epoch that was cut under the old rule and replayed.
    waits: bool,
    /// Which were behind in the newest cut.
    behind: &'a [Behind],
    /// The newest manifest.
    manifest: Option<&'a Manifest>,
}

impl<'a> Partitions<'a> {
    /// Cuts are missing here, so partitions may have joined.
    pub(super) fn lose(&mut self) {
        self.names = None;
        self.behind = &[];
    }

    /// What is wrong with a cut that comes next.
    pub(super) fn cut(&mut self, cut: &'a Cut) -> Vec<String> {
        let mut wrong = Vec::new();
        self.join(cut, &mut wrong);
        let unknown = |range: &&Range| self.names.is_some() && !self.knows(range.index, &range.partition);
        let strange = cut.ranges.iter().find(unknown);
        match &cut.behind {
            // Where nothing waited for partitions, one that was added could move those behind it.
            None if strange.is_some() => self.names = None,
            None if self.waits => wrong.push("does not say which partitions were behind".to_owned()),
            None => {}
            Some(behind) => {
                if let Some(range) = strange {
                    wrong.push(format!(
                        "takes events of {} as partition {}, which it is not",
                        range.partition, range.index
                    ));
                }
                self.wait_for(behind, &mut wrong);
            }
        }
        wrong.into_iter().map(|what| format!("epoch {} {what}", cut.epoch)).collect()
    }

    fn join(&mut self, cut: &'a Cut, wrong: &mut Vec<String>) {
        let Some(first) = cut.joined.first() else { return };
        let mut taken: HashSet<&str> = self.names.iter().flatten().copied().collect();
        for (joined, follows) in cut.joined.iter().zip(first.index..) {
            let (name, index) = (joined.partition.as_str(), joined.index);
            // A manifest names partitions that were met before an epoch was cut with them.
            let met = self.knows(index, name);
            let next = self.names.as_ref().is_none_or(|names| names.len() == index as usize);
            if index != follows || !(met || next && taken.insert(name)) {
                wrong.push(format!("lets {name} join as partition {index}, which does not follow on those before"));
                self.names = None;
                return;
            }
            if let Some(names) = self.names.as_mut().filter(|_| !met) {
                names.push(name);
            }
        }
    }

    fn wait_for(&mut self, behind: &'a [Behind], wrong: &mut Vec<String>) {
        (self.waits, self.behind) = (true, behind);
        if !behind.is_sorted_by(|one, next| one.index < next.index) {
            wrong.push("names partitions that were behind out of order".to_owned());
        }
        let Some(names) = &self.names else { return };
        let inbox = names.iter().rposition(|name| *name == inbox::PARTITION);
        for Behind { index, .. } in behind {
            let what = match *index as usize {
                at if at >= names.len() => "which is not there",
                at if Some(at) == inbox => "for which nothing waits",
                _ => continue,
            };
            wrong.push(format!("says that partition {index} was behind, {what}"));
            return;
        }
    }

    /// Whether a partition is known to have this number.
    pub(super) fn knows(&self, index: u32, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.get(index as usize) == Some(&name))
    }

    /// What is wrong with the manifest of the epoch that was passed last.
    pub(super) fn manifest(&mut self, manifest: &'a Manifest) -> Vec<String> {
        let mut wrong = Vec::new();
        let positions = &manifest.positions;
        if let Some((position, at)) = positions.iter().zip(0..).find(|(position, at)| position.index != *at) {
            wrong.push(format!("it lists partition {} in the place of partition {at}", position.index));
        }
        self.compare_names(positions, manifest.event_times.is_some(), &mut wrong);
        if let Some(before) = self.manifest {
            let shrunk =
                |(now, before): &(&Position, &Position)| now.partition == before.partition && now.next < before.next;
            if let Some((now, before)) = positions.iter().zip(&before.positions).find(shrunk) {
                let (name, next, before) = (&now.partition, now.next, before.next);
                wrong.push(format!(
                    "it is at offset {next} of partition {name}, and the manifest before it at {before}"
                ));
            }
        }
        let ended = |behind: &&Behind| positions.get(behind.index as usize).is_some_and(|position| position.ended);
        if let Some(behind) = self.behind.iter().find(ended) {
            wrong.push(format!("it says that partition {} had ended, which was behind", behind.index));
        }
        let times_before = self.manifest.and_then(|before| before.event_times.as_ref());
        match &manifest.event_times {
            Some(times) => self.check_times(times, manifest, times_before, &mut wrong),
            None if self.waits || times_before.is_some() => wrong.push("it has no event times".to_owned()),
            None => {}
        }
        // An early version had no inbox: who goes on from what it left gives the inbox a number without saying so.
        let whole = manifest.event_times.is_some() || manifest.inbox().is_some();
        self.names = whole.then(|| positions.iter().map(|position| position.partition.as_str()).collect());
        self.manifest = Some(manifest);
        wrong
    }

    fn compare_names(&self, positions: &[Position], keeps: bool, wrong: &mut Vec<String>) {
        let Some(names) = self.names.as_ref().filter(|_| keeps) else { return };
        for (at, name) in names.iter().enumerate() {
            match positions.get(at) {
                Some(position) if position.partition == *name => {}
                Some(position) => {
                    wrong.push(format!("partition {at} is {}, and was {name} before", position.partition));
                    return;
                }
                None => {
                    wrong.push(format!("it does not list partition {at}, {name}"));
                    return;
                }
            }
        }
    }

    fn check_times(
        &self,
        times: &EventTimes,
        manifest: &Manifest,
        before: Option<&EventTimes>,
        wrong: &mut Vec<String>,
    ) {
        if before.is_some_and(|before| times.watermark_us < before.watermark_us) {
            wrong.push("its watermark is before that of the manifest before it".to_owned());
        }
        if !times.partitions.is_sorted_by(|one, next| one.index < next.index) {
            wrong.push("its event times are not in the order of partitions".to_owned());
        }
        let newest = times.newest_us.last();
        if newest > manifest.counters.newest_event_time_us.as_ref() {
            wrong.push("it keeps an event time after the newest that it counts".to_owned());
        }
        let inbox = manifest.inbox().map(|inbox| inbox.index);
        for partition in &times.partitions {
            let index = partition.index;
            let what = match () {
                () if index as usize >= manifest.positions.len() => "which is not there",
                () if Some(index) == inbox => "whose events take no part in times",
                () if partition.newest_us.last() > newest => "after the newest of all",
                () => continue,
            };
            wrong.push(format!("it keeps event times of partition {index}, {what}"));
            return;
        }
    }
}
