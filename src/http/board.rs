//! What everybody who asks is told: one picture of the pipeline for all of them, made anew at most four times a second.
//!
//! It is made of atomics and of references that others have put down; nothing that a worker holds is waited for. All of it
//! happens on the one thread that serves, so however many ask, the pipeline notices nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::answers::{Everything, History, Readiness};
use super::picture;
use super::sampler::Sampler;
use crate::config::Config;
use crate::runtime::{RunStatus, clock};

/// Longest age of a picture that is shown again.
const FRESH: Duration = Duration::from_millis(250);

/// What is known of the process from its start on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) pipeline: String,
    pub(super) process: usize,
    pub(super) processes: usize,
    pub(super) workers: usize,
    pub(super) watermark_delay: Duration,
    pub(super) retention: Duration,
    pub(super) expected_ids: u64,
    /// How long an epoch is collected, and how long publications wait for each other: whoever waits longer is stuck.
    pub(super) trigger: Duration,
    pub(super) checkpoints: bool,
    pub(super) checkpoint_interval: Duration,
    /// When the process was started, in microseconds since 1970.
    pub(super) started_us: i64,
    pub(super) started: Instant,
}

impl Facts {
    pub(super) fn of(config: &Config) -> Facts {
        Facts {
            pipeline: config.pipeline.name.clone(),
            process: config.cluster.process,
            processes: config.cluster.processes,
            workers: config.runtime.worker_count(),
            watermark_delay: config.dedup.watermark_delay,
            retention: config.dedup.retention,
            expected_ids: config.dedup.expected_ids,
            trigger: config.epochs.trigger.max(config.publish_interval()),
            checkpoints: config.checkpoint.enabled,
            checkpoint_interval: config.checkpoint.interval,
            started_us: clock::now().0,
            started: Instant::now(),
        }
    }
}

/// What was asked of this server.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Requests that were answered, by the first digit of the status.
    pub(super) answered: [AtomicU64; 6],
    /// Connections that were closed at once, since there were too many.
    pub(super) turned_away: AtomicU64,
}

/// What everybody is told.
pub(super) struct Board {
    pub(super) facts: Facts,
    pub(super) asked: Asked,
    vitals: OnceLock<RunStatus>,
    stopping: Arc<AtomicBool>,
    sampler: Mutex<Sampler>,
    newest: Mutex<Option<(Instant, Arc<Everything>)>>,
}

impl Board {
    /// Nothing is known yet but the configuration. `stopping` is set when the run should end.
    pub(super) fn new(config: &Config, stopping: Arc<AtomicBool>) -> Board {
        let facts = Facts::of(config);
        let sampler = Mutex::new(Sampler::new(facts.trigger));
        let (vitals, newest) = (OnceLock::new(), Mutex::new(None));
        Board { facts, asked: Asked::default(), vitals, stopping, sampler, newest }
    }

    /// From now on the pipeline runs.
    pub(super) fn observe(&self, vitals: RunStatus) {
        let _ = self.vitals.set(vitals);
    }

    pub(super) fn vitals(&self) -> Option<&RunStatus> {
        self.vitals.get()
    }

    pub(super) fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> &'static str {
        match (self.stopping.load(Ordering::Acquire), self.vitals.get()) {
            (true, _) => "stopping",
            (false, None) => "starting",
            (false, Some(_)) => "running",
        }
    }

    /// Takes down how far everything has come. To be called once a second.
    pub(super) fn sample(&self) {
        self.sampler().take(Instant::now(), clock::now(), self.vitals());
    }

    /// The newest picture.
    pub(super) fn everything(&self) -> Arc<Everything> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((at, picture)) if at.elapsed() < FRESH => Arc::clone(picture),
            _ => {
                let picture = Arc::new(picture::of(self));
                *newest = Some((Instant::now(), Arc::clone(&picture)));
                picture
            }
        }
    }

    /// Whether the process does its work. Always told as it is now: whoever asks decides by it.
    pub(super) fn readiness(&self) -> Readiness {
        picture::readiness(self)
    }

    /// The last hour.
    pub(super) fn history(&self) -> History {
        self.sampler().history()
    }
}
