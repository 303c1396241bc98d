//! The watermark computed twice: with the least and with the greatest times that events can have whose times are not
//! stored. Where no such event has a say, both are the same.

use std::collections::BTreeMap;

use tidemark_dataflows::event::{Micros, PartitionId};
use tidemark_dataflows::newest::EventTimes;
use tidemark_dataflows::watermark::{Behind, Progress, Settings, Watermarks};

/// What is known of the event times of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The greatest of each partition, ascending.
    pub(super) times: BTreeMap<PartitionId, Vec<Micros>>,
    /// Duplicates: each is dated as an accepted event up to the end of the epoch.
    pub(super) duplicates: BTreeMap<PartitionId, usize>,
    /// Late events whose payloads are not kept: each is dated at or before the watermark of the epoch.
    pub(super) late: BTreeMap<PartitionId, usize>,
    /// The inbox, where something of it is in the epoch.
    pub(super) inbox: Option<PartitionId>,
}

/// The least that events can be dated.
const LEAST: Micros = Micros(0);

/// Between which bounds the watermark lies.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    settings: Settings,
    least: Watermarks,
    most: Watermarks,
    /// The greatest event time so far. No event whose time is not stored is later than that.
    newest: Option<Micros>,
}

impl Bounds {
    /// Goes on from what is known exactly.
    pub(super) fn new(settings: Settings, progress: Progress) -> Bounds {
        let newest = progress.newest;
        let (least, most) = (Watermarks::new(settings, progress.clone()), Watermarks::new(settings, progress));
        Bounds { settings, least, most, newest }
    }

    /// The watermark of the next epoch: the least and the greatest that it can be.
    pub(super) fn watermark(&self) -> (Option<Micros>, Option<Micros>) {
        (self.least.progress().watermark, self.most.progress().watermark)
    }

    /// Takes the next epoch; false where nothing can be said after it.
    pub(super) fn pass(&mut self, settings: Settings, known: &Known, behind: Option<&[Behind]>) -> bool {
        self.follow(settings);
        self.newest = self.newest.max(known.times.values().flatten().max().copied());
        let late = self.most.progress().watermark;
        let duplicates = (&known.duplicates, self.newest);
        let open = [duplicates, (&known.late, late)];
        if open.iter().any(|(events, latest)| !events.is_empty() && latest.is_none()) {
            return false;
        }
        let witnesses = self.settings.witnesses;
        let observed = |latest: fn(Micros) -> Micros| {
            let mut times = known.times.clone();
            for (events, at) in open {
                for (partition, count) in events {
                    let at = latest(at.unwrap_or(LEAST));
                    times.entry(*partition).or_default().extend(std::iter::repeat_n(at, (*count).min(witnesses)));
                }
            }
            times.values_mut().for_each(|times| times.sort_unstable());
            EventTimes { epoch: 0, partitions: times.into_iter().collect() }
        };
        for (watermarks, times) in [(&mut self.least, observed(|_| LEAST)), (&mut self.most, observed(|at| at))] {
            watermarks.observe(times);
            watermarks.close(0, behind.is_some(), behind.unwrap_or_default());
        }
        true
    }

    /// Takes up other settings. With another number of witnesses counting begins anew. The inbox may not have been known
    /// before anything of it was there.
    fn follow(&mut self, settings: Settings) {
        let settings = Settings { uncounted: settings.uncounted.or(self.settings.uncounted), ..settings };
        if settings == self.settings {
            return;
        }
        let anew = settings.witnesses != self.settings.witnesses;
        for watermarks in [&mut self.least, &mut self.most] {
            let progress = watermarks.progress();
            *watermarks = Watermarks::new(settings, if anew { progress.counted_anew() } else { progress });
        }
        self.settings = settings;
    }

    /// What of the progress that a manifest has cannot be.
    pub(super) fn differences(&self, said: &Progress) -> Vec<String> {
        let (least, most) = (self.least.progress(), self.most.progress());
        let mut found = Vec::new();
        if said.watermark < least.watermark || said.watermark > most.watermark {
            found.push("its watermark does not follow from the epochs before it".to_owned());
        }
        if !lies_between(&said.overall, &least.overall, &most.overall) {
            found.push("its greatest event times are not those of the epochs before it".to_owned());
        }
        let of = |progress: &Progress| progress.partitions.iter().cloned().collect::<BTreeMap<_, _>>();
        let (said, least, most) = (of(said), of(&least), of(&most));
        let mut partitions: Vec<PartitionId> = said.keys().chain(most.keys()).copied().collect();
        partitions.sort_unstable();
        partitions.dedup();
        let list = |of: &BTreeMap<PartitionId, Vec<Micros>>, at| of.get(at).cloned().unwrap_or_default();
        for at in &partitions {
            if !lies_between(&list(&said, at), &list(&least, at), &list(&most, at)) {
                let number = at.0;
                found.push(format!("the event times of partition {number} are not those of the epochs before it"));
            }
        }
        found
    }
}

