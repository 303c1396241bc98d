//! `metrics/net_flow`: M1, one row.

use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, RecordBatch};
use arrow::error::ArrowError;
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::metrics::{Row, Totals};
use tidemark_delta::TableSpec;

use super::Table;
use super::columns::{double, int, long, long_array, merged, money, money_array, time, time_array};
use crate::sink::ratio::nearest_f64;

/// M1. `first_worker` says whether this worker is the one that the row comes out on.
pub struct NetFlow {
    /// Whether this is worker 0.
    pub first_worker: bool,
}

impl Table for NetFlow {
    type Row = Row<()>;

    fn spec() -> TableSpec {
        let fields = vec![
            int("id", "always 1"),
            money("total_deposits", "sum of accepted deposits, in pounds"),
            money("total_withdrawals", "sum of accepted withdrawals, in pounds"),
            money("net_flow", "deposits minus withdrawals, in pounds"),
            long("deposit_count", "number of accepted deposits"),
            long("withdrawal_count", "number of accepted withdrawals"),
            double("avg_deposit", "total_deposits / max(deposit_count, 1), rounded once"),
            double("avg_withdrawal", "total_withdrawals / max(withdrawal_count, 1), rounded once"),
            double("deposit_to_withdrawal_ratio", "total_deposits / max(total_withdrawals, 0.01), rounded once"),
            time("updated_at", "closing time of the epoch that last changed the row"),
        ];
        merged(
            "metrics/net_flow",
            "Deposits, withdrawals and their difference over everything accepted",
            &["id"],
            fields,
        )
    }

    fn epoch_of(row: &Row<()>, _: Epoch) -> Epoch {
        row.epoch
    }

    fn batch(&mut self, rows: Vec<Row<()>>, mark: &EpochMark) -> Result<Option<RecordBatch>, ArrowError> {
        rows.first().map(|row| one_row(&row.totals, mark.closed)).transpose()
    }

    fn initial(&mut self, opened: Micros) -> Result<Option<RecordBatch>, ArrowError> {
        self.first_worker.then(|| one_row(&Totals::NONE, opened)).transpose()
    }
}

fn one_row(totals: &Totals, updated_at: Micros) -> Result<RecordBatch, ArrowError> {
    let average = |pence: i128, count: u64| nearest_f64(pence, u128::from(count.max(1)) * 100);
    // A penny stands in for no withdrawals at all.
    let ratio = nearest_f64(totals.deposits, totals.withdrawals.max(1).unsigned_abs());
    let double = |value: f64| Arc::new(Float64Array::from(vec![value]));
    RecordBatch::try_new(
        NetFlow::spec().schema,
        vec![
            Arc::new(Int32Array::from(vec![1])),
            money_array([totals.deposits].into_iter())?,
            money_array([totals.withdrawals].into_iter())?,
            money_array([totals.deposits - totals.withdrawals].into_iter())?,
            long_array([totals.deposit_count].into_iter())?,
            long_array([totals.withdrawal_count].into_iter())?,
            double(average(totals.deposits, totals.deposit_count)),
            double(average(totals.withdrawals, totals.withdrawal_count)),
            double(ratio),
            time_array([updated_at].into_iter()),
        ],
    )
}
