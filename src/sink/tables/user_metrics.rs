//! `metrics/user_metrics`: M2, one row for each user.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, UserId};
use tidemark_dataflows::metrics::Row;
use tidemark_delta::TableSpec;

use super::Table;
use super::columns::{long, long_array, merged, money, money_array, text, text_array, time, time_array};

/// M2.
pub struct UserMetrics;

impl Table for UserMetrics {
    type Row = Row<UserId>;

    fn spec() -> TableSpec {
        let fields = vec![
            text("user_id", "the user, as the producer wrote it"),
            money("total_deposits", "sum of the user's accepted deposits, in pounds"),
            money("total_withdrawals", "sum of the user's accepted withdrawals, in pounds"),
            long("deposit_count", "number of accepted deposits"),
            long("withdrawal_count", "number of accepted withdrawals"),
            time("first_seen", "least event_time of the user's accepted events"),
            time("last_seen", "greatest event_time of the user's accepted events"),
            time("updated_at", "closing time of the epoch that last changed the row"),
        ];
        merged("metrics/user_metrics", "Running totals of each user", &["user_id"], fields)
    }

    fn epoch_of(row: &Row<UserId>, _: Epoch) -> Epoch {
        row.epoch
    }

    fn batch(&mut self, rows: Vec<Row<UserId>>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = vec![
            text_array(rows.iter().map(|row| row.key.0.as_str())),
            money_array(rows.iter().map(|row| row.totals.deposits))?,
            money_array(rows.iter().map(|row| row.totals.withdrawals))?,
            long_array(rows.iter().map(|row| row.totals.deposit_count))?,
            long_array(rows.iter().map(|row| row.totals.withdrawal_count))?,
            time_array(rows.iter().map(|row| row.totals.first_seen)),
            time_array(rows.iter().map(|row| row.totals.last_seen)),
            time_array(rows.iter().map(|_| mark.closed)),
        ];
        RecordBatch::try_new(Self::spec().schema, columns).map(Some)
    }
}
