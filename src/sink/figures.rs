//! What a publication changed, for those who show it: read off the batches that were just committed.

use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use tidemark_dataflows::event::{Epoch, Micros};

use super::publisher::Options;
use super::tables::{ChannelDistribution, NetFlow, OMITTED, RejectedEvents, Table, UserMetrics};
use crate::telemetry::{ChannelFigures, Figures, Refused, WholeFigures};

/// Shows what every table holds now: what it held before, and the rows that `epoch` has changed since.
pub(super) fn show(options: &Options, epoch: Epoch, batches: &[Option<RecordBatch>]) {
    let shown = &options.telemetry.shown;
    let mut figures = Figures::clone(&shown.get());
    figures.epoch = epoch;
    let (whole, users, channels, refused) =
        (NetFlow::spec().name, UserMetrics::spec().name, ChannelDistribution::spec().name, RejectedEvents::spec().name);
    for (spec, batch) in options.specs.iter().zip(batches) {
        let Some(rows) = batch.as_ref().map(Rows) else { continue };
        // A column that is missing would be a bug of ours, and no reason to stop publishing: nothing is shown then.
        let _shown = match &spec.name {
            name if *name == whole => rows.whole(&mut figures),
            name if *name == users => rows.users(&mut figures),
            name if *name == channels => rows.channels(&mut figures),
            name if *name == refused => {
                options.telemetry.omitted_payloads.fetch_add(rows.omitted(), Relaxed);
                rows.refused(&mut figures)
            }
            _ => None,
        };
    }
    shown.set(figures);
}

/// The rows of a batch, by names of columns.
struct Rows<'a>(&'a RecordBatch);

impl Rows<'_> {
    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.0.column_by_name(name)
    }

    fn money(&self, name: &str, row: usize) -> Option<i128> {
        Some(self.column(name)?.as_primitive_opt::<Decimal128Type>()?.value(row))
    }

    fn long(&self, name: &str, row: usize) -> Option<u64> {
        u64::try_from(self.column(name)?.as_primitive_opt::<Int64Type>()?.value(row)).ok()
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        Some(self.column(name)?.as_string_opt::<i32>()?)
            .filter(|texts| !texts.is_null(row))
            .map(|texts| texts.value(row))
    }

    fn totals(&self, row: usize) -> Option<WholeFigures> {
        Some(WholeFigures {
            deposits: self.money("total_deposits", row)?,
            withdrawals: self.money("total_withdrawals", row)?,
            deposit_count: self.long("deposit_count", row)?,
            withdrawal_count: self.long("withdrawal_count", row)?,
        })
    }

    fn whole(&self, figures: &mut Figures) -> Option<()> {
        figures.whole = self.totals(0)?;
        Some(())
    }

    fn users(&self, figures: &mut Figures) -> Option<()> {
        let deposits = self.column("deposit_count")?.as_primitive_opt::<Int64Type>()?;
        let withdrawals = self.column("withdrawal_count")?.as_primitive_opt::<Int64Type>()?;
        // Of very many users few can rank: the rest costs a comparison each.
        for row in 0..self.0.num_rows() {
            let count = deposits.value(row).saturating_add(withdrawals.value(row));
            if figures.may_rank(u64::try_from(count).ok()?) {
                figures.user(self.text("user_id", row)?, self.totals(row)?);
            }
        }
        Some(())
    }

    fn channels(&self, figures: &mut Figures) -> Option<()> {
        for row in 0..self.0.num_rows() {
            let key = (self.text("channel", row)?.to_owned(), self.text("event_type", row)?.to_owned());
            let row =
                ChannelFigures { count: self.long("event_count", row)?, amount: self.money("total_amount", row)? };
            figures.channels.insert(key, row);
        }
        Some(())
    }

    /// How many payloads were left out.
    fn omitted(&self) -> u64 {
        let encodings = self.column("payload_encoding").and_then(|column| column.as_string_opt::<i32>());
        encodings.into_iter().flatten().filter(|encoding| *encoding == Some(OMITTED)).count() as u64
    }

    fn refused(&self, figures: &mut Figures) -> Option<()> {
        let times = self.column("rejected_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        let rows = self.0.num_rows();
        for row in rows.saturating_sub(figures.room_for_refused())..rows {
            figures.refuse(Refused::masked(
                self.text("event_id", row),
                self.text("rejection_reason", row)?.to_owned(),
                (self.text("payload_encoding", row)?, self.text("raw_payload", row)?),
                (self.text("source_partition", row)?.to_owned(), self.long("source_offset", row)?),
                self.long("epoch", row)?,
                Micros(times.value(row)),
            ));
        }
        Some(())
    }
}
