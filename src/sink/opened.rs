//! The tables of an output before anything is written: opened or created, and taken over from every earlier writer.

use std::sync::atomic::Ordering::Relaxed;

use tidemark_dataflows::event::Epoch;
use tidemark_delta::TableWriter;
use tidemark_store::{Persistence, failpoint};
use tokio::runtime::Runtime;

use super::publisher::{Options, SinkError};
use crate::telemetry::TableMeter;

/// The tables, opened and taken over.
pub struct Tables {
    pub(super) writers: Vec<TableWriter>,
    /// How failures are met: one place for all tables, as what fails for one of them mostly fails for all.
    pub(super) place: Persistence,
    pub(super) options: Options,
    pub(super) runtime: &'static Runtime,
}

impl Tables {
    /// Opens or creates every table, and fences off every writer of an earlier generation.
    ///
    /// # Errors
    ///
    /// When a table cannot be opened, or is not what the schema says.
    pub fn open(options: Options) -> Result<Tables, SinkError> {
        let (runtime, mut writers) = (tidemark_store::io()?, Vec::new());
        let place = Persistence::new("the tables", options.patience.clone());
        for spec in &options.specs {
            let open = async || TableWriter::open_or_create(&options.lake, spec.clone()).await;
            let opened = runtime.block_on(place.persist("opening", tidemark_delta::Error::cause, open));
            writers.push(opened.map_err(|gave_up| gave_up.error)?);
            failpoint("table-opened");
        }
        failpoint("tables-fenced");
        let meter = |writer: &TableWriter| {
            let meter = TableMeter::new(&writer.spec().name);
            meter.version.store(writer.version(), Relaxed);
            meter.epoch.store(writer.committed_epoch().unwrap_or_default(), Relaxed);
            meter
        };
        options.telemetry.tables.get_or_init(|| writers.iter().map(meter).collect());
        Ok(Tables { writers, place, options, runtime })
    }

    /// Each table, with the epoch that it holds and its version.
    pub fn held(&self) -> impl Iterator<Item = (&str, Option<Epoch>, u64)> + Clone {
        self.writers.iter().map(|writer| (writer.spec().name.as_str(), writer.committed_epoch(), writer.version()))
    }

    /// The least epoch that any table holds, if all of them hold one.
    pub fn in_all(&self) -> Option<Epoch> {
        self.writers.iter().map(TableWriter::committed_epoch).min().flatten()
    }

    /// The greatest epoch that any table holds.
    pub fn in_any(&self) -> Option<Epoch> {
        self.writers.iter().filter_map(TableWriter::committed_epoch).max()
    }
}
