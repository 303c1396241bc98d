//! A connection between two processes once both know who is on the other side: encrypted, unless it stays on this machine.
//!
//! Encrypted, it carries frames: two bytes with the length, little-endian, and a message of the [Noise protocol], which is
//! told from any that was altered, repeated, left out or moved. A frame that does not fit ends the connection, and so does
//! one that does not come in time, where frames without words are sent as signs of life.
//!
//! [Noise protocol]: https://noiseprotocol.org/noise.html

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use snow::StatelessTransportState;
use timely::communication::allocator::zero_copy::stream::Stream;

use crate::config::units::format_duration;

/// Bytes that tell the length of a frame.
const LENGTH_BYTES: usize = 2;

/// Longest message of the Noise protocol.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// By how much a message is longer than what it says.
const TAG_BYTES: usize = 16;

/// Longest part of a text that one frame holds.
pub(super) const PART_BYTES_MAX: usize = MESSAGE_BYTES_MAX - TAG_BYTES;

/// Most frames that are written by one call.
const WRITTEN_AT_ONCE: usize = 4;

/// Bytes that are read ahead: more than one frame has.
const READ_AHEAD_BYTES: usize = 1 << 18;

/// Frames under one key of AES-GCM: far below where their number begins to tell something (RFC 8446, section 5.5).
const FRAMES_PER_KEY: u64 = 1 << 20;

/// A connection to another process. What is cloned from it shares its state, so that one thread can write while another
/// one reads.
pub struct Channel {
    socket: TcpStream,
    sealed: Option<Arc<Sealed>>,
}

/// What both directions need.
struct Sealed {
    /// The keys: read for each frame, written when they change.
    keys: RwLock<StatelessTransportState>,
    frames_per_key: u64,
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
}

#[derive(Default)]
struct Outgoing {
    frames: u64,
    bytes: Vec<u8>,
    /// Part of a frame may have been written: nothing after it could be read.
    broken: bool,
}

#[derive(Default)]
struct Incoming {
    frames: u64,
    /// How long a frame may take, from when it is waited for to its last byte.
    patience: Option<Duration>,
    /// The same once the first one has come.
    patience_then: Option<Duration>,
    /// What was read from the socket and not looked at.
    read: Ahead,
    /// What was said in a frame and not handed out.
    said: Ahead,
}

/// Room for bytes, of which some are ahead.
#[derive(Default)]
struct Ahead {
    room: Vec<u8>,
    at: usize,
    end: usize,
}

impl Ahead {
    fn left(&self) -> &[u8] {
        self.room.get(self.at..self.end).unwrap_or_default()
    }

    /// Moves what is left to the front, and hands out the room behind it.
    fn room_behind(&mut self, bytes: usize) -> &mut [u8] {
        self.room.resize(bytes, 0);
        self.room.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        &mut self.room[self.end..]
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came does not fit what went before it.
pub(super) fn altered() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came was altered on the way")
}

impl Sealed {
    fn new(keys: StatelessTransportState, frames_per_key: u64) -> Sealed {
        Sealed { keys: RwLock::new(keys), frames_per_key, outgoing: Mutex::default(), incoming: Mutex::default() }
    }

    /// Whether the keys of a direction change before its next frame.
    fn is_worn(&self, frames: u64) -> bool {
        frames > 0 && frames.is_multiple_of(self.frames_per_key)
    }

