//! The other processes, as the leader sees them: how they come in, what they are told at the start, and what is done with
//! what they say.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use tidemark_checkpoint::records::{Cut, Position};
use tidemark_dataflows::event::Epoch;

use super::RunError;
use super::epochs::go_past;
use super::leader_link::Told;
use super::start::Recovered;
use crate::cluster::channel::Channel;
use crate::cluster::links::{Incoming, Links};
use crate::cluster::messages::{Message, Start};
use crate::cluster::{Member, mesh};
use crate::config::Config;
use crate::sink::publisher::SinkError;

/// Connections to all other processes.
pub(super) struct Peers {
    /// For messages.
    pub(super) links: &'static Links,
    incoming: Incoming,
    data: Vec<Option<Channel>>,
}

impl Peers {
    /// Waits for all other processes, if there are any.
    ///
    /// # Errors
    ///
    /// When they do not come, or do not fit; see [`mesh::join`].
    pub(super) fn join(config: &Config, stop: &AtomicBool) -> Result<Option<Peers>, RunError> {
        let Some(member) = Member::of(config)? else { return Ok(None) };
        let member = Arc::new(member);
        let mesh = mesh::join(&member, stop)?;
        let (links, incoming) = Links::start(Arc::clone(&member), mesh.control).map_err(SinkError::Start)?;
        links.keep_alive(&mesh.data).map_err(SinkError::Start)?;
        tracing::info!(process = member.process, processes = member.processes(), "all processes are here");
        Ok(Some(Peers { links, incoming, data: mesh.data }))
    }

    /// Links, messages and connections for the dataflow apart, if there are any.
    pub(super) fn parts(peers: Option<Peers>) -> Apart {
        match peers {
            Some(Peers { links, incoming, data }) => (Some(links), Some(incoming), Some(data)),
            None => (None, None, None),
        }
    }
}

/// Links, messages and connections for the dataflow.
pub(super) type Apart = (Option<&'static Links>, Option<Incoming>, Option<Vec<Option<Channel>>>);

/// What all peers go on from.
pub(super) fn start_message(begun: &Recovered, held: Epoch) -> Start {
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

/// Says so to all peers.
pub(super) fn say_start(links: &Links, start: Start) {
    start.replay.iter().for_each(|cut| links.broadcast(&Message::Replay(Box::new(cut.clone()))));
    links.broadcast(&Message::Start(Box::new(start)));
}

/// How far each partition has been read once these cuts, of files or not, have been replayed.
pub(super) fn at_end(positions: &[Position], replay: &[Cut], files: bool) -> Vec<Position> {
    let mut positions = positions.to_vec();
    replay.iter().for_each(|cut| go_past(&mut positions, cut, files));
    positions
}

/// Hands what the peers report to the leader, from now on.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn listen(incoming: Incoming, leader: Sender<Told>) -> Result<(), RunError> {
    let thread = std::thread::Builder::new().name("peers".to_owned());
    let started = thread
        .spawn(move || incoming.into_iter().map(|told| leader.send(told)).take_while(Result::is_ok).for_each(drop));
    started.map(drop).map_err(|error| SinkError::Start(error).into())
}
