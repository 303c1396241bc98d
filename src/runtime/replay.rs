//! Reads again what earlier runs have cut: the same epochs, exactly as they were.

use tidemark_checkpoint::records::{Cut, Range};
use tidemark_dataflows::event::{Epoch, Micros};

use super::lanes::behind_of;
use super::leader_link::Stop;
use super::reader::{IDLE, PartitionReader, id_of};
use crate::source::SourceError;

impl PartitionReader {
    /// Reads the partitions of this process again as these epochs were cut. They follow on what was restored; tables that
    /// hold them already, up to `held`, will skip them.
    ///
    /// A stop is not looked at: tables that differ by a group are made equal first.
    ///
    /// # Errors
    ///
    /// When the source no longer holds what was cut, cannot be read, or publishing has failed.
    pub(super) fn replay(&mut self, cuts: &[Cut], held: Epoch) -> Result<(), Stop> {
        self.together = held;
        let announcer = self.parts.feeder.announcer();
        let mut passed: Vec<u64> = self.positions.iter().map(|next| next.0).collect();
        for cut in cuts {
            for joined in &cut.joined {
                self.join(joined);
            }
            passed.extend(self.positions.iter().skip(passed.len()).map(|next| next.0));
            self.open_at(Micros(cut.opened_us));
            for range in &cut.ranges {
                if self.reads(range.index as usize) {
                    self.replay_range(range)?;
                }
            }
            self.take_ranges();
            announcer.mark(cut.mark(missing_in(cut, &mut passed)), behind_of(cut));
            self.go_on_after(cut.epoch);
        }
        Ok(())
    }

    fn replay_range(&mut self, range: &Range) -> Result<(), Stop> {
        let partition = range.index as usize;
        let holes = self.pass_over(partition, range.from);
        while self.positions.get(partition).is_some_and(|next| next.0 < range.to) {
            let left = range.to - self.positions[partition].0;
            if !self.pull(partition, left, Micros(i64::MAX))? {
                if self.ended[partition] {
                    return Err(changed(range, "it ends before").into());
                }
                std::thread::park_timeout(IDLE);
            }
            while !self.hand_on()? {
                self.parts.link.check()?;
                std::thread::park_timeout(IDLE);
            }
            self.parts.link.check()?;
        }
        if self.missing.get(partition).is_some_and(|now| now.len() != holes) {
            return Err(changed(range, "it no longer holds all events before").into());
        }
        let is_known = |digest: &String| {
            digest.parse().is_ok_and(|digest| self.parts.source.can_have_had(id_of(partition), digest))
        };
        if range.digest.as_ref().is_some_and(|digest| !is_known(digest)) {
            return Err(changed(range, "its content has changed before").into());
        }
        Ok(())
    }

    /// A range that begins further on says that the offsets before it had no events. Returns the number of holes.
    fn pass_over(&mut self, partition: usize, from: u64) -> usize {
        let (Some(next), Some(holes)) = (self.positions.get_mut(partition), self.missing.get_mut(partition)) else {
            return 0;
        };
        if next.0 < from {
            holes.push(next.0..from);
            next.0 = from;
        }
        holes.len()
    }
}

fn changed(range: &Range, how: &str) -> SourceError {
    let problem = format!("{how} event {}, up to which it was read and counted", range.to);
    SourceError::changed(range.partition.clone(), problem, "give the same input again")
}

/// How many offsets of a cut lie in holes, by the offsets of each partition that come next; they are moved to its end.
fn missing_in(cut: &Cut, next: &mut [u64]) -> u64 {
    let mut missing = 0;
    for range in &cut.ranges {
        if let Some(next) = next.get_mut(range.index as usize) {
            missing += range.from.saturating_sub(*next);
            *next = range.to;
        }
    }
    missing
}
