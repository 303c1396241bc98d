//! The pipeline in this process, where a test can hand it its stores and see how it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::Duration;

use tidemark::config::kind::Raw;
use tidemark::config::{Config, Effective, Given, Layers, Origin};
use tidemark::runtime::{Outcome, RunError, Stores, run_in};

use crate::data::eventful;
use crate::faulty::Faulty;
use crate::oracle::{Partition, Rules, check};
use crate::program::Case;

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small input with an output, and what the tables must be in the end.
pub(crate) struct Pipeline {
    pub(crate) case: Case,
    pub(crate) config: Config,
    partitions: Vec<Partition>,
    epoch_events: usize,
}

impl Pipeline {
    /// Two partitions of these lengths, in epochs of `epoch_events`, with a checkpoint whenever there can be one.
    pub(crate) fn new(seed: u64, lengths: &[usize], epoch_events: usize) -> Pipeline {
        Pipeline::of(Case::of(&eventful(seed, lengths)), epoch_events)
    }

    /// Whatever lies in `in`.
    pub(crate) fn of(case: Case, epoch_events: usize) -> Pipeline {
        let flag = |(key, value): (&str, String)| Given {
            key: key.to_owned(),
            raw: Raw::Word(value),
            origin: Origin::Flag(format!("--set {key}")),
        };
        let flags = [
            ("source.kind", "file".to_owned()),
            ("source.inputs", case.path("in").display().to_string()),
            ("output.path", case.path("out").display().to_string()),
            ("epochs.events", epoch_events.to_string()),
            ("checkpoint.interval", "0s".to_owned()),
            ("store.request_timeout", "400ms".to_owned()),
            ("sink.publish_interval", "0s".to_owned()),
            // One epoch after the other, so that there are as many checkpoints and groups as can be.
            ("epochs.max_in_flight", "1".to_owned()),
            ("runtime.workers", "2".to_owned()),
        ];
        let layers = Layers { flags: flags.into_iter().map(flag).collect(), ..Layers::default() };
        let config = Effective::load(layers).unwrap().config;
        let partitions = Partition::of_directory(&case.path("in"));
        std::fs::create_dir_all(case.path("out/_tidemark")).unwrap();
        Pipeline { case, config, partitions, epoch_events }
    }

    /// Where cuts and checkpoints lie.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.case.path("out/_tidemark")
    }

    /// Runs over stores that may fail. A panic, or a run without end, fails the test.
    pub(crate) fn run(
        &self,
        checkpoint: Option<&Arc<Faulty>>,
        tables: Option<&Arc<Faulty>>,
    ) -> Result<Outcome, RunError> {
        self.run_until(&Arc::default(), checkpoint, tables)
    }

    /// The same until it is asked to stop.
    pub(crate) fn run_until(
        &self,
        stop: &Arc<AtomicBool>,
        checkpoint: Option<&Arc<Faulty>>,
        tables: Option<&Arc<Faulty>>,
    ) -> Result<Outcome, RunError> {
        let (config, stop) = (self.config.clone(), Arc::clone(stop));
        let (checkpoint_store, table_store) =
            (checkpoint.cloned().map(|store| store as _), tables.cloned().map(|store| store as _));
        let stores = Stores { checkpoint: checkpoint_store, tables: table_store, ..Stores::default() };
        let watching: Vec<Arc<Faulty>> = checkpoint.into_iter().chain(tables).cloned().collect();
        let (done, ended) = channel();
        std::thread::spawn(move || {
            let watch = |observer: tidemark::runtime::Observer| {
                watching.iter().for_each(|store| store.watch(&observer.status.health));
            };
            // Nobody waits any more only after the test has failed.
            let _ = done.send(run_in(&config, false, &stop, watch, stores));
        });
        ended.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("the run panicked or hangs: {why}"))
    }

    /// A run that must go to its end.
    pub(crate) fn run_well(&self, checkpoint: Option<&Arc<Faulty>>, tables: Option<&Arc<Faulty>>) -> Outcome {
        self.run(checkpoint, tables).unwrap_or_else(|error| panic!("{error}\n{checkpoint:?} {tables:?}"))
    }

    /// Compares the tables with the oracle.
    pub(crate) fn check(&self) {
        check(&self.case.path("out"), &self.partitions, Rules::epochs_of(self.epoch_events));
    }
}
