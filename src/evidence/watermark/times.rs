//! What the tables hold of the event times of epochs. A few epochs are read at once, so that memory stays bounded.

use std::collections::BTreeMap;

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{END_OF_TIME, Epoch, Micros, PartitionId, Position};
use tidemark_dataflows::reason::Reason;
use tidemark_delta::Error;

use super::bounds::Known;
use crate::evidence::cut::{CURATED, HEALTH, REJECTED};
use crate::evidence::read::{Reader, Versions, long, text};

/// Events of the epochs that are read at once; one epoch where it has more.
const AT_ONCE: u64 = 500_000;

/// A row of stream_health.
#[derive(Clone, Debug, Default)]
struct Row {
    watermark: Option<Micros>,
    received: u64,
    duplicates: u64,
    /// Events that passed R000 to R140 and were rejected.
    dated: u64,
}

/// stream_health from some epoch on.
#[derive(Debug)]
pub(super) struct Health(BTreeMap<Epoch, Row>);

impl Health {
    pub(super) fn read(reader: &Reader, versions: &Versions, from: Epoch) -> Result<Health, Error> {
        let sql = format!(
            "select batch_id, watermark, events_received, duplicate_events, rejected_by_reason from stream_health \
             where batch_id >= {from}"
        );
        let mut rows = BTreeMap::new();
        for batch in reader.query(versions, &[HEALTH], &sql)? {
            let [epoch, watermark, received, duplicates, reasons] = batch.columns() else { continue };
            for row in 0..batch.num_rows() {
                let reasons: BTreeMap<String, u64> = serde_json::from_str(&text(reasons, row)).unwrap_or_default();
                let dated = DATED.map(|reason| reasons.get(reason.as_str()).copied().unwrap_or(0));
                let found = Row {
                    watermark: long(watermark, row).map(Micros),
                    received: count(long(received, row)),
                    duplicates: count(long(duplicates, row)),
                    dated: dated.iter().sum(),
                };
                rows.insert(count(long(epoch, row)), found);
            }
        }
        Ok(Health(rows))
    }

    /// The watermark of an epoch; none where there is no row of it.
    pub(super) fn watermark(&self, epoch: Epoch) -> Option<Option<Micros>> {
        self.0.get(&epoch).map(|row| row.watermark)
    }
}

/// The reasons whose events take part in event time: those after R140.
const DATED: [Reason; 2] = [Reason::LateEvent, Reason::ConflictingDuplicate];

/// What the tables hold of one partition in one epoch.
#[derive(Clone, Debug, Default)]
struct Rows {
    /// Accepted and rejected events.
    events: u64,
    times: Vec<Micros>,
    /// Rejected events that have a time, with it or without.
    dated: u64,
    /// Late events whose payload is not there.
    late: usize,
    /// Whether there are other events whose time cannot be told.
    undated: bool,
}

/// Reads the event times of epochs, in order.
pub(super) struct Times<'a> {
    reader: &'a Reader,
    versions: &'a Versions,
    /// How many times of each partition are asked for.
    witnesses: usize,
    last: Epoch,
    read: BTreeMap<Epoch, BTreeMap<String, Rows>>,
    read_to: Epoch,
}