    /// Writes a text, or, where there is none, a frame without words.
    fn write(&self, mut socket: &TcpStream, text: &[u8]) -> io::Result<usize> {
        let mut outgoing = lock(&self.outgoing);
        let Outgoing { frames, bytes, broken } = &mut *outgoing;
        if *broken {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "a frame was cut off before"));
        }
        let text = &text[..text.len().min(WRITTEN_AT_ONCE * PART_BYTES_MAX)];
        bytes.resize(WRITTEN_AT_ONCE * (LENGTH_BYTES + MESSAGE_BYTES_MAX), 0);
        let mut end = 0;
        let parts = text.chunks(PART_BYTES_MAX).chain(text.is_empty().then_some(text));
        for part in parts {
            if self.is_worn(*frames) {
                self.keys.write().unwrap_or_else(PoisonError::into_inner).rekey_outgoing();
            }
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let (length, message) = bytes[end..].split_at_mut(LENGTH_BYTES);
            let bytes = keys.write_message(*frames, part, message).map_err(io::Error::other)?;
            length.copy_from_slice(&u16::try_from(bytes).map_err(io::Error::other)?.to_le_bytes());
            *frames += 1;
            end += LENGTH_BYTES + bytes;
        }
        *broken = true;
        socket.write_all(&bytes[..end])?;
        *broken = false;
        Ok(text.len())
    }

    fn read(&self, socket: &TcpStream, to: &mut [u8]) -> io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        let Incoming { frames, patience, patience_then, read, said } = &mut *incoming;
        while said.left().is_empty() && !to.is_empty() {
            let Some(length) = next_frame(socket, read, *patience)? else { return Ok(0) };
            if self.is_worn(*frames) {
                self.keys.write().unwrap_or_else(PoisonError::into_inner).rekey_incoming();
            }
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let message = &read.left()[LENGTH_BYTES..LENGTH_BYTES + length];
            // Where there is room for it, it need not be copied.
            let at_once = to.len() >= length;
            said.room.resize(MESSAGE_BYTES_MAX, 0);
            let place = if at_once { &mut *to } else { &mut said.room[..] };
            let told = keys.read_message(*frames, message, place).map_err(|_| altered())?;
            read.at += LENGTH_BYTES + length;
            *frames += 1;
            *patience = patience_then.take().or(*patience);
            match at_once {
                true if told > 0 => return Ok(told),
                true => {}
                false => (said.at, said.end) = (0, told),
            }
        }
        let count = said.left().len().min(to.len());
        to[..count].copy_from_slice(&said.left()[..count]);
        said.at += count;
        Ok(count)
    }
}

/// Reads until a frame is there, and tells the length of its message; none at the end, if that is between two frames.
fn next_frame(mut socket: &TcpStream, read: &mut Ahead, patience: Option<Duration>) -> io::Result<Option<usize>> {
    let begun = Instant::now();
    loop {
        if let Some((length, rest)) = read.left().split_first_chunk::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_le_bytes(*length));
            if rest.len() >= length {
                return Ok(Some(length));
            }
        }
        // The whole of it must come in time: a byte now and then is no sign of life.
        let left = patience.map(|patience| patience.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            let words = format!("no sign of life for {}", format_duration(patience.unwrap_or_default()));
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        socket.set_read_timeout(left)?;
        match socket.read(read.room_behind(READ_AHEAD_BYTES)) {
            Ok(0) if read.left().is_empty() => return Ok(None),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a frame")),
            Ok(count) => read.end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The time is up, or nearly so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Channel {
    /// A connection that stays on this machine.
    pub fn plain(socket: TcpStream) -> Channel {
        Channel { socket, sealed: None }
    }

    /// A connection that others can listen to. Both directions have been used for so many messages.
    pub(super) fn sealed(socket: TcpStream, keys: StatelessTransportState, messages: u64) -> Channel {
        Channel::sealed_with(socket, keys, messages, FRAMES_PER_KEY)
    }

    fn sealed_with(socket: TcpStream, keys: StatelessTransportState, messages: u64, frames_per_key: u64) -> Channel {
        let sealed = Sealed::new(keys, frames_per_key);
        lock(&sealed.outgoing).frames = messages;
        lock(&sealed.incoming).frames = messages;
        Channel { socket, sealed: Some(Arc::new(sealed)) }
    }

    /// Whether what goes over it is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// How long a read may take; encrypted, how long until a whole frame is there. Not while another thread reads.
    ///
    /// # Errors
    ///
    /// When the system refuses it.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.sealed {
            Some(sealed) => {
                lock(&sealed.incoming).patience = timeout;
                Ok(())
            }
            None => self.socket.set_read_timeout(timeout),
        }
    }

    /// Gives a sign of life each time that has passed, until the connection ends, and asks for the first one within `first`, and
    /// for each after it within `then`. Without encryption it does neither: what stays on the machine is not held up on the way.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn keep_alive(&self, every: Duration, first: Duration, then: Duration) -> io::Result<()> {
        let Some(sealed) = self.sealed.clone() else { return Ok(()) };
        lock(&sealed.incoming).patience = Some(first);
        lock(&sealed.incoming).patience_then = Some(then);
        let socket = self.socket.try_clone()?;
        let beat = move || {
            while sealed.write(&socket, &[]).is_ok() {
                sleep(every);
            }
        };
        Builder::new().name("sign-of-life".to_owned()).spawn(beat).map(drop)
    }

    /// How long a write may take.
    ///
    /// # Errors
    ///
    /// When the system refuses it.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout)
    }
}

impl Read for Channel {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match &self.sealed {
            Some(sealed) => sealed.read(&self.socket, to),
            None => self.socket.read(to),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match &self.sealed {
            Some(sealed) => sealed.write(&self.socket, text),
            None => self.socket.write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Stream for Channel {
    fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel { socket: self.socket.try_clone()?, sealed: self.sealed.clone() })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
