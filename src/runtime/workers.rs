//! The worker threads of this process, alone or connected to those of other processes.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Hooks, WorkerGuards};
use timely::execute::execute_from;
use timely::{CommunicationConfig, WorkerConfig};

use super::RunError;
use super::lanes::Lane;
use super::worker::{Plan, work};
use crate::cluster::channel::Channel;

/// Connections to the workers of other processes: by number, with none to this one, whose number comes with them.
pub(super) type Connections = (Vec<Option<Channel>>, usize);

/// The workers of this process.
pub(super) struct Workers {
    guards: Option<WorkerGuards<()>>,
    alone: bool,
}

impl Workers {
    /// Starts a worker at the end of each lane.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(lanes: Vec<Lane>, plan: Plan, connections: Option<Connections>) -> Result<Workers, RunError> {
        let (workers, alone) = (lanes.len(), connections.is_none());
        // Each worker takes its own out, so that what was restored does not stay in memory.
        let parts = lanes.into_iter().map(|lane| Mutex::new(Some((lane, plan.clone()))));
        let parts: Arc<[Mutex<Option<_>>]> = parts.collect();
        drop(plan);
        let (builders, others) = match connections {
            None => CommunicationConfig::Process(workers).try_build().map_err(RunError::Worker)?,
            Some((sockets, process)) => {
                let inside = ProcessBuilder::new_typed_vector(workers, Hooks::default().refill, None);
                let connected = initialize_networking_from_sockets(inside, sockets, process, workers, Hooks::default());
                let (builders, guard) = connected.map_err(|error| RunError::Worker(error.to_string()))?;
                (builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard) as _)
            }
        };
        let guards = execute_from(builders, others, WorkerConfig::default(), move |worker| {
            let part = parts.get(worker.index() % workers);
            let part = part.and_then(|part| part.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some((lane, plan)) = part {
                work(worker, &lane, plan);
            }
        });
        Ok(Workers { guards: Some(guards.map_err(RunError::Worker)?), alone })
    }

    /// Whether all of them have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.guards.as_ref().is_none_or(|guards| guards.guards().iter().all(JoinHandle::is_finished))
    }

    /// Waits until all of them have ended, and those of other processes have.
    ///
    /// # Errors
    ///
    /// When one has panicked.
    pub(super) fn join(mut self) -> Result<(), RunError> {
        let guards = self.guards.take();
        guards.into_iter().flat_map(WorkerGuards::join).collect::<Result<(), String>>().map_err(RunError::Worker)
    }
}

impl Drop for Workers {
    /// Workers that wait for other processes are not waited for.
    fn drop(&mut self) {
        if !self.alone {
            std::mem::forget(self.guards.take());
        }
    }
}
