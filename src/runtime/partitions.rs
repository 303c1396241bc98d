//! The partitions of a reader besides their events: those that join, and how far others have come.

use std::time::{Duration, Instant};

use tidemark_checkpoint::records::{Joined, Position};
use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use super::reader::PartitionReader;
use crate::cluster::messages::Message;
use crate::source::{Found, PartitionInfo};

/// Time between two looks for partitions that were added to the source, and between two messages about what is in hand.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

impl PartitionReader {
    /// Takes up a partition that joins.
    pub(super) fn join(&mut self, joined: &Joined) {
        let index = joined.index as usize;
        if index != self.positions.len() {
            return;
        }
        let info = PartitionInfo { name: joined.partition.clone(), path: None, bytes: None };
        self.parts.source.join(Found { info, from: Offset(joined.from) });
        if self.parts.source.reads(PartitionId(joined.index)) {
            self.own.push(index);
        }
        let partition = joined.partition.clone();
        self.positions.push(Offset(joined.from));
        self.at_cut.push(Position { partition, index: joined.index, next: joined.from, digest: None, ended: false });
        self.missing.push(Vec::new());
        self.ended.push(false);
    }

    pub(super) fn align(&mut self, others: Option<Micros>) {
        self.others = others;
        let cut: Vec<Offset> = self.at_cut.iter().map(|position| Offset(position.next)).collect();
        self.parts.source.align(&cut, others);
    }

    /// Tells the leader, from time to time, of partitions that were found and of what is in hand.
    pub(super) fn look_around(&mut self) {
        if self.looked.elapsed() < BETWEEN_LOOKS {
            return;
        }
        self.looked = Instant::now();
        for Found { info, from } in self.parts.source.discovered() {
            self.parts.link.send(Message::Discovered(info.name, from.0));
        }
        let oldest = self.parts.source.oldest_in_hand();
        if oldest != self.in_hand {
            self.in_hand = oldest;
            self.parts.link.send(Message::InHand(oldest));
        }
    }
}
