//! The thread that makes cuts durable, and tells of an epoch only then.
//!
//! The leader goes on in the meantime. Cuts that wait while one is being written go into one object together, so a slow
//! store costs latency and not throughput. Where each object is paid for, a cut of few events waits for others to share one.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_checkpoint::journal::CutLog;
use tidemark_checkpoint::records::Cut;
use tidemark_dataflows::event::Epoch;
use tidemark_store::failpoint;

use super::writer::Faults;
use crate::permit::Permit;

/// Most cuts in one object.
const CUTS_IN_ONE: usize = 1024;

/// Events for which an object of their own is not worth a word.
const EVENTS_IN_ONE: u64 = 10_000;

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
    /// a log, at once. Cuts are written by leave of `permit`. Those of few events wait for others for `linger` at most.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        log: Option<CutLog>,
        linger: Duration,
        permit: Permit,
        faults: Arc<Faults>,
        announce: impl FnMut(&Announced) + Send + 'static,
    ) -> io::Result<(CutWriter, JoinHandle<()>)> {
        let (entries, received) = channel();
        let thread = std::thread::Builder::new().name("cuts".to_owned());
        let thread = thread.spawn(move || {
            let log = log.map(|log| (log, linger));
            run(&received, log, &permit, &faults, announce);
        })?;
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
    mut log: Option<(CutLog, Duration)>,
    permit: &Permit,
    faults: &Faults,
    mut announce: impl FnMut(&Announced),
) {
    while let Ok(first) = entries.recv() {
        let mut batch = vec![first];
        batch.extend(entries.try_iter().take(CUTS_IN_ONE - 1));
        if let Some((log, linger)) = &mut log {
            gather(entries, &mut batch, *linger);
            let cuts = batch.iter().filter_map(|entry| match entry {
                Announced::Cut(cut, _) => Some(cut.clone()),
                Announced::Checkpoint(_) => None,
            });
            failpoint("before-cut");
            if let Err(error) = permit.wait().and_then(|()| log.append(cuts.collect())) {
                return faults.report(error);
            }
            failpoint("cut-written");
        }
        batch.iter().for_each(&mut announce);
        failpoint("cut-announced");
    }
}

/// Waits for more entries, until there are enough events, something else is asked for, or the time is over.
fn gather(entries: &Receiver<Announced>, batch: &mut Vec<Announced>, linger: Duration) {
    let events = |entry: &Announced| match entry {
        Announced::Cut(cut, _) => cut.ranges.iter().map(|range| range.to.saturating_sub(range.from)).sum(),
        Announced::Checkpoint(_) => EVENTS_IN_ONE,
    };
    let until = Instant::now() + linger;
    let mut waiting: u64 = batch.iter().map(events).sum();
    while waiting < EVENTS_IN_ONE && batch.len() < CUTS_IN_ONE {
        let Ok(entry) = entries.recv_timeout(until.saturating_duration_since(Instant::now())) else { return };
        waiting = waiting.saturating_add(events(&entry));
        batch.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use tidemark_checkpoint::records::Range;

    use super::*;

    const FOREVER: Duration = Duration::from_secs(3_600);

    fn cut(epoch: Epoch, events: u64) -> Announced {
        let range = Range { partition: "0".to_owned(), index: 0, from: 0, to: events, digest: None };
        let cut = Cut { epoch, opened_us: 0, closed_us: 0, ranges: vec![range], behind: None, joined: vec![] };
        Announced::Cut(cut, 0)
    }

    /// How many entries go together, of those that come while the first waits.
    fn together(entries: Vec<Announced>, linger: Duration) -> usize {
        let (sender, received) = channel();
        entries.into_iter().for_each(|entry| sender.send(entry).expect("it is received"));
        let mut batch = vec![received.recv().expect("there is one")];
        // Whoever waits for something that does not come any more learns so by the end of the channel.
        drop(sender);
        gather(&received, &mut batch, linger);
        batch.len()
    }

    #[test]
    fn cuts_of_few_events_share_an_object() {
        assert_eq!(together(vec![cut(1, 10), cut(2, 0), cut(3, 10)], FOREVER), 3);
    }

    #[test]
    fn nobody_waits_on_a_disk() {
        let (_sender, received) = channel();
        let mut batch = vec![cut(1, 10)];
        gather(&received, &mut batch, Duration::ZERO);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn many_events_or_a_checkpoint_wait_for_nothing() {
        assert_eq!(together(vec![cut(1, EVENTS_IN_ONE), cut(2, 1)], FOREVER), 1);
        assert_eq!(together(vec![cut(1, 1), cut(2, EVENTS_IN_ONE), cut(3, 1)], FOREVER), 2);
        assert_eq!(together(vec![cut(1, 1), Announced::Checkpoint(1), cut(2, 1)], FOREVER), 2);
    }
}
