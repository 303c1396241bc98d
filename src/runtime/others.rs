//! The other processes, as process 0 sees them: how they come in, what they are told at the start, and what is done with
//! what they say.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemark_checkpoint::records::{Cut, Position};
use tidemark_dataflows::event::Epoch;

use super::RunError;
use super::cutter::Cutter;
use super::share::go_to_end;
use super::start::Begun;
use crate::cluster::links::{Incoming, Links};
use crate::cluster::messages::{Message, Start};
use crate::cluster::{Member, mesh};
use crate::config::Config;
use crate::sink::publisher::{Publisher, SinkError};

/// Connections to all other processes.
pub(super) struct Others {
    /// For messages.
    pub(super) links: &'static Links,
    incoming: Incoming,
    data: Vec<Option<TcpStream>>,
}

impl Others {
    /// Waits for all other processes, if there are any.
    ///
    /// # Errors
    ///
    /// When they do not come, or do not fit; see [`mesh::join`].
    pub(super) fn join(config: &Config, stop: &AtomicBool) -> Result<Option<Others>, RunError> {
        let Some(member) = Member::of(config)? else { return Ok(None) };
        let member = Arc::new(member);
        let mesh = mesh::join(&member, stop)?;
        let (links, incoming) = Links::start(Arc::clone(&member), mesh.control).map_err(SinkError::Start)?;
        tracing::info!(process = member.process, processes = member.processes(), "all processes are here");
        Ok(Some(Others { links, incoming, data: mesh.data }))
    }

    /// Links, messages and connections for the dataflow apart, if there are any.
    pub(super) fn parts(others: Option<Others>) -> Apart {
        match others {
            Some(Others { links, incoming, data }) => (Some(links), Some(incoming), Some(data)),
            None => (None, None, None),
        }
    }
}

/// Links, messages and connections for the dataflow.
pub(super) type Apart = (Option<&'static Links>, Option<Incoming>, Option<Vec<Option<TcpStream>>>);

/// What all others go on from.
pub(super) fn start_message(begun: &Begun, held: Epoch) -> Start {
    Start {
        generation: begun.generation,
        nonce: begun.nonce,
        identity: begun.identity.clone(),
        after: begun.after,
        manifest: begun.loaded.from.as_ref().map(|from| from.link.clone()),
        positions: begun.positions.clone(),
        replay: begun.replay.clone(),
        held,
    }
}

/// How far each partition has been read once these cuts have been replayed.
pub(super) fn at_end(positions: &[Position], replay: &[Cut]) -> Vec<Position> {
    let mut positions = positions.to_vec();
    replay.iter().for_each(|cut| go_to_end(&mut positions, &cut.ranges));
    positions
}

/// Does what the others ask for, from now on.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn listen(
    incoming: Incoming,
    cutter: &Arc<Cutter>,
    publisher: &Publisher,
    stop: &Arc<AtomicBool>,
) -> Result<(), RunError> {
    let (cutter, publisher, stop) = (Arc::clone(cutter), publisher.clone(), Arc::clone(stop));
    let thread = std::thread::Builder::new().name("others".to_owned());
    let started = thread.spawn(move || {
        for (from, message) in incoming {
            match message {
                Message::Wanted(epoch) => {
                    // Whoever asked is told of every epoch that is opened.
                    cutter.open(epoch);
                }
                Message::Report(report) => cutter.report(from, report),
                Message::Over => cutter.over(from),
                Message::Hurry => publisher.hurry(),
                Message::Stop => stop.store(true, Ordering::Release),
                // Links themselves look at the rest, or it is for others.
                _ => {}
            }
        }
    });
    started.map(drop).map_err(|error| SinkError::Start(error).into())
}
