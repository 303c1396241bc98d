//! How much is on its way from the source to the tables: reading waits when it is too much.
//!
//! Until an epoch is computed its bodies are in memory; from then on it is its rows, which are few, until they are published. So
//! tables that are slow to commit hold up reading only when many epochs or many rows wait for them.

use std::collections::VecDeque;

use tidemark_dataflows::event::Epoch;

/// How much may be on its way from the source to the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Epochs cut and not yet published.
    pub epochs: usize,
    /// Bytes of bodies that are not yet computed and of rows that are not yet published, beyond a single epoch.
    pub bytes: u64,
    /// Events after which an epoch of a live source is closed before its time; after `bytes` bytes of bodies it is, too. None for
    /// files, whose epochs have a size of their own.
    pub live_events: Option<u64>,
}

/// How far epochs have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    /// The newest epoch of which all rows are with the writer of the tables; none where that is not known.
    pub(super) delivered: Option<Epoch>,
    /// The newest epoch that readers see in every table.
    pub(super) visible: Epoch,
    /// Bytes of the rows that the writer holds.
    pub(super) rows: u64,
}

/// Whether more may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It may.
    Enough,
    /// Once more is computed.
    AfterComputation,
    /// Once more is published.
    AfterPublication,
}

struct Begun {
    epoch: Epoch,
    bytes: u64,
}

/// The epochs that were begun and are not published yet; the last one is the open epoch, if there is one.
#[derive(Default)]
pub(super) struct InFlight {
    epochs: VecDeque<Begun>,
    reached: Reached,
}

impl InFlight {
    /// Begins an epoch. Returns whether it is a new one.
    pub(super) fn begin(&mut self, epoch: Epoch) -> bool {
        let new = self.epochs.back().is_none_or(|last| last.epoch < epoch);
        if new {
            self.epochs.push_back(Begun { epoch, bytes: 0 });
        }
        new
    }

    /// Adds bytes to the open epoch.
    pub(super) fn add(&mut self, bytes: u64) {
        if let Some(open) = self.epochs.back_mut() {
            open.bytes += bytes;
        }
    }

    /// Forgets what is published.
    pub(super) fn note(&mut self, reached: Reached) {
        self.reached = reached;
        while self.epochs.front().is_some_and(|first| first.epoch <= reached.visible) {
            self.epochs.pop_front();
        }
    }

    /// Whether `bytes` more may be read. A single epoch may exceed the limit: it cannot be computed before it is whole.
    pub(super) fn room(&self, bytes: u64, limits: Limits) -> Room {
        let Reached { delivered, visible, rows } = self.reached;
        let delivered = delivered.unwrap_or(0).max(visible);
        let computing = self.epochs.iter().filter(|begun| begun.epoch > delivered);
        let (epochs, bodies) = computing.fold((0, bytes), |(epochs, sum), begun| (epochs + 1, sum + begun.bytes));
        let fits = |rows: u64| (epochs <= 1 && rows <= limits.bytes) || bodies.saturating_add(rows) <= limits.bytes;
        let published = self.epochs.len().saturating_sub(1) <= limits.epochs;
        match published && fits(rows) {
            true => Room::Enough,
            false if !published || fits(0) || self.reached.delivered.is_none() => Room::AfterPublication,
            false => Room::AfterComputation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { epochs: 3, bytes: 100, live_events: None };

    /// Epochs from 1 on with so many bytes each, the last one open.
    fn begun(bytes: &[u64], delivered: Option<Epoch>, visible: Epoch, rows: u64) -> InFlight {
        let mut in_flight = InFlight::default();
        for (epoch, bytes) in (1..).zip(bytes) {
            assert!(in_flight.begin(epoch));
            in_flight.add(*bytes);
        }
        in_flight.note(Reached { delivered, visible, rows });
        in_flight
    }

    #[test]
    fn bodies_count_until_they_are_computed_and_rows_from_then_on() {
        for (bytes, delivered, visible, rows, more, expected) in [
            // A single epoch may be as large as it likes.
            (&[90][..], Some(0), 0, 0, 900, Room::Enough),
            (&[90, 90], Some(1), 1, 0, 900, Room::Enough),
            (&[90, 90], Some(1), 0, 20, 900, Room::Enough),
            // A closed one is waited for together with the open one.
            (&[60, 20], Some(0), 0, 0, 20, Room::Enough),
            (&[60, 20], Some(0), 0, 0, 21, Room::AfterComputation),
            // What is computed leaves its rows.
            (&[60, 60, 20], Some(1), 0, 20, 0, Room::Enough),
            (&[60, 60, 20], Some(1), 0, 21, 0, Room::AfterPublication),
            (&[60, 60, 20], Some(1), 0, 0, 21, Room::AfterComputation),
            (&[60, 60, 50], Some(1), 0, 30, 0, Room::AfterComputation),
            (&[60, 20], Some(1), 0, 101, 0, Room::AfterPublication),
            // Epochs count until they are published.
            (&[1, 1, 1, 1], Some(3), 0, 0, 1, Room::Enough),
            (&[1, 1, 1, 1, 1], Some(4), 0, 0, 1, Room::AfterPublication),
            (&[1, 1, 1, 1, 1], Some(4), 1, 0, 1, Room::Enough),
            // Whoever does not know what is computed waits for publications.
            (&[60, 20], None, 0, 0, 21, Room::AfterPublication),
            (&[60, 20], None, 1, 0, 900, Room::Enough),
        ] {
            let in_flight = begun(bytes, delivered, visible, rows);
            assert_eq!(in_flight.room(more, LIMITS), expected, "{bytes:?} {delivered:?} {visible} {rows} {more}");
        }
    }
}
