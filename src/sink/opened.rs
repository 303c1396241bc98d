//! The tables of an output before anything is written: opened or created, and taken over from every earlier writer.

use std::sync::atomic::Ordering::Relaxed;

use tidemark_checkpoint::reach::reach;
use tidemark_dataflows::event::Epoch;
use tidemark_delta::TableWriter;
use tokio::runtime::Runtime;

use super::patience::{PAUSE, Patience};
use super::publisher::{Options, SinkError};
use crate::telemetry::TableMeter;

/// The tables, opened and taken over.
pub struct Tables {
    pub(super) writers: Vec<TableWriter>,
    pub(super) options: Options,
    pub(super) runtime: Runtime,
}

impl Tables {
    /// Opens or creates every table, and fences off every writer of an earlier generation.
    ///
    /// # Errors
    ///
    /// When a table cannot be opened, or is not what the schema says.
    pub fn open(options: Options) -> Result<Tables, SinkError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("tables").enable_all().build()?;
        let mut writers = Vec::new();
        for spec in &options.specs {
            let mut patience = Patience::new(&options);
            let place = format!("table {}", spec.name);
            loop {
                let mut opened = None;
                let result = runtime.block_on(TableWriter::open_or_create(&options.lake, spec.clone()));
                if patience.settle(&place, result.map(|writer| opened = Some(writer)))? {
                    writers.extend(opened);
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            reach("table-opened");
        }
        reach("tables-fenced");
        let meter = |writer: &TableWriter| {
            let meter = TableMeter::new(&writer.spec().name);
            meter.version.store(writer.version(), Relaxed);
            meter.epoch.store(writer.committed_epoch().unwrap_or_default(), Relaxed);
            meter
        };
        options.telemetry.tables.get_or_init(|| writers.iter().map(meter).collect());
        Ok(Tables { writers, options, runtime })
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
