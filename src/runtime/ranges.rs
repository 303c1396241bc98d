//! What a reader reports of an epoch: the ranges that it has read, and how its partitions stand after it.

use tidemark_checkpoint::records::Range;
use tidemark_dataflows::event::Micros;

use super::epochs::go_to_end;
use super::leader_link::Stop;
use super::reader::{PartitionReader, id_of};
use crate::cluster::messages::Standing;
use crate::source;

impl PartitionReader {
    /// How the partitions of this process stand, for an epoch that was opened then; none while that is not known.
    pub(super) fn standings(&mut self, opened: Micros) -> Result<Option<Vec<Standing>>, Stop> {
        let mut standings = Vec::with_capacity(self.own.len());
        for &partition in &self.own {
            let id = id_of(partition);
            if self.parts.source.is_beside(id) {
                continue;
            }
            let Some(found) = self.parts.source.standing(id, self.positions[partition], opened)? else {
                return Ok(None);
            };
            let (behind, head) = match found {
                source::Standing::CaughtUp => (false, source::Head::NONE),
                source::Standing::Behind(head) => (true, head),
            };
            standings.push(Standing { index: id.0, behind, head: head.time, until: head.until });
        }
        Ok(Some(standings))
    }

    /// Notes that everything read so far is cut. Returns what was read since the cut before: one range of each partition,
    /// and one more for each hole in its offsets, of which only the last has a digest; and how many offsets lie in holes.
    pub(super) fn take_ranges(&mut self) -> (Vec<Range>, u64) {
        let (mut ranges, mut passed) = (Vec::new(), 0);
        for (partition, next) in self.positions.iter().enumerate().filter(|(i, next)| next.0 > self.at_cut[*i].next) {
            let digest = self.digest(partition);
            let at = &self.at_cut[partition];
            passed += next.0 - at.next;
            let mut from = at.next;
            for hole in std::mem::take(&mut self.missing[partition]) {
                if hole.start > from {
                    let (partition, index) = (at.partition.clone(), at.index);
                    ranges.push(Range { partition, index, from, to: hole.start, digest: None });
                }
                from = hole.end;
            }
            let (partition, index) = (at.partition.clone(), at.index);
            ranges.push(Range { partition, index, from, to: next.0, digest });
        }
        go_to_end(&mut self.at_cut, &ranges);
        let events: u64 = ranges.iter().map(|range| range.to - range.from).sum();
        (ranges, passed.saturating_sub(events))
    }

    /// Digest of what has been read of a partition, as it is stored.
    pub(super) fn digest(&self, partition: usize) -> Option<String> {
        self.parts.source.digest(id_of(partition)).map(|digest| digest.to_string())
    }
}
