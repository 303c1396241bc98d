//! `curated/transaction_events`: every accepted event, when asked for.

use std::rc::Rc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, Event};
use tidemark_delta::TableSpec;

use super::columns::{appended, long, long_array, money_array_of, money_of, text, text_array, time, time_array};
use super::{PartitionNames, Table};

/// Digits of a single amount: the contract admits less than 10^17 pence.
const AMOUNT_DIGITS: u8 = 17;

/// The curated events.
pub struct TransactionEvents {
    /// What `source_partition` says.
    pub partitions: PartitionNames,
}

impl Table for TransactionEvents {
    type Row = Rc<Vec<Event>>;

    fn spec() -> TableSpec {
        let fields = vec![
            text("event_id", "as the producer wrote it"),
            text("user_id", "as the producer wrote it"),
            time("event_time", "when the payment took place"),
            time("ingest_time", "when the producer took it in"),
            text("event_type", "deposit_completed or withdrawal_completed"),
            money_of("amount", AMOUNT_DIGITS, "in pounds"),
            text("currency", "always GBP"),
            text("channel", "web, mobile or api"),
            long("epoch", "the epoch that accepted it"),
            text("source_partition", "file or partition that it came from"),
            long("source_offset", "its place there: index from 0, or sequence number of an event hub"),
        ];
        let spec = appended("curated/transaction_events", "Every accepted event, once", "epoch", fields);
        // Readers who ask for a day pass over the files of other days.
        TableSpec { bounded: vec!["event_time".to_owned()], ..spec }
    }

    fn epoch_of(_: &Rc<Vec<Event>>, message: Epoch) -> Epoch {
        message
    }

    fn batch(&mut self, rows: Vec<Rc<Vec<Event>>>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        let mut events: Vec<&Event> = rows.iter().flat_map(|batch| batch.iter()).collect();
        if events.is_empty() {
            return Ok(None);
        }
        events.sort_unstable_by_key(|event| event.at);
        let names = self.partitions.all();
        let members = || events.iter().map(|event| event.curated.as_deref());
        let columns = vec![
            text_array(members().map(|m| m.map_or("", |m| &m.event_id))),
            text_array(events.iter().map(|event| event.user.0.as_str())),
            time_array(events.iter().map(|event| event.time)),
            time_array(members().map(|m| m.map(|m| m.ingest_time).unwrap_or_default())),
            text_array(events.iter().map(|event| event.event_type.as_str())),
            money_array_of(events.iter().map(|event| i128::from(event.amount.0)), AMOUNT_DIGITS)?,
            text_array(events.iter().map(|_| "GBP")),
            text_array(events.iter().map(|event| event.channel.as_str())),
            long_array(events.iter().map(|_| mark.epoch))?,
            text_array(events.iter().map(|event| partition_name(&names, event.at.partition))),
            long_array(events.iter().map(|event| event.at.offset.0))?,
        ];
        RecordBatch::try_new(Self::spec().schema, columns).map(Some)
    }
}

/// The name of a partition; its number when the source does not know it.
pub(super) fn partition_name(names: &[String], id: tidemark_dataflows::event::PartitionId) -> String {
    names.get(id.0 as usize).cloned().unwrap_or_else(|| id.0.to_string())
}
