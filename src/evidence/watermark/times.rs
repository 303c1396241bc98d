//! What the tables hold of the event times of epochs. A few epochs are read at once, so that memory stays bounded.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tidemark_checkpoint::inbox;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{END_OF_TIME, Epoch, Micros, PartitionId, Position};
use tidemark_dataflows::reason::Reason;
use tidemark_delta::{Error, Predicate};

use super::bounds::Known;
use crate::evidence::cut::{CURATED, REJECTED};
use crate::evidence::health::{DATED, Health, Row};
use crate::evidence::read::Tables;
use crate::report::least::Least;
use crate::report::reader::{longs, texts};

/// Events of the epochs that are read at once; one epoch where it has more.
const AT_ONCE: i128 = 500_000;

/// What the tables hold of one partition in one epoch.
#[derive(Clone, Debug)]
struct Rows {
    /// Accepted and rejected events.
    events: u64,
    /// The greatest of those that are stored.
    times: Least<Reverse<Micros>>,
    /// Rejected events that have a time, with it or without.
    dated: u64,
    /// Late events whose payload is not there.
    late: usize,
    /// Whether there are other events whose time cannot be told.
    undated: bool,
}

impl Rows {
    fn new(witnesses: usize) -> Rows {
        Rows { events: 0, times: Least::new(witnesses), dated: 0, late: 0, undated: false }
    }
}

/// By epoch and partition.
type Read = BTreeMap<Epoch, BTreeMap<String, Rows>>;

/// Reads the event times of epochs, in order.
pub(super) struct Times<'a> {
    tables: Tables<'a>,
    /// How many times of each partition are asked for.
    witnesses: usize,
    last: Epoch,
    read: Read,
    read_to: Epoch,
}

impl<'a> Times<'a> {
    pub(super) fn new(tables: Tables<'a>, witnesses: usize, last: Epoch) -> Times<'a> {
        Times { tables, witnesses, last, read: BTreeMap::new(), read_to: 0 }
    }

    /// What is known of an epoch; none where its events cannot be told apart, or times of some are nowhere.
    pub(super) fn of(&mut self, epoch: Epoch, cut: &Cut, health: &Health) -> Result<Option<Known>, Error> {
        let Some(row) = health.epochs.get(&epoch) else { return Ok(None) };
        if epoch > self.read_to {
            self.read_from(epoch, health)?;
        }
        let rows = self.read.remove(&epoch).unwrap_or_default();
        Ok(known(cut, rows, row))
    }

    fn read_from(&mut self, first: Epoch, health: &Health) -> Result<(), Error> {
        let mut events = 0;
        let following = health.epochs.range(first..=self.last).take_while(|(epoch, row)| {
            events += row.counts.received;
            **epoch == first || events <= AT_ONCE
        });
        let last = following.last().map_or(first, |(epoch, _)| *epoch);
        let [from, to] = [first, last].map(|epoch| i64::try_from(epoch).unwrap_or(i64::MAX));
        let within = || Predicate::default().between("epoch", from..=to);
        let witnesses = self.witnesses;
        let columns = ["epoch", "source_partition", "event_time"];
        let accepted = self.tables.fold(CURATED, &columns, within(), Read::new, |read, batch| {
            let times = longs(batch, "event_time");
            each(read, witnesses, batch, |rows, row| {
                rows.events += 1;
                rows.times.offer(Reverse(Micros(times.at(row))));
            });
        })?;
        let columns = ["epoch", "source_partition", "rejection_reason", "raw_payload", "payload_encoding"];
        self.read = self.tables.fold(
            REJECTED,
            &columns,
            within(),
            || accepted.clone(),
            |read, batch| {
                let [reasons, payloads, encodings] =
                    ["rejection_reason", "raw_payload", "payload_encoding"].map(|name| texts(batch, name));
                each(read, witnesses, batch, |rows, row| {
                    rows.events += 1;
                    let Some(reason) = DATED.into_iter().find(|reason| reason.as_str() == reasons.at(row)) else {
                        return;
                    };
                    rows.dated += 1;
                    match event_time(payloads.at(row), encodings.at(row)) {
                        Some(time) => rows.times.offer(Reverse(time)),
                        None if reason == Reason::LateEvent => rows.late += 1,
                        None => rows.undated = true,
                    }
                });
            },
        )?;
        self.read_to = last;
        Ok(())
    }
}

/// Hands out each row of a batch with what is known of its epoch and partition.
fn each(read: &mut Read, witnesses: usize, batch: &RecordBatch, mut take: impl FnMut(&mut Rows, usize)) {
    let (epochs, partitions) = (longs(batch, "epoch"), texts(batch, "source_partition"));
    for row in 0..batch.num_rows() {
        let (of_epoch, partition) = (read.entry(epochs.whole(row)).or_default(), partitions.at(row));
        if !of_epoch.contains_key(partition) {
            of_epoch.insert(partition.to_owned(), Rows::new(witnesses));
        }
        if let Some(rows) = of_epoch.get_mut(partition) {
            take(rows, row);
        }
    }
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
fn known(cut: &Cut, mut rows: BTreeMap<String, Rows>, row: &Row) -> Option<Known> {
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
        let at = PartitionId(*index);
        let rows = rows.remove(*name).unwrap_or_else(|| Rows::new(0));
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
        let times: Vec<Micros> = rows.times.ascending().into_iter().rev().map(|Reverse(time)| time).collect();
        if !times.is_empty() {
            found.times.insert(at, times);
        }
        if *name == inbox::PARTITION {
            found.inbox = Some(at);
        }
    }
    // Where tables and their sums differ, other checks say so.
    (rows.is_empty() && i128::from(duplicates) == row.counts.duplicates && dated == row.dated).then_some(found)
}
