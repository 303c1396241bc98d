//! The thread that makes cuts durable, and tells of an epoch only then.
//!
//! The leader goes on in the meantime. Cuts that wait while one is being written go into one object
//! together, so a slow store costs latency and not throughput.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tidemark_checkpoint::journal::CutLog;
use tidemark_checkpoint::reach::reach;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::Epoch;

use super::writer::Faults;
use crate::permit::Permit;

/// Most cuts in one object.
const CUTS_IN_ONE: usize = 1024;

/// What the thread is told, and tells in turn, in the same order.
#[derive(Clone, Debug)]
pub enum Announced {
    /// An epoch was cut, and so many events were missing. It is told of once the cut is durable.
    Cut(Cut, u64),
    /// A checkpoint is wanted as of the end of this epoch, the last one that was cut.
    Checkpoint(Epoch),
}

/// Where the leader hands its cuts. Dropping it ends the thread once all of them are durable.
#[derive(Debug)]
pub struct CutWriter {
    entries: Sender<Announced>,
}

impl CutWriter {
    /// Starts the thread. `announce` is called with each entry, in order, once everything up to it is durable; without
    /// a log, at once. Cuts are written by leave of `permit`.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        log: Option<CutLog>,
        permit: Permit,
        faults: Arc<Faults>,
        announce: impl FnMut(&Announced) + Send + 'static,
    ) -> io::Result<(CutWriter, JoinHandle<()>)> {
        let (entries, received) = channel();
        let thread = std::thread::Builder::new().name("cuts".to_owned());
        let thread = thread.spawn(move || run(&received, log, &permit, &faults, announce))?;
        Ok((CutWriter { entries }, thread))
    }

    /// Hands over the next entry.
    pub fn write(&self, entry: Announced) {
        // The thread ends early only after a fault, which readers learn from `Faults`.
        let _ = self.entries.send(entry);
    }
}

fn run(
    entries: &Receiver<Announced>,
    mut log: Option<CutLog>,
    permit: &Permit,
    faults: &Faults,
    mut announce: impl FnMut(&Announced),
) {
    while let Ok(first) = entries.recv() {
        let mut batch = vec![first];
        batch.extend(entries.try_iter().take(CUTS_IN_ONE - 1));
        if let Some(log) = &mut log {
            let cuts = batch.iter().filter_map(|entry| match entry {
                Announced::Cut(cut, _) => Some(cut.clone()),
                Announced::Checkpoint(_) => None,
            });
            reach("before-cut");
            if let Err(error) = permit.wait().and_then(|()| log.append(cuts.collect())) {
                return faults.report(error);
            }
            reach("cut-written");
        }
        batch.iter().for_each(&mut announce);
        reach("cut-announced");
    }
}
