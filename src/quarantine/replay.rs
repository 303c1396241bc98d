//! Puts rejected events into the inbox, from which an instance feeds them to the contract once more.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use tidemark_checkpoint::inbox::{Appended, Inbox, MAX_BYTES, MAX_EVENTS, PARTITION, Replay};
use tidemark_dataflows::event::Micros;
use tidemark_store::Store;

use super::list::{counts, json_line};
use super::{RejectedRow, Selection, Unplayable, rows};
use crate::report::numbers::{counted, grouped};
use crate::report::reader::{Reader, newest, texts};
use crate::report::terminal::printable;
use crate::runtime::RunError;
use crate::sink::tables::{RejectedEvents, Table as _};

/// Events that cannot be fed again which are named on a terminal.
const NAMED: usize = 20;

/// The selected events: their bodies, and those that have none.
#[derive(Debug)]
pub struct Plan {
    bodies: Vec<Vec<u8>>,
    by_reason: BTreeMap<String, u64>,
    left_out: Vec<LeftOut>,
}

/// An event that cannot be fed again.
#[derive(Clone, Debug, Serialize)]
struct LeftOut {
    epoch: u64,
    partition: String,
    offset: u64,
    reason: String,
    why: Unplayable,
}

/// More than one replay takes.
#[derive(Debug)]
pub struct TooMuch {
    /// Selected events.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events of {} bytes are selected, and one replay takes {} of {} bytes in all; replay them in parts, for \
             example by --epoch",
            grouped(self.events),
            grouped(self.bytes),
            grouped(MAX_EVENTS as u64),
            grouped(MAX_BYTES)
        )
    }
}

impl Plan {
    /// Reads the selected events; says how many there are where they are too many.
    ///
    /// # Errors
    ///
    /// When the table is missing or cannot be read.
    pub(crate) fn read(reader: &Reader, selection: &Selection) -> Result<Result<Plan, TooMuch>, RunError> {
        let events = counts(reader, selection)?.iter().map(|count| count.events).sum();
        let bytes = payload_bytes(reader, selection)?;
        // Base64 is longer than what it stands for, and some payloads cannot be replayed: this only bounds memory.
        if events > MAX_EVENTS as u64 || bytes > 2 * MAX_BYTES {
            return Ok(Err(TooMuch { events, bytes }));
        }
        let rows = rows(reader, selection, MAX_EVENTS as u64, None)?;
        let plan = Plan::of(&rows);
        let bytes = plan.bodies.iter().map(|body| body.len() as u64).sum();
        Ok(if bytes > MAX_BYTES { Err(TooMuch { events, bytes }) } else { Ok(plan) })
    }

    fn of(rows: &[RejectedRow]) -> Plan {
        let mut plan = Plan { bodies: Vec::new(), by_reason: BTreeMap::new(), left_out: Vec::new() };
        for row in rows {
            match row.body() {
                Ok(body) => {
                    plan.bodies.push(body);
                    *plan.by_reason.entry(row.reason.clone()).or_default() += 1;
                }
                Err(why) => {
                    let RejectedRow { epoch, partition, offset, reason, .. } = row.clone();
                    plan.left_out.push(LeftOut { epoch, partition, offset, reason, why });
                }
            }
        }
        plan
    }

    /// Puts the events into the inbox, in one piece. `None` when there is none to put there.
    ///
    /// # Errors
    ///
    /// When the inbox cannot be written.
    pub fn put(&self, store: Store, id: &str, now: Micros) -> Result<Option<Appended>, RunError> {
        if self.bodies.is_empty() {
            return Ok(None);
        }
        Ok(Some(Inbox::new(store).append(id, &self.bodies, now)?))
    }

    /// What was done, or would be, for a terminal or as JSON.
    pub fn report(&self, done: Option<&Appended>, dry_run: bool, json: bool) -> String {
        let events = self.bodies.len() as u64;
        let place = done.map(|(Appended::Now(replay) | Appended::Before(replay))| replay);
        let repeated = matches!(done, Some(Appended::Before(_)));
        if json {
            return json_line(&serde_json::json!({
                "dry_run": dry_run,
                "events": events,
                "by_reason": self.by_reason,
                "left_out": self.left_out,
                "replay": place,
                "put_before": repeated,
            }));
        }
        let mut text = String::new();
        for (reason, events) in &self.by_reason {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {}", grouped(*events), printable(reason, 64));
        }
        for event in self.left_out.iter().take(NAMED) {
            let LeftOut { epoch, partition, offset, reason, why } = event;
            let (partition, why) = (printable(partition, 64), why.words());
            let _ = writeln!(text, "left out: epoch {epoch} {partition}:{offset} {reason}: {why}");
        }
        if self.left_out.len() > NAMED {
            let _ = writeln!(text, "left out: {} more", grouped((self.left_out.len() - NAMED) as u64));
        }
        let _ = match (place, repeated) {
            (Some(replay), true) => writeln!(text, "nothing was done: {} had been put there before", words(replay)),
            (Some(replay), false) => writeln!(
                text,
                "put into the inbox: {}; a running instance takes them now, else the \
                 next run",
                words(replay)
            ),
            (None, _) if dry_run => writeln!(text, "{} would be put into the inbox", counted(events, "event")),
            (None, _) => writeln!(text, "nothing was done: no event to feed again"),
        };
        text
    }
}

fn words(replay: &Replay) -> String {
    let Replay { id, first, events, .. } = replay;
    format!(
        "{} as {PARTITION}:{first} to {PARTITION}:{} under the id {}",
        counted(*events, "event"),
        replay.end() - 1,
        printable(id, 200)
    )
}

/// Bytes of the selected payloads as they are stored.
fn payload_bytes(reader: &Reader, selection: &Selection) -> Result<u64, RunError> {
    let name = RejectedEvents::spec().name;
    let scan = newest(&name, &["raw_payload"], selection.predicate());
    Ok(reader.fold(
        &scan,
        || 0,
        |bytes, batch| {
            let payloads = texts(batch, "raw_payload");
            *bytes += (0..batch.num_rows()).map(|row| payloads.at(row).len() as u64).sum::<u64>();
        },
    )?)
}