/// Whether each of the times lies between its bounds. All of them ascend.
fn lies_between(times: &[Micros], least: &[Micros], most: &[Micros]) -> bool {
    let bounds = least.iter().zip(most);
    times.len() == least.len()
        && times.len() == most.len()
        && times.iter().zip(bounds).all(|(time, (least, most))| least <= time && time <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemark_dataflows::oracle::EventTime;
    use tidemark_dataflows::watermark::Horizon;

    const PARTITIONS: u32 = 3;

    fn settings(witnesses: usize) -> Settings {
        let horizon = Horizon { watermark_delay_us: 5, dedup_retention_us: 0 };
        Settings { horizon, witnesses, uncounted: Some(PartitionId(2)) }
    }

    /// Partition and time of an event, and whether its time is stored.
    type Dated = (u32, i64, bool);

    fn known(events: &[Dated]) -> Known {
        let mut known = Known::default();
        for (partition, time, stored) in events {
            let partition = PartitionId(*partition);
            match stored {
                true => known.times.entry(partition).or_default().push(Micros(*time)),
                false => *known.duplicates.entry(partition).or_default() += 1,
            }
        }
        known.times.values_mut().for_each(|times| times.sort_unstable());
        known
    }

    /// Of each partition: none where it is caught up, else its head time. None where the epoch is of the older rule.
    type Standings = Option<Vec<Option<Option<i64>>>>;

    fn epochs() -> impl Strategy<Value = Vec<(Vec<Dated>, Standings)>> {
        let event = (0..PARTITIONS, 0_i64..60, prop::bool::weighted(0.8));
        let behind = prop::collection::vec(prop::option::of(prop::option::of(0_i64..60)), PARTITIONS as usize);
        prop::collection::vec((prop::collection::vec(event, 0..12), prop::option::weighted(0.9, behind)), 1..9)
    }

    proptest! {
        #[test]
        fn the_watermark_lies_between_the_bounds_and_is_met_where_all_times_are_stored(
            epochs in epochs(), witnesses in 1_usize..5,
        ) {
            let (mut oracle, mut bounds) = (EventTime::new(settings(witnesses)), Bounds::new(settings(witnesses), Progress::default()));
            let (mut newest, mut all_stored) = (0, true);
            for (mut events, behind) in epochs {
                newest = events.iter().filter(|event| event.2).map(|event| event.1).fold(newest, i64::max);
                // A duplicate is dated as something accepted before.
                events.iter_mut().filter(|event| !event.2).for_each(|event| event.1 = event.1.min(newest));
                let behind: Option<Vec<Behind>> = behind.map(|behind| {
                    let at = (0..).zip(behind).filter_map(|(p, head)| Some((PartitionId(p), head?)));
                    at.map(|(partition, head)| Behind { partition, head: head.map(Micros) }).collect()
                });
                let times: Vec<_> = events.iter().map(|(p, time, _)| (PartitionId(*p), Micros(*time))).collect();
                let next = oracle.epoch(&times, behind.as_deref()).next_watermark;
                all_stored &= events.iter().all(|event| event.2);
                if !bounds.pass(settings(witnesses), &known(&events), behind.as_deref()) {
                    return Ok(());
                }
                let (least, most) = bounds.watermark();
                prop_assert!(least <= next && next <= most, "{least:?} {next:?} {most:?}");
                prop_assert!(!all_stored || least == most);
                prop_assert_eq!(bounds.differences(&oracle.progress), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn times_that_cannot_be_are_found() {
        let mut bounds = Bounds::new(settings(2), Progress::default());
        let known = known(&[(0, 10, true), (0, 20, true), (0, 20, false), (1, 30, true)]);
        assert!(bounds.pass(settings(2), &known, Some(&[])));
        let said = bounds.most.progress();
        assert!(bounds.differences(&said).is_empty());
        let later = |progress: &Progress| Progress { watermark: Some(Micros(26)), ..progress.clone() };
        assert_eq!(bounds.differences(&later(&said)).len(), 1);
        let mut other = said.clone();
        other.partitions[1].1[0] = Micros(31);
        other.overall[1] = Micros(31);
        assert_eq!(bounds.differences(&other).len(), 2);
    }
}
