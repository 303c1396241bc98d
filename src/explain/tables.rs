//! What the tables say of an id.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_dataflows::event::Micros;
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Predicate;

use super::Search;
use super::verdict::{Found, Place};
use crate::quarantine::{Selection, rows};
use crate::report::least::Least;
use crate::report::reader::{longs, newest, texts};
use crate::runtime::RunError;
use crate::sink::tables::{RejectedEvents, StreamHealth, Table as _, TransactionEvents};

/// Most rows of one table that are looked at.
pub(super) const MOST: usize = 10_000;

impl Search<'_> {
    /// The quarantine and the curated events.
    pub(super) fn tables(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        self.quarantine(found)?;
        self.curated(found)
    }

    fn quarantine(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        let name = RejectedEvents::spec().name;
        if !self.reader.has(&name)? {
            self.not_searched.push(format!("{name}: there is no such table"));
            return Ok(());
        }
        let selection = Selection { event_id: Some(self.event_id.to_owned()), ..Selection::default() };
        let rows = rows(&self.reader, &selection, MOST as u64, None)?;
        self.note_limit(rows.len(), &name);
        for row in rows {
            let at = found.entry(Place { partition: row.partition.clone(), offset: row.offset }).or_default();
            at.epoch = Some(row.epoch);
            at.body = row.body().ok();
            at.rejected = Some((row.reason, row.detail));
        }
        Ok(())
    }

    fn curated(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        let name = TransactionEvents::spec().name;
        if !self.reader.has(&name)? {
            self.not_searched.push(format!("{name}: there is no such table (output.curated)"));
            return Ok(());
        }
        let columns = ["epoch", "source_partition", "source_offset"];
        let scan = newest(&name, &columns, Predicate::default().text_in("event_id", [self.event_id]));
        let places = self.reader.fold(
            &scan,
            || Least::new(MOST),
            |places, batch| {
                let [epochs, offsets] = ["epoch", "source_offset"].map(|name| longs(batch, name));
                let partitions = texts(batch, "source_partition");
                for row in 0..batch.num_rows() {
                    places.offer((epochs.whole(row), partitions.at(row).to_owned(), offsets.whole(row)));
                }
            },
        )?;
        let places = places.ascending();
        self.note_limit(places.len(), &name);
        for (epoch, partition, offset) in places {
            let at = found.entry(Place { partition, offset }).or_default();
            at.epoch = Some(epoch);
            at.accepted = true;
        }
        Ok(())
    }

    pub(super) fn note_limit(&mut self, count: usize, place: &str) {
        if count >= MOST {
            self.not_searched.push(format!("{place}: what comes after {MOST} events of this id"));
        }
    }

    /// Opening time and watermark of the epochs of all arrivals.
    pub(super) fn health(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        let name = StreamHealth::spec().name;
        let epochs: BTreeSet<i64> =
            found.values().filter_map(|at| at.epoch).filter_map(|epoch| i64::try_from(epoch).ok()).collect();
        if epochs.is_empty() || !self.reader.has(&name)? {
            return Ok(());
        }
        let columns = ["batch_id", "batch_start", "watermark"];
        let scan = newest(&name, &columns, Predicate::default().long_in("batch_id", epochs));
        let known = self.reader.fold(&scan, BTreeMap::new, |known, batch| {
            let [epochs, opened, watermarks] = columns.map(|name| longs(batch, name));
            known.extend((0..batch.num_rows()).map(|row| (epochs.whole(row), (opened.get(row), watermarks.get(row)))));
        })?;
        for at in found.values_mut() {
            let times = at.epoch.and_then(|epoch| known.get(&epoch));
            at.opened = times.and_then(|(opened, _)| *opened).map(Micros);
            at.watermark = times.map(|(_, watermark)| watermark.map(Micros));
        }
        Ok(())
    }
}

/// The rule of that name.
pub(super) fn rule(name: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
}
