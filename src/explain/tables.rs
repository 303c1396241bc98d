//! What the tables say of an id.

use std::collections::BTreeMap;

use tidemark_dataflows::event::Micros;
use tidemark_dataflows::reason::Reason;

use super::Search;
use super::verdict::{Found, Place};
use crate::quarantine::{Selection, rows, whole};
use crate::report::reader::{literal, longs, texts};
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
        let sql = format!(
            "select epoch, source_partition, source_offset from transaction_events where event_id = {} \
             order by epoch, source_partition, source_offset limit {MOST}",
            literal(self.event_id)
        );
        let mut count = 0;
        for batch in self.reader.rows(&name, &sql)? {
            count += batch.num_rows();
            let places = texts(&batch, 1)?.into_iter().zip(longs(&batch, 2)?);
            for (epoch, (partition, offset)) in longs(&batch, 0)?.into_iter().zip(places) {
                let place = Place { partition: partition.unwrap_or_default(), offset: whole(offset) };
                let at = found.entry(place).or_default();
                at.epoch = Some(whole(epoch));
                at.accepted = true;
            }
        }
        self.note_limit(count, &name);
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
        let mut epochs: Vec<u64> = found.values().filter_map(|at| at.epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        if epochs.is_empty() || !self.reader.has(&name)? {
            return Ok(());
        }
        let epochs: Vec<String> = epochs.iter().map(u64::to_string).collect();
        let sql = format!(
            "select batch_id, batch_start, watermark from stream_health where batch_id in ({})",
            epochs.join(", ")
        );
        let mut known = BTreeMap::new();
        for batch in self.reader.rows(&name, &sql)? {
            let times = longs(&batch, 1)?.into_iter().zip(longs(&batch, 2)?);
            known.extend(longs(&batch, 0)?.into_iter().map(whole).zip(times));
        }
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