impl<'a> Times<'a> {
    pub(super) fn new(reader: &'a Reader, versions: &'a Versions, witnesses: usize, last: Epoch) -> Times<'a> {
        Times { reader, versions, witnesses, last, read: BTreeMap::new(), read_to: 0 }
    }

    /// What is known of an epoch; none where its events cannot be told apart, or times of some are nowhere.
    pub(super) fn of(&mut self, epoch: Epoch, cut: &Cut, health: &Health) -> Result<Option<Known>, Error> {
        let Some(row) = health.0.get(&epoch) else { return Ok(None) };
        if epoch > self.read_to {
            self.read_from(epoch, health)?;
        }
        let rows = self.read.remove(&epoch).unwrap_or_default();
        Ok(known(cut, rows, row))
    }

    fn read_from(&mut self, first: Epoch, health: &Health) -> Result<(), Error> {
        let mut events = 0;
        let following = health.0.range(first..=self.last).take_while(|(epoch, row)| {
            events += row.received;
            **epoch == first || events <= AT_ONCE
        });
        let last = following.last().map_or(first, |(epoch, _)| *epoch);
        (self.read, self.read_to) = (BTreeMap::new(), last);
        let within = format!("epoch between {first} and {last}");
        for (table, from) in [(CURATED, "transaction_events"), (REJECTED, "rejected_events")] {
            let sql = format!(
                "select epoch, source_partition, count(*) from {from} where {within} group by epoch, source_partition"
            );
            self.each(table, &sql, |rows, count, _| rows.events += count.unsigned_abs())?;
        }
        let times = format!(
            "select epoch, source_partition, event_time from (select epoch, source_partition, event_time, row_number() \
             over (partition by epoch, source_partition order by event_time desc) as place from transaction_events \
             where {within}) where place <= {}",
            self.witnesses
        );
        self.each(CURATED, &times, |rows, time, _| rows.times.push(Micros(time)))?;
        let [late, conflicting] = DATED.map(Reason::as_str);
        let dated = format!(
            "select epoch, source_partition, case when rejection_reason = '{late}' then 1 else 0 end, raw_payload, \
             payload_encoding from rejected_events where {within} and rejection_reason in ('{late}', '{conflicting}')"
        );
        self.each(REJECTED, &dated, |rows, late, texts| {
            rows.dated += 1;
            match texts.and_then(|(payload, encoding)| event_time(&payload, &encoding)) {
                Some(time) => rows.times.push(time),
                None if late == 1 => rows.late += 1,
                None => rows.undated = true,
            }
        })
    }

    /// Hands out each row of a statement: a number, and two texts where there are any, of an epoch and a partition.
    fn each(
        &mut self,
        table: &'static str,
        sql: &str,
        mut take: impl FnMut(&mut Rows, i64, Option<(String, String)>),
    ) -> Result<(), Error> {
        for batch in self.reader.query(self.versions, &[table], sql)? {
            let [epoch, partition, number, texts @ ..] = batch.columns() else { continue };
            for row in 0..batch.num_rows() {
                let of_epoch = self.read.entry(count(long(epoch, row))).or_default();
                let rows = of_epoch.entry(text(partition, row)).or_default();
                let texts = if let [one, other] = texts { Some((text(one, row), text(other, row))) } else { None };
                take(rows, long(number, row).unwrap_or_default(), texts);
            }
        }
        Ok(())
    }
}

fn count(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// The event time in a payload, which has passed R000 to R140 once.
fn event_time(payload: &str, encoding: &str) -> Option<Micros> {
    if encoding != "utf-8" {
        return None;
    }
    let contract = Contract { max_future_skew_us: i64::MAX, id_key: [0, 0], curated: false };
    let (bytes, whole_len) = (payload.as_bytes(), payload.len() as u64);
    let body = Body { bytes, whole_len, at: Position::default(), arrival: END_OF_TIME, section: None };
    contract.check_strict(&body, 0).ok().map(|event| event.time)
}

/// Brings the events of the tables together with the ranges of the cut: what is in these and in no table is a duplicate.
fn known(cut: &Cut, rows: BTreeMap<String, Rows>, row: &Row) -> Option<Known> {
    let mut partitions: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    for range in &cut.ranges {
        let (index, events) = partitions.entry(&range.partition).or_insert((range.index, 0));
        if *index != range.index {
            // Two partitions of one name, which tables do not tell apart.
            return None;
        }
        *events += range.to.saturating_sub(range.from);
    }
    let mut found = Known::default();
    let (mut duplicates, mut dated) = (0, 0);
    for (name, (index, events)) in &partitions {
        let rows = rows.get(*name).cloned().unwrap_or_default();
        let at = PartitionId(*index);
        let more = events.checked_sub(rows.events)?;
        duplicates += more;
        dated += rows.dated;
        if rows.undated {
            return None;
        }
        let note = |to: &mut BTreeMap<PartitionId, usize>, count: usize| {
            if count > 0 {
                to.insert(at, count);
            }
        };
        note(&mut found.duplicates, usize::try_from(more).unwrap_or(usize::MAX));
        note(&mut found.late, rows.late);
        if !rows.times.is_empty() {
            found.times.insert(at, rows.times);
        }
        if *name == inbox::PARTITION {
            found.inbox = Some(at);
        }
    }
    // Where tables and their sums differ, other checks say so.
    let fits = rows.keys().all(|name| partitions.contains_key(name.as_str()));
    (fits && duplicates == row.duplicates && dated == row.dated).then_some(found)
}
