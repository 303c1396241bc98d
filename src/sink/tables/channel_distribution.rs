//! `metrics/channel_distribution`: M3, at most six rows.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, EventType};
use tidemark_dataflows::metrics::{ChannelKey, Row};
use tidemark_delta::TableSpec;

use super::Table;
use super::columns::{long, long_array, merged, money, money_array, text, text_array, time, time_array};

/// M3.
pub struct ChannelDistribution;

impl Table for ChannelDistribution {
    type Row = Row<ChannelKey>;

    fn spec() -> TableSpec {
        let fields = vec![
            text("channel", "web, mobile or api"),
            text("event_type", "deposit_completed or withdrawal_completed"),
            long("event_count", "number of accepted events"),
            money("total_amount", "sum of their amounts, in pounds"),
            time("updated_at", "closing time of the epoch that last changed the row"),
        ];
        let comment = "Events and amounts of each channel and event type";
        merged("metrics/channel_distribution", comment, &["channel", "event_type"], fields)
    }

    fn epoch_of(row: &Row<ChannelKey>, _: Epoch) -> Epoch {
        row.epoch
    }

    fn batch(&mut self, rows: Vec<Row<ChannelKey>>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let amount = |row: &Row<ChannelKey>| match row.key.1 {
            EventType::Deposit => row.totals.deposits,
            EventType::Withdrawal => row.totals.withdrawals,
        };
        let columns = vec![
            text_array(rows.iter().map(|row| row.key.0.as_str())),
            text_array(rows.iter().map(|row| row.key.1.as_str())),
            long_array(rows.iter().map(|row| row.totals.count()))?,
            money_array(rows.iter().map(amount))?,
            time_array(rows.iter().map(|_| mark.closed)),
        ];
        RecordBatch::try_new(Self::spec().schema, columns).map(Some)
    }
}
